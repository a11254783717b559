"""Stage `budget`: the cheapest mix of types that still meets the recipe's bound."""

import math
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
    from trtforge.pipeline.budgeting import Answer, Judge, Question


_Judged = tuple[dict[str, Any] | None, list[str]]


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
            wanted["calibrate"] = ("cache.json", "model.onnx*", "ranges.json")
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
        from trtforge.pipeline.budgeting import hold_budget
        from trtforge.pipeline.steps import Steps

        key = digest_of(key_document(self, job, inputs))
        log = job.store.unfinished / f"{key}.budget.partial"
        with Steps(job.emit).resumable(job.store.unfinished / key, "in the store"):
            question = _question(job, inputs, log, progress)
            judge = _judge(job, question)
            answer, value = hold_budget(question, judge, progress)
        corrected = answer.mixes.corrected(answer.chosen.mix)
        if corrected is not answer.mixes.model:
            corrected.save(out / "model.onnx")
        typed = answer.mixes.typed(answer.chosen.mix).model
        judged, warnings = _judged(judge, answer, value)
        write_json(out / "pareto.json", answer.as_json() | {"judged": judged})
        lines = [*answer.lines(), "", *answer.mixes.rule_lines(answer.chosen.mix), ""]
        (out / "pareto.txt").write_text("\n".join(lines), encoding="utf-8")
        settled = answer.mixes.settled(answer.chosen.mix).model_dump(mode="json")
        summary = answer.summary()
        facts = {"summary": summary, "warnings": warnings, "digest": typed.digest()}
        write_json(out / "settled.json", {"precision": settled, **facts})
        log.unlink(missing_ok=True)
        return summary


def _question(job: Job, inputs: Inputs, log: Path, progress: Progress) -> "Question":
    from trtforge.graph.model import Model
    from trtforge.pipeline.budget_samples import search_data, trial_of
    from trtforge.pipeline.budgeting import Question
    from trtforge.pipeline.measures import measure_of
    from trtforge.pipeline.stages.precision import measured_ranges, prepared
    from trtforge.precision.mixes import mixes_of, with_bias_shifts

    budget = job.recipe.precision.budget
    assert budget is not None, "the stage is there for it"
    data = search_data(job, needs_labels=budget.top1_drop is not None)
    trial = trial_of(Model.load(job.model_path), data, budget.measure)
    measure = measure_of(budget, job.loaded.base_dir, trial.labels)
    model, cache = prepared(inputs)
    if cache is not None:
        progress(None, "measuring what quantization shifts in the mean")
        cache = with_bias_shifts(cache, model, job.recipe.precision, job.calibration_data)
    ranges = measured_ranges(inputs)
    mixes = mixes_of(model, cache, job.recipe.precision, data.shapes, ranges)
    return Question(mixes, measure, trial, budget.evaluations, log)


def _judge(job: Job, question: "Question") -> "Judge | None":
    """Return samples that are not searched on, None where there are none, or none with labels."""
    from trtforge.graph.model import Model
    from trtforge.pipeline.budget_samples import judging_data, trial_of
    from trtforge.pipeline.budgeting import Judge
    from trtforge.pipeline.measures import measure_of

    budget, data = job.recipe.precision.budget, judging_data(job)
    assert budget is not None, "the stage is there for it"
    if data is None or data.role == question.trial.data.role:
        return None
    if budget.top1_drop is not None and data.labels is None:
        return None
    trial = trial_of(Model.load(job.model_path), data, budget.measure)
    return Judge(measure_of(budget, job.loaded.base_dir, trial.labels), trial)


def _judged(judge: "Judge | None", answer: "Answer", value: float | None) -> _Judged:
    """Return what the judge found, and what the user should know of it."""
    from trtforge.pipeline.measures import meets, shown

    searched_on = answer.question.trial.data.role
    if judge is None or value is None:
        return None, [f"the budget is met on {searched_on}, and judged on no other samples"]
    role, held = judge.trial.data.role, meets(judge.measure, value)
    number = value if math.isfinite(value) else None
    judged = {"on": role, "samples": judge.trial.samples, "value": number, "meets": held}
    if held:
        return judged, []
    return judged, [
        f"the chosen mix has {shown(judge.measure, value)} on {role}, which misses the budget of "
        f"{judge.measure.bound:g} that it meets on {searched_on}"
    ]
