"""Calibration caches of trtforge and of other tools: told apart by content, read, written.

One module per format, one line in the table. A module has `WHAT` (for messages),
`mismatch(content) -> str` (why the content is not of the format, empty when it is) and
`read(content) -> CalibrationCache`; one that can be written has
`dump(cache, header: str | None) -> str | bytes`.
"""

from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import cast

from trtforge.errors import DataError, Place
from trtforge.precision.cache import CalibrationCache
from trtforge.precision.foreign.content import Content, read_content

FORMATS: dict[str, str] = {
    "trtforge": "trtforge.precision.foreign.own",
    "tensorrt": "trtforge.precision.foreign.tensorrt",
    "onnxruntime-json": "trtforge.precision.foreign.onnxruntime_json",
    "modelopt": "trtforge.precision.foreign.modelopt",
    "qdq": "trtforge.precision.foreign.qdq",
    "onnxruntime-flatbuffers": "trtforge.precision.foreign.onnxruntime_flatbuffers",
    "onnxruntime-text": "trtforge.precision.foreign.onnxruntime_text",
}
"""Format -> its module; the first one that fits is taken, the loosest stands last."""


def detect(content: Content) -> str:
    """The format of a file, found from its content.

    Raises:
        DataError: TF0550, it is of none; the message tells why of each.
    """
    reasons = []
    for name in FORMATS:
        reason = _module(name).mismatch(content)
        if not reason:
            return name
        reasons.append(f"{name}: {reason}")
    raise DataError(
        "TF0550",
        f"'{content.path}' is no calibration cache of a known format",
        "give the file as the tool wrote it",
        Place(str(content.path)),
        details="\n".join(reasons),
    )


def read_any(path: Path) -> tuple[str, CalibrationCache]:
    """Read a calibration cache, whoever wrote it.

    Returns:
        The format, a key of FORMATS, and the ranges. A converted cache has `origin` set, no graph
        digest, and 0 samples where their number is not known.

    Raises:
        DataError: it cannot be read, is of no known format (TF0550), or is malformed.
        GraphError: it is an ONNX file that is refused.
    """
    content = read_content(path)
    name = detect(content)
    return name, read_detected(name, content)


def read_detected(name: str, content: Content) -> CalibrationCache:
    """Read a content whose format is known; see `read_any`."""
    return cast(CalibrationCache, _module(name).read(content))


def dump(cache: CalibrationCache, name: str, header: str | None = None) -> bytes:
    """A cache as the bytes of another format.

    Args:
        cache: the ranges.
        name: a key of FORMATS; all can be written but qdq.
        header: of a TensorRT table; None for that of `trt_text.table_of`.

    Raises:
        DataError: a tensor's name or a range cannot stand in the format.
    """
    found = _module(name).dump(cache, header)
    return found if isinstance(found, bytes) else cast(str, found).encode("utf-8")


def what_is(name: str) -> str:
    """A format in words."""
    return str(_module(name).WHAT)


def _module(name: str) -> ModuleType:
    return import_module(FORMATS[name])
