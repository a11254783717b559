"""Magnitudes of one tensor, counted in bins whose width is a power of two.

A bin is never split and never moved: when a larger value arrives, the width doubles and bins join
in pairs, which loses nothing, since floor(floor(x) / 2) = floor(x / 2). So the counts depend only
on the multiset of values seen, not on their order or grouping, and no earlier pass has to find the
range. Histograms form a commutative monoid under `merge`.
"""

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

BINS = 4096
"""Bins over [0, limit). The largest value lies in the upper half, so that 2049 to 4096 bins are
below it: TensorRT's calibrators use 2048 (Migacz, GTC 2017)."""

LOWEST_EXPONENT = -100
"""A limit of 2**-100, about 1e-30: below it float32 factors would overflow, and no activation
matters."""

Counts = npt.NDArray[np.int64]

_ELEMENTS_AT_ONCE = 1 << 16
"""Slice of a tensor: its temporaries stay in the processor's second-level cache."""


@dataclass(eq=False)
class Histogram:
    """Counts of |x| over [0, 2**exponent).

    Attributes:
        exponent: the limit is 2**exponent; every value seen is below it.
        counts: BINS counts; bin k holds k * width <= |x| < (k + 1) * width.
        zeros: how many of the values in bin 0 are exactly 0. Zero is exact on every grid, so no
            method may weigh it: behind a ReLU it would outvote all else.
    """

    exponent: int = LOWEST_EXPONENT
    counts: Counts = field(default_factory=lambda: np.zeros(BINS, np.int64))
    zeros: int = 0

    @property
    def limit(self) -> float:
        """The upper end of the last bin."""
        return math.ldexp(1.0, self.exponent)

    @property
    def width(self) -> float:
        """The width of a bin."""
        return self.limit / BINS

    @property
    def alive(self) -> Counts:
        """The counts without the zeros."""
        counts = self.counts.copy()
        counts[0] -= self.zeros
        return counts

    def update(self, values: npt.NDArray[np.float32], amax: float) -> None:
        """Count the values of a float32 array of any shape.

        Args:
            values: finite.
            amax: their largest magnitude.
        """
        self._grow(_exponent_above(amax))
        flat = np.ascontiguousarray(values, np.float32).reshape(-1)
        size = min(flat.size, _ELEMENTS_AT_ONCE)
        scaled, narrow, index = (np.empty(size, kind) for kind in (np.float32, np.int32, np.int64))
        per_unit = np.float32(math.ldexp(BINS, -self.exponent))  # a power of two: exact
        for start in range(0, flat.size, _ELEMENTS_AT_ONCE):
            part = flat[start : start + _ELEMENTS_AT_ONCE]
            n = part.size
            self.zeros += n - int(np.count_nonzero(part != 0))
            np.abs(part, out=scaled[:n])
            np.multiply(scaled[:n], per_unit, out=scaled[:n])
            # Two steps, because processors convert float32 to int32 fast and to int64 slowly.
            np.copyto(narrow[:n], scaled[:n], casting="unsafe")
            np.copyto(index[:n], narrow[:n])
            self.counts += np.bincount(index[:n], minlength=BINS)

    def merge(self, other: "Histogram") -> None:
        """Take in all that `other` has seen."""
        self._grow(other.exponent)
        self.counts += _joined(other.counts, self.exponent - other.exponent)
        self.zeros += other.zeros

    def _grow(self, exponent: int) -> None:
        if exponent > self.exponent:
            self.counts = _joined(self.counts, exponent - self.exponent)
            self.exponent = exponent


def _exponent_above(amax: float) -> int:
    return max(math.frexp(amax)[1], LOWEST_EXPONENT) if amax > 0 else LOWEST_EXPONENT


def _joined(counts: Counts, doublings: int) -> Counts:
    """Counts on bins that are 2**doublings times as wide."""
    if doublings == 0:
        return counts
    factor = min(1 << min(doublings, 62), BINS)
    wide = np.zeros(BINS, np.int64)
    wide[: BINS // factor] = counts.reshape(BINS // factor, factor).sum(axis=1)
    return wide
