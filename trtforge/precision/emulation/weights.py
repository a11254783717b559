"""Weights behind DequantizeLinear, computed once instead of on every run of the twin."""

from collections.abc import Mapping

import numpy as np
from onnx import NodeProto, TensorProto, helper

from trtforge.graph.external import ExternalFiles
from trtforge.graph.weights import tensor_array
from trtforge.precision.emulation.types import NARROW


def dequantized(
    node: NodeProto, constants: Mapping[str, TensorProto], files: ExternalFiles, kind: int
) -> np.ndarray | None:
    """Return the result of a DequantizeLinear as FP32, rounded to its type.

    ONNX operator since opset 10: https://onnx.ai/onnx/operators/onnx__DequantizeLinear.html

    Args:
        node: a DequantizeLinear.
        constants: tensors that never change, by name.
        files: has the bytes of external ones.
        kind: the element type of the result.

    Returns:
        (x - zero point) * scale, one FP32 multiplication as in ONNX Runtime; None where an input
        is no constant, or the scale has a form that ONNX does not define.
    """
    tensors = [constants.get(name) for name in node.input if name]
    if any(tensor is None for tensor in tensors) or len(tensors) < 2:
        return None
    values, scale, *zero = (tensor_array(tensor, files) for tensor in tensors if tensor is not None)
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    spread = [_spread(part, values.shape, attributes) for part in (scale, *zero)]
    if any(part is None for part in spread):
        return None
    factor = spread[0].astype(np.float32)  # type: ignore[union-attr]
    whole = values
    if zero and zero[0].any():
        whole = values.astype(np.int32) - spread[1].astype(np.int32)  # type: ignore[union-attr]
    wide = whole.astype(np.float32) * factor
    with np.errstate(over="ignore"):
        return wide.astype(NARROW[kind]).astype(np.float32) if kind in NARROW else wide


def _spread(
    part: np.ndarray, shape: tuple[int, ...], attributes: Mapping[str, int]
) -> np.ndarray | None:
    """Bring a scale or zero point into a form that broadcasts over the values."""
    if part.size == 1:
        return part.reshape(())
    axis = attributes.get("axis", 1)
    if not -len(shape) <= axis < len(shape):
        return None
    axis %= len(shape)
    if block := attributes.get("block_size", 0):
        if part.ndim != len(shape):
            return None
        repeated = np.repeat(part, block, axis)
        return np.take(repeated, np.arange(shape[axis]), axis)
    if part.ndim != 1 or part.size != shape[axis]:
        return None
    return part.reshape([-1 if place == axis else 1 for place in range(len(shape))])
