"""How the values of two tensors differ, read piece by piece through mapped views."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import TensorProto

from trtforge.graph.external import ExternalFiles
from trtforge.graph.weights import CHUNK_BYTES, numpy_dtype, tensor_array

_PIECE_ELEMENTS = 128 << 10
"""Two pieces of float32 and what is computed from them fit a core's second-level cache."""

_FLOAT_KINDS = "fcV"
"""numpy's kinds of float, complex and of ml_dtypes' floats."""


@dataclass(frozen=True)
class ValueDifference:
    """How the values of two tensors of one shape differ.

    Attributes:
        elements: how many there are.
        differing: how many have other bytes; None when their types differ.
        max_abs: the largest difference, exact for integers; NaN when one side alone is NaN, None
            for strings and for types whose numbers do not mean the same (float and int8).
    """

    elements: int
    differing: int | None
    max_abs: float | None

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON data; figures that are not finite are strings."""
        return {
            "elements": self.elements,
            "differing": self.differing,
            "max_abs": json_number(self.max_abs),
        }

    def __str__(self) -> str:
        parts = []
        if self.differing is not None:
            parts.append(f"{self.differing} of {self.elements} values differ")
        if self.max_abs is not None:
            parts.append(f"max abs {self.max_abs:.4g}")
        return ", ".join(parts)


def compare_values(
    before: TensorProto, after: TensorProto, files: tuple[ExternalFiles, ExternalFiles]
) -> ValueDifference | None:
    """Compare two tensors of one shape element by element.

    Returns:
        None when they hold the same bytes.

    Raises:
        GraphError: TF0402, TF0404, bytes of a tensor cannot be had.
    """
    if TensorProto.STRING in (before.data_type, after.data_type):
        return _compare_strings(before, after)
    first = tensor_array(before, files[0]).reshape(-1)
    second = tensor_array(after, files[1]).reshape(-1)
    same_type = first.dtype == second.dtype
    comparable = same_type or _are_floats(first, second)
    differing, worst, looked_at = 0, 0.0, 0
    for start in range(0, first.size, _PIECE_ELEMENTS):
        old = first[start : start + _PIECE_ELEMENTS]
        new = second[start : start + _PIECE_ELEMENTS]
        if not (same_type and np.array_equal(old.view(np.uint8), new.view(np.uint8))):
            if same_type:
                differing += _count_differing(old, new)
            if comparable:
                worst = _larger(worst, _distance(old, new))
        looked_at += old.nbytes
        if looked_at >= CHUNK_BYTES:
            looked_at = 0
            for mapped in files:
                mapped.release()
    if same_type and not differing:
        return None
    return ValueDifference(
        first.size, differing if same_type else None, worst if comparable else None
    )


def dtype_name(tensor: TensorProto) -> str:
    """Return numpy's name of a tensor's element type, or "string"."""
    if tensor.data_type == TensorProto.STRING:
        return "string"
    return str(numpy_dtype(tensor.data_type).name)


def json_number(value: float | None) -> float | str | None:
    """Return a number as JSON can hold it: "inf", "-inf" and "nan" are strings."""
    return value if value is None or math.isfinite(value) else str(float(value))


def _compare_strings(before: TensorProto, after: TensorProto) -> ValueDifference | None:
    elements = math.prod(after.dims)
    if before.data_type != after.data_type:
        return ValueDifference(elements, None, None)
    pairs = zip(before.string_data, after.string_data, strict=True)
    differing = sum(old != new for old, new in pairs)
    return ValueDifference(elements, differing, None) if differing else None


def _are_floats(first: np.ndarray, second: np.ndarray) -> bool:
    return all(_is_float(array.dtype) for array in (first, second))


def _is_float(dtype: "np.dtype[Any]") -> bool:
    return dtype.kind in _FLOAT_KINDS and "int" not in dtype.name


def _count_differing(old: np.ndarray, new: np.ndarray) -> int:
    """How many elements have other bytes: 0.0 and -0.0 are not the same weight."""
    words = f"u{min(old.itemsize, 8)}"
    other = (old.view(words) != new.view(words)).reshape(old.size, -1)
    return int(np.count_nonzero(other.any(axis=1)))


def _distance(old: np.ndarray, new: np.ndarray) -> float:
    """The largest difference of two pieces; exact for integers of every width."""
    if old.dtype.kind in "iu" and old.dtype == new.dtype:
        # Modulo 2^64 the difference of the larger and the smaller is what it is in exact numbers.
        larger = np.maximum(old, new).astype(np.uint64)
        return int((larger - np.minimum(old, new).astype(np.uint64)).max())
    wide = np.complex128 if "c" in (old.dtype.kind, new.dtype.kind) else np.float64
    first, second = old.astype(wide), new.astype(wide)
    with np.errstate(invalid="ignore", over="ignore"):
        gaps = np.abs(first - second)
    gaps[(first == second) | (np.isnan(first) & np.isnan(second))] = 0  # Inf and Inf are equal
    return float(gaps.max())


def _larger(worst: float, other: float) -> float:
    """The larger one; NaN wins, and an integer stays one."""
    return other if math.isnan(other) or other > worst else worst
