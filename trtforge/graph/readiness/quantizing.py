"""Words in which the passes over quantized models say what they look for and write."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor
from trtforge.graph.nodes import constant_values

MICROSOFT = "com.microsoft"
"""The domain of ONNX Runtime's own operators.

Source: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
"""

PER_CHANNEL_OPSET = 13
"""From here on Q/DQ take one scale per channel. Source: ONNX, QuantizeLinear 13."""


@dataclass(frozen=True)
class Parameters:
    """A scale and a zero point (None: 0), as tensors of the graph."""

    scale: gs.Tensor
    zero: gs.Tensor | None

    def is_per_channel(self) -> bool:
        """Whether there is more than one scale, as far as is known."""
        return isinstance(self.scale, gs.Constant) and int(np.prod(self.scale.shape)) != 1


def input_of(node: gs.Node, index: int) -> gs.Tensor | None:
    """Return an input of a node, None when it is left out."""
    tensor = node.inputs[index] if index < len(node.inputs) else None
    return tensor if tensor is not None and tensor.name else None


def parameters(node: gs.Node, scale: int, zero: int) -> Parameters | None:
    """Return the scale and the zero point at two inputs of a node, None without a scale."""
    found = input_of(node, scale)
    return None if found is None else Parameters(found, input_of(node, zero))


def as_scalar(editor: Editor, tensor: gs.Tensor) -> gs.Tensor:
    """Return a constant of one element as one of rank 0: Q/DQ take rank 1 as per channel."""
    values = constant_values(tensor)
    if values is None or values.size != 1 or values.ndim == 0:
        return tensor
    return editor.constant(f"{tensor.name}_scalar", values.reshape(()))


def dequantized(
    editor: Editor, tensor: gs.Tensor, by: Parameters, at: gs.Node, axis: int | None = None
) -> gs.Variable:
    """Write a DequantizeLinear before a node; return its result."""
    result = editor.variable(
        f"{tensor.name}_float", editor.dtype(by.scale) or np.float32, editor.dims(tensor)
    )
    given = [tensor, *_operands(editor, by)]
    editor.add(
        "DequantizeLinear", given, [result], at, _axis(by, axis), f"{result.name}/dequantize"
    )
    return result


def quantize_into(
    editor: Editor, source: gs.Tensor, by: Parameters, result: gs.Tensor, at: gs.Node
) -> None:
    """Write a QuantizeLinear that computes `result`, which loses its producer."""
    given = [source, *_operands(editor, by)]
    editor.add("QuantizeLinear", given, [result], at, name=f"{source.name}/quantize")


def _operands(editor: Editor, by: Parameters) -> Sequence[gs.Tensor]:
    pair = (by.scale,) if by.zero is None else (by.scale, by.zero)
    return [as_scalar(editor, tensor) for tensor in pair]


def _axis(by: Parameters, axis: int | None) -> dict[str, Any]:
    return {"axis": axis} if axis is not None and by.is_per_channel() else {}
