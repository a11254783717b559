"""An engine on its way to disk: a temporary name, hashed while written, renamed when whole."""

import contextlib
import hashlib
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from trtforge.disk import write_error


@dataclass(frozen=True)
class WrittenFile:
    """Size in bytes and digest ("sha256:...") of a file that was written."""

    size: int
    sha256: str


class EngineFile:
    """A file that appears under its name only when it is complete.

    Used as a context manager: leaving it without `commit` removes what was written. The first
    failing write is kept in `failure`, since a native caller cannot pass an exception on.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._partial = partial_path(path, os.getpid())
        self._hash = hashlib.sha256()
        self._size = 0
        self.failure: OSError | None = None

    def __enter__(self) -> Self:
        try:
            self._file = self._partial.open("wb", buffering=0)
        except OSError as error:
            raise write_error(error, self._path) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        with contextlib.suppress(OSError):
            self._partial.unlink(missing_ok=True)

    def write(self, chunk: bytes | memoryview) -> int:
        """Append `chunk`; return how many bytes were taken, 0 after a failure. Never raises."""
        view = memoryview(chunk)
        # Hashing costs as much as writing, and both leave the interpreter free: side by side.
        hashing = threading.Thread(target=self._hash.update, args=(view,), name="sha256")
        hashing.start()
        try:
            rest = view
            while rest.nbytes:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            self.failure = self.failure or error
            return 0
        finally:
            hashing.join()
        self._size += view.nbytes
        return view.nbytes

    def commit(self) -> WrittenFile:
        """Give the file its name.

        Raises:
            MissingError: a write failed, now or earlier (full disk, no permission).
        """
        try:
            if self.failure is not None:
                raise self.failure
            # Not forced to the disk, which takes as long as the writing: a store's entry that a
            # power failure tore is told by its digests, and a bundle is forced when it is written.
            self._partial.replace(self._path)
        except OSError as error:
            raise write_error(error, self._path) from error
        return WrittenFile(self._size, f"sha256:{self._hash.hexdigest()}")


def partial_path(path: Path, process: int) -> Path:
    """The temporary name under which `process` writes `path`."""
    return path.with_name(f".{path.name}.{process}.partial")
