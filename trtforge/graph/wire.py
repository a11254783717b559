"""ONNX files as bytes: read without the weights, written without holding them.

protobuf keeps a parsed file's bytes at least once more in memory, and its Python side copies them
at every access. Weights are most of a file, so they are found by walking the wire format and
left where they are.
Source: https://protobuf.dev/programming-guides/encoding/
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

_MODEL_GRAPH = 7
_GRAPH_INITIALIZER = 5
_TENSOR_RAW_DATA = 9
"""Field numbers. Source: onnx.proto, ModelProto, GraphProto and TensorProto."""

_MAX_VARINT_BYTES = 10


class WireError(ValueError):
    """The bytes are not protobuf's wire format."""


class Raw(NamedTuple):
    """Where the raw data of one initializer lie: which one (by index), offset and length."""

    initializer: int
    offset: int
    length: int


class _Field(NamedTuple):
    number: int
    kind: int
    start: int
    payload: int
    end: int


def skim(content: memoryview, min_bytes: int) -> tuple[bytes, list[Raw]]:
    """Take the big raw data of the outermost graph's initializers out of a serialized model.

    Args:
        content: a serialized ModelProto.
        min_bytes: shorter raw data stay.

    Returns:
        The serialized model without them, and where they lie in `content`.

    Raises:
        WireError: the bytes are malformed.
    """
    kept: list[bytes] = []
    taken: list[Raw] = []
    index = 0
    for field in _fields(content, 0, len(content)):
        if field.number != _MODEL_GRAPH or field.kind != _BYTES:
            kept.append(bytes(content[field.start : field.end]))
            continue
        parts: list[bytes] = []
        for inner in _fields(content, field.payload, field.end):
            if inner.number != _GRAPH_INITIALIZER or inner.kind != _BYTES:
                parts.append(bytes(content[inner.start : inner.end]))
                continue
            header, raw = _without_raw(content, inner, min_bytes)
            if raw is not None:
                taken.append(Raw(index, raw.payload, raw.end - raw.payload))
            parts.append(_delimited(_GRAPH_INITIALIZER, len(header)) + header)
            index += 1
        graph = b"".join(parts)
        kept.append(_delimited(_MODEL_GRAPH, len(graph)) + graph)
    return b"".join(kept), taken


def _without_raw(
    content: memoryview, tensor: _Field, min_bytes: int
) -> tuple[bytes, _Field | None]:
    fields = list(_fields(content, tensor.payload, tensor.end))
    raws = [field for field in fields if field.number == _TENSOR_RAW_DATA and field.kind == _BYTES]
    # Written twice, the last one counts: protobuf itself may sort that out.
    if len(raws) != 1 or raws[0].end - raws[0].payload < min_bytes:
        return bytes(content[tensor.payload : tensor.end]), None
    raw = raws[0]
    before, after = content[tensor.payload : raw.start], content[raw.end : tensor.end]
    return bytes(before) + bytes(after), raw


def fill(skeleton: bytes, lengths: Mapping[int, int]) -> Iterator[bytes | int]:
    """Write a model whose initializers get their raw data from elsewhere.

    Args:
        skeleton: a serialized ModelProto, in which those initializers have no raw data.
        lengths: index of the initializer -> length of its raw data, bytes.

    Yields:
        Bytes to be written as they are, and indices in place of the raw data of that initializer.
        The whole is what protobuf would have written, byte for byte.
    """
    view = memoryview(skeleton)
    index = 0
    for field in _fields(view, 0, len(view)):
        if field.number != _MODEL_GRAPH:
            yield skeleton[field.start : field.end]
            continue
        parts: list[bytes | int] = []
        for inner in _fields(view, field.payload, field.end):
            if inner.number != _GRAPH_INITIALIZER:
                parts.append(skeleton[inner.start : inner.end])
                continue
            parts.extend(_filled(view, inner, index, lengths.get(index)))
            index += 1
        size = sum(lengths[part] if isinstance(part, int) else len(part) for part in parts)
        yield _delimited(_MODEL_GRAPH, size)
        yield from parts


def _filled(
    view: memoryview, tensor: _Field, index: int, length: int | None
) -> Iterator[bytes | int]:
    if length is None:
        yield bytes(view[tensor.start : tensor.end])
        return
    position = tensor.payload
    for field in _fields(view, tensor.payload, tensor.end):
        if field.number < _TENSOR_RAW_DATA:
            position = field.end
    raw = _delimited(_TENSOR_RAW_DATA, length)
    size = tensor.end - tensor.payload + len(raw) + length
    yield _delimited(_GRAPH_INITIALIZER, size) + bytes(view[tensor.payload : position]) + raw
    yield index
    yield bytes(view[position : tensor.end])


def _delimited(number: int, length: int) -> bytes:
    """The tag and the length of a length-delimited field; numbers up to 15 take one byte."""
    out = bytearray([number << 3 | _BYTES])
    while length > 0x7F:
        out.append(length & 0x7F | 0x80)
        length >>= 7
    out.append(length)
    return bytes(out)


def _fields(content: memoryview, position: int, end: int) -> Iterator[_Field]:
    while position < end:
        start = position
        tag, position = _varint(content, position, end)
        number, kind = tag >> 3, tag & 7
        payload = position
        if kind == _VARINT:
            _, position = _varint(content, position, end)
        elif kind == _BYTES:
            length, payload = _varint(content, position, end)
            position = payload + length
        elif kind in (_FIXED32, _FIXED64):
            position += 4 if kind == _FIXED32 else 8
        else:
            raise WireError(f"wire type {kind} at byte {start}")
        if position > end or number == 0:
            raise WireError(f"a field at byte {start} is malformed")
        yield _Field(number, kind, start, payload, position)


def _varint(content: memoryview, position: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 7 * _MAX_VARINT_BYTES, 7):
        if position >= end:
            raise WireError(f"the bytes end within a number at {position}")
        byte = content[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise WireError(f"a number at byte {position} is too long")
