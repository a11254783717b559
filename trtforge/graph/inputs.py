"""Inputs made up from a model's contract, and the shapes that profiles ask for."""

import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import ml_dtypes
import numpy as np
from onnx import GraphProto, NodeProto

from trtforge.errors import GraphError, Place
from trtforge.graph.contract import IoContract, TensorSpec
from trtforge.graph.deciding import DECIDING_TYPES, can_decide
from trtforge.graph.model import Model
from trtforge.graph.names import did_you_mean

if TYPE_CHECKING:
    from trtforge.recipe.schema import ShapeRange

Feeds = dict[str, np.ndarray]
Shapes = dict[str, tuple[int, ...]]
Which = Literal["min", "opt", "max"]
ShapeProblem = tuple[tuple[str | int, ...], str, str | None]


class Values(tuple[int, ...]):
    """Stands among shapes for an input whose values decide shapes: these, and not its shape."""


_BOUNDS: tuple[Which, ...] = ("min", "opt", "max")

_PASSING_ON = frozenset(
    {"Cast", "Identity", "Reshape", "Unsqueeze", "Squeeze", "Flatten", "Transpose", "Expand"}
)
"""Operators whose output holds the values of their first input and nothing else."""


def random_feeds(model: Model, shapes: Shapes, seed: int) -> Feeds:
    """Make inputs that the model can digest, the same for the same seed on every machine.

    Floats are drawn from N(0, 1), booleans are fair coins, uint8 (pixels) is uniform over
    0..255. Other integers are uniform over [0, N) where they index a constant table of N rows
    with Gather, otherwise 0 or 1, as in masks.

    Args:
        model: gives the inputs and says which of them index tables.
        shapes: the shape of each input, or its Values; static inputs may be left out.
        seed: together with the input's name it determines the values.

    Raises:
        GraphError: TF0412, a dynamic input has no shape; TF0413, strings.
    """
    rows = index_limits(model)
    feeds = {}
    for spec in model.contract.inputs:
        shape = shapes[spec.name] if spec.name in shapes else _static_shape(spec)
        if isinstance(shape, Values):
            feeds[spec.name] = _as_array(spec, shape)
            continue
        generator = np.random.default_rng([seed, zlib.crc32(spec.name.encode())])
        feeds[spec.name] = _draw(generator, spec, shape, rows.get(spec.name))
    return feeds


def fixed_values(contract: IoContract, shapes: Shapes) -> Feeds:
    """Return the inputs whose Values are given, as arrays."""
    return {
        spec.name: _as_array(spec, shapes[spec.name])
        for spec in contract.inputs
        if isinstance(shapes.get(spec.name), Values)
    }


def _as_array(spec: TensorSpec, values: tuple[int, ...]) -> np.ndarray:
    return np.array(values, _dtype(spec)).reshape(_static_shape(spec))


def _draw(
    generator: "np.random.Generator", spec: TensorSpec, shape: tuple[int, ...], rows: int | None
) -> np.ndarray:
    if spec.dtype == "bool":
        return generator.integers(0, 2, shape).astype(np.bool_)
    if spec.dtype.startswith(("int", "uint")):
        limit = rows if rows is not None else 256 if spec.dtype == "uint8" else 2
        return generator.integers(0, limit, shape).astype(_dtype(spec))
    return np.asarray(generator.standard_normal(shape), dtype=np.float64).astype(_dtype(spec))


def _dtype(spec: TensorSpec) -> "np.dtype[Any]":
    # numpy does not know bfloat16 and the float8 types by name; ml_dtypes does.
    found = getattr(ml_dtypes, spec.dtype, None) or getattr(np, spec.dtype, None)
    if found is None:
        raise GraphError(
            "TF0413",
            f"no random values for input '{spec.name}' of type {spec.dtype}",
            "export the model without what reads text: TensorRT takes numbers only",
            Place(node=spec.name),
        )
    dtype: np.dtype[Any] = np.dtype(found)
    return dtype


def index_limits(model: Model) -> dict[str, int]:
    """Find the integer inputs that index constant tables with Gather.

    Returns:
        For each such input the number of rows of the smallest table, at least 1.
    """
    graph = model.proto.graph
    table_dims = _constant_dims(graph)
    origin = {spec.name: spec.name for spec in model.contract.inputs}
    limits: dict[str, int] = {}
    for node in graph.node:
        if node.op_type in _PASSING_ON and node.input and node.input[0] in origin:
            origin[node.output[0]] = origin[node.input[0]]
        elif node.op_type == "Gather" and node.input[1] in origin and node.input[0] in table_dims:
            dims = table_dims[node.input[0]]
            axis = _axis(node)
            if -len(dims) <= axis < len(dims) and dims[axis] > 0:
                name = origin[node.input[1]]
                limits[name] = min(dims[axis], limits.get(name, dims[axis]))
    return limits


def _constant_dims(graph: GraphProto) -> dict[str, tuple[int, ...]]:
    """Dims of all constants, also those behind a DequantizeLinear or a Cast."""
    dims = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    dims[node.output[0]] = tuple(attribute.t.dims)
        elif node.op_type in ("Cast", "Identity", "DequantizeLinear") and node.input[0] in dims:
            dims[node.output[0]] = dims[node.input[0]]
    return dims


def _axis(node: NodeProto) -> int:
    for attribute in node.attribute:
        if attribute.name == "axis":
            return int(attribute.i)
    return 0


def resolve_shapes(
    contract: IoContract, profile: "Mapping[str, ShapeRange]", which: Which
) -> Shapes:
    """Return the shape of every input at one end of a profile, or its Values.

    Args:
        contract: the model's inputs.
        profile: shape ranges; inputs that are absent must be static.
        which: min, opt or max.

    Raises:
        GraphError: TF0412, a dynamic input is absent from the profile.
    """
    return {
        spec.name: _at(profile[spec.name], which) if spec.name in profile else _static_shape(spec)
        for spec in contract.inputs
    }


def _at(shape_range: "ShapeRange", which: Which) -> tuple[int, ...]:
    numbers: tuple[int, ...] = getattr(shape_range, which)
    return Values(numbers) if shape_range.values else numbers


def _static_shape(spec: TensorSpec) -> tuple[int, ...]:
    if spec.is_dynamic:
        raise GraphError(
            "TF0412",
            f"input '{spec.name}' has dynamic dimensions {spec.dims_text} and no shape is given",
            "give it min, opt and max under `shapes` in the recipe, or --shape without one",
            Place(node=spec.name),
        )
    return tuple(dim for dim in spec.dims if isinstance(dim, int))


def check_profiles(
    contract: IoContract, profiles: "Sequence[Mapping[str, ShapeRange]]"
) -> list[ShapeProblem]:
    """Find what is wrong between profiles and a model.

    Returns:
        (path in the recipe, message, hint) of each problem: unknown input names, wrong ranks,
        dimensions that the model fixes otherwise, values that do not fit their input, dimensions
        of one name that are not equal (ONNX IR, "Static tensor shapes": a name is one size),
        dynamic inputs without a range.
    """
    problems: list[ShapeProblem] = []
    if not profiles:
        return [_lacking((), spec) for spec in contract.inputs if spec.is_dynamic]
    known = {spec.name: spec for spec in contract.inputs}
    for index, profile in enumerate(profiles):
        for name, shape_range in profile.items():
            path = ("shapes", index, name)
            if name not in known:
                message = f"the model has no input '{name}'"
                problems.append((path, message, did_you_mean(name, known)))
            else:
                problems.extend(_range_problems(path, known[name], shape_range))
        problems.extend(_unequal_names(("shapes", index), known, profile))
        problems.extend(
            _lacking((index,), spec)
            for spec in contract.inputs
            if spec.is_dynamic and spec.name not in profile
        )
    return problems


def _lacking(index: tuple[int, ...], spec: TensorSpec) -> ShapeProblem:
    return (
        ("shapes", *index),
        f"input '{spec.name}' has dynamic dimensions {spec.dims_text} and needs a range",
        f"add {spec.name}: {{min: [...], opt: [...], max: [...]}}",
    )


def _range_problems(
    path: tuple[str | int, ...], spec: TensorSpec, shape_range: "ShapeRange"
) -> Iterable[ShapeProblem]:
    if shape_range.values:
        yield from _value_problems(path, spec, len(shape_range.min))
        return
    if not spec.rank_known:
        return
    if len(shape_range.min) != len(spec.dims):
        yield (
            path,
            f"'{spec.name}' has {len(spec.dims)} dimensions in the model, "
            f"{len(shape_range.min)} here",
            _declared(spec),
        )
        return
    for which in _BOUNDS:
        shape = getattr(shape_range, which)
        for axis, (dim, asked) in enumerate(zip(spec.dims, shape, strict=True)):
            if isinstance(dim, int) and dim != asked:
                yield (
                    (*path, which),
                    f"dimension {axis} of '{spec.name}' is {dim} in the model, {asked} here",
                    _declared(spec),
                )


def _declared(spec: TensorSpec) -> str:
    text = f"the model declares {spec.dims_text}"
    if can_decide(spec):
        text += "; if these are values that decide shapes, add `values: true`"
    return text


def _value_problems(
    path: tuple[str | int, ...], spec: TensorSpec, count: int
) -> Iterable[ShapeProblem]:
    """What keeps an input from deciding shapes by so many values."""
    if spec.dtype not in DECIDING_TYPES:
        yield (
            path,
            f"'{spec.name}' is {spec.dtype}; values that decide shapes are int32 or int64",
            "without `values: true`, min, opt and max are its shape",
        )
    elif not spec.rank_known or spec.is_dynamic or len(spec.dims) > 1:
        yield (
            path,
            f"'{spec.name}' is {spec.dims_text} in the model; values that decide shapes are one "
            "number or a list of fixed length",
            "give its length in the model, or remove `values: true`",
        )
    elif count != (wanted := math.prod(_static_shape(spec))):
        yield (
            path,
            f"'{spec.name}' has {wanted} value{'s' if wanted != 1 else ''} in the model, "
            f"{count} here",
            f"the model declares {spec.dims_text}",
        )


def _unequal_names(
    path: tuple[str | int, ...],
    known: Mapping[str, TensorSpec],
    profile: "Mapping[str, ShapeRange]",
) -> Iterable[ShapeProblem]:
    for which in _BOUNDS:
        first: dict[str, tuple[str, int, int]] = {}
        for name, shape_range in profile.items():
            shape = getattr(shape_range, which)
            if name not in known or shape_range.values or len(shape) != len(known[name].dims):
                continue
            for axis, (dim, size) in enumerate(zip(known[name].dims, shape, strict=True)):
                if not isinstance(dim, str):
                    continue
                other, there, same = first.setdefault(dim, (name, axis, size))
                if size != same:
                    yield (
                        (*path, name, which),
                        f"dimension {axis} of '{name}' is {size} and dimension {there} of "
                        f"'{other}' is {same}, but the model calls both '{dim}'",
                        "give both the same size; if they may differ, export the model with "
                        "different names for them",
                    )
