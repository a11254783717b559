"""Shapes that values decide, without running the model: small integers are computed on the way.

ONNX's inference carries the values of shape computations through some operators only (not through
Mul, Div or Where), and gives up behind a Reshape, a Slice or an Expand that reads the others.
"""

import math
from collections.abc import Mapping

import numpy as np
import onnx
from onnx import GraphProto, NodeProto, helper, numpy_helper

from trtforge.graph.evaluate import evaluate
from trtforge.graph.weights import is_external
from trtforge.precision.bodies import known_shapes
from trtforge.precision.typeinfo import infer, light_copy

_MOST_ELEMENTS = 4096
"""Larger tensors decide no shapes: masks and position tables."""

_MOST_ROUNDS = 64
"""How often inference may be helped on; each round reaches at least the next value."""

_Values = dict[str, "np.ndarray | None"]


def infer_with_values(
    proto: onnx.ModelProto, fixed: Mapping[str, tuple[int, ...]]
) -> onnx.ModelProto:
    """Infer as `typeinfo.infer` does, and further where values decide a shape.

    Args:
        proto: the model; not changed.
        fixed: concrete shapes of the inputs.

    Returns:
        The inferred light copy. Its nodes are all there; initializers may stand beside a node
        that computes the same.

    Raises:
        GraphError: the model contradicts itself (TF0531).
    """
    inferred = infer(proto, fixed=fixed)
    known: _Values = {}
    missing = _missing(inferred.graph)
    for _ in range(_MOST_ROUNDS if missing else 0):
        before = len(known)
        _compute(inferred.graph, known)
        if len(known) == before:
            break
        helped = infer(_with_constants(proto, known), fixed=fixed)
        _take_over(inferred.graph, helped.graph)
        still = _missing(inferred.graph)
        if not still:
            break
    return inferred


def _missing(graph: GraphProto) -> int:
    """How many results have no concrete shape."""
    shapes = known_shapes(graph)
    return sum(name not in shapes for node in graph.node for name in node.output if name)


def _compute(graph: GraphProto, known: _Values) -> None:
    """Compute what small constants and known shapes tell; None marks what is no small value."""
    shapes = known_shapes(graph)
    for tensor in graph.initializer:
        if tensor.name not in known:
            known[tensor.name] = _small(tensor)
    for node in graph.node:
        if len(node.output) == 1 and known.get(node.output[0]) is None:
            value = _value(node, known, shapes)
            if value is not None and value.size <= _MOST_ELEMENTS:
                known[node.output[0]] = value


def _value(
    node: NodeProto, known: _Values, shapes: Mapping[str, tuple[int, ...]]
) -> "np.ndarray | None":
    if node.domain not in ("", "ai.onnx") or any(one.HasField("g") for one in node.attribute):
        return None
    attributes = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    if node.op_type == "Constant":
        value = attributes.get("value")
        return _small(value) if isinstance(value, onnx.TensorProto) else None
    if node.op_type in ("Shape", "Size"):
        shape = shapes.get(node.input[0])
        if shape is None:
            return None
        if node.op_type == "Size":
            return np.asarray(math.prod(shape), np.int64)
        return np.asarray(shape[attributes.get("start", 0) : attributes.get("end")], np.int64)
    inputs = [known.get(name) if name else None for name in node.input]
    if any(name and value is None for name, value in zip(node.input, inputs, strict=True)):
        return None
    if node.op_type == "ConstantOfShape":
        return _filled(inputs[0], attributes.get("value"))
    return evaluate(node.op_type, inputs, attributes)


def _small(tensor: onnx.TensorProto) -> "np.ndarray | None":
    if is_external(tensor) or math.prod(tensor.dims) > _MOST_ELEMENTS:
        return None
    return numpy_helper.to_array(tensor)


def _filled(shape: "np.ndarray | None", value: "onnx.TensorProto | None") -> "np.ndarray | None":
    if shape is None or math.prod(shape.tolist()) > _MOST_ELEMENTS:
        return None
    fill = np.zeros(1, np.float32) if value is None else numpy_helper.to_array(value)
    return np.full(shape.tolist(), fill.reshape(-1)[0], fill.dtype)


def _with_constants(proto: onnx.ModelProto, known: _Values) -> onnx.ModelProto:
    """Return a light copy in which nodes whose result is known are constants."""
    light = light_copy(proto)
    computed = {
        node.output[0]: known[node.output[0]]
        for node in light.graph.node
        if len(node.output) == 1 and known.get(node.output[0]) is not None
    }
    kept = [node for node in light.graph.node if not computed.keys() & set(node.output)]
    del light.graph.node[:]
    light.graph.node.extend(kept)
    light.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value, order="C"), name)
        for name, value in computed.items()
        if value is not None
    )
    return light


def _take_over(graph: GraphProto, helped: GraphProto) -> None:
    """Add the types and shapes that a helped inference has found."""
    shapes = known_shapes(helped)
    known = {value.name: value for value in (*graph.value_info, *graph.output)}
    kinds = {value.name: value for value in (*helped.value_info, *helped.output)}
    for tensor in helped.initializer:
        kinds[tensor.name] = helper.make_tensor_value_info(
            tensor.name, tensor.data_type, tensor.dims
        )
    for node in graph.node:
        for name in node.output:
            if name in kinds and name in shapes:
                if name in known:
                    known[name].CopyFrom(kinds[name])
                else:
                    graph.value_info.append(kinds[name])
