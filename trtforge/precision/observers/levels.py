"""The magnitudes that a quantized type can hold."""

from functools import cache

import ml_dtypes
import numpy as np
import numpy.typing as npt

from trtforge.precision.scales import LARGEST


@cache
def positive_levels(grid: str) -> npt.NDArray[np.float64]:
    """The magnitudes of a grid at scale 1 in ascending order, from 0 to `scales.LARGEST`.

    Args:
        grid: int8 or fp8 (E4M3: its finite values are the bit patterns 0 to 0x7e; OCP OFP8 1.0).
    """
    if grid == "int8":
        return np.arange(LARGEST[grid] + 1)
    patterns = np.arange(0x7F, dtype=np.uint8)
    return np.asarray(patterns.view(ml_dtypes.float8_e4m3fn).astype(np.float64))
