"""The one place where a failing disk becomes an error that a user can act on."""

import contextlib
import errno
import uuid
from collections.abc import Iterator
from pathlib import Path

from trtforge.errors import MissingError, Place

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NOT_WRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR}


@contextlib.contextmanager
def writing(path: Path, what: str, hint: str | None = None) -> Iterator[None]:
    """Turn an OSError raised while writing into a MissingError (exit 3).

    Args:
        path: shown when the OSError itself names no file.
        what: what was being written, for the message.
        hint: remedy when the place cannot be written to.
    """
    try:
        yield
    except OSError as error:
        raise wrap_os_error(error, path, what, hint) from error


def wrap_os_error(error: OSError, path: Path, what: str, hint: str | None = None) -> MissingError:
    """Return the MissingError for an OSError: no space, not writable, or any other I/O failure."""
    where = Place(file=str(error.filename or path))
    if error.errno in _NO_SPACE:
        return MissingError(
            "TF0301", f"no space left for {what}", "free some space, or choose another disk", where
        )
    if error.errno in _NOT_WRITABLE:
        return MissingError(
            "TF0302",
            f"cannot write {what}: {error.strerror}",
            hint or "choose a folder that you can write to",
            where,
        )
    return MissingError("TF0303", f"cannot write {what}: {error.strerror or error}", hint, where)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text under a temporary name and rename it: a reader never sees half a file.

    Raises:
        MissingError: no space, or the folder is missing or not writable (exit 3).
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    with writing(path, f"'{path}'"):
        try:
            temporary.write_text(text, encoding="utf-8", newline="\n")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
