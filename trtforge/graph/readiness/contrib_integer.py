"""ONNX Runtime's fused integer products, in ONNX's own integer operators.

The pass dynamic-quantization takes those further.
"""

from collections.abc import Callable

import numpy as np
import onnx_graphsurgeon as gs
from onnx import TensorProto

from trtforge.graph.edit import Editor
from trtforge.graph.readiness.quantizing import input_of
from trtforge.graph.readiness.writing import Writer

OPSET = 11
"""DynamicQuantizeLinear. Source: ONNX, DynamicQuantizeLinear 11."""


def dynamic_matmul(editor: Editor, node: gs.Node) -> Callable[[], None] | str:
    """DynamicQuantizeMatMul: DynamicQuantizeLinear, MatMulInteger, times both scales, plus bias."""
    source, weights, scale = (input_of(node, index) for index in (0, 1, 2))
    if source is None or weights is None or scale is None:
        return "it has no weights or no scale"

    def write() -> None:
        dims = editor.dims(source)
        base = node.name or node.outputs[0].name
        values = editor.variable(f"{base}_quantized", np.uint8, dims)
        step = editor.variable(f"{base}_scale", np.float32, ())
        zero = editor.variable(f"{base}_zero", np.uint8, ())
        editor.add("DynamicQuantizeLinear", [source], [values, step, zero], node)
        _product(editor, node, [values, weights, zero, input_of(node, 3)], (step, scale), 4)

    return write


def matmul_to_float(editor: Editor, node: gs.Node) -> Callable[[], None] | str:
    """MatMulIntegerToFloat: MatMulInteger, times both scales, plus bias."""
    values, weights, step, scale = (input_of(node, index) for index in range(4))
    if values is None or weights is None or step is None or scale is None:
        return "it has no weights or no scale"
    if editor.dtype(step) != np.float32:
        return "it does not compute in FP32"

    def write() -> None:
        operands = [values, weights, input_of(node, 4), input_of(node, 5)]
        _product(editor, node, operands, (step, scale), 6)

    return write


def _product(
    editor: Editor,
    node: gs.Node,
    operands: "list[gs.Tensor | None]",
    scales: tuple[gs.Tensor, gs.Tensor],
    bias_index: int,
) -> None:
    """Write Cast(MatMulInteger(operands)) * (s1 * s2) + bias in the place of a node."""
    writer = Writer(editor, node, np.float32)
    while operands[-1] is None:
        operands.pop()
    given = [tensor if tensor is not None else gs.Variable.empty() for tensor in operands]
    whole = writer.write("MatMulInteger", given, dtype=np.int32)
    product = writer.write("Cast", [whole], to=TensorProto.FLOAT)
    both = writer.write("Mul", list(scales))
    bias = input_of(node, bias_index)
    if bias is None:
        writer.finish("Mul", [product, both])
    else:
        writer.finish("Add", [writer.write("Mul", [product, both]), bias])
