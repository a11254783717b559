"""The files in which a model's weights lie, mapped on first use, and bytes that are no file's.

A mapping keeps the file's content alive even when the file is replaced, so a model may be saved
over itself.
"""

import io
import mmap
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto

from trtforge.errors import GraphError
from trtforge.graph.weights import HELD_LOCATION, extent_of, external_error, external_path

_MAPPED_BYTES = 64 << 20
"""How much of the mapped files is looked at before the pages are given back."""

_MOST_OPEN_FILES = 32
"""A mapping needs no open file; copying from file to file does. Some models have thousands."""


class ExternalFiles:
    """The bytes of one model's weights that are not in the model: external files, and held arrays.

    Files are mapped on first use.

    Args:
        base_dir: the model's folder; None when the model has no external data.
    """

    def __init__(self, base_dir: Path | None) -> None:
        self.base_dir = base_dir
        self._maps: dict[str, np.ndarray] = {}
        self._open: dict[str, io.FileIO] = {}
        self._made: dict[str, Callable[[], np.ndarray]] = {}
        self._locations: dict[Callable[[], np.ndarray], str] = {}
        self._looked_at = 0

    def derived(self) -> "ExternalFiles":
        """Return the files of a model made from this one; what it holds dies with it."""
        child = ExternalFiles(self.base_dir)
        child._maps.update(self._maps)
        child._open.update(self._open)
        child._made.update(self._made)
        child._locations.update(self._locations)
        return child

    @property
    def has_files(self) -> bool:
        """Whether bytes of external files have been looked at; the gate looks at all of them."""
        return any(not location.startswith(HELD_LOCATION) for location in self._maps)

    def hold(self, array: np.ndarray, file: io.FileIO | None = None) -> str:
        """Keep an array's bytes; return the location that tensors refer to them by.

        Args:
            array: contiguous.
            file: open, where the array is a mapping of that whole file.
        """
        location = self._free_location()
        if file is not None:
            self._open[location] = file
        self._maps[location] = array.reshape(-1).view(np.uint8)
        return location

    def hold_made(self, make: Callable[[], np.ndarray]) -> str:
        """Hold bytes that are computed whenever they are looked at, and kept by nobody.

        Args:
            make: gives the same contiguous array every time; the same function, the same location.
        """
        location = self._locations.get(make)
        if location is None:
            location = self._locations[make] = self._free_location()
            self._made[location] = make
        return location

    def _free_location(self) -> str:
        return f"{HELD_LOCATION}{len(self._maps) + len(self._made)}"

    def release(self) -> None:
        """Give the mapped pages back to the system; they are read again when they are needed."""
        self._looked_at = 0
        if not hasattr(mmap, "MADV_DONTNEED"):  # not on Windows
            return
        for owner in map(_owner, self._maps.values()):
            if isinstance(owner, mmap.mmap):
                owner.madvise(mmap.MADV_DONTNEED)

    def path(self, tensor: TensorProto) -> Path:
        """Return the file that holds the tensor's bytes.

        Raises:
            GraphError: TF0404, see `external_path`.
        """
        if self.base_dir is None:
            raise external_error(tensor, "the model was given without its folder")
        return external_path(self.base_dir, tensor, extent_of(tensor).location)

    def view(self, tensor: TensorProto) -> np.ndarray:
        """Return the tensor's bytes as a read-only uint8 view of the mapped file.

        Pages of earlier views may be given back to the system, which costs reading them again
        where those are still used, and bounds the memory of all who go through the weights.

        Raises:
            GraphError: TF0404, the file is missing, outside the folder or too short.
        """
        extent = extent_of(tensor)
        mapped = self._maps.get(extent.location)
        if mapped is None and extent.location in self._made:
            mapped = self._made[extent.location]().reshape(-1).view(np.uint8)
        elif mapped is None:
            mapped = self._map(self.path(tensor), extent.location)
            self._maps[extent.location] = mapped
        end = extent.offset + extent.length
        if end > mapped.size:
            raise external_error(
                tensor,
                f"its file '{extent.location}' is too short: "
                f"bytes {extent.offset}..{end} of {mapped.size}",
                "the file is truncated or belongs to another model; export or copy it again",
            )
        self._looked_at += extent.length
        if self._looked_at > _MAPPED_BYTES:
            self.release()
        return mapped[extent.offset : end]

    def in_file(self, tensor: TensorProto) -> tuple[io.FileIO, int] | None:
        """Return the open file that holds an external tensor's bytes, and where they begin.

        None when they are held in memory, or in one file of many: few are kept open.

        Raises:
            GraphError: see `view`.
        """
        extent = extent_of(tensor)
        if extent.location in self._made:
            return None
        self.view(tensor)
        file = self._open.get(extent.location)
        return None if file is None else (file, extent.offset)

    def _map(self, path: Path, location: str) -> np.ndarray:
        try:
            file = path.open("rb", buffering=0)
            if os.fstat(file.fileno()).st_size == 0:  # an empty file cannot be mapped
                return np.empty(0, np.uint8)
            if len(self._open) < _MOST_OPEN_FILES:
                self._open[location] = file
            return np.memmap(file, dtype=np.uint8, mode="r")
        except OSError as error:
            raise GraphError(
                "TF0404",
                f"cannot read external data '{path.name}': {error.strerror}",
                "it must lie beside the model, and be readable",
            ) from error


def _owner(array: Any) -> Any:
    """What the memory of an array belongs to in the end."""
    while isinstance(array, np.ndarray) and array.base is not None:
        array = array.base
    return array
