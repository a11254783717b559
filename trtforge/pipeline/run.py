"""From a recipe to a bundle: runs the stages, shares the store, refuses to ship what failed."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from trtforge.disk import check_folder, check_outputs, write_bytes, writing
from trtforge.errors import ParityError, RecipeError, UsageError
from trtforge.pipeline.events import Sink, StageFinished, Warned, ignore
from trtforge.pipeline.execution import Effort, StageRow, run_stages
from trtforge.pipeline.input_names import with_input_names
from trtforge.pipeline.plan import stages_of
from trtforge.pipeline.remedy import failures, remedy
from trtforge.pipeline.settings import needs_ranges
from trtforge.pipeline.shipping import keep_failure_report, ship
from trtforge.pipeline.stage import Job
from trtforge.pipeline.stages.precision import warnings_of
from trtforge.pipeline.store import Store, default_root
from trtforge.pipeline.support import require_targets, target_warnings
from trtforge.precision.techniques.job import technique
from trtforge.recipe.load import LoadedRecipe, load_recipe
from trtforge.recipe.schema import Recipe


@dataclass(frozen=True)
class BuildOptions:
    """How a recipe is built.

    Attributes:
        out: folder that the bundle goes to; made when missing.
        targets: names of the targets to build; empty for all.
        overrides: `a.b=c` texts that change the recipe.
        force: run every stage, whatever the store holds.
        jobs: how many engines are built at once.
        memory_mib: memory that engines built at once may take together, by estimate, MiB; None for
            what the machine has left. One alone is always built.
        store: the store's folder; None for `default_root()`.
    """

    out: Path = Path("bundles")
    targets: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    force: bool = False
    jobs: int = 1
    memory_mib: int | None = None
    store: Path | None = None

    @property
    def effort(self) -> Effort:
        """How the stages are run."""
        return Effort(self.force, self.jobs, self.memory_mib)


@dataclass(frozen=True)
class BuildResult:
    """A finished build.

    Attributes:
        bundle: the bundle's folder.
        verdicts: graph parity, engine parity by target, attestation.
        stages: one row per stage, in order.
        macs: multiply-accumulates of the typed graph, by the type they compute in.
        warnings: what the user should know, but that failed nothing.
        budget: the mix of types that was chosen, in one line; empty without a budget.
    """

    bundle: Path
    verdicts: Mapping[str, Any]
    stages: tuple[StageRow, ...]
    macs: Mapping[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    budget: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the result as plain JSON data."""
        return {
            "bundle": str(self.bundle),
            "verdicts": self.verdicts,
            "stages": [vars(row) for row in self.stages],
            "macs": dict(self.macs),
            "warnings": list(self.warnings),
            **({"budget": self.budget} if self.budget else {}),
        }

    def verdict_lines(self) -> list[str]:
        """Return one line per verdict."""
        graph, attest = self.verdicts["graph_parity"], self.verdicts["attest"]
        lines = [_verdict_line("graph parity", graph)]
        if accuracy := graph.get("accuracy"):
            lines.append(
                f"accuracy: {accuracy['candidate']:.2%} typed, {accuracy['reference']:.2%} original"
                f" ({accuracy['samples']} samples)"
            )
        for target, report in self.verdicts["engine_parity"].items():
            lines.append(_verdict_line(f"engine parity, {target}", report))
        lines.append(_verdict_line("attest", attest))
        if self.budget:
            lines.append(f"budget: {self.budget}")
        if share := attest["quantized_macs_share"]:
            return [*lines, f"quantized MACs: {share:.1%}"]
        return [*lines, f"MACs: {_shares(self.macs)}"]


def build(
    recipe: Path | str, out: Path | str = "bundles", *, emit: Sink = ignore, **options: Any
) -> BuildResult:
    """Build one recipe into a verified bundle: the library's front door.

    Args:
        recipe: the recipe file.
        out: folder that the bundle goes to; made when missing.
        emit: told what happens (`pipeline.events`).
        **options: the other fields of `BuildOptions`.

    Raises:
        RecipeError, DataError, UsageError: the input is wrong.
        MissingError: this machine lacks a library, space or a permission.
        GraphError, BuildError: the model or the builder refused.
        ParityError: parity or attestation failed; no bundle was written.
    """
    return build_recipe(Path(recipe), BuildOptions(out=Path(out), **options), emit)


def job_of(recipe: Path, options: BuildOptions, emit: Sink = ignore) -> Job:
    """Load a recipe and open the store.

    Raises:
        RecipeError: the recipe is wrong, or asks for a technique that there is not (TF0538).
        DataError: the function of the budget's metric cannot be loaded.
        UsageError: a target is asked for that the recipe does not have.
        MissingError: the store cannot be written.
    """
    loaded = with_input_names(load_recipe(recipe, options.overrides))
    _check_techniques(loaded)
    _check_metric(loaded)
    store = Store(options.store or default_root(), warn=lambda text: emit(Warned(text)))
    return Job(loaded, _with_targets(loaded, options.targets), store, emit)


def _check_techniques(loaded: LoadedRecipe) -> None:
    """Refuse unknown names where they stand; the recipe's own room knows none."""
    asked = loaded.recipe.precision.techniques
    for index, name in enumerate(asked if isinstance(asked, tuple) else ()):
        try:
            technique(name)
        except UsageError as error:
            place = ("precision", "techniques", index)
            problem = loaded.problem(place, error.code, error.message, error.hint)
            raise RecipeError.of([problem]) from error


def _check_metric(loaded: LoadedRecipe) -> None:
    """Load a budget's function once before the work, not after the calibration."""
    budget = loaded.recipe.precision.budget
    if budget is not None and budget.metric is not None:
        from trtforge.pipeline.measures import load_metric

        load_metric(budget.metric, loaded.base_dir)


def build_recipe(recipe: Path, options: BuildOptions, emit: Sink = ignore) -> BuildResult:
    """Run all stages of one recipe and write its bundle; see `build`."""
    job = job_of(recipe, options, emit)
    require_targets(job.recipe)
    check_folder(options.out)
    for text in _target_warnings(job.recipe):
        emit(Warned(text))
    with job.store.scratch() as held:
        return _built(job, options, held)


def _built(job: Job, options: BuildOptions, held: Path) -> BuildResult:
    entries, rows = run_stages(job, stages_of(job.recipe), options.effort, held)
    started = time.monotonic()
    verdicts = entries["verify"].json("parity.json")
    if failed := failures(verdicts):
        folder = keep_failure_report(job, entries, options.out)
        raise ParityError(
            "TF0710",
            f"'{job.recipe.name}' is not shipped: {'; '.join(failed)}",
            f"{remedy(job.recipe, verdicts)}; the report is {folder / 'report.html'}",
        )
    shipped = ship(job, entries, {row.name: row.seconds for row in rows}, options.out)
    seconds = time.monotonic() - started
    outcome: Literal["hit", "ran"] = "hit" if shipped.kept else "ran"
    note = f"{shipped.bytes / 1e6:.1f} MB"
    job.emit(StageFinished("bundle", outcome, seconds, note))
    return BuildResult(
        shipped.path,
        verdicts,
        (*rows, StageRow("bundle", outcome, seconds)),
        entries["precision"].json("attest.json")["macs"],
        (*_target_warnings(job.recipe), *warnings_of(entries["precision"], job.recipe)),
        entries["budget"].json("settled.json")["summary"] if "budget" in entries else "",
    )


def calibrate_recipe(recipe: Path, options: BuildOptions, emit: Sink = ignore) -> tuple[Path, ...]:
    """Run a recipe as far as its calibration; write the cache and its TensorRT text form.

    Where techniques reshape the graph before it is measured, there is no text form: its format
    cannot say that the scales are not those of the model as it came.

    Returns:
        The files written into `options.out`, the cache first.

    Raises:
        UsageError: the recipe quantizes nothing, or a file that it reads would be overwritten.
        MissingError: the folder cannot be written into.
    """
    job = job_of(recipe, options, emit)
    if not needs_ranges(job.recipe.precision):
        raise UsageError(
            "TF0102",
            f"recipe '{job.recipe.name}' has nothing to calibrate",
            "set precision.quantize to int8 or fp8, and give a calibration section",
        )
    files = _calibration_files(job, recipe, options.out)
    stages = [stage for stage in stages_of(job.recipe) if stage.kind in _UP_TO_CALIBRATION]
    with job.store.scratch() as held:
        measured = run_stages(job, stages, options.effort, held)[0]["calibrate"]
        for text in measured.json("cache.json")["warnings"]:
            emit(Warned(text))
        written = {name: path for name, path in files.items() if name in measured.files}
        with writing(options.out, "the calibration cache"):
            options.out.mkdir(parents=True, exist_ok=True)
            for name, path in written.items():
                write_bytes(path, measured.file(name).read_bytes())
    return tuple(written.values())


def _calibration_files(job: Job, recipe: Path, out: Path) -> dict[str, Path]:
    """Return where the cache and its text form go, once they can be written there."""
    calibration = job.recipe.calibration
    name = (calibration.cache if calibration else None) or "cache.json"
    files = {"cache.json": out / name, "tensorrt.calib": out / "tensorrt.calib"}
    check_folder(out)
    if out.is_dir():
        named = () if calibration is None else (calibration.reuse, calibration.data)
        read = (recipe, *(job.loaded.resolve(one) for one in named if isinstance(one, str)))
        check_outputs(files.values(), read)
    return files


_UP_TO_CALIBRATION = ("import", "optimize", "calibrate")


def _with_targets(loaded: LoadedRecipe, names: Sequence[str]) -> Recipe:
    recipe = loaded.recipe
    known = [target.name for target in recipe.targets]
    for name in names:
        if name not in known:
            raise UsageError(
                "TF0103",
                f"recipe '{recipe.name}' has no target '{name}'",
                f"its targets are: {', '.join(known)}",
            )
    if not names:
        return recipe
    kept = tuple(target for target in recipe.targets if target.name in names)
    return recipe.model_copy(update={"targets": kept})


def _target_warnings(recipe: Recipe) -> tuple[str, ...]:
    return tuple(
        f"target '{target.name}': {text}"
        for target in recipe.targets
        for text in target_warnings(recipe.precision, target)
    )


def _shares(amounts: Mapping[str, int]) -> str:
    """Return `97.1% fp16, 2.9% fp32`, the largest first."""
    total = sum(amounts.values())
    if not total:
        return "none"
    largest_first = sorted(amounts.items(), key=lambda item: -item[1])
    return ", ".join(f"{amount / total:.1%} {kind}" for kind, amount in largest_first)


def _verdict_line(name: str, report: Mapping[str, Any]) -> str:
    reason = f": {report['reason']}" if report.get("reason") else ""
    return f"{name}: {report['verdict']}{reason}"
