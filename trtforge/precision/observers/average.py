"""The mean over the samples of each sample's largest magnitude.

A moving average of ranges, as other tools have it, depends on the order of the samples; this mean
is what it moves around, and does not.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trtforge.precision.observers import Options
    from trtforge.precision.state import TensorState

NEEDS_HISTOGRAM = False
OPTIONS: "Options" = {}


def amax(state: "TensorState", grid: str, options: "Options") -> float:
    """Mean of the samples' largest magnitudes."""
    return state.mean_amax
