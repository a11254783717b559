"""ONNX Runtime's `calibration.flatbuffers`, which its TensorRT execution provider reads.

A FlatBuffers table with one field, a vector of key-value tables of two strings each
(onnxruntime/core/providers/tensorrt: cal_table.fbs); the values are those of the text form.
https://flatbuffers.dev/internals: all offsets are little-endian; a table begins with the distance
back to its vtable, which holds the place of each field; a string has its length before it and a
zero behind it.
"""

import struct
from collections.abc import Iterator

from trtforge.precision.cache import CalibrationCache
from trtforge.precision.foreign.content import Content, malformed
from trtforge.precision.foreign.onnxruntime_text import one_sided

WHAT = "calibration table of ONNX Runtime (FlatBuffers)"

_KEY, _VALUE = 0, 1

# What stands before the entries: the root's offset, two vtables (of the root with one field, of an
# entry with two), padding, the root and the vector's length.
_ROOT_VTABLE, _ENTRY_VTABLE, _ROOT, _VECTOR, _ENTRY_BYTES = 4, 10, 20, 28, 12


def mismatch(content: Content) -> str:
    """Say why the content is not of this format."""
    if content.is_onnx:
        return "it is an ONNX file"
    try:
        first = next(_entries(content.raw), None)
    except (struct.error, ValueError):
        return "its offsets do not form a FlatBuffers table"
    return "" if first is not None else "it holds no tensors"


def read(content: Content) -> CalibrationCache:
    """Read the magnitudes.

    Raises:
        DataError: an offset leads astray, a number is none, or a tensor stands twice (TF0551).
    """
    try:
        pairs = list(_entries(content.raw))
    except (struct.error, ValueError) as error:
        raise malformed(content.path, WHAT, f"an offset leads astray ({error})") from error
    return one_sided(content, pairs, "ONNX Runtime's calibration table (FlatBuffers)")


def dump(cache: CalibrationCache, header: str | None) -> bytes:
    """Return the table; the values are the larger magnitudes."""
    del header
    pairs = [(name, repr(found.amax)) for name, found in sorted(cache.ranges.items())]
    entries = _VECTOR + 4 + 4 * len(pairs)
    strings = entries + _ENTRY_BYTES * len(pairs)
    out = bytearray(struct.pack("<I3H4H2x", _ROOT, 6, 8, 4, 8, _ENTRY_BYTES, 4, 8))
    out += struct.pack("<iII", _ROOT - _ROOT_VTABLE, _VECTOR - _ROOT - 4, len(pairs))
    for index in range(len(pairs)):
        place = _VECTOR + 4 + 4 * index
        out += struct.pack("<I", entries + _ENTRY_BYTES * index - place)
    tail = bytearray()
    for index, pair in enumerate(pairs):
        at = entries + _ENTRY_BYTES * index
        out += struct.pack("<i", at - _ENTRY_VTABLE)
        for field, text in enumerate(pair):
            out += struct.pack("<I", strings + len(tail) - (at + 4 + 4 * field))
            tail += _string(text)
    return bytes(out + tail)


def _string(text: str) -> bytes:
    raw = text.encode("utf-8")
    return struct.pack("<I", len(raw)) + raw + bytes(4 - len(raw) % 4)


def _entries(raw: bytes) -> Iterator[tuple[str, str]]:
    """Yield names and values.

    Raises:
        struct.error, ValueError: an offset leads out of the bytes, or a text is not UTF-8.
    """
    root = _offset(raw, 0)
    vector = _field(raw, root, 0)
    (count,) = struct.unpack_from("<I", raw, vector)
    if count > len(raw) // 4:
        raise ValueError(f"{count} entries do not fit into {len(raw)} bytes")
    for index in range(count):
        entry = _offset(raw, vector + 4 + 4 * index)
        yield _text(raw, _field(raw, entry, _KEY)), _text(raw, _field(raw, entry, _VALUE))


def _offset(raw: bytes, place: int) -> int:
    (distance,) = struct.unpack_from("<I", raw, place)
    if not distance or place + distance > len(raw) - 4:
        raise ValueError(f"offset {distance} at {place}")
    return int(place + distance)


def _field(raw: bytes, table: int, index: int) -> int:
    """Where the value of a table's field stands, which is an offset itself."""
    (back,) = struct.unpack_from("<i", raw, table)
    vtable = table - back
    if not 0 <= vtable <= len(raw) - 4:
        raise ValueError(f"vtable at {vtable}")
    (size,) = struct.unpack_from("<H", raw, vtable)
    if size < 6 + 2 * index:
        raise ValueError(f"field {index} is missing")
    (place,) = struct.unpack_from("<H", raw, vtable + 4 + 2 * index)
    if not place:
        raise ValueError(f"field {index} is missing")
    return _offset(raw, table + place)


def _text(raw: bytes, place: int) -> str:
    (size,) = struct.unpack_from("<I", raw, place)
    if size > len(raw) - place - 4:
        raise ValueError(f"a text of {size} bytes at {place}")
    return raw[place + 4 : place + 4 + size].decode("utf-8")
