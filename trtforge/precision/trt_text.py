"""TensorRT's text calibration cache: a header line, then `tensor name: hex scale` lines.

The hex is the big-endian text of a float32 scale = amax / 127. No API of TensorRT 11 reads it any
more; it stays the format in which scales of older projects are handed on.
"""

import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from trtforge.disk import write_text
from trtforge.errors import DataError, Place, UsageError
from trtforge.precision.cache import CalibrationCache
from trtforge.precision.scales import LARGEST
from trtforge.precision.textfile import read_text

DEFAULT_VERSION = "10.3.0"
"""The TensorRT whose header is written unless another is asked for."""

ALGORITHMS = (
    "LegacyCalibration",
    "EntropyCalibration",
    "EntropyCalibration2",
    "MinMaxCalibration",
)
"""What stands in headers: the values of CalibrationAlgoType in TensorRT 5 to 10."""

_ALGORITHM = {"entropy": "EntropyCalibration2", "minmax": "MinMaxCalibration"}
_HEADER = re.compile(r"TRT-(\w+)-(\w+)", re.ASCII)
_HEX = re.compile(r"[0-9a-fA-F]{1,8}")
_VERSION = re.compile(r"(\d{1,2})\.(\d{1,2})(?:\.(\d{1,2}))?(?:\.\d+)?", re.ASCII)


@dataclass(frozen=True)
class TrtTable:
    """The contents of a TensorRT calibration cache.

    Attributes:
        header: the first line, as it stands.
        scales: tensor name -> scale = amax / 127; 0 for a tensor that was always zero.
    """

    header: str
    scales: Mapping[str, float]

    @property
    def version(self) -> str:
        """The version digits of the header, any width: `8205` is 8.2.5, `100300` is 10.3.0."""
        return _header_parts(self.header)[0]

    @property
    def algorithm(self) -> str:
        """The algorithm of the header, such as EntropyCalibration2."""
        return _header_parts(self.header)[1]

    @property
    def dead_tensors(self) -> tuple[str, ...]:
        """Tensors whose scale is zero: calibration saw nothing but zeros there."""
        return tuple(name for name, scale in self.scales.items() if scale == 0)


@dataclass(frozen=True)
class TrtLine:
    """One line `name: hex`, before anything is judged.

    Attributes:
        number: 1-based.
        text: the line, without its end.
        name: what stands before the last `": "`; empty in a malformed line.
        digits: what stands behind it.
        scale: the float32, which may be negative, infinite or NaN; None in a malformed line.
    """

    number: int
    text: str
    name: str
    digits: str
    scale: float | None


def header_of(algorithm: str, version: str = DEFAULT_VERSION) -> str:
    """The header that a TensorRT writes.

    The digits are NV_TENSORRT_VERSION: major * 1000 + minor * 100 + patch up to TensorRT 9, and
    major * 10000 + minor * 100 + patch from 10 on (NvInferRuntimeBase.h).

    Args:
        algorithm: one of ALGORITHMS.
        version: such as 8.6.1, 10.3 or 10.3.0.26.

    Raises:
        UsageError: TF0554, this is not a version.
    """
    match = _VERSION.fullmatch(version)
    if match is None:
        raise UsageError(
            "TF0554", f"'{version}' is not a version of TensorRT", "write it as 8.6.1 or 10.3.0"
        )
    major, minor, patch = (int(part or 0) for part in match.groups())
    digits = major * (1000 if major < 10 else 10000) + minor * 100 + patch
    return f"TRT-{digits}-{algorithm}"


def algorithm_of(method: str) -> str:
    """What TensorRT calls a method; EntropyCalibration2, its default, where it has none like it."""
    return method if method in ALGORITHMS else _ALGORITHM.get(method, "EntropyCalibration2")


def table_of(cache: CalibrationCache, header: str | None = None) -> TrtTable:
    """The INT8 scales of a cache; the header is `header_of` TensorRT 10.3.0 unless given."""
    scales = {name: found.amax / LARGEST["int8"] for name, found in cache.ranges.items()}
    return TrtTable(header or header_of(algorithm_of(cache.method)), scales)


def write_trt_text(cache: CalibrationCache, path: Path, *, header: str | None = None) -> None:
    """Write the INT8 scales of a cache in TensorRT's format.

    Args:
        cache: the ranges.
        path: file to write, whole or not at all.
        header: first line; default is TensorRT 10.3.0's with the algorithm of the cache's method.

    Raises:
        DataError: the header, or a tensor's name, cannot stand in this format.
        MissingError: the folder cannot be written.
    """
    write_text(path, format_trt_text(table_of(cache, header)))


def format_trt_text(table: TrtTable) -> str:
    """The table as text, names in their order; scales are rounded to float32.

    Raises:
        DataError: the header is not `TRT-<version>-<algorithm>`, or a name holds a line break.
    """
    if not _HEADER.fullmatch(table.header):
        raise _malformed(None, 1, f"header {table.header!r} is not TRT-<version>-<algorithm>")
    lines = [table.header]
    for name, scale in table.scales.items():
        if not fits_on_a_line(name):
            raise _malformed(None, None, f"the tensor name {name!r} does not fit on one line")
        lines.append(f"{name}: {_hex_from_scale(name, scale)}")
    return "\n".join(lines) + "\n"


def read_trt_text(path: Path) -> TrtTable:
    """Read a TensorRT calibration cache.

    Names may hold spaces, brackets, slashes, colons and even `": "`: a line is split at its last
    `": "`. Hex that a writer did not pad (`0` for a dead tensor) is accepted.

    Raises:
        DataError: the file is missing or malformed (TF0522), with the line.
    """
    return parse_trt_text(read_text(path, "TF0522", "TensorRT calibration cache"), str(path))


def parse_trt_text(text: str, file: str | None = None) -> TrtTable:
    """Parse the text of a TensorRT calibration cache; see `read_trt_text`.

    Raises:
        DataError: malformed (TF0522).
    """
    header = header_line(text)
    if not _HEADER.fullmatch(header):
        raise _malformed(
            file, 1, f"the first line is {header[:80]!r}, not TRT-<version>-<algorithm>"
        )
    scales: dict[str, float] = {}
    for line in scan_trt_text(text):
        if line.scale is None:
            reason = f"{line.text[:80]!r} is not '<tensor>: <hex of a float32>'"
            raise _malformed(file, line.number, reason)
        if line.name in scales:
            raise _malformed(file, line.number, f"tensor '{line.name}' stands twice")
        if not 0 <= line.scale < float("inf"):
            reason = f"scale 0x{line.digits} is {line.scale}; it must be finite and >= 0"
            raise _malformed(file, line.number, reason)
        scales[line.name] = line.scale
    return TrtTable(header, scales)


def header_line(text: str) -> str:
    """The first line of a table, whatever it is."""
    return text.partition("\n")[0].strip()


def scan_trt_text(text: str) -> Iterator[TrtLine]:
    """Yield the lines behind the header, malformed ones included, blank ones not."""
    for number, line in enumerate(text.split("\n"), start=1):
        if number == 1 or not line.strip():
            continue
        line = line.removesuffix("\r")
        name, _, digits = line.rpartition(": ")
        digits = digits.strip()
        if not name or not _HEX.fullmatch(digits):
            yield TrtLine(number, line, "", digits, None)
            continue
        (scale,) = struct.unpack("!f", bytes.fromhex(digits.zfill(8)))
        yield TrtLine(number, line, name, digits, float(scale))


def fits_on_a_line(name: str) -> bool:
    """Whether a name can stand in a text format: not empty, no line break, valid Unicode."""
    return bool(name) and not re.search("[\n\r\ud800-\udfff]", name)


def _hex_from_scale(name: str, scale: float) -> str:
    try:
        return struct.pack("!f", scale).hex()
    except OverflowError as error:
        raise _malformed(None, None, f"scale {scale} of '{name}' exceeds float32") from error


def _header_parts(header: str) -> tuple[str, str]:
    match = _HEADER.fullmatch(header)
    if match is None:
        raise _malformed(None, 1, f"header {header!r} is not TRT-<version>-<algorithm>")
    return match.group(1), match.group(2)


def _malformed(file: str | None, line: int | None, reason: str) -> DataError:
    return DataError(
        "TF0522",
        f"not a TensorRT calibration cache: {reason}",
        "give the file that IInt8Calibrator's write_calibration_cache was handed, unchanged",
        Place(file, line) if file is not None else None,
    )
