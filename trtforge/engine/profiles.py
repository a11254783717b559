"""Optimization profiles: from a recipe to the builder, and the laws that they obey."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from trtforge.engine.backend import Dims, ProfileShapes, ShapeTriple, ValueTriple

if TYPE_CHECKING:  # the worker has no recipe, and need not wait for the schema to be imported
    from trtforge.recipe.schema import Profile, ShapeRange

DYNAMIC = -1
"""How TensorRT writes a dimension that is not fixed."""


def profile_shapes(profiles: Sequence["Profile"]) -> ProfileShapes:
    """The profiles of a recipe as a BuildRequest takes them, inputs in the order written."""
    return tuple({name: _triple(shape) for name, shape in profile.items()} for profile in profiles)


def _triple(shape: "ShapeRange") -> ShapeTriple:
    triple = (shape.min, shape.opt, shape.max)
    return ValueTriple(triple) if shape.values else triple


def covering_profile(profiles: ProfileShapes, shapes: Mapping[str, Dims]) -> int | None:
    """The first profile in which all `shapes` lie; None when there is none.

    Inputs that a profile does not name are static and lie in every profile. Of an input that
    decides shapes by its values, `shapes` holds these.
    """
    for index, profile in enumerate(profiles):
        if all(name not in profile or covers(profile[name], dims) for name, dims in shapes.items()):
            return index
    return None


def covers(triple: ShapeTriple, dims: Dims) -> bool:
    """Whether `dims` lies between min and max in every dimension."""
    low, _, high = triple
    return len(dims) == len(low) and all(
        a <= dim <= b for a, dim, b in zip(low, dims, high, strict=True)
    )


def profile_problems(
    inputs: Mapping[str, Dims], profiles: ProfileShapes, deciding: Collection[str] = ()
) -> tuple[str, ...]:
    """What is wrong with `profiles` for a network with these inputs; empty when nothing is.

    TensorRT itself ignores a profile's unknown names and says of other mistakes only that the
    build failed, so this is looked at before the build.

    Args:
        inputs: each input's dimensions, -1 where dynamic.
        profiles: the profiles to be built in.
        deciding: the inputs that decide shapes by their values.
    """
    dynamic = [name for name, dims in inputs.items() if DYNAMIC in dims]
    if dynamic and not profiles:
        return (f"input '{dynamic[0]}' is dynamic, but there is no optimization profile",)
    if deciding and not profiles:
        first = next(iter(deciding))
        return (f"input '{first}' decides shapes by its values, but there is no profile of them",)
    return tuple(
        problem
        for index, profile in enumerate(profiles)
        for problem in (
            *_name_problems(index, profile, inputs, dynamic),
            *_value_problems(index, profile, inputs, deciding),
            *(
                text
                for name, triple in profile.items()
                if name in inputs and name not in deciding and not isinstance(triple, ValueTriple)
                for text in _shape_problems(
                    f"profile {index}, input '{name}'", inputs[name], triple
                )
            ),
        )
    )


def _name_problems(
    index: int, profile: Mapping[str, ShapeTriple], inputs: Mapping[str, Dims], dynamic: list[str]
) -> list[str]:
    known = ", ".join(f"'{name}'" for name in inputs)
    return [
        f"profile {index} names '{name}', but the inputs are {known}"
        for name in profile
        if name not in inputs
    ] + [
        f"profile {index} lacks the dynamic input '{name}'"
        for name in dynamic
        if name not in profile
    ]


def _value_problems(
    index: int,
    profile: Mapping[str, ShapeTriple],
    inputs: Mapping[str, Dims],
    deciding: Collection[str],
) -> Iterator[str]:
    for name in deciding:
        if not isinstance(profile.get(name), ValueTriple):
            given = "gives the shape" if name in profile else "lacks the values"
            yield f"profile {index} {given} of input '{name}', which decides shapes by its values"
    for name, triple in profile.items():
        if name not in inputs or not isinstance(triple, ValueTriple):
            continue
        label, wanted = f"profile {index}, input '{name}'", math.prod(inputs[name])
        if name not in deciding:
            yield f"{label}: its values are given, but they decide no shapes"
        elif any(len(values) != wanted for values in triple):
            yield f"{label}: the input has {wanted} value{'s' if wanted != 1 else ''}"
        elif not covers(triple, triple[1]):
            yield f"{label}: not min <= opt <= max: {', '.join(str(list(v)) for v in triple)}"


def _shape_problems(label: str, dims: Dims, triple: ShapeTriple) -> list[str]:
    if any(len(shape) != len(dims) for shape in triple):
        return [f"{label}: the input has {len(dims)} dimensions: {list(dims)}"]
    problems = []
    for axis, (dim, low, mid, high) in enumerate(zip(dims, *triple, strict=True)):
        if not low <= mid <= high:
            problems.append(
                f"{label}: not min <= opt <= max in dimension {axis}: {low}, {mid}, {high}"
            )
        elif dim != DYNAMIC and not low == high == dim:
            problems.append(
                f"{label}: dimension {axis} is {dim} in the model, {low}..{high} in the profile"
            )
    return problems
