"""`trtforge profiles`: profiles for recorded shapes, and how well a recipe's profiles fit them."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtforge.engine.backend import ProfileShapes, ValueTriple, profiles_as_json
from trtforge.engine.profile_advice import Assessment, Shapes, assess, suggest
from trtforge.engine.profiles import profile_shapes
from trtforge.errors import DataError, Place, UsageError

if TYPE_CHECKING:
    from trtforge.graph.contract import IoContract

Requests = Counter[Shapes]


@dataclass(frozen=True)
class ProfilesResult:
    """Profiles, and how requests use them.

    Attributes:
        profiles: only inputs that have a dynamic dimension.
        assessment: how they fit.
    """

    profiles: ProfileShapes
    assessment: Assessment

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {
            "profiles": profiles_as_json(self.profiles),
            "assessment": self.assessment.as_json(),
        }

    def recipe_lines(self) -> list[str]:
        """Return the `shapes` of a recipe."""
        lines = ["shapes:"]
        for profile in self.profiles:
            mark = "  - " if len(self.profiles) > 1 else "  "
            for name, (low, mid, high) in profile.items():
                triple = f"{{min: {list(low)}, opt: {list(mid)}, max: {list(high)}}}"
                lines.append(f"{mark}{json.dumps(name) if ':' in name else name}: {triple}")
                mark = "    " if len(self.profiles) > 1 else "  "
        return lines


def suggest_profiles(model: Path, trace: Path, count: int | None = None) -> ProfilesResult:
    """Propose optimization profiles for shapes that were recorded.

    Args:
        model: the ONNX file whose inputs they are.
        trace: recorded shapes, see `read_trace`.
        count: how many profiles at most; None for as many as are worth it.

    Raises:
        DataError: the trace cannot be read, or does not fit the model.
        UsageError: the model has no dynamic input.
        GraphError: the model is refused.
    """
    from trtforge.graph.model import Model

    contract = Model.load(model).contract
    dynamic = [spec.name for spec in contract.inputs if spec.is_dynamic]
    if not dynamic:
        raise UsageError(
            "TF0130", f"'{model}' has no dynamic input", "a model of fixed shapes needs no profile"
        )
    requests = _of_inputs(read_trace(trace, contract), dynamic)
    profiles = suggest(requests, count)
    return ProfilesResult(profiles, assess(profiles, requests))


def check_profiles(recipe: Path, trace: Path) -> ProfilesResult:
    """Say how well a recipe's profiles fit shapes that were recorded.

    Raises:
        RecipeError: the recipe is wrong.
        UsageError: it has no profiles.
        DataError: the trace cannot be read, or does not fit the model.
    """
    from trtforge.graph.model import Model
    from trtforge.pipeline.input_names import with_input_names
    from trtforge.recipe.load import load_recipe

    loaded = with_input_names(load_recipe(recipe))
    profiles = tuple(
        {name: one for name, one in profile.items() if not isinstance(one, ValueTriple)}
        for profile in profile_shapes(loaded.recipe.shapes)
    )
    if not any(profiles):
        raise UsageError("TF0130", f"'{recipe}' has no shapes", "`trtforge profiles suggest` does")
    contract = Model.load(loaded.resolve(loaded.recipe.model.onnx)).contract
    named = list(dict.fromkeys(name for profile in profiles for name in profile))
    requests = _of_inputs(read_trace(trace, contract), named)
    return ProfilesResult(profiles, assess(profiles, requests))


def read_trace(path: Path, contract: "IoContract") -> Requests:
    """Read shapes that were recorded.

    Args:
        path: JSON lines, `{"input": [1, 128], "mask": [1, 128]}` each, optionally
            `{"shapes": {...}, "count": 12}`; or a folder of .npz files, one request each.
        contract: the inputs that they must fit.

    Returns:
        How often each combination was seen, inputs in the model's order.

    Raises:
        DataError: TF0570, it cannot be read; TF0571, a line is malformed or does not fit.
    """
    requests: Requests = Counter()
    for place, shapes, times in _folder(path) if path.is_dir() else _lines(path):
        requests[_fitting(shapes, contract, place)] += times
    if not requests:
        raise DataError("TF0570", f"'{path}' holds no shapes", "record some", Place(str(path)))
    return requests


def _lines(path: Path) -> Iterator[tuple[Place, Mapping[str, Any], int]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            "TF0570", f"cannot read '{path}': {error}", "name a file of JSON lines or a folder"
        ) from error
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        place = Place(str(path), line=number, text=line[:200])
        try:
            found = json.loads(line)
        except ValueError as error:
            raise _malformed(str(error), place) from error
        if not isinstance(found, dict):
            raise _malformed("it is no mapping", place)
        nested = isinstance(found.get("shapes"), dict)
        times = found.get("count", 1) if nested else 1
        if type(times) is not int or times < 1:
            raise _malformed(f"'count' is {times!r}, not a number of requests", place)
        yield place, found["shapes"] if nested else found, times


def _folder(path: Path) -> Iterator[tuple[Place, Mapping[str, Any], int]]:
    import numpy as np

    for file in sorted(path.glob("*.npz")):
        try:
            with np.load(file, allow_pickle=False) as arrays:
                shapes = {name: list(arrays[name].shape) for name in arrays.files}
        except (OSError, ValueError) as error:
            raise DataError(
                "TF0570", f"cannot read '{file}': {error}", "remove or repair it", Place(str(file))
            ) from error
        yield Place(str(file)), shapes, 1


def _fitting(shapes: Mapping[str, Any], contract: "IoContract", place: Place) -> Shapes:
    found = []
    for spec in contract.inputs:
        dims = shapes.get(spec.name)
        if dims is None and not spec.is_dynamic:
            found.append((spec.name, tuple(int(dim) for dim in spec.dims if dim is not None)))
            continue
        if not isinstance(dims, list) or not all(
            type(dim) is int and 0 <= dim < 2**31 for dim in dims
        ):
            raise _malformed(f"input '{spec.name}' has no list of whole numbers below 2^31", place)
        declared = list(spec.dims)
        fits = not spec.rank_known or (
            len(dims) == len(declared)
            and all(
                not isinstance(want, int) or want == dim
                for want, dim in zip(declared, dims, strict=True)
            )
        )
        if not fits:
            raise _malformed(f"input '{spec.name}' is {declared} in the model, not {dims}", place)
        found.append((spec.name, tuple(dims)))
    unknown = sorted(set(shapes) - {spec.name for spec in contract.inputs} - {"labels"})
    if unknown:
        known = ", ".join(spec.name for spec in contract.inputs)
        raise _malformed(f"the model has no input '{unknown[0]}'; it has {known}", place)
    return tuple(found)


def _malformed(what: str, place: Place) -> DataError:
    return DataError("TF0571", what, 'a line is like {"input": [1, 3, 224, 224]}', place)


def _of_inputs(requests: Requests, names: list[str]) -> Requests:
    kept: Requests = Counter()
    for shapes, times in requests.items():
        kept[tuple((name, dims) for name, dims in shapes if name in names)] += times
    return kept
