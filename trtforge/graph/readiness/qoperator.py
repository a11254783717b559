"""Operators on integers with scales (QOperator models) become float operators between Q/DQ."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor
from trtforge.graph.nodes import constant_values, in_onnx_domain
from trtforge.graph.readiness.quantizing import (
    MICROSOFT,
    PER_CHANNEL_OPSET,
    Parameters,
    dequantized,
    input_of,
    parameters,
    quantize_into,
)

_RENAMED = ("QuantizeLinear", "DequantizeLinear")
_PER_TENSOR_OPSET = 10
_OUTPUT_CHANNELS = 0
_LAST_SOFTMAX_OPSET = 13
"""Softmax over one axis alone. Source: ONNX, Softmax 13."""


@dataclass(frozen=True)
class _Operand:
    """A quantized tensor that a node reads, and along which axis its scales lie."""

    tensor: gs.Tensor
    by: Parameters
    axis: int | None = None


@dataclass(frozen=True)
class _Meaning:
    """What a quantized node computes in floats.

    Attributes:
        op: the float operator.
        operands: its quantized inputs, in order.
        result: how the output is quantized; None when it is float already.
        attributes: of the float operator.
        bias: a further float input.
    """

    op: str
    operands: tuple[_Operand, ...]
    result: Parameters | None
    attributes: Mapping[str, Any]
    bias: np.ndarray | None = None


class QOperatorToQdq:
    """Write quantized operators as float operators between DequantizeLinear and QuantizeLinear.

    Matches: QLinearConv, QLinearMatMul (https://onnx.ai/onnx/operators/onnx__QLinearConv.html,
    opset 10 on) and ONNX Runtime's QLinearAdd, QLinearMul, QLinearSigmoid, QLinearLeakyRelu,
    QLinearSoftmax, QLinearAveragePool, QLinearGlobalAveragePool, QLinearConcat, QGemm,
    QuantizeLinear and DequantizeLinear.
    Rewrites to: DequantizeLinear of each input, the float operator, QuantizeLinear of its result
    with the same scales and zero points: q = round(op(s * (x - z)) / s') + z'. That is the
    definition of these operators; a tie may be rounded to the other neighbour, as the original's
    sums are exact and floats are not. An INT32 bias B becomes a float bias s_x * s_w * B.
    Refuses when: a bias or its scales are computed, a left operand has a scale per row, or an
    attribute has no standard counterpart (channels last).
    """

    name = "qoperator-to-qdq"

    def apply(self, editor: Editor) -> None:
        """Rewrite one graph in place."""
        for node in editor.nodes():
            if node.domain == MICROSOFT and node.op in _RENAMED:
                _rename(editor, node)
                continue
            read = _reader_of(node)
            if read is None:
                continue
            meaning = read(editor, node)
            if isinstance(meaning, str):
                editor.refuse(node, meaning)
                continue
            per_channel = any(operand.by.is_per_channel() for operand in meaning.operands)
            if editor.allows(node, PER_CHANNEL_OPSET if per_channel else _PER_TENSOR_OPSET):
                editor.match(node, f"{node.op} is {meaning.op} between Q/DQ")
                _write(editor, node, meaning)


_Reader = Callable[[Editor, gs.Node], _Meaning | str]


def _reader_of(node: gs.Node) -> _Reader | None:
    if in_onnx_domain(node, *_STANDARD):
        return _STANDARD[node.op]
    return _CONTRIB.get(node.op) if node.domain == MICROSOFT else None


def _rename(editor: Editor, node: gs.Node) -> None:
    """Replace ONNX Runtime's own Q/DQ by the standard one, which has caught up with it."""
    scale = input_of(node, 1)
    if node.op == "QuantizeLinear" and input_of(node, 2) is None:
        editor.refuse(node, "its zero point, which tells the type of its result, is left out")
        return
    per_channel = scale is not None and Parameters(scale, None).is_per_channel()
    if editor.allows(node, PER_CHANNEL_OPSET if per_channel else _PER_TENSOR_OPSET):
        attributes = {"axis": int(node.attrs.get("axis", 1))} if per_channel else {}
        editor.match(node, f"{node.op} of {MICROSOFT} is that of ONNX")
        editor.replace(node, node.op, list(node.inputs), attributes)


def _write(editor: Editor, node: gs.Node, meaning: _Meaning) -> None:
    result = node.outputs[0]
    given: list[gs.Tensor] = []
    for operand in meaning.operands:
        given.append(dequantized(editor, operand.tensor, operand.by, node, operand.axis))
    if meaning.bias is not None:
        given.append(editor.constant(f"{result.name}_bias", meaning.bias))
    if meaning.result is None:
        editor.replace(node, meaning.op, given, meaning.attributes)
        return
    dtype = editor.dtype(meaning.result.scale) or np.float32
    middle = editor.variable(f"{result.name}_float", dtype, editor.dims(result))
    editor.add(meaning.op, given, [middle], node, meaning.attributes, node.name)
    quantize_into(editor, middle, meaning.result, result, node)
    editor.remove(node)


def _required(node: gs.Node, *places: tuple[int, int, int]) -> "list[_Operand] | str":
    """Read operands at (tensor, scale, zero point) inputs."""
    found = []
    for tensor, scale, zero in places:
        values, by = input_of(node, tensor), parameters(node, scale, zero)
        if values is None or by is None:
            return f"input {tensor} or its scale is left out"
        found.append(_Operand(values, by))
    return found


def _product(editor: Editor, node: gs.Node) -> "tuple[_Operand, _Operand, Parameters] | str":
    """Read the two operands and the result of QLinearConv and QLinearMatMul."""
    operands = _required(node, (0, 1, 2), (3, 4, 5))
    if isinstance(operands, str):
        return operands
    result = _result(editor, node, 6, 7, operands[0].tensor)
    return result if isinstance(result, str) else (operands[0], operands[1], result)


def _result(
    editor: Editor, node: gs.Node, scale: int, zero: int, like: gs.Tensor
) -> "Parameters | str":
    by = parameters(node, scale, zero)
    if by is None:
        return "its result has no scale"
    if by.zero is None:
        dtype = editor.dtype(like)
        if dtype is None:
            return "the type of its result is not known"
        by = Parameters(by.scale, editor.constant(f"{by.scale.name}_zero", np.zeros((), dtype)))
    return by


def _conv(editor: Editor, node: gs.Node) -> _Meaning | str:
    found = _product(editor, node)
    if isinstance(found, str):
        return found
    image, kernel, result = found
    bias = _float_bias(input_of(node, 8), image.by, kernel.by)
    if isinstance(bias, str):
        return bias
    kernel = _Operand(kernel.tensor, kernel.by, _OUTPUT_CHANNELS)
    return _Meaning("Conv", (image, kernel), result, node.attrs, bias)


def _float_bias(
    stored: gs.Tensor | None, one: Parameters, two: Parameters, factor: float = 1.0
) -> np.ndarray | str | None:
    """Compute factor * s1 * s2 * B in float64; None without a bias, a text when it cannot be."""
    if stored is None:
        return None
    values = constant_values(stored)
    first, second = constant_values(one.scale), constant_values(two.scale)
    if values is None or first is None or second is None:
        return f"its bias ('{stored.name}') or a scale is not constant"
    steps = factor * first.astype(np.float64).reshape(-1) * second.astype(np.float64).reshape(-1)
    wide = values.astype(np.float64) * (steps if steps.size > 1 else steps[0])
    return np.asarray(wide.astype(first.dtype))


def _matmul(editor: Editor, node: gs.Node) -> _Meaning | str:
    found = _product(editor, node)
    if isinstance(found, str):
        return found
    left, right, result = found
    if left.by.is_per_channel() or result.is_per_channel():
        return "its left operand or its result has a scale per row"
    dims = editor.dims(right.tensor)
    if right.by.is_per_channel():
        if dims is None or len(right.by.scale.shape) != 1:
            return "its right operand has scales that are not one per column"
        right = _Operand(right.tensor, right.by, len(dims) - 1)
    return _Meaning("MatMul", (left, right), result, {})


def _gemm(editor: Editor, node: gs.Node) -> _Meaning | str:
    operands = _required(node, (0, 1, 2), (3, 4, 5))
    if isinstance(operands, str):
        return operands
    left, right = operands
    is_quantized = input_of(node, 7) is not None
    result = _result(editor, node, 7, 8, left.tensor) if is_quantized else None
    if isinstance(result, str):
        return result
    if left.by.is_per_channel():
        return "its left operand has a scale per row"
    attributes = {
        key: node.attrs[key] for key in ("transA", "transB", "alpha") if key in node.attrs
    }
    alpha = float(node.attrs.get("alpha", 1.0))
    bias = _float_bias(input_of(node, 6), left.by, right.by, alpha)
    if isinstance(bias, str):
        return bias
    columns = 0 if node.attrs.get("transB", 0) else 1
    return _Meaning(
        "Gemm", (left, _Operand(right.tensor, right.by, columns)), result, attributes, bias
    )


def _binary(op: str) -> _Reader:
    def read(editor: Editor, node: gs.Node) -> _Meaning | str:
        found = _product(editor, node)
        if isinstance(found, str):
            return found
        return _Meaning(op, found[:2], found[2], {})

    return read


def _unary(op: str, *kept: str) -> _Reader:
    def read(editor: Editor, node: gs.Node) -> _Meaning | str:
        operands = _required(node, (0, 1, 2))
        if isinstance(operands, str):
            return operands
        if node.attrs.get("channels_last", 0):
            return "its channels come last"
        result = _result(editor, node, 3, 4, operands[0].tensor)
        if isinstance(result, str):
            return result
        attributes = {key: node.attrs[key] for key in kept if key in node.attrs}
        return _Meaning(op, tuple(operands), result, attributes)

    return read


def _softmax(editor: Editor, node: gs.Node) -> _Meaning | str:
    """Softmax over one axis; before opset 13, over all axes from one on."""
    meaning = _unary("Softmax")(editor, node)
    dims = editor.dims(node.inputs[0])
    if isinstance(meaning, str):
        return meaning
    axis = int(node.attrs.get("axis", -1))
    flattens = int(node.attrs.get("opset", 0)) < _LAST_SOFTMAX_OPSET
    if flattens or axis < 0:
        if dims is None:
            return "the rank of its input is not known"
        axis %= len(dims)
        follow_one = all(dim == 1 for dim in dims[axis + 1 :])
        if flattens != (editor.opset < _LAST_SOFTMAX_OPSET) and not follow_one:
            return f"it is Softmax as of another opset, over all axes from {axis} on"
    return replace(meaning, attributes={"axis": axis})


def _concat(editor: Editor, node: gs.Node) -> _Meaning | str:
    operands = _required(node, *((at, at + 1, at + 2) for at in range(2, len(node.inputs), 3)))
    if isinstance(operands, str):
        return operands
    result = _result(editor, node, 0, 1, operands[0].tensor)
    if isinstance(result, str):
        return result
    return _Meaning("Concat", tuple(operands), result, {"axis": int(node.attrs["axis"])})


_STANDARD: dict[str, _Reader] = {"QLinearConv": _conv, "QLinearMatMul": _matmul}

_CONTRIB: dict[str, _Reader] = {
    "QGemm": _gemm,
    "QLinearAdd": _binary("Add"),
    "QLinearAveragePool": _unary(
        "AveragePool",
        "auto_pad",
        "ceil_mode",
        "count_include_pad",
        "kernel_shape",
        "pads",
        "strides",
    ),
    "QLinearConcat": _concat,
    "QLinearConv": _conv,
    "QLinearGlobalAveragePool": _unary("GlobalAveragePool"),
    "QLinearLeakyRelu": _unary("LeakyRelu", "alpha"),
    "QLinearMul": _binary("Mul"),
    "QLinearSigmoid": _unary("Sigmoid"),
    "QLinearSoftmax": _softmax,
}
