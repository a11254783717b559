"""Stage `budget`: the cheapest mix of types that still meets the recipe's bound."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtforge.pipeline.stage import (
    Inputs,
    Job,
    Progress,
    key_document,
    package_versions,
    write_json,
)
from trtforge.pipeline.store import digest_of

if TYPE_CHECKING:
    from trtforge.pipeline.budget_setting import Setting


@dataclass(frozen=True)
class BudgetStage:
    """Searches the mixes; writes `pareto.json`, `pareto.txt`, `settled.json` and `model.onnx`.

    `settled.json` is the recipe's `precision` with keep rules in place of the budget, and what the
    user should know of it; `model.onnx` is there where the mix has biases of its own.
    """

    calibrated: bool
    name: str = "budget"
    kind: str = "budget"
    rooms: tuple[str, ...] = ("graph", "precision", "verify")

    @property
    def consumes(self) -> Mapping[str, tuple[str, ...]]:
        """What the precision stage gets as well."""
        wanted: dict[str, tuple[str, ...]] = {"optimize": ("model.onnx*",)}
        if self.calibrated:
            wanted["calibrate"] = ("cache.json", "model.onnx*")
        return wanted

    def facts(self, job: Job) -> dict[str, Any]:
        """The precision section, and the bytes of the original, the samples and the metric."""
        from trtforge.pipeline.measures import metric_files

        recipe, sources = job.recipe, {"model": job.model_digest()}
        if recipe.verify.data is not None:
            path = job.loaded.resolve(recipe.verify.data)
            sources["verification data"] = job.file_digest(path)
        if job.calibration_data is not None:
            sources["calibration data"] = job.calibration_data.digest
        budget = recipe.precision.budget
        if budget is not None and budget.metric is not None:
            files = metric_files(budget.metric, job.loaded.base_dir)
            sources |= {f"metric, {file.name}": job.file_digest(file) for file in files}
        return {
            "sources": sources,
            "recipe": {
                "precision": recipe.precision.model_dump(mode="json"),
                "shapes": job.shapes_json() if job.has_values else [],
                "samples": [
                    recipe.calibration.samples if recipe.calibration is not None else None,
                    recipe.verify.samples,
                ],
            },
            "versions": package_versions("onnxruntime", "numpy", "onnx", "trtforge"),
        }

    def run(self, job: Job, inputs: Inputs, out: Path, progress: Progress) -> str:
        """Search; a search that was killed is gone on with.

        Raises:
            BudgetError: TF0560, no mix that was tried meets the bound.
            DataError: there are no samples or labels, or the metric's code failed.
        """
        from trtforge.pipeline.budget_setting import held_on
        from trtforge.pipeline.stages.precision import prepared
        from trtforge.pipeline.steps import Steps

        key = digest_of(key_document(self, job, inputs))
        log = job.store.unfinished / f"{key}.budget.partial"
        with Steps(job.emit).resumable(job.store.unfinished / key, "in the store"):
            held = held_on(_setting(job), *prepared(inputs), progress, log)
        answer = held.answer
        corrected = answer.mixes.corrected(answer.chosen.mix)
        if corrected is not answer.mixes.model:
            corrected.save(out / "model.onnx")
        write_json(out / "pareto.json", held.as_json())
        lines = [*answer.lines(), "", *held.rule_lines(), ""]
        (out / "pareto.txt").write_text("\n".join(lines), encoding="utf-8")
        summary = answer.summary()
        facts = {
            "summary": summary,
            "warnings": list(held.warnings),
            "digest": held.typed().model.digest(),
        }
        settled = held.precision.model_dump(mode="json")
        write_json(out / "settled.json", {"precision": settled, **facts})
        log.unlink(missing_ok=True)
        return summary


def _setting(job: Job) -> "Setting":
    from trtforge.pipeline.budget_samples import calibration_samples, search_data, verifying_samples
    from trtforge.pipeline.budget_setting import Setting

    precision, judging = job.recipe.precision, verifying_samples(job)
    searched = search_data(calibration_samples(job), judging, precision)
    fitting = job.calibration_data
    return Setting(job.model_path, precision, job.loaded.base_dir, searched, fitting, judging)
