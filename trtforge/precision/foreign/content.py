"""A file of which it is not yet known which tool wrote it."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from trtforge.errors import DataError, Place

MOST_BYTES = 64 << 20
"""Larger tables are refused: at 60 bytes a tensor this is a million tensors."""

MOST_JSON_BYTES = 512 << 20
"""JSON may hold histograms: about 10 KB a tensor."""


@dataclass(frozen=True)
class Content:
    """A file, read once.

    Attributes:
        path: where it is.
        raw: its bytes; empty for an ONNX file, which its own reader opens.
    """

    path: Path
    raw: bytes

    @cached_property
    def is_onnx(self) -> bool:
        """Whether its name says that it is an ONNX file."""
        return self.path.suffix.lower() == ".onnx"

    @cached_property
    def text(self) -> str | None:
        """The file as text, line breaks as they are, no byte order mark; None: not UTF-8."""
        try:
            return self.raw.decode("utf-8-sig")
        except UnicodeDecodeError:
            return None

    @cached_property
    def json_reason(self) -> str:
        """Why the file is not a JSON object; empty when it is one."""
        return self._parsed[1]

    @cached_property
    def data(self) -> dict[str, Any]:
        """The JSON object; empty when the file is none."""
        return self._parsed[0]

    @cached_property
    def _parsed(self) -> tuple[dict[str, Any], str]:
        if self.text is None or not self.text.lstrip().startswith("{"):
            return {}, "it is not a JSON object"
        try:
            data = json.loads(self.text)
        except (ValueError, RecursionError) as error:
            return {}, f"it is not valid JSON: {error}"
        return data, ""


def read_content(path: Path) -> Content:
    """Read a file whole.

    Raises:
        DataError: TF0550, it is missing, a folder, unreadable, empty, or too large to be a cache.
    """
    if path.suffix.lower() == ".onnx" and path.is_file():
        return Content(path, b"")
    try:
        if path.is_dir():
            raise _unreadable(path, "is a folder", "give the file in it")
        with path.open("rb") as stream:
            head = stream.read(1)
            most = MOST_JSON_BYTES if head == b"{" else MOST_BYTES
            raw = head + stream.read(most)  # a pipe does not tell its size
            if len(raw) > most:
                reason = f"has more than {most >> 20} MiB; no table of scales is that large"
                raise _unreadable(path, reason, "check that it is the calibration cache")
    except FileNotFoundError as error:
        raise _unreadable(path, "does not exist", "check the path") from error
    except OSError as error:
        reason = f"cannot be read: {error.strerror}"
        raise _unreadable(path, reason, "check that this user may read it") from error
    if not raw.strip():
        raise _unreadable(path, "is empty", "it was cut off; make it again")
    return Content(path, raw)


def malformed(path: Path, what: str, reason: str, line: int | None = None) -> DataError:
    """Return the error of a file that is of a format, but not sound (TF0551)."""
    return DataError(
        "TF0551",
        f"'{path}' is not a sound {what}: {reason}",
        "it is damaged, or of another version; make it again with the tool that wrote it",
        Place(str(path), line),
    )


def _unreadable(path: Path, reason: str, hint: str) -> DataError:
    return DataError("TF0550", f"calibration cache '{path}' {reason}", hint, Place(str(path)))
