"""Shapes inside the bodies of Loop and Scan, which ONNX's inference leaves open.

A loop-carried tensor may change its shape from one iteration to the next, so inference drops it.
For counting, the first iteration's shapes are enough: those of the values that go in.
"""

from collections.abc import Iterator, Mapping

import onnx
from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto, helper, shape_inference

Shape = tuple[int, ...]

_DEEPEST = 4
"""How many loops inside each other are followed."""


def with_body_shapes(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return an inferred model with the shapes of its loops' first iterations filled in.

    Args:
        proto: what `typeinfo.infer` returned for concrete inputs; it is changed.
    """
    changed = _lend_constants(proto.graph, {})
    for _ in range(_DEEPEST):
        if not _bind(proto.graph, {}) and not changed:
            return proto
        proto = shape_inference.infer_shapes(proto, data_prop=True)
        changed = False
    return proto


def known_shapes(graph: GraphProto) -> dict[str, Shape]:
    """Return the shapes that a graph states as numbers, by tensor name."""
    shapes = {weight.name: tuple(weight.dims) for weight in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        if (shape := _shape(value)) is not None:
            shapes[value.name] = shape
    return shapes


def _lend_constants(graph: GraphProto, outer: Mapping[str, TensorProto]) -> bool:
    """Give bodies the constants that they read from outside: inference sees only their own."""
    constants = {**outer, **{weight.name: weight for weight in graph.initializer}}
    lent = False
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                body = attribute.g
                used = {name for inner in body.node for name in inner.input}
                wanted = [constants[name] for name in sorted(used) if name in constants]
                body.initializer.extend(wanted)
                lent |= bool(wanted) | _lend_constants(body, constants)
    return lent


def _bind(graph: GraphProto, outer: Mapping[str, Shape]) -> bool:
    """Give bodies the shapes of what goes in; say whether any was new."""
    shapes = {**outer, **known_shapes(graph)}
    changed = False
    for node in graph.node:
        for attribute in node.attribute:
            if not attribute.HasField("g"):
                continue
            body = attribute.g
            for value, shape in _incoming(node, body, shapes):
                if _shape(value) is None and value.type.HasField("tensor_type"):
                    kind = value.type.tensor_type.elem_type
                    value.CopyFrom(helper.make_tensor_value_info(value.name, kind, shape))
                    changed = True
            changed |= _bind(body, shapes)
    return changed


def _incoming(
    node: NodeProto, body: GraphProto, shapes: Mapping[str, Shape]
) -> Iterator[tuple[ValueInfoProto, Shape]]:
    """Yield inputs of a body and the shapes that they have in the first iteration."""
    if node.op_type == "Loop":
        pairs = list(zip(node.input[2:], body.input[2:], strict=False))
        yield from ((value, shapes[name]) for name, value in pairs if name in shapes)
    elif node.op_type == "Scan":
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        states = len(node.input) - attributes["num_scan_inputs"]
        axes = attributes.get("scan_input_axes") or [0] * attributes["num_scan_inputs"]
        for index, (name, value) in enumerate(zip(node.input, body.input, strict=False)):
            shape = shapes.get(name)
            if shape is None:
                continue
            if index >= states:
                axis = axes[index - states] % len(shape)
                shape = shape[:axis] + shape[axis + 1 :]
            yield value, shape


def _shape(value: ValueInfoProto) -> Shape | None:
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    dims = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor.shape.dim]
    return None if -1 in dims else tuple(dims)
