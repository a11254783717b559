"""Which inputs decide shapes by their values: those that a Reshape, TopK, Slice, ... reads."""

from collections.abc import Iterator

from onnx import AttributeProto, GraphProto, NodeProto

from trtforge.graph.contract import TensorSpec
from trtforge.graph.model import Model

DECIDING_TYPES = ("int32", "int64")
"""What such values can be (TensorRT, `IOptimizationProfile.set_shape_input`)."""

_OPERANDS: dict[str, tuple[int, ...]] = {
    "CenterCropPad": (1,),
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "Loop": (0,),
    "OneHot": (1,),
    "Pad": (1,),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Resize": (2, 3),
    "Slice": (1, 2, 4),
    "Split": (1,),
    "Tile": (1,),
    "TopK": (1,),
    "Upsample": (1,),
}
"""Operator -> the inputs whose values its output's shape follows (https://onnx.ai/onnx/operators/;
in each version of an operator they are at these places or are attributes)."""

_SHAPES_ALONE = frozenset({"Shape", "Size"})
"""What these give depends on no value."""


def deciding_inputs(model: Model) -> tuple[str, ...]:
    """Return the inputs that decide shapes by their values, in the model's order.

    Each is int32 or int64, and one number or a list of fixed length: of what TensorRT takes for
    a shape tensor, that is what a profile can hold.
    """
    nodes = list(_nodes(model.proto.graph))
    producers = {name: node for node in nodes for name in node.output if name}
    waiting = [
        node.input[index]
        for node in nodes
        for index in _OPERANDS.get(node.op_type, ())
        if index < len(node.input)
    ]
    reached: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in reached:
            continue
        reached.add(name)
        producer = producers.get(name)
        if producer is not None and producer.op_type not in _SHAPES_ALONE:
            waiting.extend(producer.input)
    return tuple(
        spec.name for spec in model.contract.inputs if spec.name in reached and can_decide(spec)
    )


def can_decide(spec: TensorSpec) -> bool:
    """Whether an input can decide shapes by its values."""
    return (
        spec.dtype in DECIDING_TYPES
        and spec.rank_known
        and not spec.is_dynamic
        and len(spec.dims) <= 1
    )


def _nodes(graph: GraphProto) -> Iterator[NodeProto]:
    """All nodes, those of branches and bodies too."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from _nodes(attribute.g)
            elif attribute.type == AttributeProto.GRAPHS:
                for one in attribute.graphs:
                    yield from _nodes(one)
