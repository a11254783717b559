"""The magnitude that makes the squared error of rounding and clipping least.

Values are taken to lie evenly over each bin of the histogram. Then the error on a grid of levels
v, scaled by s, is the sum over its cells of the integral of (x - s v)**2 times the density, which
the running sums of the density's first three moments give exactly, and at once for many scales.
"""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from trtforge.precision.observers.levels import positive_levels

if TYPE_CHECKING:
    from trtforge.precision.observers import Options
    from trtforge.precision.state import TensorState

Floats = npt.NDArray[np.float64]

NEEDS_HISTOGRAM = True
OPTIONS: "Options" = {"per_octave": 32, "octaves": 10}

_FINER = 8
"""Into how many parts the second search divides a step of the first."""

_EQUAL = 1e-9
"""Errors closer than this, relatively, differ by rounding alone."""


def amax(state: "TensorState", grid: str, options: "Options") -> float:
    """The best of magnitudes spaced evenly in proportion, then of finer ones around it."""
    assert state.histogram is not None
    top, width = state.observed_amax, state.histogram.width
    moments = Moments(state.histogram.alive)
    per_octave = int(options["per_octave"])
    steps = np.arange(per_octave * int(options["octaves"]) + 1, dtype=np.float64)
    for _ in range(2):
        magnitudes = top * 2.0 ** (-steps / per_octave)
        errors = moments.errors(magnitudes / width, grid)
        best = float(steps[np.flatnonzero(errors <= errors.min() * (1 + _EQUAL))[0]])
        around = best + np.arange(-_FINER, _FINER + 1) / _FINER
        steps = around[around >= 0]
    return float(top * 2.0 ** (-best / per_octave))


class Moments:
    """Running sums of 1, x and x**2 over a histogram, with the width of a bin as the unit.

    Args:
        counts: of values evenly spread over each bin.
    """

    def __init__(self, counts: npt.NDArray[np.int64]) -> None:
        self.counts = counts[: int(np.flatnonzero(counts)[-1]) + 1].astype(np.float64)
        start = np.arange(len(self.counts), dtype=np.float64)
        self.sums = tuple(
            np.concatenate([[0.0], np.cumsum(self.counts * _power(start, start + 1, order))])
            for order in range(3)
        )

    def errors(self, magnitudes: Floats, grid: str) -> Floats:
        """Sum of squared errors where each of `magnitudes` (> 0, in bins) ends the grid."""
        levels = positive_levels(grid)
        scales = (magnitudes / levels[-1])[:, None]
        values = scales * levels
        inner = (values[:, 1:] + values[:, :-1]) / 2
        ends = np.full((len(magnitudes), 1), float(len(self.counts)))
        cells = np.concatenate([0 * ends, np.minimum(inner, ends), ends], axis=1)
        mass, first, second = (np.diff(sums, axis=1) for sums in self._until(cells))
        total: Floats = (second - 2 * values * first + values**2 * mass).sum(axis=1)
        return np.maximum(total, 0.0)

    def _until(self, x: Floats) -> list[Floats]:
        """The three running sums up to each x, 0 <= x <= number of bins."""
        index = np.minimum(x.astype(np.int64), len(self.counts) - 1)
        count = self.counts[index]
        return [
            sums[index] + count * _power(index.astype(np.float64), x, order)
            for order, sums in enumerate(self.sums)
        ]


def _power(start: Floats, end: Floats, order: int) -> Floats:
    """The integral of x**order from `start` to `end`."""
    power: Floats = (end ** (order + 1) - start ** (order + 1)) / (order + 1)
    return power
