"""Quantization that TensorRT does not take, in float arithmetic: the same values, other kernels."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor
from trtforge.graph.nodes import constant_values, in_onnx_domain, node_label
from trtforge.graph.readiness.quantized_bias import along_axis
from trtforge.graph.readiness.quantizing import input_of
from trtforge.graph.readiness.writing import Writer

_PRODUCTS = ("Conv", "ConvTranspose", "Einsum", "Gemm", "MatMul")
_STORED = ("int8", "uint8")
_CLIP_OPSET, _ROUND_OPSET = 12, 11


@dataclass(frozen=True)
class _Pair:
    """A QuantizeLinear and one of the DequantizeLinear that read it."""

    quantize: gs.Node
    dequantize: gs.Node
    scales: tuple[np.ndarray, np.ndarray]
    zeros: tuple[np.ndarray, np.ndarray]


class FloatQuantization:
    """Write Q/DQ pairs around another zero point than 0 as rounding in floats.

    Matches: QuantizeLinear to UINT8, or with a zero point that is not 0, whose results only
    DequantizeLinear read, and no product (Conv, MatMul, Gemm) behind those: integers would gain
    nothing there (https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html, opset 10 on). ONNX
    Runtime quantizes Softmax and Sigmoid so, whatever it is asked for.
    Rewrites to: s * clip(round(x / s), low - z, high - z), which is the definition.
    Refuses when: a product reads the values, a scale or zero point is computed or one per
    channel, quantized values are used otherwise, or the type is not FP32.
    """

    name = "float-quantization"
    _spares_products = True

    def apply(self, editor: Editor) -> None:
        """Rewrite one graph in place."""
        for node in editor.nodes("QuantizeLinear"):
            if not _is_refused_by_tensorrt(node):
                continue
            pairs = _pairs(editor, node)
            if isinstance(pairs, str):
                editor.refuse(node, pairs)
            elif self._spares_products and (product := _product_behind(editor, pairs)):
                editor.refuse(
                    node,
                    f"{product} reads its values, which would be multiplied as floats; the pass "
                    "asymmetric-to-float does so when it is asked for",
                )
            elif editor.allows(node, _CLIP_OPSET):
                editor.match(node, "rounded and clipped in floats")
                for pair in pairs:
                    _write(editor, pair)


class AsymmetricToFloat(FloatQuantization):
    """Do that also where products read the values, and for weights with a zero point.

    Matches: as the pass float-quantization, in front of products too; DequantizeLinear of
    constants with a zero point, or of UINT8.
    Rewrites to: the same; the weights become floats, s * (q - z).
    Refuses when: as there. A model that comes quantized around other zero points builds then, and
    computes what it computed; it is not faster than the float model that it was made of.
    """

    name = "asymmetric-to-float"
    _spares_products = False

    def apply(self, editor: Editor) -> None:
        """Rewrite one graph in place."""
        super().apply(editor)
        for node in editor.nodes("DequantizeLinear"):
            values, scale = constant_values(node.inputs[0]), constant_values(node.inputs[1])
            zero = _zero_of(node, values)
            if values is None or scale is None or zero is None or values.dtype.name not in _STORED:
                continue
            result = node.outputs[0]
            if (values.dtype.name == "int8" and not zero.any()) or editor.is_kept(result):
                continue
            axis = int(node.attrs.get("axis", 1))
            if node.attrs.get("block_size", 0):
                continue
            whole = values.astype(np.int64) - along_axis(zero.astype(np.int64), values, axis)
            wide = whole * along_axis(scale.astype(np.float64), values, axis)
            editor.match(node, "constants around a zero point are stored as floats")
            editor.replace_uses(result, gs.Constant(result.name, wide.astype(scale.dtype)))
            editor.remove(node)


def _is_refused_by_tensorrt(node: gs.Node) -> bool:
    zero = input_of(node, 2)
    if zero is None:
        return node.attrs.get("output_dtype", 0) in (0, 2)
    values = constant_values(zero)
    return values is not None and (
        values.dtype.name == "uint8" or (values.dtype.name == "int8" and bool(values.any()))
    )


def _zero_of(node: gs.Node, stored: np.ndarray | None = None) -> np.ndarray | None:
    """Return a zero point; one that is left out is 0, of UINT8 unless the values say otherwise."""
    zero = input_of(node, 2)
    if zero is None:
        return np.zeros((), np.uint8 if stored is None else stored.dtype)
    return constant_values(zero)


def _pairs(editor: Editor, quantize: gs.Node) -> list[_Pair] | str:
    stored = quantize.outputs[0]
    if editor.is_kept(stored) or not editor.is_local(stored):
        return f"'{stored.name}' is used outside of this graph"
    found = []
    for user in editor.users(stored, len(stored.outputs)):
        if not in_onnx_domain(user, "DequantizeLinear"):
            return f"{user.op} '{node_label(user)}' reads the quantized values"
        scales = [constant_values(node.inputs[1]) for node in (quantize, user)]
        zeros = [_zero_of(node) for node in (quantize, user)]
        if scales[0] is None or scales[1] is None or zeros[0] is None or zeros[1] is None:
            return "a scale or a zero point is computed"
        if any(array.size != 1 for array in (scales[0], scales[1], zeros[0], zeros[1])):
            return "it has a scale per channel"
        if any(scale.dtype != np.float32 for scale in (scales[0], scales[1])):
            return "it does not compute in FP32"
        pair = _Pair(quantize, user, (scales[0], scales[1]), (zeros[0], zeros[1]))
        found.append(pair)
    return found


def _product_behind(editor: Editor, pairs: list[_Pair]) -> str | None:
    for user in _readers(editor, pairs):
        if in_onnx_domain(user, *_PRODUCTS):
            return f"{user.op} '{node_label(user)}'"
    return None


def _readers(editor: Editor, pairs: list[_Pair]) -> Iterator[gs.Node]:
    for pair in pairs:
        result = pair.dequantize.outputs[0]
        yield from editor.users(result, len(result.outputs))


def _write(editor: Editor, pair: _Pair) -> None:
    source, node = pair.quantize.inputs[0], pair.dequantize
    limits = np.iinfo(pair.zeros[0].dtype)
    shift, other = (int(zero.reshape(-1)[0]) for zero in pair.zeros)
    writer, dims = Writer(editor, node, np.float32), editor.dims(source)
    scale, back = (float(scale.reshape(-1)[0]) for scale in pair.scales)
    steps = writer.write("Div", [source, writer.number("scale", scale)], dims)
    whole = writer.write("Round", [steps], dims)
    low, high = int(limits.min) - shift, int(limits.max) - shift
    kept = writer.write(
        "Clip", [whole, writer.number("low", low), writer.number("high", high)], dims
    )
    if other != shift:
        kept = writer.write("Add", [kept, writer.number("moved", shift - other)], dims)
    writer.finish("Mul", [kept, writer.number("step", back)])
