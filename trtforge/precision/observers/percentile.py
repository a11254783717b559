"""The magnitude below which a share of all values lie."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from trtforge.precision.observers import Options
    from trtforge.precision.state import TensorState

NEEDS_HISTOGRAM = True
OPTIONS: "Options" = {"percentile": 99.99}


def amax(state: "TensorState", grid: str, options: "Options") -> float:
    """The upper end of the bin in which the share is reached."""
    assert state.histogram is not None
    counts = np.cumsum(state.histogram.counts)
    wanted = float(options["percentile"]) / 100 * int(counts[-1])
    return float(np.searchsorted(counts, wanted) + 1) * state.histogram.width
