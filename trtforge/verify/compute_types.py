"""Which node of a graph makes each tensor, from which others, and in which type it computes.

In a graph as `precision.emulate` makes it, a pair of casts behind an operator says that its result
is rounded; the pair belongs to the operator here.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from onnx import GraphProto, ModelProto, NodeProto, TensorProto

from trtforge.graph.stand_ins import dequantized_kind

_NAMES: dict[int, str] = {
    TensorProto.FLOAT: "fp32",
    TensorProto.FLOAT16: "fp16",
    TensorProto.BFLOAT16: "bf16",
    TensorProto.INT8: "int8",
    TensorProto.UINT8: "uint8",
    TensorProto.INT4: "int4",
    TensorProto.UINT4: "uint4",
    TensorProto.FLOAT8E4M3FN: "fp8",
    TensorProto.FLOAT8E5M2: "fp8_e5m2",
}
_NARROW = ("fp16", "bf16")


@dataclass(frozen=True)
class Producer:
    """Where a tensor comes from.

    Attributes:
        node: the node's name; its first output's name where it has none.
        op: its operator.
        type: the type it computes in.
        inputs: the tensors it reads, as they are named in the graph.
    """

    node: str
    op: str
    type: str
    inputs: tuple[str, ...]


def producers(proto: ModelProto) -> dict[str, Producer]:
    """Return the producer of every tensor of the main graph, in graph order.

    A node that rounds nothing has the type of what it reads: strongly typed graphs mix no types.
    """
    finder = _Finder(proto.graph)
    return {name: finder.find(node) for node in proto.graph.node for name in node.output if name}


class _Finder:
    def __init__(self, graph: GraphProto) -> None:
        self._made = {name: node for node in graph.node for name in node.output if name}
        self._weights: Mapping[str, int] = {one.name: one.data_type for one in graph.initializer}
        self._types: dict[str, str] = {
            value.name: _NAMES.get(value.type.tensor_type.elem_type, "fp32")
            for value in graph.input
        }

    def find(self, node: NodeProto) -> Producer:
        origin, rounded_to = self._behind_rounding(node)
        kind = self._quantized(origin) or rounded_to or self._inherited(origin)
        # Q and DQ stand for the float type around them; what reads them is quantized.
        is_float = kind in (*_NARROW, "fp32")
        passed_on = rounded_to or (kind if is_float else "fp32")
        self._types.update((name, passed_on) for name in node.output)
        name = origin.name or next((output for output in origin.output if output), "")
        return Producer(name, origin.op_type, kind, tuple(filter(None, origin.input)))

    def _behind_rounding(self, node: NodeProto) -> tuple[NodeProto, str | None]:
        """The operator whose result a cast to a narrow type, or a pair of casts, rounds."""
        down = node
        while _cast_to(down) == "fp32" and down.input[0] in self._made:
            source = self._made[down.input[0]]
            kind = self._types.get(down.input[0])
            if _cast_to(source) is None and kind in _NARROW:
                return source, kind  # what moved values rounds nothing itself
            if _cast_to(source) not in ("fp32", *_NARROW):
                break
            down = source
        kind = _cast_to(down)
        if kind not in _NARROW:
            return node, _cast_to(node)
        origin = self._made.get(down.input[0])
        return (origin, kind) if origin is not None else (node, kind)

    def _inherited(self, node: NodeProto) -> str:
        kinds = (self._types[name] for name in node.input if name in self._types)
        return next((kind for kind in kinds if kind in _NARROW), "fp32")

    def _quantized(self, node: NodeProto) -> str | None:
        """The stored type that a node's operands are dequantized from; the narrowest of them."""
        if node.op_type == "DequantizeLinear":
            return None
        makers = [
            self._behind_rounding(self._made[one])[0] for one in node.input if one in self._made
        ]
        kinds = [kind for kind in map(self._stored, makers) if kind is not None]
        return min(kinds, key=lambda kind: SIGNIFICANT_BITS.get(kind, 24)) if kinds else None

    def _stored(self, dequantize: NodeProto) -> str | None:
        """What a node dequantizes, by itself or in the place of one; None where it does not."""
        if dequantize.op_type != "DequantizeLinear":
            return dequantized_kind(dequantize)
        source = self._made.get(dequantize.input[0])
        candidates = [dequantize.input[0], *dequantize.input[2:3]]
        if source is not None and source.op_type == "QuantizeLinear":
            candidates += source.input[2:3]
            for attribute in source.attribute:
                if attribute.name == "output_dtype" and attribute.i:
                    return _NAMES.get(attribute.i, "uint8")
        known = [self._weights[name] for name in candidates if name in self._weights]
        return _NAMES.get(known[0], "uint8") if known else "uint8"


SIGNIFICANT_BITS: dict[str, int] = {
    "fp32": 24,
    "fp16": 11,
    "bf16": 8,
    "int8": 7,
    "uint8": 7,
    "fp8": 4,
    "fp8_e5m2": 3,
    "int4": 3,
    "uint4": 3,
}
"""Significant bits of each type, the implicit one included; of integers, those of the largest
values. Sources: IEEE 754-2019 table 3.5 (binary32, binary16); bfloat16 and OCP OFP8 E4M3 and E5M2
have 7, 3 and 2 stored bits (Open Compute Project, OFP8 specification 1.0)."""


def _cast_to(node: NodeProto) -> str | None:
    if node.op_type != "Cast":
        return None
    return next((_NAMES.get(one.i) for one in node.attribute if one.name == "to"), None)
