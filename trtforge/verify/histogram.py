"""How large the errors of an output are: counts by power of two, from which no order matters."""

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from trtforge.verify.types import ErrorHistogram

_MANTISSA_BITS = 52
_EXPONENT_BIAS = 1023
"""float64 holds the exponent of a positive number above 52 bits, 1023 too large (IEEE 754)."""

LOWEST, HIGHEST = -40, 8
"""Exponents relative to the output's range. float32 rounds at 2**-24 of a value; what is below
2**-40 of the range is as good as equal, and from 2**8 ranges on an error is simply wrong."""


@dataclass
class ErrorCounts:
    """Counts of |error| by power of two: exponent k counts 2**k <= |error| < 2**(k + 1).

    The range of the output is known only at the end of a run, powers of two at once: dividing by
    one moves bins and splits none.
    """

    by_exponent: dict[int, int] = field(default_factory=dict)

    def add(self, error: npt.NDArray[np.float64]) -> None:
        """Count errors: contiguous, 1-D, >= 0; zeros are left out, inf counts as the largest."""
        # Far cheaper than frexp, and bincount over 2048 exponents stays in the first-level cache.
        counts = np.bincount(error.view(np.int64) >> _MANTISSA_BITS)
        if counts.size and counts[0]:
            counts[0] -= error.size - int(np.count_nonzero(error))
        for biased in np.flatnonzero(counts).tolist():
            exponent = biased - _EXPONENT_BIAS
            self.by_exponent[exponent] = self.by_exponent.get(exponent, 0) + int(counts[biased])

    def merge(self, other: "ErrorCounts") -> None:
        """Add what `other` has counted."""
        for exponent, count in other.by_exponent.items():
            self.by_exponent[exponent] = self.by_exponent.get(exponent, 0) + count

    def relative_to(self, amax: float, exact: int) -> ErrorHistogram:
        """Return the counts relative to an output's range.

        Args:
            amax: largest magnitude of the reference, finite, >= 0.
            exact: how many elements have no error at all.
        """
        # 2**1023 is float64's largest power of two.
        shift = min(math.frexp(amax)[1], 1023) if amax > 0 else 0
        bins: dict[int, int] = {}
        for exponent, count in self.by_exponent.items():
            place = min(max(exponent - shift, LOWEST), HIGHEST)
            bins[place] = bins.get(place, 0) + count
        lowest = min(bins, default=0)
        counts = tuple(bins.get(k, 0) for k in range(lowest, max(bins, default=-1) + 1))
        return ErrorHistogram(
            unit=math.ldexp(1.0, shift), exact=exact, lowest=lowest, counts=counts
        )
