"""Stage `report`: what the build found, for people (HTML) and for pipelines (JUnit)."""

import platform
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trtforge.pipeline.stage import Inputs, Job, Progress, package_versions
from trtforge.pipeline.stages.precision import warnings_of
from trtforge.precision.ranges import StoredHistogram
from trtforge.report.data import ReportData
from trtforge.report.html import render_html
from trtforge.report.junit import render_report_junit
from trtforge.report.ranges import widest

_PACKAGES = ("trtforge", "onnx", "onnx-graphsurgeon", "onnxruntime", "polygraphy", "numpy")

_SPARK_BINS = 64
"""Of a histogram's 4096; the largest value lies in the upper half, so that 33 to 64 are seen."""

_DIGEST_DIGITS = 12


@dataclass(frozen=True)
class ReportStage:
    """Gathers every stage's JSON; writes `report.html` and `junit.xml`, without times.

    Attributes:
        engines: names of the targets that have an engine.
        measured: whether ranges were calibrated.
        budgeted: whether a budget chose the precision.
    """

    engines: tuple[str, ...]
    measured: bool
    budgeted: bool = False
    name: str = "report"
    kind: str = "report"
    rooms: tuple[str, ...] = ("report",)

    @property
    def consumes(self) -> Mapping[str, tuple[str, ...]]:
        """Every stage's findings."""
        wanted: dict[str, tuple[str, ...]] = {
            "import": ("contract.json",),
            "optimize": ("optimize.json",),
            "precision": ("precision.json", "attest.json", "model.onnx*"),
            "verify": ("parity.json", "layers.json"),
        }
        if self.measured:
            wanted["calibrate"] = ("cache.json",)
        if self.budgeted:
            wanted["budget"] = ("pareto.json",)
        return wanted | {f"build:{name}": ("build.json",) for name in self.engines}

    def facts(self, job: Job) -> dict[str, Any]:
        """What of the recipe is shown."""
        return {
            "recipe": {
                "file": job.loaded.path.name,
                "text": job.loaded.as_yaml(job.recipe),
                "overrides": {name: str(value) for name, value in job.loaded.overrides.items()},
            },
            "sources": {"model": job.model_digest()},
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
    layers = _optional(inputs, "verify", "layers.json")
    precision = inputs["precision"].json("precision.json")
    return ReportData(
        name=recipe.name,
        facts=_facts(job),
        graph_parity=verdicts["graph_parity"],
        engine_parity=verdicts["engine_parity"],
        attest=verdicts["attest"],
        attested=inputs["precision"].json("attest.json"),
        layers=layers,
        budget=_optional(inputs, "budget", "pareto.json"),
        optimize=inputs["optimize"].json("optimize.json"),
        decisions=_decisions(precision),
        calibration=_calibration(_optional(inputs, "calibrate", "cache.json")),
        contract=inputs["import"].json("contract.json"),
        profiles=job.shapes_json(),
        targets=[_target(job, inputs, target.name) for target in recipe.targets],
        sizes=_sizes(job, inputs),
        recipe=job.loaded.as_yaml(recipe),
        commands=_commands(job),
        environment={"platform": f"{platform.system()} {platform.machine()}"}
        | package_versions(*_PACKAGES),
        warnings=list(warnings_of(inputs["precision"], recipe)),
        missing={
            "calibration": "the recipe quantizes no activations",
            "layers": (layers or {}).get("reason") or "single layers were not compared",
        },
    )


def _optional(inputs: Inputs, stage: str, file: str) -> Any:
    """Return a JSON file that not every build has, None without it."""
    entry = inputs.get(stage)
    return entry.json(file) if entry is not None and file in entry.files else None


def _facts(job: Job) -> dict[str, str]:
    recipe = job.recipe
    quantized = recipe.precision.quantize
    facts = {
        "model": recipe.model.onnx,
        "digest": f"sha256:{job.model_digest().removeprefix('sha256:')[:_DIGEST_DIGITS]}",
        "precision": recipe.precision.type
        + ("" if quantized == "none" else f", quantized to {quantized}"),
    }
    if recipe.verify.data is not None:
        facts["verified on"] = recipe.verify.data
    return facts


def _decisions(precision: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return quantization decisions, then casts, as the report's one table takes them."""
    found = []
    for part in ("quantize", "cast"):
        found += (precision.get(part) or {}).get("decisions", [])
    return found


def _calibration(cache: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return a cache with its histograms as the page draws them, of the tensors that it shows."""
    if cache is None:
        return None
    ranges = {name: dict(found) for name, found in cache["ranges"].items()}
    shown = set(widest(ranges))
    for name, found in ranges.items():
        stored = found.pop("histogram", None)
        if stored is not None and name in shown:
            histogram = StoredHistogram.model_validate(stored).restore()
            counts = histogram.alive.reshape(_SPARK_BINS, -1).sum(axis=1)
            found["spark"] = {"limit": histogram.limit, "counts": counts.tolist()}
    return cache | {"ranges": ranges}


def _target(job: Job, inputs: Inputs, name: str) -> dict[str, Any]:
    target = next(target for target in job.recipe.targets if target.name == name)
    facts: dict[str, Any] = {"name": name, "backend": target.backend}
    if (built := inputs.get(f"build:{name}")) is not None:
        facts |= built.json("build.json")
        return facts
    return facts | {"version": package_versions("onnxruntime")["onnxruntime"]}


def _sizes(job: Job, inputs: Inputs) -> dict[str, int]:
    """Return the bytes of the files that went in and came out, weights beside a model included."""
    from trtforge.graph.model import source_files

    typed = inputs["precision"]
    models = [typed.file(name) for name in typed.files if name.startswith("model.onnx")]
    sizes = {
        "original ONNX": sum(file.stat().st_size for file in source_files(job.model_path)),
        "typed ONNX": sum(file.stat().st_size for file in models),
    }
    for target in job.recipe.targets:
        if (built := inputs.get(f"build:{target.name}")) is not None:
            sizes[f"engine {target.name}"] = int(built.json("build.json").get("engine_bytes") or 0)
    return sizes


def _commands(job: Job) -> list[str]:
    """Return what to type in the recipe's folder; BUNDLE stands for what the build prints."""
    recipe = job.recipe
    build = ["trtforge", "build", job.loaded.path.name]
    for name, value in job.loaded.overrides.items():
        build += ["--set", f"{name}={value}"]
    verify = ["trtforge", "verify", "BUNDLE", "--against", recipe.model.onnx]
    if recipe.verify.data is not None:
        verify += ["--data", recipe.verify.data]
    return [shlex.join(build), shlex.join(verify)]
