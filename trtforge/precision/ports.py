"""Which inputs and outputs of a node are FP32 and may change their type.

The operators' own schemas answer that, at the model's opset: a port whose type variable allows
the wanted type can switch; `tensor(float)` alone (Resize's scales) cannot.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_graphsurgeon as gs
from onnx import TensorProto, defs

from trtforge.precision.typeinfo import TYPE_TEXT, schema_of

_FIXED_INPUTS = frozenset([("Resize", 1), ("Resize", 2), ("Dropout", 1), ("Upsample", 1)])
"""FP32 parameters rather than data: region and scales of Resize, ratio of Dropout."""

_STASH_OUTPUTS = frozenset(["LayerNormalization"])
"""Outputs after the first hold statistics in `stash_type`, which is FP32."""


@dataclass(frozen=True)
class FloatPorts:
    """The FP32 ports of one node; True where the port can take the wanted type.

    Attributes:
        inputs: index -> whether it can switch.
        outputs: index -> whether it can switch.
    """

    inputs: Mapping[int, bool]
    outputs: Mapping[int, bool]

    @property
    def any(self) -> bool:
        """Whether the node touches FP32 at all."""
        return bool(self.inputs or self.outputs)

    @property
    def can_switch(self) -> bool:
        """Whether the node as a whole can compute in the wanted type."""
        result = not self.outputs or self.outputs[min(self.outputs)]
        return result and any((*self.inputs.values(), *self.outputs.values()))


def float_ports(
    node: gs.Node, types: Mapping[str, int], opset: int, wanted: str
) -> FloatPorts | None:
    """The FP32 ports of a node, or None when no schema describes it.

    Args:
        node: any node but control flow.
        types: element types of the graph's tensors.
        opset: the model's opset.
        wanted: fp16 or bf16.
    """
    schema = schema_of(node.op, node.domain or "", opset)
    if schema is None:
        return None
    allowed = {c.type_param_str: c.allowed_type_strs for c in schema.type_constraints}

    def switchable(formals: Sequence[defs.OpSchema.FormalParameter], index: int) -> bool:
        formal = formals[min(index, len(formals) - 1)]
        return TYPE_TEXT[wanted] in allowed.get(formal.type_str, ())

    inputs = {
        index: switchable(schema.inputs, index) and (node.op, index) not in _FIXED_INPUTS
        for index, tensor in enumerate(node.inputs)
        if is_float32(tensor, types)
    }
    outputs = {
        index: switchable(schema.outputs, index) and not (index and node.op in _STASH_OUTPUTS)
        for index, tensor in enumerate(node.outputs)
        if is_float32(tensor, types)
    }
    return FloatPorts(inputs, outputs)


def is_float32(tensor: gs.Tensor, types: Mapping[str, int]) -> bool:
    """Whether a tensor exists and is FP32 in the graph as it came."""
    return bool(tensor.name) and types.get(tensor.name) == TensorProto.FLOAT
