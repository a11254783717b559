"""ONNX Runtime's calibration results as JSON.

Two forms: what `save_tensors_data` writes (a TensorsData with its method), and the
`calibration.json` of `write_calibration_table` (the tensors alone). A tensor's `lowest` and
`highest` are what its method chose; `hist_edges` or `bins`, where they are, show what was observed.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

from trtforge.precision.cache import CalibrationCache
from trtforge.precision.foreign.content import Content, malformed
from trtforge.precision.ranges import TensorRange

WHAT = "calibration table of ONNX Runtime (JSON)"

_METHODS = {"minmax": "MinMax", "entropy": "Entropy", "percentile": "Percentile"}
"""Our name -> CalibrationMethod's."""


def mismatch(content: Content) -> str:
    """Say why the content is not of this format."""
    if content.json_reason:
        return content.json_reason
    tensors = _tensors(content.data)
    if not isinstance(tensors, Mapping) or not tensors:
        return "it holds no tensors"
    if all(isinstance(t, Mapping) and t.get("CLS") == "TensorData" for t in tensors.values()):
        return ""
    return "its values are not all of CLS TensorData"


def read(content: Content) -> CalibrationCache:
    """Read the ranges.

    Raises:
        DataError: a number is missing or none (TF0551).
    """
    tensors = _tensors(content.data)
    return CalibrationCache(
        method=_method(content.data),
        samples=0,
        graph_digest="",
        ranges={name: _range(content, name, facts) for name, facts in tensors.items()},
        origin="ONNX Runtime's calibration table (JSON)",
    )


def dump(cache: CalibrationCache, header: str | None) -> str:
    """Return the ranges as `save_tensors_data` writes them, clipped to what the method chose."""
    del header
    method = _METHODS.get(cache.method, "MinMax")
    data = {
        name: {
            "lowest": _array(max(found.min, -found.amax)),
            "highest": _array(min(found.max, found.amax)),
            "CLS": "TensorData",
        }
        for name, found in sorted(cache.ranges.items())
    }
    document = {
        "CLS": "TensorsData",
        "data": data,
        "calibration_method": {"CLS": "CalibrationMethod", "value": f"CalibrationMethod.{method}"},
        "smooth_quant": False,
    }
    return json.dumps(document, indent=1) + "\n"


def _tensors(data: Mapping[str, Any]) -> Any:
    return data.get("data") if data.get("CLS") == "TensorsData" else data


def _method(data: Mapping[str, Any]) -> str:
    found = data.get("calibration_method")
    value = found.get("value") if isinstance(found, Mapping) else found
    name = str(value).rpartition(".")[2]
    ours = {theirs: own for own, theirs in _METHODS.items()}
    return "unknown" if value is None else ours.get(name, name)


def _range(content: Content, name: str, facts: Mapping[str, Any]) -> TensorRange:
    lowest = _number(content, name, facts, "lowest")
    highest = _number(content, name, facts, "highest")
    if lowest > highest:
        reason = f"lowest {lowest} of '{name}' is above highest {highest}"
        raise malformed(content.path, WHAT, reason)
    edges = _edges(facts)
    low, high = min([lowest, *edges]), max([highest, *edges])
    return TensorRange(min=low, max=high, amax=max(-lowest, highest, 0.0))


def _edges(facts: Mapping[str, Any]) -> list[float]:
    """The ends of the histogram, where there is one."""
    for key in ("hist_edges", "bins"):
        values = _value(facts.get(key))
        if isinstance(values, list) and len(values) > 1:
            ends = [values[0], values[-1]]
            if all(isinstance(end, int | float) and math.isfinite(end) for end in ends):
                return [float(end) for end in ends]
    return []


def _number(content: Content, name: str, facts: Mapping[str, Any], key: str) -> float:
    value = _value(facts.get(key))
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, list):
        raise malformed(content.path, WHAT, f"'{name}' has one {key} per channel")
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        reason = f"'{name}' has no {key}" if value is None else f"{key} of '{name}' is {value!r}"
        raise malformed(content.path, WHAT, reason)
    return float(value)


def _value(found: Any) -> Any:
    return found.get("data") if isinstance(found, Mapping) else found


def _array(value: float) -> dict[str, Any]:
    return {"data": value, "dtype": "float32", "CLS": "numpy.array"}
