"""Writing a model: atomically, byte for byte the same each time, big weights streamed."""

import contextlib
import hashlib
import shutil
import tempfile
from pathlib import Path

from google.protobuf.message import EncodeError  # type: ignore[import-untyped]
from onnx import ModelProto, TensorProto

from trtforge.disk import destination, is_special, keep_permissions, write_error
from trtforge.errors import GraphError, MissingError, Place
from trtforge.graph.copying import write_tensor
from trtforge.graph.external import ExternalFiles
from trtforge.graph.loading import check_model, model_files
from trtforge.graph.skeleton import EXTERNAL_THRESHOLD_BYTES, Moved, without_weights
from trtforge.graph.weights import (
    Extent,
    extent_of,
    is_external,
    is_held,
    model_tensors,
    set_external,
    storage_bytes,
    tensor_chunks,
)
from trtforge.graph.wire import fill

INLINE_LIMIT_BYTES = 1_500_000_000
"""Above this, weights go to a file of their own; protobuf's limit is 2^31 - 1 bytes.

Source: https://protobuf.dev/programming-guides/encoding/#size-limit
"""

KEEP_EXTERNAL_BYTES = 64 << 20
"""A model that came with external data keeps it outside above this size."""

_SMALL_ALIGNMENT = 64
_PAGE_ALIGNMENT = 4096
"""Offsets of big tensors are page-aligned, so that a runtime can map them.

Source: https://onnx.ai/onnx/repo-docs/ExternalData.html ("offset ... should be aligned")
"""


def write_model(proto: ModelProto, files: ExternalFiles, path: Path) -> tuple[Path, ...]:
    """Write a model, and `<name>.data` beside it when its weights do not belong inside.

    The files are staged in a folder beside the target, checked there, and renamed. A link is
    followed, a file that is replaced hands down its permissions, and the `<name>.data` that an
    earlier model of this name left is replaced or removed with it. A device such as /dev/null is
    written to, and gets no weights that do not belong inside.

    Returns:
        All files written, the model first.

    Raises:
        GraphError: TF0403, the model is not valid ONNX; TF0404, its external data is gone.
        MissingError: TF0301, no space left; TF0302, the folder cannot be written, or a link leads
            out of the folder in which readers would look for the weights.
    """
    target = path if is_special(path) else destination(path)
    try:
        beside = None if is_special(path) else target.parent
        staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=beside))
    except OSError as error:
        raise write_error(error, path) from error
    try:
        staged = _stage(proto, files, staging / target.name)
        if len(staged) > 1 and target.parent != destination(path.parent):
            raise _leads_away(path, target)
        return _publish(staged, target)
    except GraphError as error:
        error.where = Place(str(path), node=error.where.node if error.where else None)
        raise
    except OSError as error:
        raise write_error(error, path) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _leads_away(path: Path, target: Path) -> MissingError:
    return MissingError(
        "TF0302",
        f"'{path}' is a link into another folder, and the weights go to a file beside the model",
        f"name the file itself: {target}",
        Place(str(path)),
    )


def content_digest(proto: ModelProto, files: ExternalFiles) -> str:
    """Return "sha256:..." of what a model is: the same wherever its weights are stored."""
    copy, moved = without_weights(proto, files, lambda t: t.data_type != TensorProto.STRING)
    digest = hashlib.sha256(b"trtforge.model/1\0")
    digest.update(_serialized(copy))
    for _, source in moved:
        digest.update(storage_bytes(source).to_bytes(8, "little"))
        for chunk in tensor_chunks(source, files):
            digest.update(chunk)
    return f"sha256:{digest.hexdigest()}"


def _stage(proto: ModelProto, files: ExternalFiles, staged: Path) -> tuple[Path, ...]:
    check_model(proto, files)
    sizes = sum(storage_bytes(tensor) for tensor in model_tensors(proto))
    came_outside = files.has_files or any(
        is_external(tensor) and not is_held(tensor) for tensor in model_tensors(proto)
    )
    outside = sizes > INLINE_LIMIT_BYTES or (came_outside and sizes > KEEP_EXTERNAL_BYTES)
    copy, moved = without_weights(proto, files, _is_big if outside else is_external)
    if not outside:
        _write_inside(proto, copy, files, staged)
        return (staged,)
    data = staged.with_name(f"{staged.name}.data")
    if moved:
        _write_data(moved, files, data)
    staged.write_bytes(_serialized(copy))
    return (staged, data) if moved else (staged,)


def _write_inside(
    proto: ModelProto, skeleton: ModelProto, files: ExternalFiles, staged: Path
) -> None:
    """Stream the weights into the model file, where protobuf would have put them."""
    sources = {i: tensor for i, tensor in enumerate(proto.graph.initializer) if is_external(tensor)}
    if not sources:
        staged.write_bytes(_serialized(skeleton))
        return
    lengths = {index: storage_bytes(tensor) for index, tensor in sources.items()}
    with staged.open("wb") as stream:
        for part in fill(_serialized(skeleton), lengths):
            if isinstance(part, bytes):
                stream.write(part)
                continue
            write_tensor(sources[part], files, stream)


def _is_big(tensor: TensorProto) -> bool:
    return storage_bytes(tensor) >= EXTERNAL_THRESHOLD_BYTES


def _write_data(moved: list[Moved], files: ExternalFiles, data: Path) -> None:
    """Stream the weights; tensors that shared their bytes before share them again."""
    placed: dict[Extent, Extent] = {}
    with data.open("wb") as stream:
        for header, source in moved:
            tied = extent_of(source) if is_external(source) else None
            extent = placed.get(tied) if tied is not None else None
            if extent is None:
                length = storage_bytes(source)
                extent = Extent(data.name, _pad(stream.tell(), length), length)
                stream.write(b"\0" * (extent.offset - stream.tell()))
                write_tensor(source, files, stream)
                if tied is not None:
                    placed[tied] = extent
            set_external(header, extent)


def _pad(position: int, length: int) -> int:
    alignment = _PAGE_ALIGNMENT if length >= 1 << 20 else _SMALL_ALIGNMENT
    return -(-position // alignment) * alignment


def _serialized(proto: ModelProto) -> bytes:
    try:
        return bytes(proto.SerializeToString(deterministic=True))
    except (EncodeError, ValueError) as error:
        raise GraphError(
            "TF0402",
            "the model without its initializers is above protobuf's limit of 2 GB",
            "run the pass constant-to-initializer, which makes big Constant nodes initializers",
        ) from error


def _publish(staged: tuple[Path, ...], path: Path) -> tuple[Path, ...]:
    """Rename into place. Old model and new weights never stand side by side."""
    if is_special(path):
        with staged[0].open("rb") as content, path.open("wb") as device:
            shutil.copyfileobj(content, device)
        return (path,)
    targets = tuple(path.with_name(file.name) for file in staged)
    stale = _weights_of(path) if len(staged) == 1 else None
    for file, target in zip(staged, targets, strict=True):
        keep_permissions(file, target)
    if len(staged) > 1 and targets[1].exists():
        path.unlink(missing_ok=True)
    for file, target in zip(reversed(staged), reversed(targets), strict=True):
        file.replace(target)
    if stale is not None:
        stale.unlink(missing_ok=True)
    return targets


def _weights_of(path: Path) -> Path | None:
    """Return the `<name>.data` that the model at a path keeps its weights in, if any."""
    data = path.with_name(f"{path.name}.data")
    if not (path.is_file() and data.is_file()):
        return None
    with contextlib.suppress(GraphError):  # whatever it was, it had no such weights
        if any(file.samefile(data) for file in model_files(path)):
            return data
    return None
