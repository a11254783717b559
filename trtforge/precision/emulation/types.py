"""Element types of the tensors of every scope, and the FP32 forms of what holds narrow values."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import ml_dtypes
import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, TypeProto, ValueInfoProto

from trtforge.graph.external import ExternalFiles
from trtforge.graph.skeleton import merge_fields
from trtforge.graph.weights import HELD_BYTES, Extent, set_external, tensor_array
from trtforge.precision.typeinfo import schema_of

NARROW: dict[int, np.dtype[Any]] = {
    TensorProto.FLOAT16: np.dtype(np.float16),
    TensorProto.BFLOAT16: np.dtype(ml_dtypes.bfloat16),
}
"""Types whose tensors the twin holds in FP32, and what rounds to them."""

STORED: dict[int, int] = {
    TensorProto.FLOAT8E4M3FN: TensorProto.FLOAT,
    TensorProto.FLOAT8E5M2: TensorProto.FLOAT,
    TensorProto.INT4: TensorProto.INT8,
    TensorProto.UINT4: TensorProto.UINT8,
}
"""Types that the twin keeps and that few of ONNX Runtime's kernels take, and what holds them."""

_VALUES = {"raw_data", "int32_data", "external_data", "data_location", "data_type"}


def scope_types(
    graph: GraphProto, inferred: GraphProto, outer: Mapping[str, int], opset: int
) -> dict[str, int]:
    """Return the element type of each tensor that the nodes of one graph can see.

    ONNX's inference first; where it gives up, what the model says of the tensor, then what the
    operators' schemas imply. An operator without a schema (`com.microsoft`) is taken to give the
    type of its first narrow input.

    Args:
        graph: the main graph or a body, as written.
        inferred: the same graph after inference.
        outer: the types that the graph around it sees.
        opset: the version of the standard operator set.
    """
    types = dict(outer)
    own = {name for node in graph.node for name in node.output}
    own |= {value.name for value in graph.input} | {one.name for one in graph.initializer}
    for name in own:  # a name may mean something else outside
        types.pop(name, None)
    for source in (graph, inferred):
        types.update((weight.name, weight.data_type) for weight in source.initializer)
        types.update((one.values.name, one.values.data_type) for one in source.sparse_initializer)
        types.update(_stated((*source.input, *source.output, *source.value_info)))
    for node in graph.node:
        for name, kind in _implied(node, types, opset):
            types.setdefault(name, kind)
    return types


def _stated(values: Iterable[ValueInfoProto]) -> Iterator[tuple[str, int]]:
    for value in values:
        if value.type.tensor_type.elem_type:
            yield value.name, value.type.tensor_type.elem_type


def _implied(node: NodeProto, types: Mapping[str, int], opset: int) -> Iterator[tuple[str, int]]:
    missing = [(i, name) for i, name in enumerate(node.output) if name and name not in types]
    if not missing:
        return
    schema = schema_of(node.op_type, node.domain, opset)
    if schema is None:
        floats = [types.get(name) for name in node.input]
        kind = next((kind for kind in floats if kind in NARROW), None)
        if kind is not None and "Quantize" not in node.op_type:
            yield from ((name, kind) for _, name in missing)
        return
    bound: dict[str, int] = {}
    for index, name in enumerate(node.input):
        if name in types and schema.inputs:
            formal = schema.inputs[min(index, len(schema.inputs) - 1)]
            bound.setdefault(formal.type_str, types[name])
    for index, name in missing:
        formal = schema.outputs[min(index, len(schema.outputs) - 1)]
        if formal.type_str in bound:
            yield name, bound[formal.type_str]


def widen_type(kind: TypeProto) -> None:
    """Make FP16 and BF16 elements FP32 in place, in sequences and optional values too."""
    if kind.HasField("tensor_type") and kind.tensor_type.elem_type in NARROW:
        kind.tensor_type.elem_type = TensorProto.FLOAT
    elif kind.HasField("sparse_tensor_type") and kind.sparse_tensor_type.elem_type in NARROW:
        kind.sparse_tensor_type.elem_type = TensorProto.FLOAT
    elif kind.HasField("sequence_type"):
        widen_type(kind.sequence_type.elem_type)
    elif kind.HasField("optional_type"):
        widen_type(kind.optional_type.elem_type)


def is_narrow_collection(kind: TypeProto) -> bool:
    """Return whether values of the type are sequences or options of FP16 or BF16 tensors."""
    if not (kind.HasField("sequence_type") or kind.HasField("optional_type")):
        return False
    wide = TypeProto()
    wide.CopyFrom(kind)
    widen_type(wide)
    return wide != kind


def widened(tensor: TensorProto, files: ExternalFiles) -> TensorProto:
    """Return a tensor with FP16 or BF16 values as FP32; any other as it is.

    Args:
        tensor: with its values in any of ONNX's fields, or external.
        files: has the bytes of external tensors; big results are held there.
    """
    if tensor.data_type not in NARROW:
        return tensor
    wide = TensorProto()
    merge_fields(tensor, wide, skip=_VALUES)
    fill(wide, tensor_array(tensor, files).astype(np.float32), files)
    return wide


def fill(tensor: TensorProto, values: np.ndarray, files: ExternalFiles) -> None:
    """Give a tensor FP32 values; `files` holds them where they are big."""
    tensor.data_type = TensorProto.FLOAT
    values = np.ascontiguousarray(values)
    if values.nbytes < HELD_BYTES:
        tensor.raw_data = values.tobytes()
    else:
        set_external(tensor, Extent(files.hold(values), 0, values.nbytes))
