"""Observers: one per calibration method, streaming and mergeable; one line here adds another.

`minmax` alone needs no values, only each batch's minimum and maximum. Every other method is a
`ValueObserver`, made with the tensor's largest magnitude and fed with its values in a second pass.
"""

from importlib import import_module
from typing import Any, ClassVar, Protocol, Self, cast

OBSERVERS: dict[str, str] = {
    "minmax": "trtforge.precision.observers.minmax:MinMaxObserver",
    "entropy": "trtforge.precision.observers.entropy:EntropyObserver",
}


class ValueObserver(Protocol):
    """An observer of whole tensors."""

    options: ClassVar[dict[str, int | float | str]]
    """Settings that change the result; they go into the cache."""

    def __init__(self, limit: float) -> None:
        """Prepare for values of magnitude up to `limit` > 0."""

    def update(self, values: Any) -> None:
        """Take in the values of one batch, a float32 array of any shape."""

    def merge(self, other: Self) -> None:
        """Take in all that `other` has seen."""

    def amax(self) -> float:
        """The magnitude to map to the end of the grid."""

    @property
    def is_sparse(self) -> bool:
        """Whether too few values were seen for the answer to mean much."""


def value_observer(method: str) -> type[ValueObserver] | None:
    """The class of a method; None for minmax, which needs no values.

    Raises:
        ValueError: there is no such method.
    """
    if method not in OBSERVERS:
        raise ValueError(f"unknown calibration method '{method}', known: {', '.join(OBSERVERS)}")
    if method == "minmax":
        return None
    module, name = OBSERVERS[method].split(":")
    return cast("type[ValueObserver]", getattr(import_module(module), name))
