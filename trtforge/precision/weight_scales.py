"""Scales of weights: from the largest magnitude, or of least squared error.

The mse search tries shares of the amax scale, coarsely and then finely around each row's best. It
works on pieces of weights that stay in the processor's cache: about a second per 100 MB.
"""

import math
from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
import numpy.typing as npt

from trtforge.precision.scales import LARGEST, LOWEST, NUMPY_TYPE, Floats, round_up, scale_of

Method = Literal["mse", "amax"]

_COARSE = np.linspace(1.0, 0.3, 15, dtype=np.float32)
"""Shares of the amax scale. On rows of 4608 Student-t weights (4 degrees of freedom) INT4's best is
0.38 in the median; INT8's lies above 0.95."""

_FINE = np.array([-0.6, -0.4, -0.2, 0.2, 0.4, 0.6], np.float32)
_FINER = np.array([-0.1, 0.1], np.float32)
"""Steps around the best so far, in coarse steps. Shares just above 1 come up here: rows as short as
an INT4 block or a depthwise kernel can gain from them."""

_TOP_LEVELS = {"int4": (8, 7, 6, 5, 4, 3, 2, 1), "int8": (), "fp8": ()}
"""Where a block's largest weight may stand if all are whole multiples of a step already: weights
that were trained or rounded for INT4 keep their steps."""

_PIECE = 1 << 16
"""Weights judged at a time, 256 KiB: the piece and its two copies stay in a core's own cache."""

_LEAST_GAIN = 1e-3
"""A scale must beat amax's error by this share: sums in float32 may be off by less."""


def weight_scales(
    values: npt.ArrayLike,
    axis: int | None,
    grid: str,
    method: Method = "mse",
    float_type: str = "fp32",
) -> Floats:
    """One scale for each channel of a weight.

    Args:
        values: finite weights, any shape.
        axis: the axis of channels; None: one scale for the whole weight.
        grid: int8, int4 or fp8.
        method: amax: amax / (the grid's largest), so that nothing clips. mse: the scale of least
            squared error, whose error never exceeds amax's.
        float_type: the type that the DequantizeLinear holds the scale in.

    Returns:
        float32, of shape (channels,), or () without axis; > 0 and exact in `float_type`.
    """
    weights = np.asarray(values, np.float32)
    if axis is None:
        return _scales(weights.reshape(1, 1, -1), grid, method, float_type).reshape(())
    channels = weights.shape[axis]
    rows = np.moveaxis(weights, axis, 0).reshape(channels, 1, -1)
    return _scales(rows, grid, method, float_type).reshape(channels)


def block_scales(
    values: npt.ArrayLike,
    axis: int,
    block_size: int,
    grid: str,
    method: Method = "mse",
    float_type: str = "fp32",
) -> Floats:
    """One scale for each block of consecutive weights along an axis, as DequantizeLinear-21 has it.

    Args:
        values: finite weights, any shape.
        axis: the axis that is cut into blocks, >= 0.
        block_size: weights in a block; the axis is a multiple of it.
        grid: int8, int4 or fp8.
        method: as `weight_scales`.
        float_type: as `weight_scales`.

    Returns:
        float32, the shape of `values` with blocks in place of the axis.
    """
    weights = np.ascontiguousarray(values, np.float32)
    shape = (*weights.shape[:axis], weights.shape[axis] // block_size, *weights.shape[axis + 1 :])
    after = math.prod(weights.shape[axis + 1 :])
    rows = weights.reshape(-1, block_size, after).transpose(0, 2, 1)
    return _scales(rows, grid, method, float_type).reshape(shape)


def _scales(rows: Floats, grid: str, method: Method, float_type: str) -> Floats:
    """Scale of each row of a (..., ..., weights of a row) view, piece by piece."""
    result = np.empty(rows.shape[:2], np.float32)
    for outer, inner in _pieces(rows.shape):
        piece = np.ascontiguousarray(rows[outer, inner])
        flat = piece.reshape(-1, piece.shape[-1])
        amax = np.maximum(flat.max(axis=1), -flat.min(axis=1))
        if method == "mse":
            found = _least_error(flat, amax, grid, float_type)
        else:
            found = scale_of(amax, grid, float_type)
        result[outer, inner] = found.reshape(piece.shape[:2])
    return result


def _pieces(shape: tuple[int, ...]) -> Iterator[tuple[slice, slice]]:
    outer, inner, row = shape
    across = max(1, _PIECE // row)
    down = max(1, across // max(inner, 1))
    for top in range(0, outer, down):
        for left in range(0, inner, across):
            yield slice(top, top + down), slice(left, left + across)


def _least_error(rows: Floats, amax: Floats, grid: str, float_type: str) -> Floats:
    """The best scale of each row; amax's own where nothing else is clearly better."""
    amax_scale = scale_of(amax, grid, float_type)
    trial = _Trial(rows, amax_scale, grid, float_type)
    limit = trial.errors(amax_scale) * (1 - _LEAST_GAIN)
    best, scale = limit, amax_scale
    shares = np.ones(len(rows), np.float32)
    step = _COARSE[0] - _COARSE[1]
    for level in _TOP_LEVELS[grid]:
        tried = _nearest(np.asarray(amax / level, np.float32), float_type)
        error = trial.errors(tried)
        scale = np.where(error < best, tried, scale)
        best = np.minimum(error, best)
    for around in (_COARSE[1:] - 1, _FINE * step, _FINER * step):
        centre = shares
        for offset in around:
            tried = trial.scales(centre + offset)
            error = trial.errors(tried)
            better = error < best
            best = np.where(better, error, best)
            scale = np.where(better, tried, scale)
            shares = np.where(better, centre + offset, shares)
    return np.asarray(scale, np.float32)


def _nearest(scales: Floats, float_type: str) -> Floats:
    rounded = scales.astype(NUMPY_TYPE[float_type]).astype(np.float32)
    return np.maximum(rounded, round_up(0.0, float_type))


class _Trial:
    """Squared error of quantizing rows with given scales; works in units of amax's scale."""

    def __init__(self, rows: Floats, unit: Floats, grid: str, float_type: str) -> None:
        self._unit, self._grid, self._float_type = unit, grid, float_type
        self._rows = rows / unit[:, None]
        self._buffer = np.empty_like(self._rows)

    def scales(self, shares: Floats) -> Floats:
        """Shares of amax's scales, on the grid of the float type."""
        return round_up(shares * self._unit, self._float_type)

    def errors(self, scales: Floats) -> Floats:
        """Sum of squared errors of each row, in squares of amax's scale."""
        ratio = (scales / self._unit)[:, None]
        buffer = self._buffer
        np.multiply(self._rows, 1 / ratio, out=buffer)
        np.clip(buffer, LOWEST[self._grid], LARGEST[self._grid], out=buffer)
        _ROUNDING[self._grid](buffer)
        np.multiply(buffer, ratio, out=buffer)
        np.subtract(buffer, self._rows, out=buffer)
        return np.asarray(np.einsum("ij,ij->i", buffer, buffer))


def _to_integers(values: Floats) -> None:
    np.rint(values, out=values)


def _to_e4m3(values: Floats) -> None:
    """Round in place to E4M3: four significant bits, multiples of 2^-9 below 2^-6.

    The split of T. J. Dekker (1971): with c = x (2^20 + 1), c - (c - x) keeps 24 - 20 bits of x.
    """
    small = np.rint(values * np.float32(2.0**9)) * np.float32(2.0**-9)
    is_small = np.abs(values) < 2.0**-6
    shifted = values * np.float32(2.0**20 + 1)
    np.subtract(shifted, shifted - values, out=values)
    np.copyto(values, small, where=is_small)


_ROUNDING: dict[str, Callable[[Floats], None]] = {
    "int8": _to_integers,
    "int4": _to_integers,
    "fp8": _to_e4m3,
}
