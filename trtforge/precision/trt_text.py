"""TensorRT's text calibration cache: a header line, then `tensor name: hex scale` lines.

The hex is the big-endian text of a float32 scale = amax / 127. No API of TensorRT 11 reads it any
more; it stays the format in which scales of older projects are handed on.
"""

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trtforge.disk import write_text
from trtforge.errors import DataError, Place
from trtforge.precision.cache import CalibrationCache
from trtforge.precision.scales import LARGEST
from trtforge.precision.textfile import read_text

_ALGORITHM = {"entropy": "EntropyCalibration2", "minmax": "MinMaxCalibration"}
_HEADER = re.compile(r"TRT-(\w+)-(\w+)")
_HEX = re.compile(r"[0-9a-fA-F]{1,8}")


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
    chosen = header or f"TRT-100300-{_ALGORITHM.get(cache.method, 'EntropyCalibration2')}"
    scales = {name: found.amax / LARGEST["int8"] for name, found in cache.ranges.items()}
    write_text(path, format_trt_text(TrtTable(chosen, scales)))


def format_trt_text(table: TrtTable) -> str:
    """The table as text, names in their order; scales are rounded to float32.

    Raises:
        DataError: the header is not `TRT-<version>-<algorithm>`, or a name holds a line break.
    """
    if not _HEADER.fullmatch(table.header):
        raise _malformed(None, 1, f"header {table.header!r} is not TRT-<version>-<algorithm>")
    lines = [table.header]
    for name, scale in table.scales.items():
        if not name or name.splitlines() != [name]:
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
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    header = lines[0].strip() if lines else ""
    if not _HEADER.fullmatch(header):
        raise _malformed(
            file, 1, f"the first line is {header[:80]!r}, not TRT-<version>-<algorithm>"
        )
    scales: dict[str, float] = {}
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        name, separator, digits = line.rpartition(": ")
        digits = digits.strip()
        if not separator or not name or not _HEX.fullmatch(digits):
            raise _malformed(file, number, f"{line[:80]!r} is not '<tensor>: <hex of a float32>'")
        if name in scales:
            raise _malformed(file, number, f"tensor '{name}' stands twice")
        scales[name] = _scale_from_hex(digits, file, number)
    return TrtTable(header, scales)


def _hex_from_scale(name: str, scale: float) -> str:
    try:
        return struct.pack("!f", scale).hex()
    except OverflowError as error:
        raise _malformed(None, None, f"scale {scale} of '{name}' exceeds float32") from error


def _scale_from_hex(digits: str, file: str | None, line: int) -> float:
    value = float(struct.unpack("!f", bytes.fromhex(digits.zfill(8)))[0])
    if not 0 <= value < float("inf"):
        raise _malformed(file, line, f"scale 0x{digits} is {value}; it must be finite and >= 0")
    return value


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
