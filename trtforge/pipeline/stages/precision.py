"""Stage `precision`: Q/DQ and casts make the one strongly typed ONNX, and it is attested."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trtforge.pipeline.corners import corner_shapes
from trtforge.pipeline.stage import Inputs, Job, Progress, package_versions, write_json


@dataclass(frozen=True)
class PrecisionStage:
    """Types the optimized model; writes `model.onnx`, `precision.json` and `attest.json`."""

    calibrated: bool
    name: str = "precision"
    kind: str = "precision"
    rooms: tuple[str, ...] = ("graph", "precision")

    @property
    def consumes(self) -> Mapping[str, tuple[str, ...]]:
        """The optimized model, and what calibration measured and techniques made of it."""
        wanted: dict[str, tuple[str, ...]] = {"optimize": ("model.onnx*",)}
        if self.calibrated:
            wanted["calibrate"] = ("cache.json", "model.onnx*")
        return wanted

    def facts(self, job: Job) -> dict[str, Any]:
        """The precision section, and the shape at which MACs are counted."""
        return {
            "recipe": {
                "precision": job.recipe.precision.model_dump(mode="json"),
                "shapes": [
                    {name: list(shape.opt) for name, shape in profile.items()}
                    for profile in job.recipe.shapes[:1]
                ],
            },
            "versions": package_versions("onnx", "onnx-graphsurgeon", "trtforge"),
        }

    def run(self, job: Job, inputs: Inputs, out: Path, progress: Progress) -> str:
        """Place Q/DQ and casts, and count what came of it."""
        from trtforge.graph.model import Model
        from trtforge.precision.attest import attest
        from trtforge.precision.cache import CalibrationCache
        from trtforge.precision.cast import typed

        model, cache = Model.load(inputs["optimize"].file("model.onnx")), None
        if self.calibrated:
            calibrated = inputs["calibrate"]
            if "model.onnx" in calibrated.files:
                model = Model.load(calibrated.file("model.onnx"))
            if "cache.json" in calibrated.files:
                cache = CalibrationCache.load(calibrated.file("cache.json"))
        progress(None, "placing Q/DQ and casts")
        result = typed(model, cache, job.recipe.precision)
        result.model.save(out / "model.onnx")
        shapes = corner_shapes(result.model.contract, job.recipe.shapes[:1])
        attestation = attest(result.model, shapes["opt"])
        facts = {"digest": result.model.digest(), "opset": result.model.opset}
        decided = {"model": facts, **result.as_json()}
        for name, value in (("precision", decided), ("attest", attestation.as_json())):
            write_json(out / f"{name}.json", value)
        if job.recipe.precision.quantize.endswith("_weight_only"):
            share = _quantized_bytes_share(attestation.weights_bytes)
            return f"{share:.1%} of the weights' bytes are INT4 or INT8"
        return f"{attestation.quantized_macs_share:.1%} of the MACs quantized"


def _quantized_bytes_share(weights_bytes: Mapping[str, int]) -> float:
    total = sum(weights_bytes.values())
    return sum(weights_bytes.get(kind, 0) for kind in ("int8", "int4")) / max(total, 1)
