"""TensorRT's entropy calibration: the clipping threshold that loses least information.

Source: S. Migacz, "8-bit Inference with TensorRT", GTC 2017 (s7310), slides "Entropy
Calibration - pseudocode" and following: a histogram of 2048 bins over |x|, quantized to 128
levels for every candidate threshold, the one with the least Kullback-Leibler divergence wins.
"""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from trtforge.precision.observers import Options
    from trtforge.precision.state import TensorState

BINS = 2048
LEVELS = 128

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_ELEMENTS_AT_ONCE = 1 << 20
"""Histogram slice: bounds the temporary copies to a few MiB whatever the tensor's size."""


_FEW_VALUES = 4 * BINS

_EQUAL_NATS = 1e-9
"""Divergences closer than this differ by rounding alone."""


NEEDS_HISTOGRAM = True
OPTIONS: "Options" = {"levels": LEVELS}


def amax(state: "TensorState", grid: str, options: "Options") -> float:
    """The threshold of least divergence."""
    assert state.histogram is not None
    counts = state.histogram.counts
    last = int(np.flatnonzero(counts)[-1]) + 1
    width = state.histogram.width
    return (best_threshold_bin(counts[: max(last, LEVELS)]) + 0.5) * width


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
        return len(counts)
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
    sizes = np.arange(LEVELS, len(histogram) + 1)
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
