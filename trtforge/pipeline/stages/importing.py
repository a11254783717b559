"""Stage `import`: the original model is sound, and the recipe fits it."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtforge.errors import Problem, RecipeError
from trtforge.pipeline.stage import Inputs, Job, Progress, package_versions, write_json

if TYPE_CHECKING:
    from trtforge.graph.model import IoContract


@dataclass(frozen=True)
class ImportStage:
    """Loads and checks the model, checks the recipe's names against it, writes the contract."""

    name: str = "import"
    kind: str = "import"
    rooms: tuple[str, ...] = ("graph",)

    @property
    def consumes(self) -> Mapping[str, tuple[str, ...]]:
        """Nothing upstream."""
        return {}

    def facts(self, job: Job) -> dict[str, Any]:
        """The model's bytes, and those names in the recipe that must exist in it."""
        recipe = job.recipe
        return {
            "sources": {"model": job.model_digest()},
            "recipe": {
                "shapes": job.shapes_json(),
                "passes": recipe.passes.model_dump(mode="json"),
                "outputs": sorted(recipe.verify.outputs),
            },
            "versions": package_versions("onnx"),
        }

    def run(self, job: Job, inputs: Inputs, out: Path, progress: Progress) -> str:
        """Load the model and write `contract.json`.

        Raises:
            GraphError: the model is refused.
            RecipeError: the recipe names what the model does not have.
        """
        from trtforge.graph.model import Model

        progress(None, "loading and checking the model")
        model = Model.load(job.model_path)
        problems = [*_profile_problems(job, model.contract), *_name_problems(job, model.contract)]
        if problems:
            raise RecipeError.of(problems)
        write_json(out / "contract.json", model.contract.as_json())
        return f"{len(model.proto.graph.node)} nodes, opset {model.opset}"


def _profile_problems(job: Job, contract: "IoContract") -> Iterable[Problem]:
    from trtforge.graph.inputs import check_profiles

    for path, message, hint in check_profiles(contract, job.recipe.shapes):
        yield job.loaded.problem(path, "TF0231", message, hint)


def _name_problems(job: Job, contract: "IoContract") -> Iterable[Problem]:
    from trtforge.graph.passes import PASSES

    outputs = [output.name for output in contract.outputs]
    for name in job.recipe.verify.outputs:
        if name not in outputs:
            message = f"the model has no output '{name}'"
            yield job.loaded.problem(
                ("verify", "outputs", name), "TF0232", message, _one_of(name, outputs)
            )
    chosen = job.recipe.passes
    named = [(("passes", "drop", index), name) for index, name in enumerate(chosen.drop)]
    named += [(("passes", "also", index), name) for index, name in enumerate(chosen.also)]
    if not isinstance(chosen.use, str):
        named += [(("passes", "use", index), name) for index, name in enumerate(chosen.use)]
    for path, name in named:
        if name not in PASSES:
            message = f"there is no pass '{name}'"
            yield job.loaded.problem(path, "TF0233", message, _one_of(name, list(PASSES)))


def _one_of(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean '{close[0]}'?" if close else f"it must be one of: {', '.join(known)}"
