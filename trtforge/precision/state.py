"""What has been seen of one tensor: running extremes, a sum of magnitudes, and a histogram.

States are mergeable in any order: everything in them is a minimum, a maximum or an exact sum.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from trtforge.precision.observers.histogram import BINS, Histogram

_FRACTION_BITS = 149
"""Every float32 is a whole multiple of 2**-149, its smallest subnormal (IEEE 754)."""

_BUFFER_ELEMENTS = 1 << 13
"""Values of small tensors are collected up to this many before they are counted: counting costs
as much as a pass over all bins, however few the values."""

_FEW_VALUES = 4 * BINS


@dataclass(eq=False)
class TensorState:
    """One tensor over all samples seen.

    Attributes:
        low: smallest value; +inf before the first.
        high: largest value; -inf before the first.
        runs: how many times values were seen (samples, unless the model's batch is static).
        amax_total: sum over the runs of each run's largest magnitude, in units of 2**-149: whole
            numbers, so that the sum does not depend on the order.
        histogram: counts of magnitudes; None when no method asks for them.
    """

    low: float = math.inf
    high: float = -math.inf
    runs: int = 0
    amax_total: int = 0
    histogram: Histogram | None = None
    _buffer: npt.NDArray[np.float32] | None = field(default=None, repr=False)
    _filled: int = field(default=0, repr=False)

    def update(self, values: npt.NDArray[np.float32]) -> bool:
        """Take in one run's values, float32 of any shape.

        Returns:
            False, and nothing is taken in, when some value is NaN or infinite.
        """
        if values.size == 0:
            return True
        # Adding 0 turns -0 into 0: which of the two a minimum is depends on the order.
        low, high = float(values.min()) + 0.0, float(values.max()) + 0.0
        if not (math.isfinite(low) and math.isfinite(high)):
            return False
        amax = max(0.0, -low, high)
        self.low, self.high = min(self.low, low), max(self.high, high)
        self.runs += 1
        self.amax_total += int(math.ldexp(amax, _FRACTION_BITS))
        if self.histogram is not None:
            self._count(self.histogram, values, amax)
        return True

    def merge(self, other: "TensorState") -> None:
        """Take in all that `other` has seen; a histogram survives only where both have one."""
        self.settle()
        other.settle()
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        self.runs += other.runs
        self.amax_total += other.amax_total
        if self.histogram is None or other.histogram is None:
            self.histogram = None
        else:
            self.histogram.merge(other.histogram)

    def settle(self) -> None:
        """Count what was collected."""
        if self._buffer is not None and self.histogram is not None and self._filled:
            values = self._buffer[: self._filled]
            self.histogram.update(values, float(np.abs(values).max()))
        self._buffer, self._filled = None, 0

    @property
    def observed_amax(self) -> float:
        """Largest magnitude seen; 0 when nothing was."""
        return max(0.0, -self.low, self.high) if self.low <= self.high else 0.0

    @property
    def mean_amax(self) -> float:
        """Mean over the runs of each run's largest magnitude, correctly rounded."""
        return self.amax_total / (self.runs << _FRACTION_BITS) if self.runs else 0.0

    @property
    def is_constant(self) -> bool:
        """Whether every value seen was the same."""
        return self.low >= self.high

    def _count(self, histogram: Histogram, values: npt.NDArray[np.float32], amax: float) -> None:
        if values.size > _BUFFER_ELEMENTS // 2:
            histogram.update(values, amax)
            return
        if self._filled + values.size > _BUFFER_ELEMENTS:
            self.settle()
        if self._buffer is None:
            self._buffer = np.empty(_BUFFER_ELEMENTS, np.float32)
        self._buffer[self._filled : self._filled + values.size] = values.reshape(-1)
        self._filled += values.size


def warnings_of(states: Mapping[str, TensorState], *, judges_histograms: bool) -> tuple[str, ...]:
    """What a user should look at: constant tensors, and histograms with hardly a value.

    Args:
        states: settled, per tensor name.
        judges_histograms: whether the method looks at histograms.
    """
    found = [
        f"tensor '{name}' was {state.low:g} throughout; is the data representative?"
        for name, state in sorted(states.items())
        if state.is_constant
    ]
    sparse = [
        name
        for name, state in sorted(states.items())
        if state.histogram is not None and int(state.histogram.counts.sum()) < _FEW_VALUES
    ]
    if sparse and judges_histograms:
        found.insert(
            0,
            f"tensors with very few values: {len(sparse)}, such as '{sparse[0]}'; their "
            "histograms are mostly noise: use more samples, or method minmax",
        )
    return tuple(found)
