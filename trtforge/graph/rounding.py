"""Arithmetic on constants: in float64, a block at a time, and rounded once."""

import math
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np

_BLOCK_ELEMENTS = 1 << 15
"""A float64 block of 256 KiB stays in a core's second-level cache: four times as fast as 8 MiB."""


def is_float(dtype: "np.dtype[Any] | None") -> bool:
    """Return whether a type is FP16, BF16, FP32 or FP64."""
    return dtype is not None and (dtype.kind == "f" or dtype == ml_dtypes.bfloat16)


def precision_of(dtype: "np.dtype[Any]") -> float:
    """Return the distance from 1 to the next number of a type, twice what rounding may cost."""
    return float(ml_dtypes.finfo(dtype).eps)


def smallest_normal(dtype: "np.dtype[Any]") -> float:
    """Return the smallest number of a type that has all its digits."""
    return float(ml_dtypes.finfo(dtype).tiny)


def scaled(values: np.ndarray, factor: np.ndarray) -> np.ndarray | str:
    """Multiply a constant by a factor.

    Args:
        values: of any float type.
        factor: float64, and broadcasts to `values`.

    Returns:
        An array of the same type and shape, or why that type cannot hold it: an element
        overflows, or so much of the whole falls below the smallest normal numbers that it is off,
        in the Euclidean norm and relatively, by more than twice what rounding costs.
    """
    if not values.ndim:
        single = scaled(values.reshape(1), factor.reshape(1))
        return single if isinstance(single, str) else single.reshape(())
    result = np.empty(values.shape, values.dtype)
    whole = np.broadcast_to(factor, values.shape)
    smallest, underflows = smallest_normal(values.dtype), False
    with np.errstate(all="ignore"):
        for part in _blocks(values):
            exact = values[part].astype(np.float64)
            exact *= whole[part]
            result[part] = exact
            if not np.isfinite(result[part]).all():
                return f"the folded weights do not fit in {values.dtype.name}"
            small = np.abs(result[part]) < smallest
            underflows = underflows or bool(small.any() and exact[small].any())
    if underflows and _relative_loss(values, whole, result) > precision_of(values.dtype):
        return f"the folded weights are too small for {values.dtype.name}"
    return result


@np.errstate(all="ignore")
def _relative_loss(values: np.ndarray, factor: np.ndarray, result: np.ndarray) -> float:
    """Return how far a result is from values * factor, in the Euclidean norm."""
    lost = total = 0.0
    for part in _blocks(values):
        exact = values[part].astype(np.float64) * factor[part]
        total += float(np.square(exact).sum())
        lost += float(np.square(result[part].astype(np.float64) - exact).sum())
    return math.sqrt(lost / total) if total else math.inf


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
