"""TensorRT's text calibration cache, as one format among others."""

from trtforge.precision.cache import CalibrationCache
from trtforge.precision.foreign.content import Content
from trtforge.precision.foreign.scales import from_magnitudes, magnitudes_of
from trtforge.precision.trt_text import (
    format_trt_text,
    header_line,
    parse_trt_text,
    scan_trt_text,
    table_of,
)

WHAT = "TensorRT calibration cache"


def mismatch(content: Content) -> str:
    """Say why the content is not of this format."""
    if content.raw.removeprefix(b"\xef\xbb\xbf").startswith(b"TRT-"):
        return "" if content.text is not None else "it is not UTF-8"
    return "it does not begin with TRT-"


def read(content: Content) -> CalibrationCache:
    """Read the table.

    Raises:
        DataError: it is malformed (TF0522).
    """
    table = parse_trt_text(content.text or "", str(content.path))
    return from_magnitudes(magnitudes_of(table.scales), table.algorithm, table.header)


def read_sound_lines(content: Content) -> CalibrationCache:
    """Read what can be read, for a linter: wrong lines are left out, the last of a name counts."""
    header = header_line(content.text or "")
    sound = {
        line.name: line.scale
        for line in scan_trt_text(content.text or "")
        if line.scale is not None and 0 <= line.scale < float("inf")
    }
    return from_magnitudes(magnitudes_of(sound), header.rpartition("-")[2], header)


def dump(cache: CalibrationCache, header: str | None) -> str:
    """Return the INT8 scales as text.

    Raises:
        DataError: a name or the header cannot stand in this format (TF0522).
    """
    return format_trt_text(table_of(cache, header))
