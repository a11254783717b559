"""Stage `calibrate`: activation ranges of the optimized model over the calibration data."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trtforge.pipeline.stage import (
    Inputs,
    Job,
    Progress,
    key_document,
    package_versions,
    write_json,
)
from trtforge.pipeline.store import digest_of
from trtforge.recipe.calibration import Calibration

_ARRAYS = (".npz", ".npy")


@dataclass(frozen=True)
class CalibrateStage:
    """Observes the tensors that will be quantized, and does what techniques want done.

    Writes `cache.json` where activations are quantized, with it `tensorrt.calib` unless techniques
    reshaped the graph that was measured, and `model.onnx` where techniques changed the graph. Where
    the rest becomes FP16 or BF16, writes `ranges.json`: what that type must be able to hold.
    """

    name: str = "calibrate"
    kind: str = "calibrate"
    rooms: tuple[str, ...] = ("graph", "precision")

    @property
    def consumes(self) -> Mapping[str, tuple[str, ...]]:
        """The optimized model: its tensors are observed."""
        return {"optimize": ("model.onnx*",)}

    def facts(self, job: Job) -> dict[str, Any]:
        """The data's and the reused cache's bytes, the method, and what decides on tensors."""
        calibration = job.recipe.calibration
        is_synthetic = calibration is not None and calibration.synthetic
        return {
            "sources": {} if calibration is None else _source_digests(job, calibration),
            "recipe": {
                "calibration": None if calibration is None else _settings(calibration),
                "precision": job.recipe.precision.model_dump(mode="json", exclude={"budget"}),
                "has_budget": job.recipe.precision.budget is not None,
                "shapes": job.shapes_json() if is_synthetic or job.has_values else [],
            },
            "versions": package_versions("onnxruntime", "numpy", "trtforge"),
        }

    def run(self, job: Job, inputs: Inputs, out: Path, progress: Progress) -> str:
        """Calibrate; a run that was killed is gone on with.

        Raises:
            DataError: the data does not fit the model, or has fewer samples than asked for; or the
                reused cache is stale (TF0529).
        """
        from trtforge.graph.model import Model
        from trtforge.pipeline.casting import ranges_summary, type_ranges
        from trtforge.pipeline.ranges import make_ready
        from trtforge.pipeline.steps import Steps
        from trtforge.precision.trt_text import write_trt_text

        model = Model.load(inputs["optimize"].file("model.onnx"))
        checkpoint = job.store.unfinished / digest_of(key_document(self, job, inputs))
        with Steps(job.emit).resumable(checkpoint, "in the store"):
            ready = make_ready(model, job.wanted(checkpoint), progress)
        if ready.cache is not None:
            ready.cache.save(out / "cache.json")
            # The text has no place for a digest: scales of a graph that techniques reshaped would
            # be taken for those of the model that the user knows, under the same names.
            if ready.cache.graph_digest in ("", model.digest()):
                write_trt_text(ready.cache, out / "tensorrt.calib")
        if ready.model is not model:
            ready.model.save(out / "model.onnx")
        if job.recipe.precision.budget is not None:  # its search measures with types of its own
            return ready.summary
        ranges = type_ranges(ready.model, ready.source, job.wanted(), progress, ready.cache)
        if ranges is None:
            return ready.summary
        write_json(out / "ranges.json", ranges.as_json())
        return "; ".join(filter(None, (ready.summary, f"types: {ranges_summary(ranges)}")))


def _settings(calibration: Calibration) -> dict[str, Any]:
    """Return what changes the result; files count by their bytes and not by their names."""
    named = {"cache", "reuse"} | ({"data"} if isinstance(calibration.data, str) else set())
    return calibration.model_dump(mode="json", exclude=named)


def _source_digests(job: Job, calibration: Calibration) -> dict[str, str]:
    found = {}
    path = job.loaded.resolve(calibration.data) if isinstance(calibration.data, str) else None
    if path is not None and path.suffix.lower() in _ARRAYS and path.is_file():
        found["calibration data"] = job.file_digest(path)  # without opening the model
    elif calibration.data is not None:
        assert job.calibration_data is not None
        found["calibration data"] = job.calibration_data.digest
    if calibration.reuse is not None:
        found["reused cache"] = job.file_digest(job.loaded.resolve(calibration.reuse))
    return found
