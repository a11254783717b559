"""Element types and shapes of every tensor, found without touching big weights."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import onnx
from onnx import TensorProto, defs, helper, shape_inference

from trtforge.errors import GraphError

FLOAT_NAMES: dict[str, int] = {
    "fp32": TensorProto.FLOAT,
    "fp16": TensorProto.FLOAT16,
    "bf16": TensorProto.BFLOAT16,
}
TYPE_TEXT: dict[str, str] = {
    "fp32": "tensor(float)",
    "fp16": "tensor(float16)",
    "bf16": "tensor(bfloat16)",
}


def schema_of(op: str, domain: str, opset: int) -> defs.OpSchema | None:
    """The standard schema of an operator at an opset; None for other domains and unknown ones."""
    if domain not in ("", "ai.onnx"):
        return None
    try:
        return defs.get_schema(op, opset, "")
    except defs.SchemaError:
        return None


def opset_of(proto: onnx.ModelProto) -> int:
    """The version of the standard operator set that the model imports."""
    return next((e.version for e in proto.opset_import if e.domain in ("", "ai.onnx")), 1)


def light_copy(proto: onnx.ModelProto, keep_elements: int = 1024) -> onnx.ModelProto:
    """A copy for inference: weights above `keep_elements` become typed inputs without values."""
    copy = onnx.ModelProto(ir_version=proto.ir_version)
    copy.opset_import.extend(proto.opset_import)
    copy.functions.extend(proto.functions)
    graph, source = copy.graph, proto.graph
    graph.name = source.name or "graph"
    graph.node.extend(source.node)
    graph.input.extend(source.input)
    graph.output.extend(source.output)
    known = {value.name for value in source.input}
    for weight in source.initializer:
        small = math.prod(weight.dims) <= keep_elements
        if small and weight.data_location != TensorProto.EXTERNAL:
            graph.initializer.append(weight)
        elif weight.name not in known:
            graph.input.append(
                helper.make_tensor_value_info(weight.name, weight.data_type, weight.dims)
            )
    for sparse in source.sparse_initializer:
        values = sparse.values
        graph.input.append(
            helper.make_tensor_value_info(values.name, values.data_type, sparse.dims)
        )
    return copy


def infer(
    proto: onnx.ModelProto, fixed: Mapping[str, tuple[int, ...]] | None = None
) -> onnx.ModelProto:
    """Run ONNX's inference on a light copy; value_info of the source is not trusted.

    Args:
        proto: the model; not changed.
        fixed: concrete shapes of inputs; given, values of shape computations propagate too.

    Raises:
        GraphError: the model contradicts itself (TF0531).
    """
    light = light_copy(proto)
    if fixed is not None:
        _fix_shapes(light.graph, fixed)
    try:
        return shape_inference.infer_shapes(light, data_prop=fixed is not None)
    except (shape_inference.InferenceError, RuntimeError, ValueError) as error:
        raise GraphError(
            "TF0531",
            f"ONNX type inference fails: {str(error)[:300]}",
            "the model is inconsistent; `onnx.checker` names the node",
        ) from error


def _fix_shapes(graph: onnx.GraphProto, fixed: Mapping[str, tuple[int, ...]]) -> None:
    for value in graph.input:
        if value.name in fixed:
            elem = value.type.tensor_type.elem_type
            value.CopyFrom(helper.make_tensor_value_info(value.name, elem, fixed[value.name]))
    for value in graph.output:
        # Declared symbolic dimensions would win over the concrete ones.
        value.type.tensor_type.ClearField("shape")


@dataclass(frozen=True)
class Tensors:
    """What is known of the tensors of a model before it runs.

    Attributes:
        types: name -> TensorProto.DataType.
        dims: name -> sizes, None where a size is not fixed; tensors of unknown rank are not in it.
    """

    types: Mapping[str, int]
    dims: Mapping[str, tuple[int | None, ...]]


def tensors_of(proto: onnx.ModelProto) -> Tensors:
    """Element types and shapes of the tensors of the main graph and of bodies.

    ONNX's inference first; where it gives up on a type, what the operators' schemas imply. Of a
    name that a body shares with the graph around it, the outer tensor is described.
    """
    types: dict[str, int] = {}
    dims: dict[str, tuple[int | None, ...]] = {}
    _describe(infer(proto).graph, opset_of(proto), types, dims)
    return Tensors(types, dims)


def _describe(
    graph: onnx.GraphProto,
    opset: int,
    types: dict[str, int],
    dims: dict[str, tuple[int | None, ...]],
) -> None:
    for weight in graph.initializer:
        types.setdefault(weight.name, weight.data_type)
    for value in (*graph.input, *graph.output, *graph.value_info):
        if not value.type.HasField("tensor_type"):
            continue
        kind = value.type.tensor_type
        if kind.elem_type:
            types.setdefault(value.name, kind.elem_type)
        if kind.HasField("shape"):
            sizes = (d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim)
            dims.setdefault(value.name, tuple(sizes))
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _describe(attribute.g, opset, types, dims)
        _propagate(node, opset, types)


def element_types(proto: onnx.ModelProto) -> dict[str, int]:
    """Element type (TensorProto.DataType) of every tensor that has one, those of bodies too."""
    return dict(tensors_of(proto).types)


def _propagate(node: onnx.NodeProto, opset: int, types: dict[str, int]) -> None:
    missing = [name for name in node.output if name and name not in types]
    schema = schema_of(node.op_type, node.domain, opset) if missing else None
    if schema is None or not schema.inputs:
        return
    bound: dict[str, int] = {}
    for index, name in enumerate(node.input):
        formal = schema.inputs[min(index, len(schema.inputs) - 1)]
        if name in types:
            bound.setdefault(formal.type_str, types[name])
    for index, name in enumerate(node.output):
        formal = schema.outputs[min(index, len(schema.outputs) - 1)]
        if name and name not in types and formal.type_str in bound:
            types[name] = bound[formal.type_str]
