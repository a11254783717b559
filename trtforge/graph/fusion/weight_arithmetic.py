"""Weights times factors: in float64, rounded once, and never more than a block of it at a time."""

from collections.abc import Iterator

import ml_dtypes
import numpy as np

_BLOCK_ELEMENTS = 1 << 20
"""A float64 block of 8 MiB stays in the cache and bounds what a fold needs beside the weights."""

_MOST_LOSS_FP16 = 2.0**-10
"""Rounding to 11 bits costs at most 2^-11, relatively; more than twice that is underflow.

Source: IEEE 754 binary16, whose smallest normal number is 2^-14.
"""


def is_floating(values: np.ndarray) -> bool:
    """Return whether an array holds FP16, BF16, FP32 or FP64."""
    return values.dtype.kind == "f" or values.dtype == ml_dtypes.bfloat16


def scaled(values: np.ndarray, factor: np.ndarray) -> np.ndarray | str:
    """Multiply weights by a float64 factor of the same rank that broadcasts to their shape.

    Returns:
        New weights of the same type and shape, or why that type cannot hold them.
    """
    result = np.empty(values.shape, values.dtype)
    lost = total = 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        for part in _blocks(values):
            exact = values[part].astype(np.float64)
            exact *= factor if factor.shape[0] == 1 else factor[part]
            result[part] = exact.astype(values.dtype)
            if not np.isfinite(result[part]).all():
                return f"the folded weights do not fit in {values.dtype.name}"
            if values.dtype == np.float16:
                lost += float(np.square(result[part] - exact).sum())
                total += float(np.square(exact).sum())
    if lost > _MOST_LOSS_FP16**2 * total:
        return f"the folded weights are too small for {values.dtype.name}"
    return result


def rounded(values: np.ndarray, like: np.ndarray) -> np.ndarray | str:
    """Round float64 values to the type of `like`, or say that it cannot hold them."""
    with np.errstate(over="ignore", invalid="ignore"):
        result: np.ndarray = np.asarray(values).astype(like.dtype)  # a scalar is no array
    if not np.isfinite(result).all():
        return f"the folded weights do not fit in {like.dtype.name}"
    return result


def weighted_sum(values: np.ndarray, factor: np.ndarray, axis: int) -> np.ndarray:
    """Sum weights times a factor over all axes but one, in float64.

    Args:
        values: the weights.
        factor: float64, of the same rank, broadcasts to their shape.
        axis: 0 or 1, the axis that stays.
    """
    total = np.zeros(values.shape[axis])
    away = tuple(i for i in range(values.ndim) if i != axis)
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused when rounded
        for part in _blocks(values):
            product = values[part].astype(np.float64)
            product *= factor if factor.shape[0] == 1 else factor[part]
            total[part if axis == 0 else slice(None)] += product.sum(axis=away)
    return total


def _blocks(values: np.ndarray) -> Iterator[slice]:
    rows = values.shape[0]
    per_row = max(1, values.size // max(rows, 1))
    step = max(1, _BLOCK_ELEMENTS // per_row)
    for start in range(0, rows, step):
        yield slice(start, start + step)
