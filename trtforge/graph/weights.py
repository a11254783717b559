"""The bytes of tensors: inside the model or in external files, viewed and streamed, never copied.

External files are memory-mapped once per file. A mapping keeps the file's content alive even
when the file is replaced, so a model may be saved over itself. Big weights that are no files'
own are held beside the model in the same way: those inside a model file as a view of that file,
computed ones as the array that they are. To ONNX, all of them are external data.
Source: https://onnx.ai/onnx/repo-docs/ExternalData.html
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import (
    AttributeProto,
    FunctionProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    helper,
    numpy_helper,
)

from trtforge.errors import GraphError, Place

if TYPE_CHECKING:
    from trtforge.graph.external import ExternalFiles

CHUNK_BYTES = 16 << 20
"""How much of a tensor is handled at a time when its bytes are streamed."""

HELD_BYTES = 64 << 10
"""From this size on, initializers' bytes are held beside the model instead of inside it."""

HELD_LOCATION = "\0held:"
"""Begins the location of held bytes; no file name has a NUL, so no file is ever meant."""

_SUB_BYTE_BITS = {
    int(getattr(TensorProto, name)): bits
    for name, bits in (("INT4", 4), ("UINT4", 4), ("FLOAT4E2M1", 4), ("INT2", 2), ("UINT2", 2))
    if hasattr(TensorProto, name)
}

_AGAIN = "the file is damaged, or its exporter is newer than this version of onnx; export it again"


@dataclass(frozen=True)
class Extent:
    """Where the bytes of one external tensor lie: file (relative), offset and length in bytes."""

    location: str
    offset: int
    length: int


def is_external(tensor: TensorProto) -> bool:
    """Return whether the tensor's bytes are not in the tensor itself."""
    return tensor.data_location == TensorProto.EXTERNAL


def is_held(tensor: TensorProto) -> bool:
    """Return whether the tensor's bytes are held by the model's `ExternalFiles`, in no file."""
    return is_external(tensor) and any(
        entry.key == "location" and entry.value.startswith(HELD_LOCATION)
        for entry in tensor.external_data
    )


def storage_bytes(tensor: TensorProto) -> int:
    """Return the size of the tensor's raw data, bytes (0 for strings, which have none)."""
    count = 1
    for dim in tensor.dims:
        count *= dim
    if tensor.data_type == TensorProto.STRING:
        return 0
    bits = _SUB_BYTE_BITS.get(tensor.data_type)
    if bits is not None:
        return (count * bits + 7) // 8
    return count * int(numpy_dtype(tensor.data_type).itemsize)


def numpy_dtype(data_type: int) -> "np.dtype[Any]":
    """Return the numpy (or ml_dtypes) type of an ONNX element type.

    Raises:
        GraphError: the type is not one that this version of onnx knows.
    """
    try:
        return np.dtype(helper.tensor_dtype_to_np_dtype(data_type))
    except (KeyError, ValueError, TypeError) as error:
        raise GraphError("TF0402", f"unknown ONNX element type {data_type}", _AGAIN) from error


def is_stored_as(values: np.ndarray, data_type: int) -> bool:
    """Return whether an array's bytes are what ONNX stores for its values in that type."""
    return data_type not in _SUB_BYTE_BITS and numpy_dtype(data_type) == values.dtype


def extent_of(tensor: TensorProto) -> Extent:
    """Read where an external tensor lies; the length is what its type and shape ask for.

    Raises:
        GraphError: TF0404, offset or length is not a number or does not fit the tensor.
    """
    entries = {entry.key: entry.value for entry in tensor.external_data}
    need = storage_bytes(tensor)
    try:
        offset = int(entries.get("offset", "0"))
        length = int(entries.get("length", str(need)))
    except ValueError as error:
        raise external_error(tensor, "its offset or length is not a number") from error
    if offset < 0:
        raise external_error(tensor, f"its offset is negative: {offset}")
    if length != need:
        raise external_error(
            tensor, f"its length is {length} bytes, but its type and shape need {need}"
        )
    return Extent(entries.get("location", ""), offset, length)


def external_path(base_dir: Path, tensor: TensorProto, location: str) -> Path:
    """Return the file of an external tensor, refusing every way out of the model's folder.

    Raises:
        GraphError: TF0404, the path is empty, absolute, climbs with `..`, or is a link that
            leads outside; or the file does not exist.
    """
    posix, windows = PurePosixPath(location), PureWindowsPath(location)
    if not location or "\0" in location:
        raise external_error(tensor, "it names no file")
    if posix.is_absolute() or windows.is_absolute() or windows.drive or ".." in windows.parts:
        raise external_error(
            tensor,
            f"its file '{location}' lies outside the model's folder",
            "external data must lie in the model's own folder or below it",
        )
    path = base_dir / location
    if not path.resolve().is_relative_to(base_dir.resolve()):
        raise external_error(
            tensor,
            f"its file '{location}' is a link to outside the model's folder",
            "copy the file itself into the model's folder",
        )
    if not path.is_file():
        raise external_error(
            tensor,
            f"its file '{location}' is missing",
            f"put '{location}' beside the model, as it was exported",
        )
    return path


def external_error(tensor: TensorProto, what: str, hint: str | None = None) -> GraphError:
    """Say what is wrong with the external data of a tensor."""
    return GraphError(
        "TF0404",
        f"external data of tensor '{tensor.name}': {what}",
        hint,
        Place(node=tensor.name or None),
    )


def tensor_array(tensor: TensorProto, files: "ExternalFiles") -> np.ndarray:
    """Return a tensor's values, read-only; a view of the mapped file where that is possible.

    The values of a tensor inside a model file begin where they begin there, at any byte: native
    code that wants them aligned needs a copy (`np.require(array, requirements="A")`).

    Raises:
        GraphError: TF0404 for external data that cannot be had, TF0402 for inconsistent bytes.
    """
    external = is_external(tensor)
    if tensor.data_type in _SUB_BYTE_BITS or not (external or tensor.HasField("raw_data")):
        array = _decoded(tensor, files.view(tensor).tobytes() if external else None)
    else:
        raw = files.view(tensor) if external else np.frombuffer(tensor.raw_data, np.uint8)
        if raw.size != storage_bytes(tensor):
            raise GraphError(
                "TF0402",
                f"tensor '{tensor.name}' holds {raw.size} bytes; its type and shape need "
                f"{storage_bytes(tensor)}",
                _AGAIN,
            )
        array = raw.view(numpy_dtype(tensor.data_type)).reshape(tuple(tensor.dims))
    array.setflags(write=False)
    return array


def _decoded(tensor: TensorProto, raw: bytes | None) -> np.ndarray:
    if raw is not None:
        tensor = TensorProto(
            name=tensor.name, data_type=tensor.data_type, dims=tensor.dims, raw_data=raw
        )
    try:
        return np.array(numpy_helper.to_array(tensor))
    except (ValueError, TypeError) as error:
        raise GraphError(
            "TF0402", f"tensor '{tensor.name}' is malformed: {error}", _AGAIN
        ) from error


def tensor_chunks(tensor: TensorProto, files: "ExternalFiles") -> Iterator[bytes | memoryview]:
    """Yield a tensor's raw data in ONNX's byte order, in pieces of at most `CHUNK_BYTES`."""
    if is_external(tensor):
        raw = files.view(tensor)
        for start in range(0, raw.size, CHUNK_BYTES):
            yield raw[start : start + CHUNK_BYTES].data
    elif tensor.HasField("raw_data"):
        yield tensor.raw_data
    else:
        yield numpy_helper.from_array(_decoded(tensor, None)).raw_data


def model_tensors(proto: ModelProto) -> Iterator[TensorProto]:
    """Yield every tensor of a model: initializers and attributes, bodies and functions too."""
    yield from graph_tensors(proto.graph)
    for function in proto.functions:
        yield from _node_tensors(function.node)
        for attribute in function.attribute_proto:
            yield from _attribute_tensors(attribute)


def graph_tensors(graph: GraphProto) -> Iterator[TensorProto]:
    """Yield every tensor of a graph, subgraphs included; initializers first."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield sparse.values
        yield sparse.indices
    yield from _node_tensors(graph.node)


def _node_tensors(nodes: Any) -> Iterator[TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            yield from _attribute_tensors(attribute)


def _attribute_tensors(attribute: AttributeProto) -> Iterator[TensorProto]:
    if attribute.HasField("t"):
        yield attribute.t
    yield from attribute.tensors
    if attribute.HasField("sparse_tensor"):
        yield attribute.sparse_tensor.values
        yield attribute.sparse_tensor.indices
    if attribute.HasField("g"):
        yield from graph_tensors(attribute.g)
    for graph in attribute.graphs:
        yield from graph_tensors(graph)


def model_nodes(proto: ModelProto) -> Iterator[NodeProto]:
    """Yield every node of the model's graph and its subgraphs, outer nodes first."""
    yield from graph_nodes(proto.graph)


def graph_nodes(graph: GraphProto | FunctionProto) -> Iterator[NodeProto]:
    """Yield every node of a graph and its subgraphs."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from graph_nodes(attribute.g)
            for inner in attribute.graphs:
                yield from graph_nodes(inner)


def set_external(tensor: TensorProto, extent: Extent) -> None:
    """Turn a tensor into a reference to external data."""
    for field in ("raw_data", "float_data", "int32_data", "int64_data", "double_data"):
        tensor.ClearField(field)
    tensor.ClearField("uint64_data")
    del tensor.external_data[:]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (
        ("location", extent.location),
        ("offset", str(extent.offset)),
        ("length", str(extent.length)),
    ):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value


def set_inline(tensor: TensorProto, files: "ExternalFiles") -> None:
    """Bring an external tensor's bytes into the tensor itself."""
    raw = files.view(tensor).tobytes()
    del tensor.external_data[:]
    tensor.ClearField("data_location")
    tensor.raw_data = raw
