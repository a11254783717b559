"""Arrays in .npy and .npz files, read row by row: memory holds one batch, never an array.

Source: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from trtforge.errors import READABLE, DataError, Place

_READ_BYTES = 1 << 20
_MAX_HEADER_BYTES = 1 << 16


@dataclass(frozen=True)
class ArrayHeader:
    """What an array's header says.

    Attributes:
        name: the array's name in the archive, without `.npy`; "" in a lone .npy file.
        dtype: element type.
        shape: all dimensions; the first counts samples.
        fortran_order: whether the last sample's values are spread over the whole file.
    """

    name: str
    dtype: "np.dtype[Any]"
    shape: tuple[int, ...]
    fortran_order: bool

    @property
    def row_bytes(self) -> int:
        """Bytes of one sample."""
        count = 1
        for dim in self.shape[1:]:
            count *= dim
        return count * self.dtype.itemsize


class ArrayFile:
    """A .npz archive, or a lone .npy file, whose headers have been read and checked.

    Args:
        path: the file.

    Raises:
        DataError: TF0501 not readable, TF0502 corrupt or truncated, TF0509 object arrays.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._errors("the file"):
            self.is_archive = _is_archive(path)
            self.headers = tuple(self._read_headers())

    def rows(
        self, header: ArrayHeader, count: int, limit: int, first: int = 0
    ) -> Iterator[np.ndarray]:
        """Yield the samples first..limit of one array in blocks of at most `count`.

        Raises:
            DataError: TF0502, the array's bytes are damaged or end early.
        """
        what = f"array '{header.name}'" if header.name else "the array"
        with self._errors(what), self._open(header.name) as stream:
            _read_header(stream, header.name)
            if header.fortran_order and len(header.shape) > 1:
                whole = _read_exactly(stream, header.row_bytes * header.shape[0])
                array = np.frombuffer(whole, header.dtype).reshape(header.shape, order="F")
                for start in range(first, limit, count):
                    yield np.ascontiguousarray(array[start : min(start + count, limit)])
                return
            # Forward, because a deflated stream knows no other way; a plain file does not read it.
            stream.seek(first * header.row_bytes, os.SEEK_CUR)
            for start in range(first, limit, count):
                rows = min(count, limit - start)
                block = _read_exactly(stream, rows * header.row_bytes)
                yield np.frombuffer(block, header.dtype).reshape(rows, *header.shape[1:])

    def whole(self, header: ArrayHeader) -> np.ndarray:
        """Read one array as a whole.

        Raises:
            DataError: TF0502, the array's bytes are damaged or end early.
        """
        what = f"array '{header.name}'" if header.name else "the array"
        with self._errors(what), self._open(header.name) as stream:
            _read_header(stream, header.name)
            content = _read_exactly(stream, _array_bytes(header))
            order: Literal["F", "C"] = "F" if header.fortran_order else "C"
            array = np.frombuffer(content, header.dtype).reshape(header.shape, order=order)
            return np.ascontiguousarray(array).reshape(header.shape)

    def _read_headers(self) -> Iterator[ArrayHeader]:
        if not self.is_archive:
            with self._open("") as stream:
                header = _read_header(stream, "")
                size = stream.tell() + _array_bytes(header)
            _check_size(header, size, self.path.stat().st_size)
            yield header
            return
        with zipfile.ZipFile(self.path) as archive:
            for info in archive.infolist():
                name = info.filename.removesuffix(".npy")
                with archive.open(info) as stream:
                    header = _read_header(stream, name)
                    size = stream.tell() + _array_bytes(header)
                _check_size(header, size, info.file_size)
                yield header

    @contextmanager
    def _open(self, name: str) -> Iterator[IO[bytes]]:
        if not self.is_archive:
            with self.path.open("rb") as stream:
                yield stream
            return
        with zipfile.ZipFile(self.path) as archive:
            names = archive.namelist()
            member = f"{name}.npy" if f"{name}.npy" in names else name
            with archive.open(member) as stream:
                yield stream

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        where = Place(str(self.path))
        try:
            yield
        except FileNotFoundError as error:
            raise DataError("TF0501", "the data file does not exist", READABLE, where) from error
        except OSError as error:
            message = f"cannot read the data: {error.strerror or error}"
            raise DataError("TF0501", message, READABLE, where) from error
        except DataError as error:
            error.where = error.where or where
            raise
        except _DAMAGE as error:
            raise DataError(
                "TF0502",
                f"{what} is damaged or truncated: {error or type(error).__name__}",
                "write it again with numpy.savez",
                where,
            ) from error


_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    ValueError,
    KeyError,
    SyntaxError,
    RuntimeError,  # an encrypted archive
    NotImplementedError,  # a compression method that zipfile lacks
    OverflowError,
    MemoryError,
)


def _is_archive(path: Path) -> bool:
    with path.open("rb") as stream:
        start = stream.read(6)
    if start.startswith(b"PK"):
        return True
    if start == np.lib.format.MAGIC_PREFIX:
        return False
    if not start:
        raise ValueError("the file is empty")
    raise ValueError("it is neither .npz nor .npy")


def _read_header(stream: IO[bytes], name: str) -> ArrayHeader:
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        read = np.lib.format.read_array_header_1_0
    elif version == (2, 0):
        read = np.lib.format.read_array_header_2_0
    else:
        raise ValueError(f"unsupported .npy version {version}")
    shape, fortran_order, dtype = read(stream, max_header_size=_MAX_HEADER_BYTES)
    if dtype.hasobject:
        raise DataError(
            "TF0509",
            f"array '{name}' holds Python objects, which are never loaded",
            "save numbers: numpy.savez(path, name=array.astype('float32'))",
        )
    if any(dim < 0 for dim in shape):
        raise ValueError(f"negative dimension in {shape}")
    return ArrayHeader(name, dtype, tuple(shape), bool(fortran_order))


def _array_bytes(header: ArrayHeader) -> int:
    return header.row_bytes * (header.shape[0] if header.shape else 1)


def _check_size(header: ArrayHeader, need: int, have: int) -> None:
    if have < need:
        raise EOFError(f"array '{header.name}' needs {need} bytes, {have} are there")


def _read_exactly(stream: IO[bytes], size: int) -> bytearray:
    """Read `size` bytes, growing as they come: a lying header cannot ask for memory."""
    content = bytearray()
    while len(content) < size:
        piece = stream.read(min(_READ_BYTES, size - len(content)))
        if not piece:
            raise EOFError(f"{size - len(content)} bytes are missing")
        content += piece
    return content
