"""Scaling a constant in float64, rounded once, or saying why that would lose something."""

import math
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor, constant_values

_PIECE_ELEMENTS = 1 << 20
"""So much is widened to float64 at a time."""

_SMALL_BYTES = 1 << 16
"""A bias of 16384 channels."""


def is_float(dtype: "np.dtype[Any] | None") -> bool:
    """Return whether a type is one of ONNX's that arithmetic is done in."""
    return dtype is not None and (dtype.kind == "f" or dtype.name == "bfloat16")


def precision_of(dtype: "np.dtype[Any]") -> float:
    """Return the distance of 1 to the next number of a type."""
    return 2.0**-7 if dtype.name == "bfloat16" else float(np.finfo(dtype).eps)


def unscalable(editor: Editor, tensor: gs.Tensor) -> str | None:
    """Return why one reader of a tensor cannot have its values scaled, None when it can.

    A small tensor that others read, too, stays as it is beside a scaled one.
    """
    values = constant_values(tensor)
    if values is None:
        return f"'{tensor.name}' is not constant"
    if not is_float(values.dtype):
        return f"'{tensor.name}' is {values.dtype.name}"
    if values.nbytes > _SMALL_BYTES and not editor.is_private(tensor):
        return f"'{tensor.name}' is shared"
    return None


def scaled(values: np.ndarray, scale: np.ndarray) -> np.ndarray | None:
    """Return values * scale, or None when more than one rounding would be lost.

    Args:
        values: of any float type.
        scale: float64, and broadcasts to `values`.

    Returns:
        An array of the same type and shape. None when an element overflows, or so much of the
        whole falls below the type's smallest normal numbers that the error is more than rounding:
        relative to all of it, in the Euclidean norm, more than half the type's precision.
    """
    whole = np.broadcast_to(scale, values.shape) if scale.size > 1 else scale.reshape(())
    result = np.empty(values.shape, values.dtype)
    flat = values.reshape(-1) if scale.size == 1 else values
    target = result.reshape(-1) if scale.size == 1 else result
    rows = (
        _PIECE_ELEMENTS if flat.ndim <= 1 else max(1, _PIECE_ELEMENTS // math.prod(flat.shape[1:]))
    )
    error = total = 0.0
    for start in range(0, len(flat) if flat.ndim else 1, rows):
        piece = slice(start, start + rows) if flat.ndim else ()
        with np.errstate(all="ignore"):
            exact = flat[piece].astype(np.float64) * (whole[piece] if whole.ndim else whole)
            target[piece] = exact.astype(values.dtype)
            rounded = np.asarray(target[piece]).astype(np.float64)
        if not np.isfinite(rounded).all():
            return None
        error += float(np.square(rounded - exact).sum())
        total += float(np.square(exact).sum())
    return None if math.sqrt(error) > precision_of(values.dtype) / 2 * math.sqrt(total) else result
