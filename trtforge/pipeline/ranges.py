"""Where the ranges of a model's activations come from: measured on data, or a cache reused."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtforge.errors import DataError, Place
from trtforge.pipeline.settings import needs_ranges
from trtforge.precision.calibrate import CalibrationRequest
from trtforge.precision.foreign import read_any
from trtforge.precision.prepare import prepare
from trtforge.precision.quantize import candidate_tensors
from trtforge.precision.techniques import AFTER, BEFORE
from trtforge.precision.techniques.job import TechniqueJob, chosen_techniques, run_techniques
from trtforge.recipe.calibration import Calibration
from trtforge.recipe.schema import Precision

if TYPE_CHECKING:
    from trtforge.graph.model import Model
    from trtforge.graph.sources.source import DataSource
    from trtforge.precision.cache import CalibrationCache
    from trtforge.recipe.schema import ShapeRange

Progress = Callable[[float, str], None]

SYNTHETIC_WARNING = (
    "the ranges come from synthetic samples: they are to try things out with, not to ship"
)


@dataclass(frozen=True)
class Wanted:
    """What is quantized, and where its ranges come from.

    Attributes:
        precision: the section of the recipe.
        calibration: the section of the recipe; None where nothing needs data.
        resolve: the file or folder that a path of the recipe means.
        profiles: the recipe's shapes, for synthetic samples.
        checkpoint: what an interrupted run leaves its state in, and goes on from.
    """

    precision: Precision
    calibration: Calibration | None
    resolve: Callable[[str], Path]
    profiles: "Sequence[Mapping[str, ShapeRange]]" = ()
    checkpoint: Path | None = None


@dataclass(frozen=True)
class Ready:
    """A model that can be quantized.

    Attributes:
        model: the model, as techniques left it.
        cache: the ranges of its activations; None where they are not needed.
        source: the data; None where there is none.
        techniques: what was done for accuracy, a line each.
    """

    model: "Model"
    cache: "CalibrationCache | None"
    source: "DataSource | None"
    techniques: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """What was measured, and what was done for accuracy, in one line."""
        parts = [] if self.cache is None else [cache_summary(self.cache)]
        return "; ".join([*parts, *self.techniques])


def make_ready(model: "Model", wanted: Wanted, tell: Progress) -> Ready:
    """Measure a model's ranges, or take them from a cache; do what techniques want done.

    Args:
        model: the model that is to be quantized.
        wanted: precision, data, method.
        tell: told the fraction done (0..1) and a line of text.

    Raises:
        DataError: the data cannot be read, does not fit, or has too few samples; the reused cache
            cannot be read, or is stale (TF0529).
        GraphError: a tensor is NaN or infinite, or ONNX Runtime refuses the model.
        KeyboardInterrupt: Ctrl-C; what was measured is in the checkpoint, and what techniques were
            about is done again.
    """
    source = open_data(model, wanted)
    calibration = wanted.calibration
    if calibration is not None and calibration.reuse is not None:
        return _reused(model, wanted, source, tell)
    if calibration is None or source is None:  # what needs no samples can be done all the same
        job = TechniqueJob(model, None, wanted.precision, on_progress=tell)
        run_techniques(chosen_techniques(wanted.precision), job)
        return Ready(job.model, job.cache, None, tuple(job.notes))
    done = prepare(model, source, wanted.precision, request_of(wanted), tell)
    cache = None if done.cache is None else with_synthetic_warning(done.cache)
    return Ready(done.model, cache, source, done.notes)


def open_data(model: "Model", wanted: Wanted) -> "DataSource | None":
    """Open the data, None where there is none.

    Raises:
        DataError: it cannot be read, or does not fit the model.
        GraphError: synthetic samples need the shape of a dynamic input.
    """
    from trtforge.graph.sources import open_source

    calibration = wanted.calibration
    if calibration is None or (calibration.data is None and not calibration.synthetic):
        return None
    return open_source(
        calibration, model.contract, wanted.resolve, model=model, profiles=wanted.profiles
    )


def request_of(wanted: Wanted, tensors: tuple[str, ...] = ()) -> CalibrationRequest:
    """Return how tensors are to be measured."""
    calibration = wanted.calibration
    assert calibration is not None, "there is data"
    return CalibrationRequest(
        tensors=tensors,
        method=calibration.method,
        grid="fp8" if wanted.precision.quantize == "fp8" else "int8",
        options=method_options(calibration),
        samples=calibration.samples,
        checkpoint=wanted.checkpoint,
    )


def method_options(calibration: Calibration) -> dict[str, int | float | str]:
    """The settings of the calibration method that a recipe names."""
    if calibration.method == "percentile":
        return {"percentile": calibration.percentile}
    return {}


def with_synthetic_warning(cache: "CalibrationCache") -> "CalibrationCache":
    """Return the cache with a warning where its samples were made up."""
    if not cache.is_synthetic:
        return cache
    return cache.model_copy(update={"warnings": (SYNTHETIC_WARNING, *cache.warnings)})


def cache_summary(cache: "CalibrationCache") -> str:
    """Say in a few words what a cache holds."""
    if not cache.samples:
        return f"{len(cache.ranges)} tensors, reused"
    return f"{len(cache.ranges)} tensors over {cache.samples} samples, {cache.method}"


def calibration_facts(cache: "CalibrationCache") -> dict[str, Any]:
    """What a reader of a manifest should know about where ranges come from, as JSON data."""
    return {
        "method": cache.method,
        "options": dict(cache.options),
        "samples": cache.samples,
        "tensors": len(cache.ranges),
        "data": [{"digest": use.digest, "source": use.source} for use in cache.data],
        "synthetic": cache.is_synthetic,
        "origin": cache.origin,
    }


def _reused(model: "Model", wanted: Wanted, source: "DataSource | None", tell: Progress) -> Ready:
    """Take the ranges from a cache, on the graph that they were measured on.

    That is the graph as the techniques before calibration leave it: the cache tells how they did,
    or the data does. For a cache that was measured without them (by `trtforge calibrate MODEL`, or
    by another tool), it is the plain one.
    """
    calibration, precision = wanted.calibration, wanted.precision
    assert calibration is not None
    names = chosen_techniques(precision)
    job = TechniqueJob(model, source, precision, calibration.samples, on_progress=tell)
    if needs_ranges(precision):
        path = wanted.resolve(str(calibration.reuse))
        _, cache = read_any(path)
        obstacle = "" if cache.graph_digest in ("", model.digest()) else _replay(cache, job)
        if obstacle:
            run_before(job)
        else:
            done = {one.technique for one in cache.reshaping}
            left = [name for name in names if name in BEFORE and name not in done]
            if left:
                job.notes.append(f"{', '.join(left)}: left out, the cache was measured without")
        job.cache = _checked(cache, path, job, obstacle, accepts=calibration.accept_stale)
    run_techniques(tuple(name for name in names if name in AFTER), job)
    return Ready(job.model, job.cache, source, tuple(job.notes))


def _replay(cache: "CalibrationCache", job: TechniqueJob) -> str:
    """Reshape the job's graph as the cache says.

    Returns:
        Why the graph that the cache was measured on does not come out of it; empty if it does, and
        only then is the job's model changed.
    """
    from trtforge.precision.techniques.replay import replayed

    if not cache.reshaping:
        return "it does not say how techniques reshaped the graph"
    unwanted = {one.technique for one in cache.reshaping} - {*chosen_techniques(job.precision)}
    if unwanted:
        return f"it was measured with {', '.join(sorted(unwanted))}, which is not asked for"
    found = replayed(job.model, cache.reshaping)
    if isinstance(found, str):
        return found
    if found.digest() != cache.graph_digest:
        return "its vectors do not lead to the graph that was measured"
    job.model = found
    job.notes += [
        f"{one.technique}: {len(one.groups)} groups of channels scaled as the cache says"
        for one in cache.reshaping
    ]
    return ""


def run_before(job: TechniqueJob) -> None:
    """Run the techniques that reshape a graph before it is calibrated."""
    names = chosen_techniques(job.precision)
    run_techniques(tuple(name for name in names if name in BEFORE), job)


def _checked(
    cache: "CalibrationCache", path: Path, job: TechniqueJob, obstacle: str, *, accepts: bool
) -> "CalibrationCache":
    """Return the cache, with a warning where it is stale and that is accepted.

    Of a stale one the ranges are taken alone: vectors belong to the graph they were made for.

    Raises:
        DataError: TF0529, it is stale.
    """
    tensors = candidate_tensors(job.model, job.precision)
    data = None if job.source is None else job.source.digest
    reasons = cache.staleness(job.model.digest(), tensors, data)
    if not reasons:
        return cache
    if cache.reshaping and obstacle and cache.graph_digest != job.model.digest():
        reasons = (*reasons, obstacle)
    is_whole = all(name in cache.ranges for name in tensors)
    what = f"calibration cache '{path.name}' is stale: {'; '.join(reasons)}"
    if not (accepts and is_whole):
        raise DataError(
            "TF0529", f"the {what}", _remedies(job, is_whole=is_whole), Place(str(path))
        )
    warnings = (*cache.warnings, f"the reused {what}")
    return cache.model_copy(update={"warnings": warnings, "reshaping": (), "bias_shifts": {}})


def _remedies(job: TechniqueJob, *, is_whole: bool) -> str:
    ways = ["calibrate again"]
    if job.source is None and any(name in BEFORE for name in chosen_techniques(job.precision)):
        ways.append("give the data too, as techniques change the graph by it")
    if is_whole:
        ways.append("take it all the same (accept_stale: true in a recipe, or --allow-stale)")
    else:
        ways.append("let `trtforge calib apply` quantize what has a range")
    return f"{', '.join(ways[:-1])}, or {ways[-1]}"
