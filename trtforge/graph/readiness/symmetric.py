"""Quantization with a zero point becomes symmetric INT8 where that loses nothing."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor
from trtforge.graph.nodes import constant_values, in_onnx_domain
from trtforge.graph.readiness.quantized_bias import along_axis
from trtforge.graph.readiness.quantizing import input_of

_SHIFT = 128
"""uint8 with zero point 128 and int8 with zero point 0 are the same numbers, moved by 128."""

_MOVERS = {
    "Concat": None,
    "DepthToSpace": 1,
    "Expand": 1,
    "Flatten": 1,
    "Gather": 1,
    "Identity": 1,
    "MaxPool": 1,
    "Reshape": 1,
    "Slice": 1,
    "SpaceToDepth": 1,
    "Split": 1,
    "Squeeze": 1,
    "Tile": 1,
    "Transpose": 1,
    "Unsqueeze": 1,
}
"""Operators that hand on values of their first input (Concat: of all), or the largest of them.

MaxPool takes INT8 from opset 12 on. Source: https://onnx.ai/onnx/operators/onnx__MaxPool.html
"""

_REMEDY = (
    "quantize symmetrically (ONNX Runtime's quantizer: "
    "extra_options ActivationSymmetric=True, WeightSymmetric=True), or run the pass "
    "asymmetric-to-float, which computes the same in floats"
)


class SymmetricQuantization:
    """Write quantization as TensorRT takes it: INT8 around zero.

    Matches: QuantizeLinear to UINT8 with zero point 128 and all DequantizeLinear that read it,
    also through operators that only move values; DequantizeLinear of constants with any zero
    point (https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html, opset 10 on).
    Rewrites to: INT8 with zero point 0. clip(round(x/s) + 128, 0, 255) - 128 is
    clip(round(x/s), -128, 127), and constants q become q - z: nothing is rounded.
    Refuses when: the zero point is computed, another than 128 (an activation would be clipped at
    other values), quantized values are read otherwise, or a constant q - z does not fit INT8.
    """

    name = "symmetric-quantization"

    def apply(self, editor: Editor) -> None:
        """Rewrite one graph in place."""
        for node in editor.nodes("DequantizeLinear"):
            _constant(editor, node)
        seen: set[int] = set()
        for node in editor.nodes("QuantizeLinear"):
            if id(node.outputs[0]) not in seen and _needs(node):
                flow = _flow_from(editor, node)
                seen.update(flow.tensors)
                if flow.objection is None:
                    _shift(editor, node, flow)
                else:
                    editor.refuse(node, flow.objection)


def _needs(node: gs.Node) -> bool:
    zero = input_of(node, 2)
    if zero is None:
        return bool(node.attrs.get("output_dtype", 0) in (0, 2))
    values = constant_values(zero)
    return values is None or values.dtype.name == "uint8" or bool(np.asarray(values).any())


def _constant(editor: Editor, node: gs.Node) -> None:
    """Re-encode what a DequantizeLinear reads, if that is constant."""
    values, zero = constant_values(node.inputs[0]), input_of(node, 2)
    if values is None or values.dtype.name not in ("int8", "uint8"):
        return
    shift = np.zeros((), np.int64)
    if zero is not None:
        given = constant_values(zero)
        if given is None:
            editor.refuse(node, f"its zero point ('{zero.name}') is computed")
            return
        shift = given.astype(np.int64)
    if values.dtype.name == "int8" and not shift.any():
        return
    if node.attrs.get("block_size", 0):
        editor.refuse(node, "it is dequantized block by block with a zero point")
        return
    moved = values.astype(np.int64) - along_axis(shift, values, int(node.attrs.get("axis", 1)))
    if moved.size and (moved.min() < -_SHIFT or moved.max() >= _SHIFT):
        reason = f"its values less the zero point go from {moved.min()} to {moved.max()}"
        editor.refuse(node, f"{reason}, which INT8 does not hold; {_REMEDY}")
        return
    stored = editor.constant(f"{node.inputs[0].name}_int8", moved.astype(np.int8))
    centre = editor.constant(f"{stored.name}_zero", np.zeros(shift.shape, np.int8))
    editor.match(node, "its constant is INT8 around zero")
    editor.set_input(node, 0, stored)
    editor.set_input(node, 2, centre)


@dataclass
class _Flow:
    """Where quantized values go from a QuantizeLinear to the DequantizeLinear that end them.

    Attributes:
        tensors: the quantized tensors, by identity.
        sources: the QuantizeLinear that feed the flow.
        sinks: the DequantizeLinear that end it.
        objection: why it stays as it is.
    """

    tensors: dict[int, gs.Tensor] = field(default_factory=dict)
    sources: list[gs.Node] = field(default_factory=list)
    sinks: list[gs.Node] = field(default_factory=list)
    objection: str | None = None


def _flow_from(editor: Editor, start: gs.Node) -> _Flow:
    flow, waiting = _Flow(), [start.outputs[0]]
    while waiting:
        tensor = waiting.pop()
        if id(tensor) in flow.tensors:
            continue
        flow.tensors[id(tensor)] = tensor
        why = _follow(editor, tensor, flow, waiting)
        flow.objection = flow.objection or why
    return flow


def _follow(editor: Editor, tensor: gs.Tensor, flow: _Flow, waiting: list[gs.Tensor]) -> str | None:
    producer = editor.producer(tensor)
    if editor.is_kept(tensor):
        return f"'{tensor.name}' is an output"
    if not editor.is_local(tensor) or producer is None:
        return f"'{tensor.name}' crosses the border of a graph, or is constant"
    if in_onnx_domain(producer, "QuantizeLinear"):
        flow.sources.append(producer)
        if why := _not_shifted(producer):
            return why
    elif in_onnx_domain(producer, *_MOVERS):
        waiting.extend(_moved_inputs(producer))
    else:
        return f"'{tensor.name}' comes from {producer.op}"
    for user in editor.users(tensor, len(tensor.outputs)):
        if in_onnx_domain(user, "DequantizeLinear"):
            flow.sinks.append(user)
            if why := _not_shifted(user):
                return why
        elif in_onnx_domain(user, *_MOVERS) and not _secondary(user, tensor):
            waiting.extend(output for output in user.outputs if output.name)
            waiting.extend(_moved_inputs(user))
        else:
            return f"{user.op} reads the quantized values"
    return None


def _moved_inputs(node: gs.Node) -> list[gs.Tensor]:
    return [tensor for tensor in node.inputs[: _MOVERS[node.op]] if tensor.name]


def _secondary(node: gs.Node, tensor: gs.Tensor) -> bool:
    """Whether a node reads a tensor as its indices or shape, or has further results (MaxPool)."""
    first = _MOVERS[node.op]
    read_otherwise = first is not None and any(tensor is other for other in node.inputs[first:])
    has_indices = node.op == "MaxPool" and len([o for o in node.outputs if o.name]) > 1
    return read_otherwise or has_indices


def _not_shifted(node: gs.Node) -> str | None:
    """Return why a Q or DQ is not UINT8 with zero point 128, or None."""
    zero = input_of(node, 2)
    values: Any = np.zeros((), np.uint8) if zero is None else constant_values(zero)
    if values is None:
        return f"its zero point ('{zero.name if zero is not None else ''}') is computed"
    if values.dtype.name == "uint8" and (values == _SHIFT).all():
        return None
    found = ", ".join(str(value) for value in np.unique(values)[:3])
    return (
        f"its zero point is {found} in {values.dtype.name}: INT8 around zero would clip other "
        f"values; {_REMEDY}"
    )


def _shift(editor: Editor, start: gs.Node, flow: _Flow) -> None:
    editor.match(start, f"UINT8 around {_SHIFT} is INT8 around 0")
    ends = {id(node): node for node in (*flow.sources, *flow.sinks)}
    for node in ends.values():
        zero = constant_values(node.inputs[2])
        assert zero is not None  # said by `_not_shifted`
        centre = editor.constant(f"{node.inputs[2].name}_int8", np.zeros(zero.shape, np.int8))
        editor.set_input(node, 2, centre)
        if "output_dtype" in node.attrs:
            editor.set_attribute(node, "output_dtype", None)
    for tensor in flow.tensors.values():
        new = editor.variable(f"{tensor.name}_int8", np.int8, editor.dims(tensor))
        producer = editor.producer(tensor)
        assert producer is not None
        index = next(i for i, output in enumerate(producer.outputs) if output is tensor)
        editor.replace_uses(tensor, new)
        editor.set_output(producer, index, new)
