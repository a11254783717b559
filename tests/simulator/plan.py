"""A simulated plan: NVIDIA's published header, then what was built as JSON, then the ONNX.

The header is that of sampleEngines.cpp (`printPlanVersion`): tag, serialization version 0, and
TensorRT's version in the bytes 24 to 27. What follows it is ours and like nothing of NVIDIA's.
"""

import json
import struct
import zlib
from dataclasses import dataclass
from typing import Any

_TAG = b"ftrt"
_HEADER = struct.Struct("<4sI16x4BI")
_LENGTHS = struct.Struct("<QQ")


class UnreadableError(ValueError):
    """No plan, or not one for this version."""


@dataclass
class Plan:
    """What was built: a description of the build, and the network."""

    facts: dict[str, Any]
    onnx: bytes


def write(version: str, plan: Plan) -> bytes:
    """Return the bytes of a plan built by this version."""
    text = json.dumps(plan.facts, sort_keys=True).encode()
    body = _LENGTHS.pack(len(text), len(plan.onnx)) + text + plan.onnx
    return _HEADER.pack(_TAG, 0, *map(int, version.split(".")), zlib.crc32(body)) + body


def version_of(data: bytes) -> str:
    """The version in the header.

    Raises:
        UnreadableError: it is no header.
    """
    if len(data) < _HEADER.size:
        raise UnreadableError("the plan is too short")
    tag, serialization, *version, _ = _HEADER.unpack_from(data)
    if tag != _TAG:
        raise UnreadableError("magicTag is not that of a plan")
    if serialization != 0:
        raise UnreadableError(f"serialization version {serialization}")
    return ".".join(map(str, version))


def read(data: bytes) -> Plan:
    """Read what `write` wrote.

    Raises:
        UnreadableError: it is not whole.
    """
    body = memoryview(data)[_HEADER.size :]
    if len(body) < _LENGTHS.size or zlib.crc32(body) != _HEADER.unpack_from(data)[-1]:
        raise UnreadableError("the plan is damaged")
    size, _ = _LENGTHS.unpack_from(body)
    start = _LENGTHS.size + size
    return Plan(json.loads(bytes(body[_LENGTHS.size : start])), bytes(body[start:]))
