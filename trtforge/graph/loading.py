"""The gate through which a model enters: nothing malformed gets past it.

TensorRT's parser is no validator (it takes random bytes and any opset without a word), so
everything is checked here, in the order in which the messages help most.
"""

import hashlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import ModelProto, TensorProto, ValueInfoProto

from trtforge.errors import READABLE, GraphError, Place
from trtforge.graph.contract import contract_of
from trtforge.graph.external import ExternalFiles
from trtforge.graph.skeleton import without_weights
from trtforge.graph.sorting import sort_nodes
from trtforge.graph.weights import (
    HELD_BYTES,
    Extent,
    extent_of,
    graph_tensors,
    is_external,
    is_held,
    model_nodes,
    model_tensors,
    set_external,
    storage_bytes,
    tensor_array,
)
from trtforge.graph.wire import Raw, WireError, skim

_Result = TypeVar("_Result")

_SCAN_ELEMENTS = 256 << 10
"""A piece of 1 MiB and its mask fit a core's second-level cache."""

_MAP_BYTES = 1 << 20
"""Smaller model files are read as a whole."""

_FLOAT_TYPES = {
    int(value)
    for name, value in TensorProto.DataType.items()
    if name in ("FLOAT", "DOUBLE") or name.startswith(("FLOAT16", "BFLOAT16", "FLOAT8"))
}

_WEIGHTED_OPS = frozenset(
    {
        "BatchNormalization",
        "Conv",
        "ConvTranspose",
        "DequantizeLinear",
        "GRU",
        "Gemm",
        "GroupNormalization",
        "InstanceNormalization",
        "LSTM",
        "LayerNormalization",
        "MatMul",
        "QuantizeLinear",
        "RMSNormalization",
        "RNN",
    }
)
"""Operators whose constant inputs are weights; an Inf there is damage, whereas -Inf is usual
in attention masks, which are fed to Add, Where and the like."""


def read_model(path: Path) -> tuple[ModelProto, ExternalFiles]:
    """Read and validate an ONNX file; nodes that are out of order are put in order.

    Raises:
        GraphError: TF0401 not readable, TF0402 not an ONNX model (empty, truncated, corrupt),
            TF0403 refused by onnx.checker, TF0404 external data, TF0405 NaN or Inf in weights,
            TF0406 no outputs, or an input or output that is not a tensor.
    """
    proto, files = parse_model(path)
    sort_nodes(proto)
    for tensor in model_tensors(proto):
        if is_external(tensor):
            _at(path, files.view, tensor)
    _declare_outputs(proto, files)
    _at(path, check_model, proto, files)
    if not proto.graph.output:
        raise GraphError(
            "TF0406",
            "the model has no outputs",
            "nothing would be computed; export it again",
            Place(str(path)),
        )
    _at(path, contract_of, proto)
    _refuse_non_finite(proto, files, path)
    files.release()
    return proto, files


def parse_model(path: Path) -> tuple[ModelProto, ExternalFiles]:
    """Parse an ONNX file without touching the bytes of its big weights, inside or outside.

    Raises:
        GraphError: TF0401, TF0402.
    """
    where = Place(str(path))
    try:
        content, file = _content(path)
    except FileNotFoundError as error:
        raise GraphError("TF0401", "the model file does not exist", READABLE, where) from error
    except OSError as error:
        raise GraphError(
            "TF0401", f"cannot read the model: {error.strerror}", READABLE, where
        ) from error
    if not content.size:
        raise GraphError("TF0402", "the model file is empty (0 bytes)", _EXPORT_AGAIN, where)
    if content[:64].tobytes().startswith(b"version https://git-lfs"):
        hint = "fetch the file itself with `git lfs pull`"
        raise GraphError("TF0402", "the file is a Git LFS pointer, not a model", hint, where)
    try:
        proto, taken = _parsed(content)
    except DecodeError as error:
        message = f"not an ONNX model, or truncated ({content.size} bytes read)"
        raise GraphError("TF0402", message, _EXPORT_AGAIN, where) from error
    if not proto.HasField("graph"):
        raise GraphError("TF0402", "not an ONNX model: it has no graph", _EXPORT_AGAIN, where)
    files = ExternalFiles(path.parent)
    _hold(proto, taken, files, (content, file))
    return proto, files


def _content(path: Path) -> tuple[np.ndarray, io.FileIO | None]:
    """The bytes of a file, mapped when they are many, and then the open file."""
    if path.is_file() and path.stat().st_size >= _MAP_BYTES:
        file = path.open("rb", buffering=0)
        return np.memmap(file, dtype=np.uint8, mode="r"), file
    return np.frombuffer(path.read_bytes(), np.uint8), None


def _parsed(content: np.ndarray) -> tuple[ModelProto, list[Raw]]:
    try:
        skeleton, taken = skim(content.data, HELD_BYTES)
    except WireError:
        skeleton, taken = content.tobytes(), []  # protobuf has the last word on what is malformed
    proto = ModelProto()
    proto.ParseFromString(skeleton)
    return proto, taken


def _hold(
    proto: ModelProto,
    taken: list[Raw],
    files: ExternalFiles,
    source: tuple[np.ndarray, io.FileIO | None],
) -> None:
    """Let the tensors whose raw data were left in the file refer to it."""
    content, file = source
    for tensor in model_tensors(proto):
        if is_held(tensor):
            tensor.ClearField("external_data")  # nobody but us may use such a location
    location = files.hold(content, file) if taken else ""
    for raw in taken:
        tensor = proto.graph.initializer[raw.initializer]
        if _is_plain(tensor) and storage_bytes(tensor) == raw.length:
            set_external(tensor, Extent(location, raw.offset, raw.length))
        else:  # as it came: what is wrong with it is told by the checks
            tensor.raw_data = content[raw.offset : raw.offset + raw.length].tobytes()


_VALUE_FIELDS = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data")


def _is_plain(tensor: TensorProto) -> bool:
    """Whether raw data are all the values that the tensor has."""
    has_others = any(len(getattr(tensor, name)) for name in (*_VALUE_FIELDS, "string_data"))
    known = tensor.data_type in TensorProto.DataType.values()
    odd = tensor.data_type in (TensorProto.UNDEFINED, TensorProto.STRING)
    return (
        known
        and not odd
        and not has_others
        and not tensor.HasField("segment")
        and (tensor.data_location == TensorProto.DEFAULT and not tensor.external_data)
    )


_EXPORT_AGAIN = "export or copy the file again"


def _declare_outputs(proto: ModelProto, files: ExternalFiles) -> None:
    """Give outputs the shapes that inference finds, where the exporter declared none at all."""
    bare = [value for value in proto.graph.output if _lacks_shape(value)]
    if not bare:
        return
    from trtforge.graph.facts import inferred_graph

    try:
        inferred = {value.name: value for value in inferred_graph(proto, files).output}
    except GraphError:  # told by the checker
        return
    for value in bare:
        if not _lacks_shape(inferred[value.name]):
            value.type.CopyFrom(inferred[value.name].type)


def _lacks_shape(value: ValueInfoProto) -> bool:
    return value.type.HasField("tensor_type") and not value.type.tensor_type.HasField("shape")


def _require_shapes(proto: ModelProto) -> None:
    """Refuse what the checker refuses without a name.

    Raises:
        GraphError: TF0403.
    """
    for side, values in (("input", proto.graph.input), ("output", proto.graph.output)):
        for value in filter(_lacks_shape, values):
            raise GraphError(
                "TF0403",
                f"{side} '{value.name}' has no shape, and none can be inferred",
                "export the model with shapes; dimensions that vary may have names in them",
                Place(node=value.name),
            )


def check_model(proto: ModelProto, files: ExternalFiles) -> None:
    """Run onnx.checker on a model without the bytes of its big weights, at any size.

    Of a tensor's bytes the checker asks only whether there are enough; `tensor_array` and
    `ExternalFiles.view` ask that more strictly. So to the checker they are tensors of no
    elements.

    Raises:
        GraphError: TF0403; TF0404, external data cannot be had.
    """
    copy, moved = without_weights(proto, files, is_external)
    for header, _ in moved:
        del header.dims[:]
        header.dims.append(0)
        header.raw_data = b""
    _require_shapes(proto)
    try:
        onnx.checker.check_model(copy)
    except (onnx.checker.ValidationError, ValueError, RuntimeError, TypeError) as error:
        text = str(error).strip()
        raise GraphError(
            "TF0403",
            f"onnx.checker refuses the model: {text.splitlines()[0] if text else error!r}",
            "the exporter wrote an invalid model; export it again or with another opset",
            details=text if "\n" in text else None,
        ) from error


def model_files(path: Path) -> tuple[Path, ...]:
    """Return the model file and all its external files, the model first, the rest sorted.

    Raises:
        GraphError: TF0401, TF0402, TF0404.
    """
    files = ExternalFiles(path.parent)
    found: dict[str, Path] = {}
    for tensor in model_tensors(parse_model(path)[0]):
        if is_external(tensor) and not is_held(tensor):
            location = _at(path, extent_of, tensor).location
            if location not in found:
                found[location] = _at(path, files.path, tensor)
    return (path, *(found[location] for location in sorted(found)))


def files_digest(path: Path) -> str:
    """Return the digest of a model's files as they are on disk, "sha256:...".

    Names of external files count, the model's own name and folder do not.

    Raises:
        GraphError: TF0401, TF0402, TF0404.
    """
    digest = hashlib.sha256(b"trtforge.source/1\0")
    for file in model_files(path):
        name = "" if file == path else file.relative_to(path.parent).as_posix()
        try:
            with file.open("rb") as stream:
                content = hashlib.file_digest(stream, "sha256")
        except OSError as error:
            raise GraphError(
                "TF0401", f"cannot read '{file.name}': {error.strerror}", READABLE, Place(str(file))
            ) from error
        digest.update(f"{name}\0{content.hexdigest()}\n".encode())
    return f"sha256:{digest.hexdigest()}"


def _at(path: Path, call: Callable[..., _Result], *args: Any) -> _Result:
    try:
        return call(*args)
    except GraphError as error:
        node = error.where.node if error.where is not None else None
        error.where = Place(str(path), node=node)
        raise


def _refuse_non_finite(proto: ModelProto, files: ExternalFiles, path: Path) -> None:
    weights = {
        name
        for node in model_nodes(proto)
        if node.op_type in _WEIGHTED_OPS
        for name in node.input[1:]
    }
    for name, tensor in _named_tensors(proto):
        values = _at(path, tensor_array, tensor, files)
        if tensor.data_type not in _FLOAT_TYPES:
            continue
        nan, inf = _count_non_finite(values)
        if nan or (inf and name in weights):
            raise GraphError(
                "TF0405",
                f"tensor '{name}' holds {nan} NaN and {inf} Inf among {values.size} values",
                "the weights are damaged or training diverged; export a sound checkpoint",
                Place(str(path), node=name),
            )


def _named_tensors(proto: ModelProto) -> Iterator[tuple[str, TensorProto]]:
    for tensor in graph_tensors(proto.graph):
        if tensor.name and tensor.data_type != TensorProto.STRING:
            yield tensor.name, tensor
    for node in model_nodes(proto):
        for attribute in node.attribute:
            if attribute.HasField("t") and not attribute.t.name:
                yield (node.output[0] if node.output else node.name), attribute.t


def _count_non_finite(values: np.ndarray) -> tuple[int, int]:
    """Count NaN and Inf in pieces, so that a mapped tensor is never in memory as a whole."""
    flat = values.reshape(-1)
    nan = inf = 0
    for start in range(0, flat.size, _SCAN_ELEMENTS):
        piece = flat[start : start + _SCAN_ELEMENTS]
        finite = np.isfinite(piece)
        if not finite.all():
            nans = int(np.count_nonzero(np.isnan(piece)))
            nan += nans
            inf += int(piece.size - np.count_nonzero(finite)) - nans
    return nan, inf
