"""The largest magnitude seen: nothing ever clips."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trtforge.precision.observers import Options
    from trtforge.precision.state import TensorState

NEEDS_HISTOGRAM = False
OPTIONS: "Options" = {}


def amax(state: "TensorState", grid: str, options: "Options") -> float:
    """Largest magnitude seen."""
    return state.observed_amax
