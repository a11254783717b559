"""Text files written whole or not at all, and read with one clear error."""

import errno
import os
import tempfile
from pathlib import Path

from trtforge.errors import DataError, MissingError, Place


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text under a temporary name and rename it, so a reader never sees half a file.

    Raises:
        MissingError: no space (TF0301), or the folder is missing or not writable (TF0302).
    """
    temporary: Path | None = None
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        temporary = Path(name)
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise _not_written(path, error) from error


def read_text(path: Path, code: str, kind: str) -> str:
    """Read UTF-8 text.

    Raises:
        DataError: with `code`: the file is missing, unreadable or not text; `kind` names it.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise DataError(
            code,
            f"{kind} '{path}' does not exist",
            "check the path, or make the file with `trtforge calibrate`",
            Place(str(path)),
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(
            code,
            f"{kind} '{path}' is not text (byte {error.start} is not UTF-8)",
            "give the file that `trtforge calibrate` wrote",
            Place(str(path)),
        ) from error
    except OSError as error:
        raise DataError(
            code,
            f"{kind} '{path}' cannot be read: {error.strerror}",
            "check that it is a file that this user may read",
            Place(str(path)),
        ) from error


def _not_written(path: Path, error: OSError) -> MissingError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return MissingError(
            "TF0301", f"no space left to write '{path}'", "free some space", Place(str(path))
        )
    return MissingError(
        "TF0302",
        f"'{path}' cannot be written: {error.strerror}",
        "give a folder that exists and that this user may write to",
        Place(str(path)),
    )
