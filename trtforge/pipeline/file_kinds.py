"""What a path is, by its name and its first bytes."""

import json
import re
import struct
from pathlib import Path
from typing import Literal

from trtforge.engine.flavour import FLAVOURS
from trtforge.errors import READABLE, MissingError, Place, UsageError

RunKind = Literal["bundle", "onnx", "engine"]
"""What can be run."""

PLAN_TAG = FLAVOURS["tensorrt"].plan_tag
_ENGINE_TAGS = tuple(flavour.plan_tag for flavour in FLAVOURS.values())

# Offsets of a TensorRT plan, from samples/common/sampleEngines.cpp (printPlanVersion) in TensorRT
# OSS 11.1. TensorRT-RTX's header is not published, so nothing is read out of it.
_SERIALIZATION_OFFSET = 4
_VERSION_OFFSET = 24
PLAN_HEADER_BYTES = 28
_HEAD_BYTES = 64
_TEXT_CACHE_START = b"TRT-"
_LAYERS_START = re.compile(rb'\s*(\[|\{\s*"(Layers|Bindings|I/O Tensors)")')
"""A parsed network, as builds describe it, is a list; an inspector's document has these keys."""

_OTHER_FILES = {".yaml", ".yml", ".npz", ".npy", ".py", ".md", ".html", ".xml", ".cache"}
"""Ends of names of what is here besides models and engines, which may have any name."""

_ENDS = "ONNX files end in .onnx, engines in .engine, .plan or .trt"


def kind_of(path: Path) -> str:
    """Return the `kind` of a file or folder that `trtforge inspect` tells; JSON by its schema.

    Raises:
        UsageError: there is nothing there, or it is none of these things.
        MissingError: it cannot be read.
    """
    if path.is_dir():
        _require_bundle(path)
        return "bundle"
    head = first_bytes(path)
    if path.suffix.lower() == ".onnx":
        return "onnx"
    if head.startswith(_TEXT_CACHE_START):
        return "calibration cache (TensorRT text)"
    if head.lstrip()[:1] in (b"{", b"["):
        if _LAYERS_START.match(head):
            return "engine layers"
        _refuse_own_document(path)
        return "calibration cache"
    if path.suffix.lower() in (".engine", ".plan", ".trt") or head.startswith(_ENGINE_TAGS):
        return "engine"
    message = f"'{path}' is none of: ONNX file, engine, bundle, calibration cache"
    raise UsageError("TF0719", message, _ENDS, Place(file=str(path)))


def run_kind_of(path: Path) -> RunKind:
    """Return what is to be run: a bundle's folder, an ONNX file, or else an engine.

    Raises:
        UsageError: there is nothing at the path, or it is a folder that is no bundle, or a file
            that is none of these by its name.
    """
    where = Place(file=str(path))
    if not path.exists():
        raise UsageError("TF0712", f"'{path}' does not exist", "check the path", where)
    if path.is_dir():
        _require_bundle(path)
        return "bundle"
    if path.suffix.lower() in _OTHER_FILES or not path.is_file():
        raise UsageError("TF0713", f"'{path}' is no ONNX file, engine or bundle", _ENDS, where)
    return "onnx" if path.suffix.lower() == ".onnx" else "engine"


def _require_bundle(folder: Path) -> None:
    if not (folder / "manifest.json").is_file():
        raise UsageError(
            "TF0713",
            f"'{folder}' is a folder, but not a bundle",
            "a bundle is a folder with a manifest.json, as `trtforge build` writes it",
            Place(file=str(folder)),
        )


def _refuse_own_document(path: Path) -> None:
    """Refuse JSON that trtforge wrote, but for calibration caches, of which many tools write some.

    Raises:
        UsageError: TF0713 a bundle's manifest, TF0719 a report.
    """
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):  # its reader will say what is wrong
        return
    schema = str(document.get("schema")) if isinstance(document, dict) else ""
    if not schema.startswith("trtforge.") or schema.startswith("trtforge.calibration/"):
        return
    where = Place(file=str(path))
    if schema.startswith("trtforge.bundle/"):
        hint = f"name the folder: {path.parent}"
        raise UsageError("TF0713", f"'{path}' is a bundle's manifest alone", hint, where)
    raise UsageError(
        "TF0719",
        f"'{path}' is none of: ONNX file, engine, bundle, calibration cache; it is {schema}",
        "read it as JSON, or the report.html that a build writes beside it",
        where,
    )


def first_bytes(path: Path) -> bytes:
    """Return what a file begins with, enough to tell what it is.

    Raises:
        UsageError: TF0712, there is none.
        MissingError: TF0303, it cannot be read.
    """
    where = Place(file=str(path))
    try:
        with path.open("rb") as stream:
            return stream.read(_HEAD_BYTES)
    except FileNotFoundError as error:
        raise UsageError("TF0712", f"'{path}' does not exist", "check the path", where) from error
    except OSError as error:
        message = f"'{path}' cannot be read: {error.strerror}"
        raise MissingError("TF0303", message, READABLE, where) from error


def plan_versions(head: bytes) -> tuple[int, str] | None:
    """Return the versions of a TensorRT plan: of its serialization, and of the library.

    Where the first is not 0, nothing tells what the second is.

    Args:
        head: what the file begins with.

    Returns:
        None for what is no plan of TensorRT, or too short for one.
    """
    if not head.startswith(PLAN_TAG) or len(head) < PLAN_HEADER_BYTES:
        return None
    (serialization,) = struct.unpack_from("<I", head, _SERIALIZATION_OFFSET)
    return serialization, ".".join(map(str, head[_VERSION_OFFSET:PLAN_HEADER_BYTES]))
