"""Quantization at run time (DynamicQuantizeLinear and integer products) in float arithmetic."""

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs
from onnx import TensorProto

from trtforge.graph.edit import Editor
from trtforge.graph.nodes import constant_values, in_onnx_domain, node_label
from trtforge.graph.readiness.quantized_bias import along_axis
from trtforge.graph.readiness.quantizing import PER_CHANNEL_OPSET, input_of
from trtforge.graph.readiness.writing import Writer

_TOP = 255.0
"""The largest UINT8. Source: https://onnx.ai/onnx/operators/onnx__DynamicQuantizeLinear.html"""

_PRODUCTS = {"MatMulInteger": "MatMul", "ConvInteger": "Conv"}


@dataclass(frozen=True)
class _Product:
    """An integer product, the Cast behind it, and its constant weights less their zero point."""

    node: gs.Node
    cast: gs.Node
    weights: np.ndarray


class DynamicQuantization:
    """Compute dynamic quantization in floats that hold whole numbers.

    Matches: DynamicQuantizeLinear whose integers only MatMulInteger and ConvInteger with constant
    weights read, each with a Cast to FP32 behind it, as ONNX Runtime's `quantize_dynamic` writes
    them (https://onnx.ai/onnx/operators/onnx__DynamicQuantizeLinear.html, opset 11).
    Rewrites to: the definition. With lo = min(x, 0), hi = max(x, 0), s = (hi - lo) / 255,
    z = round(clip(-lo / s, 0, 255)), the activation is clip(round(x / s) + z, 0, 255) - z, and
    the product is a float one of whole numbers: below 2^24 its sums are exact. The weights stay
    INT8, dequantized with scale 1. What is multiplied afterwards stays as it is.
    Refuses when: the integers are used otherwise, weights or their zero points are computed, or
    a product is not cast to FP32. Merely leaving out the rounding would be faster and is not done:
    that changes what the model computes.
    """

    name = "dynamic-quantization"

    def apply(self, editor: Editor) -> None:
        """Rewrite one graph in place."""
        for node in editor.nodes("DynamicQuantizeLinear"):
            found = _products(editor, node)
            if isinstance(found, str):
                editor.refuse(node, found)
            elif editor.allows(node, PER_CHANNEL_OPSET):
                editor.match(node, f"quantized in floats, for {len(found)} products")
                _write(editor, node, found)
        for node in editor.nodes(*_PRODUCTS):
            if editor.producer(node.inputs[0], "DynamicQuantizeLinear") is None:
                editor.refuse(node, "its left operand is not quantized by DynamicQuantizeLinear")


def _products(editor: Editor, quantize: gs.Node) -> list[_Product] | str:
    values, _, zero = quantize.outputs
    for tensor in (values, zero):
        if editor.is_kept(tensor) or not editor.is_local(tensor):
            return f"'{tensor.name}' is used outside of this graph"
    found = []
    for user in editor.users(values, len(values.outputs)):
        if not in_onnx_domain(user, *_PRODUCTS) or user.inputs[0] is not values:
            return f"{user.op} '{node_label(user)}' reads its integers"
        product = _product(editor, user, zero)
        if isinstance(product, str):
            return f"{user.op} '{node_label(user)}': {product}"
        found.append(product)
    members = {id(product.node) for product in found}
    if any(id(user) not in members for user in editor.users(zero, len(zero.outputs))):
        return f"its zero point ('{zero.name}') is used otherwise"
    return found or "nothing reads its integers"


def _product(editor: Editor, node: gs.Node, zero: gs.Tensor) -> _Product | str:
    if input_of(node, 2) is not zero:
        return "it takes another zero point"
    weights, shift = constant_values(node.inputs[1]), np.zeros((), np.int64)
    if weights is None:
        return "its weights are computed"
    if (given := input_of(node, 3)) is not None:
        stored = constant_values(given)
        if stored is None:
            return "the zero point of its weights is computed"
        shift = stored.astype(np.int64)
    result = node.outputs[0]
    casts = editor.users(result, len(result.outputs))
    if editor.is_kept(result) or len(casts) != 1 or not in_onnx_domain(casts[0], "Cast"):
        return "its result is not read by one Cast alone"
    if casts[0].owner is not editor or casts[0].attrs.get("to") != TensorProto.FLOAT:
        return "its result is not cast to FP32"
    if shift.ndim > 1:
        return "its weights have a zero point per matrix"
    axis = weights.ndim - 1 if node.op == "MatMulInteger" else 0
    return _Product(node, casts[0], weights.astype(np.int64) - along_axis(shift, weights, axis))


def _write(editor: Editor, node: gs.Node, products: list[_Product]) -> None:
    whole = _whole_numbers(editor, node)
    stored: dict[int, gs.Tensor] = {}
    for product in products:
        old = product.node.inputs[1]
        weights = stored.get(id(old)) or _float_weights(editor, product, node)
        stored[id(old)] = weights
        op, attributes = _PRODUCTS[product.node.op], dict(product.node.attrs)
        editor.replace(product.cast, op, [whole, weights], attributes).name = product.node.name
        editor.remove(product.node)
    editor.remove(node)


def _whole_numbers(editor: Editor, node: gs.Node) -> gs.Tensor:
    """Write round(x / s) + z, clipped, less z; s keeps its name."""
    source, scale = node.inputs[0], node.outputs[1]
    writer = Writer(editor, node, np.float32)
    nought, one = writer.number("zero", 0.0), writer.number("one", 1.0)
    top = writer.number("top", _TOP)
    low = writer.write("Min", [writer.write("ReduceMin", [source], (), keepdims=0), nought], ())
    high = writer.write("Max", [writer.write("ReduceMax", [source], (), keepdims=0), nought], ())
    width = writer.write("Sub", [high, low], ())
    divided = writer.write("Div", [width, top], ())
    # ONNX Runtime takes 1 where all values are zero, in place of a division by zero.
    flat = writer.write("Equal", [divided, nought], (), dtype=np.bool_)
    writer.give("Where", [flat, one, divided], scale)
    far = writer.write("Div", [writer.write("Sub", [nought, low], ()), scale], ())
    zero = writer.write("Round", [writer.write("Clip", [far, nought, top], ())], ())
    dims = editor.dims(source)
    steps = writer.write("Round", [writer.write("Div", [source, scale], dims)], dims)
    shifted = writer.write("Add", [steps, zero], dims)
    clipped = writer.write("Clip", [shifted, nought, top], dims)
    return writer.write("Sub", [clipped, zero], dims)


def _float_weights(editor: Editor, product: _Product, at: gs.Node) -> gs.Tensor:
    name, whole = product.node.inputs[1].name, product.weights
    if whole.size and (whole.min() < -128 or whole.max() > 127):
        return editor.constant(f"{name}_float", whole.astype(np.float32))
    stored = editor.constant(f"{name}_int8", whole.astype(np.int8))
    scale = editor.constant(f"{name}_one", np.ones((), np.float32))
    zero = editor.constant(f"{name}_zero", np.zeros((), np.int8))
    result = editor.variable(f"{name}_float", np.float32, whole.shape)
    editor.add("DequantizeLinear", [stored, scale, zero], [result], at, name=f"{name}/dequantize")
    return result
