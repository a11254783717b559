"""Weights from file to file, by the kernel where it can."""

import os
from typing import BinaryIO

from onnx import TensorProto

from trtforge.graph.external import ExternalFiles
from trtforge.graph.weights import is_external, storage_bytes, tensor_chunks

_WORTHWHILE_BYTES = 1 << 20
"""Below this a call of the kernel and a flush cost more than they save."""

_AT_ONCE_BYTES = 1 << 30
"""copy_file_range takes less than 2 GiB at a time (its manual page)."""


def write_tensor(tensor: TensorProto, files: ExternalFiles, stream: BinaryIO) -> None:
    """Write a tensor's raw data where `stream` stands.

    What lies in a file is copied by the kernel, without passing through this process; file
    systems that can do so share the blocks instead.
    Source: https://man7.org/linux/man-pages/man2/copy_file_range.2.html

    Raises:
        OSError: no space left, and the like.
        GraphError: TF0404, external data cannot be had.
    """
    size = storage_bytes(tensor)
    skip = 0
    if is_external(tensor) and size >= _WORTHWHILE_BYTES and hasattr(os, "copy_file_range"):
        found = files.in_file(tensor)
        if found is not None:
            file, offset = found
            stream.flush()
            skip = _copied(file.fileno(), stream.fileno(), offset, size)
            stream.seek(0, os.SEEK_END)
    for chunk in tensor_chunks(tensor, files) if skip < size else ():
        stream.write(chunk[skip:] if skip < len(chunk) else b"")
        skip = max(0, skip - len(chunk))


def _copied(source: int, target: int, offset: int, size: int) -> int:
    """Copy between files; return how much was done: less where these files cannot do it.

    The position in `target` moves on. A disk that is full fails again, and aloud, at the next
    write.
    """
    done = 0
    while done < size:
        try:
            count = os.copy_file_range(
                source, target, min(size - done, _AT_ONCE_BYTES), offset + done
            )
        except OSError:
            break
        if count == 0:
            break
        done += count
    return done
