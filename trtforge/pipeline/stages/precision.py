"""Stage `precision`: Q/DQ and casts make the one strongly typed ONNX, and it is attested."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtforge.pipeline.corners import corner_shapes
from trtforge.pipeline.stage import Inputs, Job, Progress, package_versions, write_json
from trtforge.pipeline.store import Entry
from trtforge.recipe.schema import Precision, Recipe

if TYPE_CHECKING:
    from trtforge.graph.model import Model
    from trtforge.precision.cache import CalibrationCache
    from trtforge.precision.float_ranges import FloatRanges


@dataclass(frozen=True)
class PrecisionStage:
    """Types the optimized model; writes `model.onnx`, `precision.json` and `attest.json`."""

    calibrated: bool
    name: str = "precision"
    kind: str = "precision"
    rooms: tuple[str, ...] = ("graph", "precision")
    budgeted: bool = False

    @property
    def consumes(self) -> Mapping[str, tuple[str, ...]]:
        """The optimized model, and what calibration measured and techniques made of it."""
        wanted: dict[str, tuple[str, ...]] = {"optimize": ("model.onnx*",)}
        if self.calibrated:
            wanted["calibrate"] = ("cache.json", "model.onnx*", "ranges.json")
        if self.budgeted:
            wanted["budget"] = ("settled.json", "model.onnx*")
        return wanted

    def facts(self, job: Job) -> dict[str, Any]:
        """The precision section, and the shape at which MACs are counted."""
        return {
            "recipe": {
                "precision": job.recipe.precision.model_dump(mode="json"),
                "shapes": [
                    {
                        name: {"values": list(shape.opt)} if shape.values else list(shape.opt)
                        for name, shape in profile.items()
                    }
                    for profile in job.recipe.shapes[:1]
                ],
            },
            "versions": package_versions("onnx", "onnx-graphsurgeon", "trtforge"),
        }

    def run(self, job: Job, inputs: Inputs, out: Path, progress: Progress) -> str:
        """Place Q/DQ and casts, and count what came of it."""
        from trtforge.graph.model import Model
        from trtforge.precision.attest import attest, shares
        from trtforge.precision.cast import typed

        model, cache = prepared(inputs)
        precision, warnings = settled(job, inputs)
        progress(None, "placing Q/DQ and casts")
        result = typed(model, cache, precision, measured_ranges(inputs))
        if self.budgeted:
            measured = inputs["budget"].json("settled.json")["digest"]
            assert measured == result.model.digest(), "what was measured is what is made"
        result.model.save(out / "model.onnx")
        saved = Model.load(out / "model.onnx")  # what is shipped, and not what was meant to be
        shapes = corner_shapes(saved.contract, job.recipe.shapes[:1])
        attestation = attest(saved, shapes["opt"])
        facts = {"digest": result.model.digest(), "opset": result.model.opset}
        decided = {"model": facts | saved.contract.as_json(), **result.as_json()}
        about_engines = result.engine_warnings
        decided["engine_warnings"] = list(about_engines)
        plain = [text for text in decided["warnings"] if text not in about_engines]
        decided["warnings"] = plain + warnings
        for name, value in (("precision", decided), ("attest", attestation.as_json())):
            write_json(out / f"{name}.json", value)
        if precision.quantize.endswith("_weight_only"):
            stored = sum(attestation.quantized_weights_bytes.values())
            share = stored / max(sum(attestation.weights_bytes.values()), 1)
            return f"{share:.1%} of the weights' bytes are INT4 or INT8"
        if quantized := attestation.quantized_macs_share:
            return f"{quantized:.1%} of the MACs quantized"
        types = ", ".join(f"{share:.1%} {kind}" for kind, share in shares(attestation.macs).items())
        return f"MACs: {types or 'none'}"


def warnings_of(precision: Entry, recipe: Recipe) -> tuple[str, ...]:
    """Return what the typing of the graph warned of, now or when it was stored.

    The graph is typed alike for all targets, so that what concerns engines is chosen here.
    """
    found = precision.json("precision.json")
    builds_rtx = any(target.backend == "tensorrt_rtx" for target in recipe.targets)
    return (*found["warnings"], *(found["engine_warnings"] if builds_rtx else ()))


def measured_ranges(inputs: Inputs) -> "FloatRanges | None":
    """Return what was measured for the choice of float types, None where nothing was."""
    from trtforge.precision.float_ranges import FloatRanges

    calibrated = inputs.get("calibrate")
    if calibrated is None or "ranges.json" not in calibrated.files:
        return None
    return FloatRanges.from_json(calibrated.json("ranges.json"))


def prepared(inputs: Inputs) -> "tuple[Model, CalibrationCache | None]":
    """Return the model that is to be typed, and its ranges, None where none were measured."""
    from trtforge.graph.model import Model
    from trtforge.precision.cache import CalibrationCache

    source, cache = inputs["optimize"], None
    calibrated = inputs.get("calibrate")
    if calibrated is not None and "model.onnx" in calibrated.files:
        source = calibrated
    if calibrated is not None and "cache.json" in calibrated.files:
        cache = CalibrationCache.load(calibrated.file("cache.json"))
    budget = inputs.get("budget")
    if budget is not None and "model.onnx" in budget.files:
        source = budget
    return Model.load(source.file("model.onnx")), cache


def settled(job: Job, inputs: Inputs) -> tuple[Precision, list[str]]:
    """Return the precision that holds: the recipe's, or what its budget came to; and warnings."""
    if "budget" not in inputs:
        return job.recipe.precision, []
    found = inputs["budget"].json("settled.json")
    return Precision.model_validate(found["precision"]), list(found["warnings"])
