"""Standard operators on constants, in numpy: what folding needs most, without a session.

A kernel computes what ONNX says, or returns None and leaves the node to ONNX Runtime.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from trtforge.errors import GraphError
from trtforge.graph.weights import numpy_dtype

_Arrays = list[np.ndarray | None]
_Attrs = Mapping[str, Any]
_Kernel = Callable[[_Arrays, _Attrs], np.ndarray | None]

_SIZE = np.int64


def evaluate(op: str, inputs: _Arrays, attrs: _Attrs) -> np.ndarray | None:
    """Compute the one output of a node.

    Args:
        op: a standard operator, of any opset from 7 on.
        inputs: None for one that is left out.
        attrs: the node's attributes.

    Returns:
        The result; None when it is not one that is computed here.
    """
    kernel = _KERNELS.get(op)
    if kernel is None or any(a is not None and a.dtype.kind not in "biuf" for a in inputs):
        return None
    try:
        with np.errstate(all="ignore"):
            return kernel(inputs, attrs)
    except (ValueError, IndexError, TypeError, KeyError, OverflowError):
        return None  # malformed: ONNX Runtime says why


def _ints(array: np.ndarray | None) -> list[int] | None:
    return None if array is None else [int(value) for value in array.reshape(-1)]


def _axes(inputs: _Arrays, attrs: _Attrs) -> list[int] | None:
    if "axes" in attrs:
        return list(attrs["axes"])
    return _ints(inputs[1]) if len(inputs) > 1 else None


def _first(inputs: _Arrays) -> np.ndarray:
    array = inputs[0]
    if array is None:
        raise ValueError("the first input is left out")
    return array


def _all(inputs: _Arrays) -> list[np.ndarray]:
    return [array for array in inputs if array is not None]


def _identity(inputs: _Arrays, attrs: _Attrs) -> np.ndarray | None:
    return _first(inputs)


def _cast(inputs: _Arrays, attrs: _Attrs) -> np.ndarray | None:
    source = _first(inputs)
    try:
        target = numpy_dtype(int(attrs["to"]))
    except GraphError:
        return None
    if target.isbuiltin != 1 or source.dtype.isbuiltin != 1:
        return None  # FLOAT8E5M2 is of kind "f" too, and ONNX saturates where numpy says Inf
    if target.kind not in "biuf" or (source.dtype.kind == "f" and target.kind in "iu"):
        return None  # out of range, float to integer is undefined: as ONNX Runtime does it
    return source.astype(target)


def _transpose(inputs: _Arrays, attrs: _Attrs) -> np.ndarray | None:
    source = _first(inputs)
    turned = source.transpose(attrs.get("perm", range(source.ndim)[::-1]))
    return np.asarray(turned, order="C")  # np.ascontiguousarray makes a scalar one-dimensional


def _reshape(inputs: _Arrays, attrs: _Attrs) -> np.ndarray | None:
    source, shape = _first(inputs), _ints(inputs[1])
    if shape is None:
        return None
    if not attrs.get("allowzero", 0):
        shape = [source.shape[axis] if dim == 0 else dim for axis, dim in enumerate(shape)]
    return source.reshape(shape)


def _unsqueeze(inputs: _Arrays, attrs: _Attrs) -> np.ndarray | None:
    axes = _axes(inputs, attrs)
    return None if axes is None else np.expand_dims(_first(inputs), tuple(axes))


def _squeeze(inputs: _Arrays, attrs: _Attrs) -> np.ndarray | None:
    axes = _axes(inputs, attrs)
    if axes == []:  # to ONNX none at all, to ONNX Runtime all of one element
        return None
    return np.squeeze(_first(inputs), None if axes is None else tuple(axes))


def _flatten(inputs: _Arrays, attrs: _Attrs) -> np.ndarray | None:
    source = _first(inputs)
    axis = int(attrs.get("axis", 1))
    axis += source.ndim if axis < 0 else 0
    rows = int(np.prod(source.shape[:axis], dtype=_SIZE))
    return source.reshape(rows, int(np.prod(source.shape[axis:], dtype=_SIZE)))


def _concat(inputs: _Arrays, attrs: _Attrs) -> np.ndarray | None:
    return np.concatenate(_all(inputs), axis=int(attrs["axis"]))


def _gather(inputs: _Arrays, attrs: _Attrs) -> np.ndarray | None:
    source, where = _first(inputs), inputs[1]
    if where is None:
        return None
    result: np.ndarray = np.take(source, where, axis=int(attrs.get("axis", 0)), mode="raise")
    return np.asarray(result)


def _slice(inputs: _Arrays, attrs: _Attrs) -> np.ndarray | None:
    source = _first(inputs)
    parts = [_ints(array) for array in inputs[1:]]
    if len(parts) < 2 or parts[0] is None or parts[1] is None:
        return None
    starts, ends = parts[0], parts[1]
    axes = parts[2] if len(parts) > 2 and parts[2] is not None else list(range(len(starts)))
    steps = parts[3] if len(parts) > 3 and parts[3] is not None else [1] * len(starts)
    if any(step <= 0 for step in steps):
        return None
    index: list[slice] = [slice(None)] * source.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        index[axis] = slice(start, end, step)
    return np.ascontiguousarray(source[tuple(index)])


def _shape(inputs: _Arrays, attrs: _Attrs) -> np.ndarray | None:
    source = _first(inputs)
    dims = source.shape[attrs.get("start", 0) : attrs.get("end", source.ndim)]
    return np.asarray(dims, _SIZE)


def _size(inputs: _Arrays, attrs: _Attrs) -> np.ndarray | None:
    return np.asarray(_first(inputs).size, _SIZE)


def _expand(inputs: _Arrays, attrs: _Attrs) -> np.ndarray | None:
    source, shape = _first(inputs), _ints(inputs[1])
    if shape is None:
        return None
    full = np.broadcast_to(source, np.broadcast_shapes(source.shape, tuple(shape)))
    return np.asarray(full, order="C")  # see _transpose


def _where(inputs: _Arrays, attrs: _Attrs) -> np.ndarray | None:
    condition, yes, no = inputs
    if condition is None or yes is None or no is None or yes.dtype != no.dtype:
        return None
    return np.asarray(np.where(condition, yes, no))


def _range(inputs: _Arrays, attrs: _Attrs) -> np.ndarray | None:
    start, stop, step = _all(inputs)
    if start.dtype.kind not in "iu" or not step.any():
        return None
    return np.arange(start.item(), stop.item(), step.item(), dtype=start.dtype)


def _elementwise(function: Callable[..., Any], kinds: str = "iuf") -> _Kernel:
    def kernel(inputs: _Arrays, attrs: _Attrs) -> np.ndarray | None:
        arrays = _all(inputs)
        if any(a.dtype.kind not in kinds or a.dtype != arrays[0].dtype for a in arrays):
            return None
        result = np.asarray(function(*arrays))
        if result.dtype.kind == "b" or result.dtype == arrays[0].dtype:
            return result
        return result.astype(arrays[0].dtype)

    return kernel


def _divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if a.dtype.kind == "f":
        return np.asarray(a / b)
    if not b.all():
        raise ValueError("a division of integers by zero")
    down = np.asarray(a // b)
    if a.dtype.kind == "u":
        return down
    if ((a == np.iinfo(a.dtype).min) & (b == -1)).any():
        raise ValueError("a quotient that the type does not hold")
    inexact = (a - down * b) != 0  # ONNX rounds toward zero, numpy down
    return np.asarray(down + (inexact & ((a < 0) != (b < 0))))


def _power(inputs: _Arrays, attrs: _Attrs) -> np.ndarray | None:
    base, exponent = _all(inputs)
    if base.dtype.kind != "f":
        return None
    return np.asarray(np.power(base, exponent.astype(base.dtype)))


def _last_axis_product(inputs: _Arrays, attrs: _Attrs) -> np.ndarray | None:
    source = _first(inputs)
    if source.dtype.kind not in "iu" or source.ndim != 1:
        return None
    if attrs.get("noop_with_empty_axes", 0) and not _axes(inputs, attrs):
        return source
    total = math.prod(source.tolist())  # out of range ONNX Runtime does not wrap around
    return np.asarray([total] if attrs.get("keepdims", 1) else total, source.dtype)


_KERNELS: dict[str, _Kernel] = {
    "Abs": _elementwise(np.abs),
    "Add": _elementwise(np.add),
    "And": _elementwise(np.logical_and, "b"),
    "Cast": _cast,
    "Concat": _concat,
    "Div": _elementwise(_divide),
    "Equal": _elementwise(np.equal, "biuf"),
    "Expand": _expand,
    "Flatten": _flatten,
    "Floor": _elementwise(np.floor, "f"),
    "Gather": _gather,
    "Greater": _elementwise(np.greater),
    "GreaterOrEqual": _elementwise(np.greater_equal),
    "Identity": _identity,
    "Less": _elementwise(np.less),
    "LessOrEqual": _elementwise(np.less_equal),
    "Mul": _elementwise(np.multiply),
    "Neg": _elementwise(np.negative, "if"),
    "Not": _elementwise(np.logical_not, "b"),
    "Or": _elementwise(np.logical_or, "b"),
    "Pow": _power,
    "Range": _range,
    "Reciprocal": _elementwise(np.reciprocal, "f"),
    "ReduceProd": _last_axis_product,
    "Reshape": _reshape,
    "Shape": _shape,
    "Size": _size,
    "Slice": _slice,
    "Sqrt": _elementwise(np.sqrt, "f"),
    "Squeeze": _squeeze,
    "Sub": _elementwise(np.subtract),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": _where,
}
"""Source: https://onnx.ai/onnx/operators/"""
