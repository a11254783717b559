"""Stage `calibrate`: activation ranges of the optimized model over the calibration data."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trtforge.pipeline.stage import Inputs, Job, Progress, package_versions
from trtforge.recipe.schema import Calibration


@dataclass(frozen=True)
class CalibrateStage:
    """Observes the tensors that will be quantized; writes `cache.json` and `tensorrt.calib`."""

    name: str = "calibrate"
    kind: str = "calibrate"
    rooms: tuple[str, ...] = ("graph", "precision")

    @property
    def consumes(self) -> Mapping[str, tuple[str, ...]]:
        """The optimized model: its tensors are observed."""
        return {"optimize": ("model.onnx*",)}

    def facts(self, job: Job) -> dict[str, Any]:
        """The data's bytes, the method, and what decides which tensors are observed."""
        calibration = _calibration(job)
        precision = job.recipe.precision
        return {
            "sources": {"calibration data": job.file_digest(job.loaded.resolve(calibration.data))},
            "recipe": {
                "calibration": calibration.model_dump(mode="json", exclude={"data", "cache"}),
                "precision": precision.model_dump(mode="json"),
            },
            "versions": package_versions("onnxruntime", "numpy", "trtforge"),
        }

    def run(self, job: Job, inputs: Inputs, out: Path, progress: Progress) -> str:
        """Calibrate.

        Raises:
            DataError: the data does not fit the model, or has fewer samples than asked for.
        """
        from trtforge.graph.data import ArrayData
        from trtforge.graph.model import Model
        from trtforge.precision.calibrate import CalibrationRequest, calibrate
        from trtforge.precision.quantize import candidate_tensors
        from trtforge.precision.trt_text import write_trt_text

        calibration = _calibration(job)
        model = Model.load(inputs["optimize"].file("model.onnx"))
        data = ArrayData.open(job.loaded.resolve(calibration.data), model.contract)
        request = CalibrationRequest(
            tensors=candidate_tensors(model, job.recipe.precision),
            method=calibration.method,
            grid="fp8" if job.recipe.precision.quantize == "fp8" else "int8",
            options=method_options(calibration),
            samples=calibration.samples,
        )
        cache = calibrate(model, data, request, progress)
        cache.save(out / "cache.json")
        write_trt_text(cache, out / "tensorrt.calib")
        return f"{len(cache.ranges)} tensors over {cache.samples} samples, {cache.method}"


def method_options(calibration: Calibration) -> dict[str, int | float | str]:
    """The settings of the calibration method that a recipe names."""
    if calibration.method == "percentile":
        return {"percentile": calibration.percentile}
    return {}


def _calibration(job: Job) -> Calibration:
    calibration = job.recipe.calibration
    assert calibration is not None, "the schema asks for calibration where quantize is int8 or fp8"
    return calibration
