"""Recorded shapes, and values that decide shapes: JSON lines, or a folder of .npz files."""

import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtforge.engine.backend import Dims
from trtforge.engine.profile_advice import Shapes
from trtforge.errors import DataError, Place

if TYPE_CHECKING:
    from trtforge.graph.contract import IoContract, TensorSpec

Requests = Counter[Shapes]
"""How often each combination was seen, inputs in the model's order."""

_KEYS = ("shapes", "values", "count")
_MOST_TIMES = 2**40
_LIMITS = {"shape": (0, 2**31 - 1), "values": (-(2**31), 2**31 - 1)}
"""What TensorRT's profiles hold: 32 bits; no size is below 0."""

_Line = tuple[Place, Mapping[str, Any], Mapping[str, Any], int]
"""Where it stands, shapes by input, values by input, and how often it was seen."""


def read_trace(path: Path, contract: "IoContract", deciding: Collection[str] = ()) -> Requests:
    """Read what was recorded.

    Args:
        path: JSON lines, `{"input": [1, 128], "mask": [1, 128]}` each, or `{"shapes": {...},
            "values": {"k": [5]}, "count": 12}`; or a folder of .npz files, one request each.
        contract: the inputs that they must fit.
        deciding: inputs that decide shapes; of these the values are read and not the shape.

    Raises:
        DataError: TF0570, it cannot be read; TF0571, a line is malformed or does not fit; TF0501,
            TF0502, TF0509, a .npz file is damaged.
    """
    requests: Requests = Counter()
    known: dict[Shapes, Shapes] = {}  # lines repeat: each combination is kept and checked once
    lines = _folder(path, deciding) if path.is_dir() else _lines(path)
    for place, shapes, values, times in lines:
        found = _fitting(shapes, values, contract, deciding, place)
        if found not in known:
            _check_names(found, contract, deciding, place)
            known[found] = found
        requests[known[found]] += times
    if not requests:
        raise DataError("TF0570", f"'{path}' holds no shapes", "record some", Place(str(path)))
    return requests


def _lines(path: Path) -> Iterator[_Line]:
    number, line = 0, ""
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    place = Place(str(path), line=number, text=line.rstrip("\n")[:200])
                    yield place, *_read(line, place)
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise DataError(
            "TF0570", f"cannot read '{path}': {why}", "name a file of JSON lines or a folder"
        ) from error


def _read(line: str, place: Place) -> tuple[Mapping[str, Any], Mapping[str, Any], int]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise malformed(f"it is no JSON: {error}", place) from error
    if not isinstance(found, dict):
        raise malformed("it is no mapping", place)
    if not any(isinstance(found.get(key), dict) for key in ("shapes", "values")):
        return found, {}, 1
    unknown = [key for key in found if key not in _KEYS]
    if unknown:
        raise malformed(f"'{unknown[0]}' is none of {', '.join(_KEYS)}", place)
    shapes, values, times = found.get("shapes", {}), found.get("values", {}), found.get("count", 1)
    if not isinstance(shapes, dict) or not isinstance(values, dict):
        raise malformed("'shapes' and 'values' are mappings of inputs", place)
    if type(times) is not int or not 1 <= times <= _MOST_TIMES:
        raise malformed(f"'count' is {str(times)[:40]}, not a number of requests", place)
    return shapes, values, times


def _folder(path: Path, deciding: Collection[str]) -> Iterator[_Line]:
    from trtforge.graph.npy import ArrayFile

    for one in sorted(path.glob("*.npz")):
        file = ArrayFile(one)
        shapes, values = {}, {}
        for header in file.headers:
            if header.name == "labels":
                continue
            shapes[header.name] = list(header.shape)
            if header.name in deciding:
                values[header.name] = file.whole(header).reshape(-1).tolist()
                del shapes[header.name]
        yield Place(str(one)), shapes, values, 1


def _fitting(
    shapes: Mapping[str, Any],
    values: Mapping[str, Any],
    contract: "IoContract",
    deciding: Collection[str],
    place: Place,
) -> Shapes:
    """Return one request, each input's shape or values, in the model's order."""
    known = {spec.name for spec in contract.inputs}
    for name in (*shapes, *values):
        if name not in known:
            listed = ", ".join(spec.name for spec in contract.inputs)
            raise malformed(f"the model has no input '{name}'; it has {listed}", place)
    for name in values:
        if name not in deciding:
            raise malformed(f"the values of input '{name}' decide no shapes", place)
    return tuple(
        (spec.name, _values(values.get(spec.name), spec, place))
        if spec.name in deciding
        else (spec.name, _shape(shapes.get(spec.name), spec, place))
        for spec in contract.inputs
    )


def _values(given: Any, spec: "TensorSpec", place: Place) -> Dims:
    if given is None:
        raise malformed(
            f"the values of input '{spec.name}', which decide shapes, are missing", place
        )
    numbers = _numbers(given if isinstance(given, list) else [given], "values", spec, place)
    wanted = spec.dims[0] if spec.dims else 1
    if len(numbers) != wanted:
        raise malformed(f"input '{spec.name}' has {wanted} values, not {len(numbers)}", place)
    return numbers


def _shape(given: Any, spec: "TensorSpec", place: Place) -> Dims:
    if given is None and not spec.is_dynamic:
        return tuple(dim for dim in spec.dims if isinstance(dim, int))
    dims = _numbers(given, "shape", spec, place)
    fits = len(dims) == len(spec.dims) and all(
        not isinstance(want, int) or want == dim for want, dim in zip(spec.dims, dims, strict=True)
    )
    if not fits:
        raise malformed(
            f"input '{spec.name}' is {spec.dims_text} in the model, not {[*dims]}", place
        )
    return dims


def _numbers(given: Any, what: str, spec: "TensorSpec", place: Place) -> Dims:
    low, high = _LIMITS[what]
    if not isinstance(given, list) or not all(
        type(number) is int and low <= number <= high for number in given
    ):
        form = "below 2^31" if what == "shape" else "of 32 bits"
        raise malformed(f"input '{spec.name}' has no list of whole numbers {form}", place)
    return tuple(given)


def _check_names(
    found: Shapes, contract: "IoContract", deciding: Collection[str], place: Place
) -> None:
    """Dimensions of one name are one size (ONNX IR, "Static tensor shapes")."""
    sizes: dict[str, tuple[str, int]] = {}
    for (name, dims), spec in zip(found, contract.inputs, strict=True):
        if name in deciding:
            continue
        for dim, size in zip(spec.dims, dims, strict=True):
            if isinstance(dim, str) and sizes.setdefault(dim, (name, size))[1] != size:
                other, before = sizes[dim]
                raise malformed(
                    f"dimension '{dim}' is {before} in input '{other}' and {size} in '{name}'",
                    place,
                )


def malformed(what: str, place: Place) -> DataError:
    """The error of a line."""
    hint = 'a line is like {"input": [1, 3, 224, 224]}, or {"shapes": {...}, "values": {"k": [5]}}'
    return DataError("TF0571", what, hint, place)
