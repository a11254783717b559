"""The magnitude that makes the squared error of rounding and clipping least."""

from typing import TYPE_CHECKING

import numpy as np

from trtforge.precision.scales import LARGEST, quantize_values

if TYPE_CHECKING:
    from trtforge.precision.observers import Options
    from trtforge.precision.state import TensorState

NEEDS_HISTOGRAM = True
OPTIONS: "Options" = {"candidates": 100}


def amax(state: "TensorState", grid: str, options: "Options") -> float:
    """The best of evenly spaced fractions of the largest magnitude."""
    assert state.histogram is not None
    counts = state.histogram.counts
    bins = np.flatnonzero(counts)
    centres = ((bins + 0.5) * state.histogram.width).astype(np.float32)
    weights = counts[bins].astype(np.float64)
    candidates = int(options["candidates"])
    best, least = state.observed_amax, np.inf
    for step in range(candidates, 0, -1):
        magnitude = state.observed_amax * step / candidates
        scale = np.float32(magnitude / LARGEST[grid])
        rounded = quantize_values(centres, np.asarray(scale), grid).astype(np.float32) * scale
        error = float(weights @ (rounded.astype(np.float64) - centres) ** 2)
        if error < least:
            best, least = magnitude, error
    return best
