"""What the worker process says to its parent: a JSON object a line; errors are data too."""

import json
from collections.abc import Mapping
from typing import Any

from trtforge import errors
from trtforge.errors import BuildError, ForgeError, Place

_KINDS: dict[str, type[ForgeError]] = {
    kind.__name__: kind
    for kind in (errors.BuildError, errors.MissingError, errors.GraphError, errors.UsageError)
}


def encode(message: Mapping[str, Any]) -> bytes:
    """One message as a line."""
    return json.dumps(message, ensure_ascii=True, separators=(",", ":")).encode() + b"\n"


def decode(line: bytes) -> dict[str, Any] | None:
    """Read one line; None for anything that is no message (a stray print of native code)."""
    try:
        message = json.loads(line)
    except ValueError:
        return None
    return message if isinstance(message, dict) and "event" in message else None


def progress(fraction: float, phase: str) -> dict[str, Any]:
    """The share of the work done and what is being done."""
    return {"event": "progress", "fraction": fraction, "phase": phase}


def result(value: Any) -> dict[str, Any]:
    """The answer to a job or to one request of it."""
    return {"event": "result", "value": value}


def failure(error: ForgeError) -> dict[str, Any]:
    """An error, so that `raised` can raise it again on the other side."""
    where = error.where
    return {
        "event": "error",
        "kind": type(error).__name__,
        "code": error.code,
        "message": error.message,
        "hint": error.hint,
        "file": None if where is None else where.file,
        "node": None if where is None else where.node,
        "details": error.details,
    }


def raised(message: Mapping[str, Any]) -> ForgeError:
    """The error that `failure` wrote."""
    where = None
    if message["file"] is not None or message["node"] is not None:
        where = Place(file=message["file"], node=message["node"])
    kind = _KINDS.get(message["kind"], BuildError)
    return kind(
        message["code"], message["message"], message["hint"], where, details=message["details"]
    )
