"""The magnitude below which a share of the values other than zero lie.

Zeros are left out: they are exact at every scale, and where most values are zeros (behind a ReLU)
a share of all values would say more about how many they are than about the others.
"""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from trtforge.precision.observers import Options
    from trtforge.precision.state import TensorState

NEEDS_HISTOGRAM = True
OPTIONS: "Options" = {"percentile": 99.99}


def amax(state: "TensorState", grid: str, options: "Options") -> float:
    """The percentile, the values of a bin taken to lie evenly over it."""
    assert state.histogram is not None
    counts, width = state.histogram.alive, state.histogram.width
    below = np.cumsum(counts)
    wanted = float(options["percentile"]) / 100 * int(below[-1])
    index = min(int(np.searchsorted(below, wanted)), int(np.flatnonzero(counts)[-1]))
    start, end = index * width, min((index + 1) * width, state.observed_amax)
    share = (wanted - int(below[index] - counts[index])) / int(counts[index])
    return start + (end - start) * min(share, 1.0)
