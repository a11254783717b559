"""Copies of a model without the bytes of its big weights, so that nothing is held twice."""

from collections.abc import Callable
from typing import Any, NamedTuple

from onnx import ModelProto, TensorProto

from trtforge.graph.external import ExternalFiles
from trtforge.graph.weights import is_external, model_tensors, set_inline

EXTERNAL_THRESHOLD_BYTES = 1024
"""Smaller tensors stay inside the model: shape inference reads shapes and axes there.

Source: onnx.external_data_helper.convert_model_to_external_data, `size_threshold`.
"""


class Moved(NamedTuple):
    """An initializer of the copy that has lost its bytes, and the original that has them."""

    header: TensorProto
    source: TensorProto


def without_weights(
    proto: ModelProto, files: ExternalFiles, move: Callable[[TensorProto], bool]
) -> tuple[ModelProto, list[Moved]]:
    """Copy a model, leaving the bytes of chosen initializers behind.

    Args:
        proto: the model; not changed.
        files: where its external tensors lie.
        move: decides for each initializer of the outermost graph.

    Returns:
        The copy and its emptied initializers (name, type, dims, doc and metadata stay). All
        other external tensors are brought into the copy.

    Raises:
        GraphError: TF0404, external data cannot be had.
    """
    copy = ModelProto()
    merge_fields(proto, copy, skip={"graph"})
    merge_fields(proto.graph, copy.graph, skip={"initializer"})
    copy.graph.SetInParent()
    moved = []
    for source in proto.graph.initializer:
        header = copy.graph.initializer.add()
        if move(source):
            merge_fields(source, header, skip=_BYTES)
            moved.append(Moved(header, source))
        else:
            header.CopyFrom(source)
    for tensor in model_tensors(copy):
        if is_external(tensor):  # a moved one is not: it has lost its location with its bytes
            set_inline(tensor, files)
    return copy, moved


_BYTES = {
    "raw_data",
    "float_data",
    "int32_data",
    "int64_data",
    "double_data",
    "uint64_data",
    "external_data",
    "data_location",
}


def merge_fields(source: Any, target: Any, skip: set[str] | frozenset[str] = frozenset()) -> None:
    """Copy the set fields of one protobuf message into another of the same type."""
    for field, value in source.ListFields():
        if field.name in skip:
            continue
        if hasattr(value, "MergeFrom"):
            getattr(target, field.name).MergeFrom(value)
        else:
            setattr(target, field.name, value)
