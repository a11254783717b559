"""Where the ranges of a model's activations come from: measured on data, or a cache reused."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtforge.errors import DataError, Place
from trtforge.pipeline.settings import needs_ranges
from trtforge.pipeline.techniques import TechniqueJob, chosen_techniques, run_techniques
from trtforge.precision.calibrate import CalibrationRequest, calibrate
from trtforge.precision.quantize import candidate_tensors
from trtforge.precision.techniques import AFTER, BEFORE
from trtforge.recipe.schema import Calibration, Precision

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
        KeyboardInterrupt: Ctrl-C; the state is in the checkpoint.
    """
    names = chosen_techniques(wanted.precision)
    source = open_data(model, wanted)
    if source is None or (wanted.calibration is not None and wanted.calibration.reuse is not None):
        cache = _reused(model, wanted, source) if needs_ranges(wanted.precision) else None
        return Ready(model, cache, source)
    assert wanted.calibration is not None, "there is a source"
    job = TechniqueJob(
        model, source, wanted.precision, wanted.calibration.samples, on_progress=tell
    )
    run_techniques(tuple(name for name in names if name in BEFORE), job)
    if needs_ranges(wanted.precision):
        measured = calibrate(job.model, source, request_of(job.model, wanted), tell)
        job.cache = with_synthetic_warning(measured)
    run_techniques(tuple(name for name in names if name in AFTER), job)
    return Ready(job.model, job.cache, source, names)


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


def request_of(model: "Model", wanted: Wanted) -> CalibrationRequest:
    """What is to be measured so that the model can be quantized."""
    calibration = wanted.calibration or Calibration(synthetic=True)
    return CalibrationRequest(
        tensors=candidate_tensors(model, wanted.precision),
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


def read_cache(path: Path) -> "CalibrationCache":
    """Read a calibration cache of trtforge, or of another tool.

    Raises:
        DataError: the file is missing or malformed.
    """
    from trtforge.precision.cache import CalibrationCache, TensorRange
    from trtforge.precision.scales import LARGEST
    from trtforge.precision.trt_text import read_trt_text

    if not _starts_with(path, b"TRT-"):
        return CalibrationCache.load(path)
    table = read_trt_text(path)
    amax = {name: scale * LARGEST["int8"] for name, scale in table.scales.items()}
    return CalibrationCache(
        method=table.algorithm,
        samples=0,
        graph_digest="",
        ranges={name: TensorRange(min=-top, max=top, amax=top) for name, top in amax.items()},
        origin=table.header,
    )


def _starts_with(path: Path, head: bytes) -> bool:
    try:
        with path.open("rb") as stream:
            return stream.read(len(head)) == head
    except OSError:  # whoever reads it in earnest says what is wrong
        return False


def _reused(model: "Model", wanted: Wanted, source: "DataSource | None") -> "CalibrationCache":
    calibration = wanted.calibration
    assert calibration is not None
    assert calibration.reuse is not None
    path = wanted.resolve(calibration.reuse)
    cache = read_cache(path)
    reasons = cache.staleness(
        model.digest(),
        candidate_tensors(model, wanted.precision),
        None if source is None else source.digest,
    )
    if not reasons:
        return cache
    why = "; ".join(reasons)
    if not calibration.accept_stale:
        raise DataError(
            "TF0529",
            f"the calibration cache '{path.name}' is stale: {why}",
            "calibrate again, or take it all the same: accept_stale: true in a recipe, "
            "--allow-stale on the command line",
            Place(str(path)),
        )
    text = f"the reused calibration cache '{path.name}' is stale: {why}"
    return cache.model_copy(update={"warnings": (*cache.warnings, text)})
