"""What a finished build ships: the files of the bundle and the facts of its manifest."""

import hashlib
import platform
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trtforge import __version__
from trtforge.bundle.manifest import (
    CalibrationFacts,
    ManifestDraft,
    ModelFacts,
    NodeRuleFacts,
    PrecisionFacts,
    Provenance,
    RecipeFacts,
    TargetFacts,
    TensorFacts,
    VerdictFacts,
    Verdicts,
)
from trtforge.bundle.write import write_bundle
from trtforge.disk import writing
from trtforge.pipeline.stage import Job, package_versions
from trtforge.pipeline.stages.precision import settled
from trtforge.pipeline.store import Entry

_PACKAGES = ("onnx", "onnx-graphsurgeon", "onnxruntime", "polygraphy", "numpy", "trtforge")
_FIGURES = ("sqnr_db", "max_abs", "cosine", "top1_agreement")


@dataclass(frozen=True)
class Shipped:
    """A bundle on disk.

    Attributes:
        path: its folder.
        bytes: of all its files.
        kept: the same bundle stood there already, sound, and was left as it is.
    """

    path: Path
    bytes: int
    kept: bool


def ship(
    job: Job, entries: Mapping[str, Entry], timings: Mapping[str, float], out: Path
) -> Shipped:
    """Write the bundle of a finished build.

    Raises:
        MissingError: the folder cannot be written, or the disk is full.
    """
    job = _settled(job, entries)
    recipe_text = job.loaded.as_yaml(job.recipe)
    files: dict[str, Path | bytes] = {"recipe.yaml": recipe_text.encode()}
    if job.recipe.bundle.include_onnx:
        precision = entries["precision"]
        files |= {
            name: precision.file(name) for name in precision.files if name.startswith("model.")
        }
    for target in job.recipe.targets:
        if (entry := entries.get(f"build:{target.name}")) is not None:
            for name in ("model.engine", "layers.json", "build.json", "build.log"):
                files[f"engines/{target.name}/{name}"] = entry.file(name)
    if (calibrated := _measured(entries)) is not None:
        calibration = job.recipe.calibration
        name = (calibration.cache if calibration else None) or "cache.json"
        files[f"calibration/{name}"] = calibrated.file("cache.json")
        if "tensorrt.calib" in calibrated.files:
            files["calibration/tensorrt.calib"] = calibrated.file("tensorrt.calib")
    files |= _reports(entries)
    before = _inodes(out)
    path = write_bundle(out, _draft(job, entries, recipe_text, timings), files)
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return Shipped(path, size, kept=before.get(path.name) == path.stat().st_ino)


def _settled(job: Job, entries: Mapping[str, Entry]) -> Job:
    """What ships shows the precision that it has, not the budget that led there."""
    precision, _ = settled(job, entries)
    return replace(job, recipe=job.recipe.model_copy(update={"precision": precision}))


def _measured(entries: Mapping[str, Entry]) -> Entry | None:
    """Return the stage that measured ranges; techniques alone leave none."""
    entry = entries.get("calibrate")
    return entry if entry is not None and "cache.json" in entry.files else None


def _inodes(folder: Path) -> dict[str, int]:
    """Return folder names and their inodes: a bundle that was kept still has its own."""
    if not folder.is_dir():
        return {}
    return {path.name: path.stat().st_ino for path in folder.iterdir() if path.is_dir()}


def keep_failure_report(job: Job, entries: Mapping[str, Entry], out: Path) -> Path:
    """Write the reports of a build whose verdict was fail; return their folder.

    Raises:
        MissingError: the folder cannot be written, or the disk is full.
    """
    folder = out / f"{job.recipe.name}.failed"
    with writing(folder, "the report"):
        folder.mkdir(parents=True, exist_ok=True)
        for name, source in _reports(entries).items():
            (folder / Path(name).name).write_bytes(source.read_bytes())
    return folder


def _reports(entries: Mapping[str, Entry]) -> dict[str, Path]:
    budget = entries.get("budget")
    return {
        **({} if budget is None else {"reports/pareto.json": budget.file("pareto.json")}),
        "reports/layers.json": entries["verify"].file("layers.json"),
        "reports/optimize.json": entries["optimize"].file("optimize.json"),
        "reports/precision.json": entries["precision"].file("precision.json"),
        "reports/attest.json": entries["precision"].file("attest.json"),
        "reports/parity.json": entries["verify"].file("parity.json"),
        "reports/report.html": entries["report"].file("report.html"),
        "reports/junit.xml": entries["report"].file("junit.xml"),
    }


def _draft(
    job: Job, entries: Mapping[str, Entry], recipe_text: str, timings: Mapping[str, float]
) -> ManifestDraft:
    recipe = job.recipe
    return ManifestDraft(
        name=recipe.name,
        trtforge=__version__,
        recipe=RecipeFacts(
            name=recipe.name, sha256=hashlib.sha256(recipe_text.encode()).hexdigest()
        ),
        model=_model_facts(job, entries),
        profiles=recipe.shapes,
        precision=PrecisionFacts(
            type=recipe.precision.type,
            quantize=recipe.precision.quantize,
            keep=tuple(NodeRuleFacts(**rule.model_dump()) for rule in recipe.precision.keep),
            force=tuple(NodeRuleFacts(**rule.model_dump()) for rule in recipe.precision.force),
            io_types=recipe.precision.io_types,
        ),
        calibration=_calibration_facts(entries),
        targets=_target_facts(job, entries),
        provenance=Provenance(
            source_digest=job.model_digest(),
            overrides=dict(job.loaded.overrides),
            versions=package_versions(*_PACKAGES),
            platform=f"{platform.system()}-{platform.machine()}".lower(),
        ),
        verdicts=_verdicts(
            entries["verify"].json("parity.json"), entries["precision"].json("attest.json")
        ),
        timings={name: round(seconds, 3) for name, seconds in timings.items()},
    )


def _model_facts(job: Job, entries: Mapping[str, Entry]) -> ModelFacts:
    """Facts of the typed graph; its contract is the original's but for types that are converted."""
    typed = entries["precision"].json("precision.json")
    return ModelFacts(
        digest=typed["model"]["digest"],
        opset=typed["model"]["opset"],
        included=job.recipe.bundle.include_onnx,
        inputs=tuple(TensorFacts(**spec) for spec in typed["model"]["inputs"]),
        outputs=tuple(TensorFacts(**spec) for spec in typed["model"]["outputs"]),
    )


def _calibration_facts(entries: Mapping[str, Entry]) -> CalibrationFacts | None:
    from trtforge.pipeline.ranges import calibration_facts
    from trtforge.precision.cache import CalibrationCache

    measured = _measured(entries)
    if measured is None:
        return None
    cache = CalibrationCache.load(measured.file("cache.json"))
    return CalibrationFacts.model_validate(calibration_facts(cache))


def _target_facts(job: Job, entries: Mapping[str, Entry]) -> tuple[TargetFacts, ...]:
    found = []
    for target in job.recipe.targets:
        if target.backend == "onnxruntime":
            version = package_versions("onnxruntime")["onnxruntime"]
            found.append(TargetFacts(name=target.name, backend=target.backend, version=version))
            continue
        built = entries[f"build:{target.name}"].json("build.json")
        found.append(
            TargetFacts(
                name=target.name,
                backend=target.backend,
                version=built["version"],
                engine=f"engines/{target.name}/model.engine",
                compute_capabilities=tuple(built["compute_capabilities"]),
                bytes=built["engine_bytes"],
                options=target.options.given,
            )
        )
    return tuple(found)


def _verdicts(verdicts: Mapping[str, Any], attested: Mapping[str, Any]) -> Verdicts:
    attest = verdicts["attest"]
    figures: dict[str, Any] = {"quantized_macs_share": attest["quantized_macs_share"]}
    figures["shares"] = attested["shares"]
    return Verdicts(
        graph_parity=_parity_facts(verdicts["graph_parity"]),
        engine_parity={
            name: _parity_facts(report) for name, report in verdicts["engine_parity"].items()
        },
        attest=VerdictFacts(
            verdict=attest["verdict"],
            reason=attest["reason"],
            figures=figures,
        ),
    )


def _parity_facts(report: Mapping[str, Any]) -> VerdictFacts:
    figures: dict[str, Any] = {
        name: {figure: output["metrics"][figure] for figure in _FIGURES}
        for name, output in report["outputs"].items()
        if output["metrics"] is not None
    }
    if report["accuracy"] is not None:
        figures["accuracy"] = report["accuracy"]
    return VerdictFacts(verdict=report["verdict"], reason=report["reason"], figures=figures)
