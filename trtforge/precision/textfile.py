"""Text files read with one clear error; `disk.write_text` writes them."""

from pathlib import Path

from trtforge.errors import DataError, Place


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
