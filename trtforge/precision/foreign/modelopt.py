"""NVIDIA Model Optimizer's scales.

modelopt.onnx reads TensorRT's text (`--calibration_cache_path`) and knows the scales under
`<tensor>_scale`, the names of its QuantizeLinear nodes' scales; it writes no cache of its own. Read
here: such scales, or magnitudes under `<tensor>_amax`, as a JSON object. Written: TensorRT's text,
held to what Model Optimizer's reader takes.
"""

import math
from collections.abc import Mapping
from typing import Any

from trtforge.errors import DataError, Place
from trtforge.precision.cache import CalibrationCache
from trtforge.precision.foreign import tensorrt
from trtforge.precision.foreign.content import Content, malformed
from trtforge.precision.foreign.scales import from_magnitudes
from trtforge.precision.scales import LARGEST

WHAT = "Model Optimizer's table of scales"

_FACTORS = {"_scale": LARGEST["int8"], "._amax": 1.0, "_amax": 1.0}
"""What a key ends with -> what makes its number a magnitude."""


def mismatch(content: Content) -> str:
    """Say why the content is not of this format."""
    if content.json_reason:
        return content.json_reason
    wrong = [key for key in content.data if _ending(key) is None]
    if not content.data or wrong:
        return f"its keys do not all end in _scale or _amax{f', {wrong[0]!r}' if wrong else ''}"
    return ""


def read(content: Content) -> CalibrationCache:
    """Read the scales.

    Raises:
        DataError: a number is none, or a tensor stands twice (TF0551).
    """
    found: dict[str, float] = {}
    for key, value in content.data.items():
        ending = _ending(key)
        assert ending is not None, "mismatch has seen to it"
        name = key.removesuffix(ending)
        if name in found:
            raise malformed(content.path, WHAT, f"tensor '{name}' stands twice")
        found[name] = _number(content, key, value) * _FACTORS[ending]
    return from_magnitudes(found, "unknown", "Model Optimizer's scales (JSON)")


def dump(cache: CalibrationCache, header: str | None) -> str:
    """Return TensorRT's text.

    Raises:
        DataError: TF0553, Model Optimizer splits lines at every ": ", so no name may hold one.
    """
    for name in cache.ranges:
        if ": " in name:
            raise DataError(
                "TF0553",
                f"Model Optimizer cannot read the name {name!r}: it holds a colon and a space",
                "rename the tensor, or write --to tensorrt",
                Place(node=name),
            )
    return tensorrt.dump(cache, header)


def _ending(key: str) -> str | None:
    return next((end for end in _FACTORS if key.endswith(end) and key != end), None)


def _number(content: Content, key: str, value: Any) -> float:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, bool) or not isinstance(value, int | float):
        kind = "a mapping" if isinstance(value, Mapping) else repr(value)[:60]
        raise malformed(content.path, WHAT, f"'{key}' is {kind}, not one number per tensor")
    if not (math.isfinite(value) and value >= 0):
        raise malformed(content.path, WHAT, f"'{key}' is {value}; it must be finite and >= 0")
    return float(value)
