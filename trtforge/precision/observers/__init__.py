"""Calibration methods: from what was seen of a tensor to the magnitude that ends the grid.

One module per method, one line here. A module has `NEEDS_HISTOGRAM`, `OPTIONS` (names and default
values of its settings, which go into the cache) and
`amax(state: TensorState, grid: str, options: Mapping[str, float]) -> float`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from trtforge.precision.state import TensorState

METHODS: dict[str, str] = {
    "minmax": "trtforge.precision.observers.minmax",
    "average": "trtforge.precision.observers.average",
    "percentile": "trtforge.precision.observers.percentile",
    "entropy": "trtforge.precision.observers.entropy",
    "mse": "trtforge.precision.observers.mse",
}

Options = Mapping[str, int | float | str]


@dataclass(frozen=True)
class Method:
    """A calibration method with its settings.

    Attributes:
        name: a key of METHODS.
        grid: int8 or fp8: what `amax` is mapped onto (`scales.LARGEST`).
        options: every setting that changes the result.
    """

    name: str
    grid: str
    options: Options

    @property
    def needs_histogram(self) -> bool:
        """Whether extremes alone do not tell the answer."""
        return bool(import_module(METHODS[self.name]).NEEDS_HISTOGRAM)

    def amax(self, state: "TensorState") -> float:
        """The magnitude to map to the end of the grid; 0 <= amax <= state.observed_amax.

        Args:
            state: settled (`TensorState.settle`), with a histogram where one is needed.

        Raises:
            ValueError: a histogram is needed and there is none.
        """
        if self.needs_histogram and state.histogram is None:
            raise ValueError(f"method {self.name} needs a histogram")
        if state.observed_amax == 0:
            return 0.0
        if state.histogram is not None and np.count_nonzero(state.histogram.alive) == 1:
            return state.observed_amax  # one magnitude: no shape to judge
        found = float(import_module(METHODS[self.name]).amax(state, self.grid, self.options))
        return min(found, state.observed_amax)


def method(name: str, grid: str = "int8", options: Options | None = None) -> Method:
    """A calibration method; settings that are not given have their defaults.

    Raises:
        ValueError: there is no such method, or it has no such setting.
    """
    if name not in METHODS:
        raise ValueError(f"unknown calibration method '{name}', known: {', '.join(METHODS)}")
    defaults: dict[str, int | float | str] = dict(import_module(METHODS[name]).OPTIONS)
    for key in options or {}:
        if key not in defaults:
            raise ValueError(f"method {name} has no option '{key}'")
    return Method(name, grid, {**defaults, **(options or {})})
