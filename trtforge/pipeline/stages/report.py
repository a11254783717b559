"""Stage `report`: what the build found, for people (HTML) and for pipelines (JUnit)."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trtforge.pipeline.stage import Inputs, Job, Progress, package_versions
from trtforge.report.data import ReportData
from trtforge.report.html import render_html
from trtforge.report.junit import render_report_junit

_PACKAGES = ("trtforge", "onnx", "onnx-graphsurgeon", "onnxruntime", "polygraphy", "numpy")


@dataclass(frozen=True)
class ReportStage:
    """Gathers every stage's JSON; writes `report.html` and `junit.xml`, without times."""

    engines: tuple[str, ...]
    measured: bool
    name: str = "report"
    kind: str = "report"
    rooms: tuple[str, ...] = ("report",)

    @property
    def consumes(self) -> Mapping[str, tuple[str, ...]]:
        """Every stage's findings."""
        wanted: dict[str, tuple[str, ...]] = {
            "import": ("contract.json",),
            "optimize": ("optimize.json",),
            "precision": ("precision.json", "attest.json"),
            "verify": ("parity.json",),
        }
        if self.measured:
            wanted["calibrate"] = ("cache.json",)
        return wanted | {f"build:{name}": ("build.json",) for name in self.engines}

    def facts(self, job: Job) -> dict[str, Any]:
        """What of the recipe is shown."""
        return {
            "recipe": {
                "name": job.recipe.name,
                "model": job.recipe.model.onnx,
                "precision": job.recipe.precision.model_dump(mode="json"),
                "shapes": job.shapes_json(),
                "targets": [target.model_dump(mode="json") for target in job.recipe.targets],
            },
            "versions": package_versions(*_PACKAGES),
        }

    def run(self, job: Job, inputs: Inputs, out: Path, progress: Progress) -> str:
        """Write both reports."""
        data = _report_data(job, inputs)
        (out / "report.html").write_text(render_html(data), encoding="utf-8")
        (out / "junit.xml").write_text(render_report_junit(data), encoding="utf-8")
        return ""


def _report_data(job: Job, inputs: Inputs) -> ReportData:
    recipe = job.recipe
    verdicts = inputs["verify"].json("parity.json")
    precision = inputs["precision"].json("precision.json")
    calibrated = inputs.get("calibrate")
    if calibrated is not None and "cache.json" not in calibrated.files:
        calibrated = None  # techniques ran, nothing was measured
    quantized = recipe.precision.quantize
    return ReportData(
        name=recipe.name,
        facts={
            "model": recipe.model.onnx,
            "precision": recipe.precision.type
            + ("" if quantized == "none" else f", quantized to {quantized}"),
        },
        graph_parity=verdicts["graph_parity"],
        engine_parity=verdicts["engine_parity"],
        attest=verdicts["attest"],
        attested=inputs["precision"].json("attest.json"),
        optimize=inputs["optimize"].json("optimize.json"),
        decisions=_decisions(precision),
        calibration=None if calibrated is None else calibrated.json("cache.json"),
        contract=inputs["import"].json("contract.json"),
        profiles=job.shapes_json(),
        targets=[_target(job, inputs, target.name) for target in recipe.targets],
        environment={"platform": f"{platform.system()} {platform.machine()}"}
        | package_versions(*_PACKAGES),
        warnings=precision["warnings"],
        missing={"calibration": "the recipe quantizes no activations"},
    )


def _decisions(precision: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return quantization decisions, then casts, as the report's one table takes them."""
    found = []
    for part in ("quantize", "cast"):
        found += (precision.get(part) or {}).get("decisions", [])
    return found


def _target(job: Job, inputs: Inputs, name: str) -> dict[str, Any]:
    target = next(target for target in job.recipe.targets if target.name == name)
    facts: dict[str, Any] = {"name": name, "backend": target.backend}
    if (built := inputs.get(f"build:{name}")) is not None:
        facts |= built.json("build.json")
        return facts
    return facts | {"version": package_versions("onnxruntime")["onnxruntime"]}
