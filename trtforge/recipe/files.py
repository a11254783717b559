"""Reading the recipe's text, and checking that the files it names are there."""

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from trtforge.errors import Place, Problem, RecipeError
from trtforge.recipe import codes
from trtforge.recipe.nodes import Loc, Source
from trtforge.recipe.sections import closest, dotted

MAX_BYTES = 1_000_000
"""The largest recipe file; a real one has a few kilobytes."""

_NAMED_FILES: tuple[Loc, ...] = (
    ("model", "onnx"),
    ("calibration", "data"),
    ("calibration", "data", "script"),
    ("calibration", "reuse"),
    ("verify", "data"),
)
_NAMED_FOLDERS: tuple[Loc, ...] = (("calibration", "data"), ("calibration", "data", "images"))


def read_source(path: Path) -> Source:
    """Read a recipe's text.

    Raises:
        RecipeError: the file is missing, no regular file, unreadable, over 1 MB, or not UTF-8.
    """
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise _unreadable(path, "is a folder, not a recipe file", _recipes_in(path))
        if not stat.S_ISREG(mode):
            raise _unreadable(path, "is not a regular file", "give the path of a .yaml file")
        with path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise _unreadable(path, "does not exist", _near(path)) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a possible path"
        raise _unreadable(
            path, f"cannot be read: {reason}", "check the path and its permissions"
        ) from error
    if len(content) > MAX_BYTES:
        raise _unreadable(
            path, f"is larger than {MAX_BYTES // 1_000_000} MB", "is this the right file?"
        )
    return _decode(path, content)


def file_problems(data: Any, folder: Path) -> Iterator[tuple[Loc, str, str]]:
    """Yield (location, message, hint) for each file that the recipe names and that is not there.

    Args:
        data: the recipe as plain data, possibly malformed.
        folder: the recipe's own folder.
    """
    for loc in dict.fromkeys((*_NAMED_FILES, *_NAMED_FOLDERS)):
        value = data
        for key in loc:
            value = value.get(key) if isinstance(value, Mapping) else None
        if isinstance(value, str) and value.strip() and "\0" not in value:
            yield from _check_file(loc, value, folder)


def _check_file(loc: Loc, value: str, folder: Path) -> Iterator[tuple[Loc, str, str]]:
    path = folder / value
    shown = f"{dotted(loc)}: '{value if len(value) <= 200 else f'{value[:199]}…'}'"
    try:
        mode = path.stat().st_mode
    except OSError as error:
        reason = "does not exist"
        if not isinstance(error, FileNotFoundError):
            reason = f"cannot be read: {error.strerror}"
        yield loc, f"{shown} {reason}", _near(path, value)
        return
    if stat.S_ISDIR(mode):
        if loc not in _NAMED_FOLDERS:
            yield loc, f"{shown} is a folder", "give the path of the file itself"
        elif not os.access(path, os.R_OK | os.X_OK):
            yield loc, f"{shown} may not be read", "check the folder's permissions"
    elif loc not in _NAMED_FILES:
        yield loc, f"{shown} is no folder", "give the folder that the files are in"
    elif not stat.S_ISREG(mode):
        yield loc, f"{shown} is not a regular file", "give the path of a file"
    elif not os.access(path, os.R_OK):
        yield loc, f"{shown} may not be read", "check the file's permissions"


def _near(path: Path, written: str | None = None) -> str:
    """Suggest a file of the same folder, else say which files there are."""
    shown = Path(written if written is not None else path).parent
    names = _names_in(path.parent)
    if names is None:
        return f"there is no folder '{shown}'; paths are relative to the recipe"
    same_kind = [name for name in names if Path(name).suffix == path.suffix]
    close = closest(path.name, same_kind) or closest(path.name, names)
    if close is None and len(same_kind) == 1 and written is not None:
        close = same_kind[0]
    if close is not None:
        return f"did you mean '{shown / close}'?"
    if written is None:
        return "give the path of a .yaml file"
    return "paths are relative to the recipe's folder" + (
        f", which has: {', '.join(same_kind[:5])}" if same_kind else ""
    )


def _names_in(folder: Path) -> list[str] | None:
    try:
        return sorted(entry.name for entry in os.scandir(folder) if entry.is_file())
    except OSError:
        return None


def _recipes_in(folder: Path) -> str:
    names = [name for name in _names_in(folder) or () if name.endswith((".yaml", ".yml"))]
    if not names:
        return "give the path of a .yaml file"
    return f"did you mean one of: {', '.join(str(folder / name) for name in names[:5])}?"


def _unreadable(path: Path, message: str, hint: str) -> RecipeError:
    return RecipeError(codes.UNREADABLE, f"recipe '{path}' {message}", hint, Place(str(path)))


def _decode(path: Path, content: bytes) -> Source:
    name = str(path)
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise RecipeError(
            codes.NOT_TEXT, "the recipe is UTF-16 text", "save it as UTF-8", Place(name)
        )
    if b"\0" in content:
        raise RecipeError(
            codes.NOT_TEXT,
            "this is a binary file, not a recipe",
            "give the recipe (.yaml), which names the model under model.onnx",
            Place(name),
        )
    try:
        return Source(name, content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        before = Source(name, content[: error.start].decode("utf-8-sig", "replace")).lines
        shown = Source(name, content.decode("utf-8-sig", "replace"))
        problem = Problem(
            codes.NOT_TEXT,
            f"byte 0x{content[error.start]:02x} is not UTF-8",
            "save the recipe as UTF-8",
            shown.place(len(before), len(before[-1]) + 1),
        )
        raise RecipeError.of([problem]) from error
