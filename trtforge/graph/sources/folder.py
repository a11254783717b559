"""A folder of .npz and .npy files, each with one or several samples; or of Polygraphy's .json."""

from bisect import bisect_right
from collections.abc import Generator, Iterator
from functools import cached_property
from hashlib import file_digest, sha256
from itertools import accumulate
from pathlib import Path

import numpy as np

from trtforge.errors import READABLE, DataError, Place
from trtforge.graph.npy import ArrayFile, ArrayHeader
from trtforge.graph.sources.checks import check_array, check_counts
from trtforge.graph.sources.polygraphy_json import JsonFiles
from trtforge.graph.sources.request import SourceRequest, natural, shown
from trtforge.graph.sources.rows import RowSource, Specs, has_rows, named, split
from trtforge.graph.sources.source import DataSource, Feeds

_READ_BYTES = 4 << 20
"""A file with many samples is read in blocks of about this size."""


def open_source(request: SourceRequest) -> DataSource:
    """Open the folder that `data` names.

    Raises:
        DataError: TF0501 there is no data in it or it cannot be read, TF0502 to TF0509 a file is
            damaged or does not fit the model.
    """
    data = request.calibration.data
    assert isinstance(data, str)
    folder = request.resolve(data)
    arrays, json = files_in(folder, (".npz", ".npy")), files_in(folder, (".json",))
    if arrays and json:
        raise DataError(
            "TF0501",
            f"the folder has {len(arrays)} .npz and .npy files and {len(json)} .json files",
            "put one kind into a folder of its own",
            Place(str(folder)),
        )
    if json:
        return JsonFiles(request, json, f"{shown(folder)} ({len(json)} .json files)", folder)
    if not arrays:
        raise nothing_in(folder, ".npz, .npy or .json file", "for images write {images: folder}")
    return ArrayFolder(request, folder, arrays)


def files_in(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Return the folder's visible files with one of the suffixes, in natural order.

    Raises:
        DataError: TF0501, the folder cannot be read.
    """
    try:
        found = [
            path
            for path in folder.iterdir()
            if path.suffix.lower() in suffixes and path.name[0] != "." and path.is_file()
        ]
    except OSError as error:
        raise unreadable(folder, error) from error
    return sorted(found, key=lambda path: natural(path.name))


def nothing_in(folder: Path, what: str, hint: str) -> DataError:
    """The error of a folder without data."""
    return DataError("TF0501", f"the folder has no {what}", hint, Place(str(folder)))


def unreadable(path: Path, error: OSError) -> DataError:
    """The error of a file or folder that cannot be read."""
    reason = f"cannot read the data: {error.strerror or error}"
    return DataError("TF0501", reason, READABLE, Place(str(path)))


def digest_of(folder: Path, files: list[Path], *facts: str) -> str:
    """Return a digest of facts and of files' contents and names, `sha256:` first.

    Raises:
        DataError: TF0501, a file cannot be read.
    """
    digest = sha256("\0".join(facts).encode())
    for path in files:
        try:
            with path.open("rb") as stream:
                content = file_digest(stream, "sha256").digest()
        except OSError as error:
            raise unreadable(path, error) from error
        name = path.relative_to(folder).as_posix().encode(errors="surrogateescape")
        digest.update(sha256(name).digest() + content)
    return f"sha256:{digest.hexdigest()}"


class ArrayFolder(RowSource):
    """The samples of many files, one after the other.

    Args:
        request: the model's inputs, and how many samples are wanted.
        folder: the folder.
        files: its files, at least one, in order.
    """

    def __init__(self, request: SourceRequest, folder: Path, files: list[Path]) -> None:
        about = f"{shown(folder)} ({len(files)} files)"
        super().__init__(request.contract, about, Place(str(folder)))
        self._folder, self._files = folder, files
        self._ends = list(accumulate(_count(ArrayFile(path), self.specs) for path in files))
        self._wanted = request.wanted
        self.count = self._ends[-1]

    @cached_property
    def digest(self) -> str:  # type: ignore[override]
        """Digest of the contents and names of those files whose samples are used."""
        last = self.count if self._wanted is None else min(self._wanted, self.count)
        used = bisect_right(self._ends, last - 1) + 1
        return digest_of(self._folder, self._files[:used])

    def samples(self, first: int) -> Generator[Feeds, None, None]:
        """Yield the samples from `first` on; memory holds a few of them."""
        for index in range(bisect_right(self._ends, first), len(self._files)):
            start = self._ends[index - 1] if index else 0
            yield from self._of_file(self._files[index], start, max(first - start, 0))

    def _of_file(self, path: Path, start: int, skipped: int) -> Iterator[Feeds]:
        """The samples of one file from its sample `skipped` on; its first has number `start`."""
        file, where = ArrayFile(path), Place(str(path))
        headers = _headers(file, self.specs)
        if any(not has_rows(self.specs[name], len(h.shape)) for name, h in headers.items()):
            item = {name: file.whole(header) for name, header in headers.items()}
            yield from split(item, self.specs, start, where)
            return
        count = next(iter(headers.values())).shape[0]
        size = max(1, _READ_BYTES // max(1, sum(h.row_bytes for h in headers.values())))
        blocks = {name: file.rows(h, size, count, skipped) for name, h in headers.items()}
        for row in range(skipped, count, size):
            block: dict[str, np.ndarray] = {name: next(rows) for name, rows in blocks.items()}
            yield from split(block, self.specs, start + row, where)


def _headers(file: ArrayFile, specs: Specs) -> dict[str, ArrayHeader]:
    where = Place(str(file.path))
    try:
        if file.is_archive:
            return named({header.name: header for header in file.headers}, specs)
        if len(specs) == 1:
            return {next(iter(specs)): file.headers[0]}
        raise DataError(
            "TF0503",
            f"a .npy file holds one array, but the model has {len(specs)} inputs",
            f"write .npz files with {', '.join(sorted(specs))}",
        )
    except DataError as error:
        error.where = error.where or where
        raise


def _count(file: ArrayFile, specs: Specs) -> int:
    """Check a file's headers and return how many samples it has."""
    headers = _headers(file, specs)
    counts = {}
    try:
        for name, header in headers.items():
            rows = has_rows(specs[name], len(header.shape))
            shape = header.shape if rows else (1, *header.shape)
            check_array(specs[name], ArrayHeader(name, header.dtype, shape, False))
            counts[name] = shape[0]
        check_counts(counts)
    except DataError as error:
        error.where = error.where or Place(str(file.path))
        raise
    return next(iter(counts.values()))
