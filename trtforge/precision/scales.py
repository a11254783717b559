"""Scales and grids: symmetric INT8, INT4 and FP8 E4M3, with scales that the float type can hold.

Formulae: q = round(x / scale), zero point 0; scale = amax / 127 (INT8), amax / 7 (INT4) or
amax / 448 (FP8 E4M3, its largest finite value; OCP OFP8 1.0, table 1). Source: TensorRT developer
guide, "Working with Quantized Types". Scales of least squared error are in `weight_scales.py`.
"""

import math

import ml_dtypes
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

LARGEST: dict[str, float] = {"int8": 127.0, "int4": 7.0, "fp8": 448.0}
"""Largest magnitude on the positive side of the quantized grid."""

LOWEST: dict[str, float] = {"int8": -127.0, "int4": -8.0, "fp8": -448.0}
"""Its negative end. INT8's -128 is left out so that the grid is symmetric; INT4 has only 16 levels,
so its -8 is used where a scale below amax / 7 makes it reachable (TensorRT documents -8..7)."""

FLOAT_MAX: dict[str, float] = {
    "fp32": float(np.finfo(np.float32).max),
    "fp16": 65504.0,
    "bf16": float(ml_dtypes.finfo(ml_dtypes.bfloat16).max),
}

_SMALLEST: dict[str, float] = {"fp32": 2.0**-126, "fp16": 2.0**-24, "bf16": 2.0**-126}
"""No scale below this: FP16's smallest subnormal, else the smallest normal number, because
flush-to-zero hardware would divide by zero."""

NUMPY_TYPE: dict[str, np.dtype[np.generic]] = {
    "fp32": np.dtype(np.float32),
    "fp16": np.dtype(np.float16),
    "bf16": np.dtype(ml_dtypes.bfloat16),
}
QUANTIZED_TYPE: dict[str, np.dtype[np.generic]] = {
    "int8": np.dtype(np.int8),
    "int4": np.dtype(ml_dtypes.int4),
    "fp8": np.dtype(ml_dtypes.float8_e4m3fn),
}


def round_up(values: npt.ArrayLike, float_type: str) -> Floats:
    """Round positive values up to the grid of a float type, so that no scale gets too small.

    Args:
        values: finite, > 0, any shape.
        float_type: fp32, fp16 or bf16.

    Returns:
        float32 values >= `values` that convert to the type exactly; at least its smallest usable
        scale.
    """
    wide = np.maximum(np.asarray(values, np.float64), _SMALLEST[float_type])
    kind = NUMPY_TYPE[float_type]
    nearest = wide.astype(kind)
    bits = nearest.view(np.uint32 if float_type == "fp32" else np.uint16)
    # Positive floats are ordered like their bit patterns: the next one up is the next pattern.
    above = (bits + 1).astype(bits.dtype).view(kind)
    chosen = np.where(nearest.astype(np.float64) < wide, above, nearest)
    return np.asarray(chosen.astype(np.float32))


SCALE_STEPS = 32
"""Steps to the octave on which `round_to_step` puts scales."""


def round_to_step(scale: float) -> float:
    """Round a scale > 0 to the nearest power of 2**(1/32).

    It changes by a factor of 2**(1/64) at most (1.1 %), so that the noise of rounding, which grows
    with the square of the step, changes by 0.1 dB at most. TensorRT-RTX compiles scales into its
    kernels: layers of equal shapes and scales share one.
    """
    return float(2.0 ** (round(SCALE_STEPS * math.log2(scale)) / SCALE_STEPS))


def scale_of(amax: npt.ArrayLike, quantize: str, float_type: str = "fp32") -> Floats:
    """Scale of a tensor or of each channel.

    Args:
        amax: largest magnitudes >= 0. A zero (a channel without weights) counts as 1: any scale
            represents zeros exactly, and this one can neither vanish nor overflow.
        quantize: int8, int4 or fp8.
        float_type: the type that Q and DQ nodes hold the scale in.

    Returns:
        float32 scales, > 0 and exact in `float_type`.
    """
    magnitude = np.asarray(amax, np.float64)
    alive = np.where(magnitude > 0, magnitude, 1.0)
    return round_up(alive / LARGEST[quantize], float_type)


def quantize_values(values: Floats, scale: Floats, quantize: str) -> npt.NDArray[np.generic]:
    """Round weights onto the quantized grid; ties to even, saturating, as QuantizeLinear does.

    Args:
        values: float32 weights.
        scale: broadcastable to `values`.
        quantize: int8, int4 or fp8.

    Returns:
        Same shape, dtype int8, int4 (one per byte) or float8_e4m3fn.
    """
    ratio = np.divide(values, scale, dtype=np.float32)
    if quantize != "fp8":
        np.rint(ratio, out=ratio)
    np.clip(ratio, LOWEST[quantize], LARGEST[quantize], out=ratio)
    return np.asarray(ratio.astype(QUANTIZED_TYPE[quantize]))
