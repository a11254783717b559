"""The one place where writing meets the disk: whole files, and errors that a user can act on."""

import contextlib
import errno
import os
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path

from trtforge.errors import MissingError, Place

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NOT_WRITABLE = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EEXIST,
    errno.EISDIR,
}


@contextlib.contextmanager
def writing(path: Path, what: str | None = None, hint: str | None = None) -> Iterator[None]:
    """Turn an OSError raised while writing into a MissingError (exit 3).

    Args:
        path: shown when the OSError itself names no file.
        what: what was being written, for the message; the path when it is left out.
        hint: remedy when the place cannot be written to.
    """
    try:
        yield
    except OSError as error:
        raise write_error(error, path, what, hint) from error


def write_error(
    error: OSError, path: Path, what: str | None = None, hint: str | None = None
) -> MissingError:
    """Return what a failed write means: TF0301 no space, TF0302 not writable, TF0303 other I/O."""
    what = what or f"'{path}'"
    where = Place(file=str(error.filename or path))
    if error.errno in _NO_SPACE:
        return MissingError(
            "TF0301", f"no space left for {what}", "free some space, or choose another disk", where
        )
    reason = error.strerror or str(error)
    if error.errno in _NOT_WRITABLE:
        return MissingError(
            "TF0302",
            f"cannot write {what}: {reason}",
            hint or "choose a folder that exists and that you may write to",
            where,
        )
    return MissingError("TF0303", f"cannot write {what}: {reason}", hint, where)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text as `write_bytes` does."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file under a temporary name and rename it: a reader never sees half a file.

    What is no plain file is written to as it is: renaming would replace /dev/null.

    Raises:
        MissingError: no space, or the folder is missing or not writable (exit 3).
    """
    try:
        if is_special(path):
            path.write_bytes(data)
            return
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
        try:
            temporary.write_bytes(data)
            sync(temporary)
            temporary.replace(path)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
    except OSError as error:  # which names the temporary file
        raise write_error(OSError(error.errno, error.strerror, str(path)), path) from error


def is_special(path: Path) -> bool:
    """Whether something stands there, or where a link leads, that is neither file nor folder."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def sync(path: Path) -> None:
    """Make a file's bytes, or a folder's entries, durable; folders cannot be synced on Windows."""
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
