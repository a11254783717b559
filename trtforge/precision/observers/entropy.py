"""TensorRT's entropy calibration: the clipping threshold that loses least information.

Source: S. Migacz, "8-bit Inference with TensorRT", GTC 2017 (s7310), slides "Entropy
Calibration - pseudocode" and following: a histogram of 2048 bins over |x|, quantized to 128
levels for every candidate threshold, the one with the least Kullback-Leibler divergence wins.
Here 2049 to 4096 bins lie below the largest magnitude.
"""

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from trtforge.precision.observers.levels import positive_levels

if TYPE_CHECKING:
    from trtforge.precision.observers import Options
    from trtforge.precision.state import TensorState

LEVELS = 128

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_EQUAL_NATS = 1e-9
"""Divergences closer than this differ by rounding alone."""

_LEAST_SHARE = 1e-9
"""What Q gives to the last level where it has nothing there and P has the outliers. Zero would
make the divergence infinite: a single value far from all others could never be clipped."""

_SIZES_AT_ONCE = 256
"""Candidates computed together: their temporaries stay in the processor's second-level cache."""

NEEDS_HISTOGRAM = True
OPTIONS: "Options" = {"levels": LEVELS}


def amax(state: "TensorState", grid: str, options: "Options") -> float:
    """The threshold of least divergence, (m + 0.5) * width as in the talk."""
    assert state.histogram is not None
    counts = state.histogram.alive
    last = int(np.flatnonzero(counts)[-1]) + 1
    kept = best_threshold_bin(counts[:last], level_edges(grid, int(options["levels"])))
    return state.observed_amax if kept >= last else (kept + 0.5) * state.histogram.width


@cache
def level_edges(grid: str, levels: int = LEVELS) -> Floats:
    """Where the levels of a grid begin and end, as shares of the threshold.

    Args:
        grid: int8: `levels` equal ones, as in the talk. fp8: the cells of E4M3's magnitudes.
        levels: for int8.
    """
    if grid == "int8":
        return np.arange(levels + 1) / levels
    values = positive_levels(grid)
    between = (values[1:] + values[:-1]) / 2
    return np.concatenate([[0.0], between, values[-1:]]) / float(values[-1])


def best_threshold_bin(counts: Counts, edges: Floats) -> int:
    """How many leading bins to keep so that quantization loses the least information.

    Bin 0 is taken to hold at most as many values as bin 1: what lies there is next to zero at
    every scale, and the nearly-zeros behind a SiLU or GELU would otherwise outweigh the whole
    distribution (as in NVIDIA's pytorch-quantization).

    Args:
        counts: counts of |x| without zeros; the last one is > 0.
        edges: see `level_edges`.

    Returns:
        A number of bins in LEVELS..len(counts); len(counts), that is no clipping, where there are
        fewer bins than LEVELS or nothing lies beyond bin 0. Of equal divergences the widest
        threshold wins.
    """
    histogram = counts.astype(np.float64)
    if len(histogram) <= LEVELS:
        return len(histogram)
    histogram[0] = min(histogram[0], histogram[1])
    divergence = divergences(histogram, edges)
    equal = np.flatnonzero(divergence <= divergence.min() + _EQUAL_NATS)
    return LEVELS + int(equal[-1])


def divergences(histogram: Floats, edges: Floats) -> Floats:
    """KL(P || Q) for every candidate number of bins from LEVELS on, in nats.

    P is the histogram cut after i bins, what lies beyond added to the last; Q is its first i bins
    merged into levels, each level's count spread evenly over its non-empty bins. Both are
    normalised to 1. With `a` the value of a level, sum(P log Q) needs only sums over levels, so
    prefix sums give all candidates at once: O(bins * levels) instead of O(bins**2).

    Args:
        histogram: more than LEVELS counts >= 0 with at least one > 0.
        edges: see `level_edges`.

    Returns:
        len(histogram) - LEVELS + 1 values >= 0, +inf where all mass is beyond the threshold.
    """
    mass = np.concatenate([[0.0], np.cumsum(histogram)])
    filled = np.concatenate([[0.0], np.cumsum(histogram > 0)])
    sizes = np.arange(LEVELS, len(histogram) + 1)
    kept, outliers = mass[sizes], mass[-1] - mass[sizes]
    last = histogram[sizes - 1]
    cross = np.concatenate(
        [
            _cross(mass, filled, sizes[start : start + _SIZES_AT_ONCE], edges)
            for start in range(0, len(sizes), _SIZES_AT_ONCE)
        ]
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        # sum p log p - sum p log q with p = P/total and q = a/kept
        own = _entropy_sums(histogram, sizes, last, outliers)
        result = (own - cross) / mass[-1] - np.log(mass[-1]) + np.log(kept)
    return np.where(np.isnan(result), np.inf, np.maximum(result, 0.0))


def _cross(mass: Floats, filled: Floats, sizes: Counts, edges: Floats) -> Floats:
    """sum(P log a) of each candidate, P in counts."""
    # Rounding must not push an edge that is a whole number of bins over it.
    bounds = np.ceil(edges * sizes[:, None] - 1e-9).astype(np.int64)
    level_mass = np.diff(mass[bounds], axis=1)
    level_bins = np.diff(filled[bounds], axis=1)
    outliers = mass[-1] - mass[sizes]
    # Outliers make the last bin non-empty in P, hence also for Q's spreading.
    level_bins[:, -1] += (mass[sizes] == mass[sizes - 1]) & (outliers > 0)
    reference = level_mass.copy()
    reference[:, -1] += outliers
    empty = (level_mass[:, -1] == 0) & (outliers > 0)
    level_mass[empty, -1] = _LEAST_SHARE * mass[sizes[empty]]
    with np.errstate(divide="ignore", invalid="ignore"):
        np.divide(level_mass, level_bins, out=level_mass)
        np.log(level_mass, out=level_mass)
        np.multiply(level_mass, reference, out=level_mass)
    level_mass[reference == 0] = 0.0
    return np.asarray(level_mass.sum(axis=1))


def _entropy_sums(histogram: Floats, sizes: Counts, last: Floats, outliers: Floats) -> Floats:
    """sum(P log P) of each candidate, P in counts, with the outliers in the last bin."""

    def x_log_x(values: Floats) -> Floats:
        return np.where(values > 0, values * np.log(np.maximum(values, 1e-300)), 0.0)

    prefix = np.concatenate([[0.0], np.cumsum(x_log_x(histogram))])
    result: Floats = prefix[sizes - 1] + x_log_x(last + outliers)
    return result
