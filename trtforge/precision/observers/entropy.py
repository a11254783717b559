"""TensorRT's entropy calibration: the clipping threshold that loses least information.

Source: S. Migacz, "8-bit Inference with TensorRT", GTC 2017 (s7310), slides "Entropy
Calibration - pseudocode" and following: a histogram of 2048 bins over |x|, quantized to 128
levels for every candidate threshold, the one with the least Kullback-Leibler divergence wins.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import numpy.typing as npt

BINS = 2048
LEVELS = 128

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_ELEMENTS_AT_ONCE = 1 << 20
"""Histogram slice: bounds the temporary copies to a few MiB whatever the tensor's size."""


_FEW_VALUES = 4 * BINS

_EQUAL_NATS = 1e-9
"""Divergences closer than this differ by rounding alone."""


@dataclass
class EntropyObserver:
    """Histogram of |x| over [0, limit]; integer counts, so any grouping into batches is the same.

    Attributes:
        limit: largest magnitude of the tensor over all samples, from a first pass; > 0.
        counts: values per bin; values beyond `limit` (a rounding of the runtime) fall in the last.
    """

    options: ClassVar[dict[str, int | float | str]] = {"bins": BINS, "levels": LEVELS}

    limit: float
    counts: Counts = field(default_factory=lambda: np.zeros(BINS, np.int64))

    def update(self, values: npt.NDArray[np.float32]) -> None:
        """Count the values of one batch, any shape; zeros are counted in bin 0."""
        flat = np.ascontiguousarray(values).reshape(-1)
        per_unit = np.float32(BINS / self.limit)
        for start in range(0, flat.size, _ELEMENTS_AT_ONCE):
            part = np.abs(flat[start : start + _ELEMENTS_AT_ONCE])
            np.multiply(part, per_unit, out=part)
            np.minimum(part, np.float32(BINS - 1), out=part)
            self.counts += np.bincount(part.astype(np.int32), minlength=BINS)

    def merge(self, other: "EntropyObserver") -> None:
        """Add the counts of `other`, which must have the same limit.

        Raises:
            ValueError: the limits differ, so the bins do not mean the same.
        """
        if other.limit != self.limit:
            raise ValueError(f"histograms over {self.limit} and {other.limit} cannot be merged")
        self.counts += other.counts

    def amax(self) -> float:
        """The threshold of least divergence, in the tensor's units; 0 < amax <= limit."""
        bins = best_threshold_bin(self.counts)
        return min((bins + 0.5) * self.limit / BINS, self.limit)

    @property
    def is_sparse(self) -> bool:
        """Whether bins hold so few values that a narrow threshold may win by chance."""
        return int(self.counts.sum()) < _FEW_VALUES


def best_threshold_bin(counts: Counts) -> int:
    """How many leading bins to keep so that 128 levels lose the least information.

    Bin 0 is taken to hold as many values as bin 1: zero is exact at every scale, and the zeros
    behind a ReLU would otherwise outweigh the whole distribution (as in NVIDIA's
    pytorch-quantization).

    Args:
        counts: BINS counts of |x|.

    Returns:
        A number of bins in LEVELS..BINS; BINS (no clipping) when the histogram has no mass
        beyond bin 0. Of equal divergences the widest threshold wins.
    """
    histogram = counts.astype(np.float64)
    histogram[0] = histogram[1]
    if histogram.sum() <= 0:
        return BINS
    divergence = divergences(histogram)
    equal = np.flatnonzero(divergence <= divergence.min() + _EQUAL_NATS)
    return LEVELS + int(equal[-1])


def divergences(histogram: Floats) -> Floats:
    """KL(P || Q) for every candidate number of bins LEVELS..BINS, in nats.

    P is the histogram cut after i bins, what lies beyond added to the last; Q is its first i bins
    merged into LEVELS levels, each level's count spread evenly over its non-empty bins. Both are
    normalised to 1. With `a` the value of a level, sum(P log Q) needs only sums over levels, so
    prefix sums give all candidates at once: O(BINS * LEVELS) instead of O(BINS^2).

    Args:
        histogram: BINS counts >= 0 with at least one > 0.

    Returns:
        BINS - LEVELS + 1 values >= 0, +inf where P has mass and Q has none.
    """
    sizes = np.arange(LEVELS, BINS + 1)
    total = histogram.sum()
    mass = np.concatenate([[0.0], np.cumsum(histogram)])
    filled = np.concatenate([[0], np.cumsum(histogram > 0)])
    outliers = total - mass[sizes]
    last = histogram[sizes - 1]

    edges = -(-np.arange(LEVELS + 1)[None, :] * sizes[:, None] // LEVELS)  # ceil
    level_mass = np.diff(mass[edges], axis=1)
    level_bins = np.diff(filled[edges], axis=1).astype(np.float64)
    # Outliers make the last bin non-empty in P, hence also for Q's spreading.
    level_bins[:, -1] += (last == 0) & (outliers > 0)

    with np.errstate(divide="ignore", invalid="ignore"):
        log_level = np.log(level_mass / level_bins)
        reference = level_mass.copy()
        reference[:, -1] += outliers
        cross = np.where(reference > 0, reference * log_level, 0.0).sum(axis=1)
        kept = mass[sizes]
        own = _entropy_sums(histogram, sizes, last, outliers)
        # sum p log p - sum p log q with p = P/total and q = a/kept
        result = (own - cross) / total - np.log(total) + np.log(kept)
    return np.where(np.isnan(result), np.inf, np.maximum(result, 0.0))


def _entropy_sums(histogram: Floats, sizes: Counts, last: Floats, outliers: Floats) -> Floats:
    """sum(P log P) of each candidate, P in counts, with the outliers in the last bin."""

    def x_log_x(values: Floats) -> Floats:
        return np.where(values > 0, values * np.log(np.maximum(values, 1e-300)), 0.0)

    prefix = np.concatenate([[0.0], np.cumsum(x_log_x(histogram))])
    result: Floats = prefix[sizes - 1] + x_log_x(last + outliers)
    return result
