"""Biases that are stored as INT32 become float biases."""

import numpy as np
import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor
from trtforge.graph.nodes import constant_values

_ACCUMULATOR_TYPES = ("int32",)
_DEFAULT_AXIS = 1


class FloatBiases:
    """Dequantize INT32 constants, which TensorRT does not do at run time.

    Matches: DequantizeLinear of a constant INT32 tensor with a constant scale, as ONNX Runtime's
    `quantize_static` writes biases
    (https://onnx.ai/onnx/operators/onnx__DequantizeLinear.html, opset 10 on).
    Rewrites to: an initializer of the result's name with scale * (q - zero_point), computed in
    float64 and rounded once to the type of the scale.
    Refuses when: the result is an output of the graph, or the scale or the zero point is computed.
    """

    name = "quantized-bias"

    def apply(self, editor: Editor) -> None:
        """Rewrite one graph in place."""
        for node in editor.nodes("DequantizeLinear"):
            values = constant_values(node.inputs[0])
            if values is None or values.dtype.name not in _ACCUMULATOR_TYPES:
                continue
            result = node.outputs[0]
            if editor.is_kept(result):
                editor.refuse(node, f"'{result.name}' is an output of the graph")
                continue
            found = _dequantized(node, values)
            if isinstance(found, str):
                editor.refuse(node, found)
                continue
            editor.match(node, "INT32 values are stored as floats")
            editor.replace_uses(result, gs.Constant(result.name, found))
            editor.remove(node)


def _dequantized(node: gs.Node, values: np.ndarray) -> np.ndarray | str:
    scale = constant_values(node.inputs[1])
    if scale is None:
        return f"its scale ('{node.inputs[1].name}') is not constant"
    zero = np.zeros((), np.int64)
    if len(node.inputs) > 2 and node.inputs[2].name:
        given = constant_values(node.inputs[2])
        if given is None:
            return f"its zero point ('{node.inputs[2].name}') is not constant"
        zero = given.astype(np.int64)
    if node.attrs.get("block_size", 0):
        return "it is dequantized block by block"
    axis = int(node.attrs.get("axis", _DEFAULT_AXIS))
    wide = (values.astype(np.int64) - along_axis(zero, values, axis)).astype(np.float64)
    return np.asarray(wide * along_axis(scale.astype(np.float64), values, axis)).astype(scale.dtype)


def along_axis(parameter: np.ndarray, values: np.ndarray, axis: int) -> np.ndarray:
    """Lay a scale or zero point out so that it broadcasts against what it belongs to."""
    if parameter.size == 1:
        return parameter.reshape(())
    shape = [1] * values.ndim
    shape[axis] = parameter.size
    return parameter.reshape(shape)
