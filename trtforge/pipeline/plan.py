"""Which stages a recipe has, which of them the store already answers, and why the others run."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from trtforge.pipeline.settings import casts_by_data, needs_ranges
from trtforge.pipeline.stage import Job, Stage, key_document
from trtforge.pipeline.stages.budget import BudgetStage
from trtforge.pipeline.stages.build import BuildStage
from trtforge.pipeline.stages.calibrate import CalibrateStage
from trtforge.pipeline.stages.importing import ImportStage
from trtforge.pipeline.stages.optimize import OptimizeStage
from trtforge.pipeline.stages.precision import PrecisionStage
from trtforge.pipeline.stages.report import ReportStage
from trtforge.pipeline.stages.verify import VerifyStage
from trtforge.pipeline.store import Entry, digest_of
from trtforge.precision.techniques.job import chosen_techniques
from trtforge.recipe.schema import Recipe

_MAX_CHANGES_SHOWN = 3


def stages_of(recipe: Recipe) -> tuple[Stage, ...]:
    """Return a recipe's stages in an order in which each finds its inputs done."""
    calibrated = is_calibrated(recipe)
    measured = calibrated and needs_ranges(recipe.precision)
    engines = tuple(target for target in recipe.targets if target.backend != "onnxruntime")
    backends = tuple(sorted({target.backend for target in engines}))
    stages: list[Stage] = [ImportStage(), OptimizeStage(backends)]
    if calibrated:
        stages.append(CalibrateStage())
    budgeted = recipe.precision.budget is not None
    if budgeted:
        stages.append(BudgetStage(calibrated))
    stages.append(PrecisionStage(calibrated, budgeted=budgeted))
    stages += [BuildStage(target) for target in engines]
    names = tuple(target.name for target in engines)
    stages += [VerifyStage(names, calibrated), ReportStage(names, measured, budgeted)]
    return tuple(stages)


def is_calibrated(recipe: Recipe) -> bool:
    """Whether ranges are needed, there is data to cast by, or a technique has something to do."""
    if needs_ranges(recipe.precision) or casts_by_data(recipe.precision, recipe.calibration):
        return True
    return chosen_techniques(recipe.precision) != ()


@dataclass(frozen=True)
class PlannedStage:
    """What a build would do about one stage.

    Attributes:
        name: the stage.
        outcome: `hit`, `run`, or `unknown` when that depends on what an earlier stage makes.
        why: one sentence.
        key: the key in the store, None while unknown.
    """

    name: str
    outcome: Literal["hit", "run", "unknown"]
    why: str
    key: str | None = None


def plan(job: Job) -> tuple[PlannedStage, ...]:
    """Return, for each stage, whether a build would run it, and why.

    Raises:
        GraphError: the model cannot be read well enough to be digested.
    """
    last = job.store.recall(recipe_id(job))
    done: dict[str, Entry] = {}
    rows: list[PlannedStage] = []
    for stage in stages_of(job.recipe):
        waiting = [name for name in stage.consumes if name not in done]
        if waiting:
            rows.append(PlannedStage(stage.name, "unknown", f"depends on what {waiting[0]} makes"))
            continue
        document = key_document(stage, job, done)
        key = digest_of(document)
        entry = job.store.get(stage.kind, key)
        if entry is None:
            rows.append(PlannedStage(stage.name, "run", why_missed(stage, document, last), key))
        else:
            done[stage.name] = entry
            rows.append(PlannedStage(stage.name, "hit", "same inputs, recipe and code", key))
    return tuple(rows)


def recipe_id(job: Job) -> str:
    """Return the name under which the last build of this recipe file is remembered."""
    return digest_of(str(job.loaded.path.absolute()))[:16]


def why_missed(stage: Stage, document: Mapping[str, Any], last: Mapping[str, Any]) -> str:
    """Return why a key is not in the store, by comparing with the recipe's last build."""
    before = last.get(stage.name)
    if not isinstance(before, dict):
        return "not built before"
    changes = _changes(before, document)
    if not changes:
        return "its stored result is gone"
    shown = "; ".join(changes[:_MAX_CHANGES_SHOWN])
    more = len(changes) - _MAX_CHANGES_SHOWN
    return f"{shown}; and {more} more" if more > 0 else shown


def _changes(before: Any, after: Any, path: tuple[str, ...] = ()) -> list[str]:
    """Return the differences between two JSON values, one sentence each."""
    if before == after:
        return []
    if isinstance(before, dict) and isinstance(after, dict):
        found = []
        for name in sorted(before.keys() | after.keys()):
            found += _changes(before.get(name), after.get(name), (*path, name))
        return found
    where = ".".join(path)
    if path and path[0] == "inputs":
        return [f"{'/'.join(path[1:])} changed"]
    if path and path[0] == "code":
        return [f"trtforge's own {path[-1]} code changed"]
    if path and path[0] == "sources":
        return [f"{path[-1]} changed"]
    return [f"{where}: {_short(before)} -> {_short(after)}"]


def _short(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
