"""`trtforge profiles`: profiles for recorded shapes, and how well a recipe's profiles fit them."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trtforge.engine.backend import ProfileShapes, ShapeTriple, ValueTriple, profiles_as_json
from trtforge.engine.profile_advice import Assessment, assess, suggest
from trtforge.engine.profiles import profile_shapes
from trtforge.errors import RecipeError, UsageError
from trtforge.pipeline.shape_trace import Requests, read_trace


@dataclass(frozen=True)
class ProfilesResult:
    """Profiles, and how requests use them.

    Attributes:
        profiles: only inputs that have a dynamic dimension, or whose values decide shapes.
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
        from trtforge.recipe.writing import yaml_text

        profiles = [{name: _range(triple) for name, triple in one.items()} for one in self.profiles]
        return yaml_text({"shapes": profiles if len(profiles) > 1 else profiles[0]}).splitlines()


def _range(triple: ShapeTriple) -> dict[str, Any]:
    ends = dict(zip(("min", "opt", "max"), map(list, triple), strict=True))
    return {**ends, "values": True} if isinstance(triple, ValueTriple) else ends


def suggest_profiles(model: Path, trace: Path, count: int | None = None) -> ProfilesResult:
    """Propose optimization profiles for shapes that were recorded.

    Args:
        model: the ONNX file whose inputs they are.
        trace: recorded shapes, see `read_trace`.
        count: how many profiles at most; None for as many as are worth it.

    Raises:
        DataError: the trace cannot be read, or does not fit the model.
        UsageError: the model has no dynamic input, and none whose values decide shapes.
        GraphError: the model is refused.
    """
    from trtforge.graph.deciding import deciding_inputs
    from trtforge.graph.model import Model

    loaded = Model.load(model)
    deciding = deciding_inputs(loaded)
    needed = [one.name for one in loaded.contract.inputs if one.is_dynamic or one.name in deciding]
    if not needed:
        raise UsageError(
            "TF0130", f"'{model}' has no dynamic input", "a model of fixed shapes needs no profile"
        )
    requests = _of_inputs(read_trace(trace, loaded.contract, deciding), needed)
    profiles = suggest(requests, count, deciding)
    return ProfilesResult(profiles, assess(profiles, requests))


def check_profiles(recipe: Path, trace: Path) -> ProfilesResult:
    """Say how well a recipe's profiles fit shapes that were recorded.

    Raises:
        RecipeError: the recipe is wrong, or a profile does not fit the model.
        UsageError: it has no profiles.
        DataError: the trace cannot be read, or does not fit the model.
    """
    from trtforge.graph.inputs import check_profiles as problems_of
    from trtforge.graph.model import Model
    from trtforge.pipeline.input_names import with_input_names
    from trtforge.recipe.load import load_recipe

    loaded = with_input_names(load_recipe(recipe))
    profiles = profile_shapes(loaded.recipe.shapes)
    if not profiles:
        raise UsageError(
            "TF0130",
            f"'{recipe}' has no shapes to check",
            "`trtforge profiles suggest MODEL` proposes some; a model of fixed shapes needs none",
        )
    contract = Model.load(loaded.resolve(loaded.recipe.model.onnx)).contract
    problems = problems_of(contract, loaded.recipe.shapes)
    if problems:
        raise RecipeError.of(
            [loaded.problem(loc, "TF0231", message, hint) for loc, message, hint in problems]
        )
    named = list(dict.fromkeys(name for profile in profiles for name in profile))
    deciding = {
        name
        for profile in profiles
        for name, triple in profile.items()
        if isinstance(triple, ValueTriple)
    }
    requests = _of_inputs(read_trace(trace, contract, deciding), named)
    return ProfilesResult(profiles, assess(profiles, requests))


def _of_inputs(requests: Requests, names: list[str]) -> Requests:
    kept: Requests = Counter()
    for request, times in requests.items():
        kept[tuple((name, numbers) for name, numbers in request if name in names)] += times
    return kept
