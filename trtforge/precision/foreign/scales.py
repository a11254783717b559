"""A calibration cache from what other tools keep: one number per tensor, hardly any provenance."""

from collections.abc import Mapping, Sequence

from trtforge.precision.cache import CalibrationCache
from trtforge.precision.ranges import TensorRange
from trtforge.precision.scales import LARGEST


def from_magnitudes(
    magnitudes: Mapping[str, float], method: str, origin: str, warnings: Sequence[str] = ()
) -> CalibrationCache:
    """A cache of symmetric ranges.

    Args:
        magnitudes: amax per tensor, finite and >= 0.
        method: what the tool calls its method.
        origin: which file of which tool it was.
        warnings: what a user should look at.
    """
    return CalibrationCache(
        method=method,
        samples=0,
        graph_digest="",
        warnings=tuple(warnings),
        ranges={
            name: TensorRange(min=-amax, max=amax, amax=amax) for name, amax in magnitudes.items()
        },
        origin=origin,
    )


def magnitudes_of(scales: Mapping[str, float]) -> dict[str, float]:
    """INT8 scales as magnitudes: amax = 127 * scale, exact in double precision."""
    return {name: scale * LARGEST["int8"] for name, scale in scales.items()}
