"""Inputs and outputs of a model that are narrower than those of the model it was made from."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

_NARROW = ("float16", "bfloat16")


class Ends(Protocol):
    """Inputs and outputs: an `IoContract`, or what a manifest says of a model."""

    @property
    def inputs(self) -> Sequence[Any]:
        """Each with a name and the name of its type."""
        ...

    @property
    def outputs(self) -> Sequence[Any]:
        """Alike."""
        ...


def narrowed(original: Ends, typed: Ends) -> Mapping[str, str]:
    """Return the inputs and outputs that were FP32 and are FP16 or BF16, with their types now."""
    before = {spec.name: spec.dtype for spec in (*original.inputs, *original.outputs)}
    return {
        spec.name: spec.dtype
        for spec in (*typed.inputs, *typed.outputs)
        if before.get(spec.name) == "float32" and spec.dtype in _NARROW
    }
