"""From a float model to one that can be quantized: techniques, calibration, techniques."""

from dataclasses import dataclass, replace

from trtforge.graph.model import Model
from trtforge.precision.cache import CalibrationCache
from trtforge.precision.calibrate import CalibrationRequest, calibrate
from trtforge.precision.quantize import candidate_tensors
from trtforge.precision.streaming import DataSource, Progress
from trtforge.precision.techniques import AFTER, BEFORE
from trtforge.precision.techniques.job import (
    TechniqueJob,
    chosen_techniques,
    run_techniques,
    with_reshaping,
)
from trtforge.recipe.schema import Precision


@dataclass(frozen=True)
class Prepared:
    """A model that can be quantized.

    Attributes:
        model: the FP32 model, as the techniques left it.
        cache: the ranges of its activations; None where weights alone are quantized. Its digest is
            that of the model that was calibrated: what techniques change afterwards (biases,
            weights) moves no range, and a cache that is used again must fit the model that comes
            out of the optimizer.
        notes: what was done for accuracy, a line each.
    """

    model: Model
    cache: CalibrationCache | None
    notes: tuple[str, ...]


def prepare(
    model: Model,
    source: DataSource,
    precision: Precision,
    request: CalibrationRequest,
    on_progress: Progress | None = None,
) -> Prepared:
    """Do what techniques want done before and after calibration, and calibrate.

    Args:
        model: the cleaned FP32 model.
        source: samples, matching the model's inputs.
        precision: what the recipe asks for.
        request: how to calibrate; its `tensors` are replaced by those that need ranges once the
            graph has its last form.
        on_progress: told the fraction done (0..1) and a line of text.

    Raises:
        UsageError: there is no technique of a name (TF0538).
        DataError: as `calibrate`.
        GraphError: as `calibrate`, or a technique's graph is refused.
    """
    names = chosen_techniques(precision)
    job = TechniqueJob(model, source, precision, request.samples, on_progress=on_progress)
    run_techniques(tuple(name for name in names if name in BEFORE), job)
    if precision.quantize in ("int8", "fp8"):
        tensors = candidate_tensors(job.model, precision)
        measured = calibrate(job.model, source, replace(request, tensors=tensors), on_progress)
        job.cache = with_reshaping(measured, job)
    run_techniques(tuple(name for name in names if name in AFTER), job)
    return Prepared(job.model, job.cache, tuple(job.notes))
