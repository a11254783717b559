"""Recipes for TensorRT 10 and 11 from the command line to the bundle, on the simulator.

Nothing here is a GPU result: the simulator computes with ONNX Runtime over a fake GPU.
"""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from running import trtforge
from simulator.simulation import Simulation

from trtforge.pipeline.judge import EngineCandidate, judge_engine
from trtforge.pipeline.preflight import machine_here, preflight

RECIPE = """
version: 1
name: digits
model: {{onnx: {digits}/model.onnx}}
shapes:
  - image: {{min: [1, 1, 8, 8], opt: [8, 1, 8, 8], max: [16, 1, 8, 8]}}
  - image: {{min: [17, 1, 8, 8], opt: [64, 1, 8, 8], max: [256, 1, 8, 8]}}
precision: {precision}
calibration: {{data: {digits}/calib.npz, method: minmax, samples: 64}}
targets:
  - {{name: trt, backend: tensorrt, options: {options}}}
verify:
  data: {digits}/test.npz
  tolerance: {{sqnr_db: 18, top1_agreement: 0.98}}
  attest: {attest}
bundle: {{include_onnx: true}}
"""
PRECISIONS = {
    "fp16": ("{type: fp16}", "{}"),
    "int8": ("{type: fp16, quantize: int8}", "{min_quantized_macs: 0.5}"),
}


def recipe(folder: Path, digits: Path, precision: str, options: str = "{}") -> Path:
    text, attest = PRECISIONS[precision]
    path = folder / "recipe.yaml"
    path.write_text(RECIPE.format(digits=digits, precision=text, attest=attest, options=options))
    return path


def asked(*arguments: object, store: Path, status: int = 0) -> Any:
    run = trtforge(*arguments, "--json", store=store)
    assert run.status == status, run.stdout + run.stderr
    return json.loads(run.stdout)


@pytest.mark.parametrize("simulated", ["10"], indirect=True)
def test_a_recipe_becomes_a_bundle_whose_engine_is_verified(
    simulated: Simulation, digits: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    path = recipe(tmp_path, digits, "int8")
    (built,) = asked("build", path, "--out", tmp_path / "out", store=store)["builds"]
    verdicts = built["verdicts"]
    assert verdicts["graph_parity"]["verdict"] == "pass"
    assert verdicts["engine_parity"]["trt"]["verdict"] == "pass"
    assert verdicts["attest"]["verdict"] == "pass"
    bundle = Path(built["bundle"])
    (target,) = json.loads((bundle / "manifest.json").read_text())["targets"]
    assert target["version"] == simulated.version
    assert target["compute_capabilities"] == ["8.9"]
    assert list((store / "timing").glob("tensorrt-*.cache"))

    against = ("--against", digits / "model.onnx", "--data", digits / "test.npz")
    again = asked("verify", bundle, *against, "--require-engine", store=store)
    assert again["verdict"] == "pass"
    assert_preflight(bundle)
    assert_attested(bundle, "int8", store)


def assert_attested(bundle: Path, product: str, store: Path) -> None:
    found = asked("attest", bundle, "--require", f"macs.{product}>=0.5", store=store)
    assert found["verdict"] == "pass"
    (engine,) = [view for view in found["views"] if view["name"].startswith("engine")]
    assert engine["attested"], engine
    assert not engine["contradictions"]


def assert_preflight(bundle: Path) -> None:
    def answers(device: str | None) -> dict[str, str]:
        found = preflight(bundle, machine_here(device, None, allow_host_code=False))
        return {finding.why: finding.answer for finding in found.targets["trt"]}

    assert set(answers(None).values()) == {"load"}
    assert answers("8.6")["the GPU has 8.6, built for 8.9"] == "no-load"


@pytest.mark.parametrize("simulated", ["11"], indirect=True)
def test_a_second_build_is_a_hit_and_another_gpu_is_another_engine(
    simulated: Simulation, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store"
    path = recipe(tmp_path, digits, "fp16")

    def build() -> tuple[dict[str, Any], dict[str, str]]:
        (built,) = asked("build", path, "--out", tmp_path / "out", store=store)["builds"]
        return built, {row["name"]: row["outcome"] for row in built["stages"]}

    first, outcomes = build()
    assert outcomes["build:trt"] == "ran"
    assert first["verdicts"]["engine_parity"]["trt"]["verdict"] == "pass"
    assert_attested(Path(first["bundle"]), "fp16", store)
    assert set(build()[1].values()) == {"hit"}
    monkeypatch.setenv("TRT_SIMULATED_CAPABILITY", "8.6")
    other, outcomes = build()
    assert outcomes["build:trt"] == "ran"
    assert outcomes["precision"] == "hit"
    assert other["bundle"] != first["bundle"]
    assert len(list((store / "timing").glob("tensorrt-*.cache"))) == 2


@pytest.mark.parametrize("simulated", ["11"], indirect=True)
def test_without_a_driver_the_recipe_is_refused_before_any_stage(
    simulated: Simulation, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LD_LIBRARY_PATH")
    run = trtforge(
        "build", recipe(tmp_path, digits, "fp16"), "--out", tmp_path, store=tmp_path / "store"
    )
    run.assert_clean_failure(3)
    assert "no NVIDIA driver" in run.stderr


@pytest.mark.parametrize("simulated", ["10"], indirect=True)
def test_engines_that_bring_code_or_lack_weights_are_judged_too(
    simulated: Simulation, digits: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    given = "{version_compatible: true, strip_weights: true}"
    path = recipe(tmp_path, digits, "fp16", given)
    # What was built here may run its code here, with the weights of the model put back.
    (built,) = asked("build", path, "--out", tmp_path / "out", store=store)["builds"]
    assert built["verdicts"]["engine_parity"]["trt"]["verdict"] == "pass"
    # What comes from elsewhere may not, unless the user says so.
    check = ("verify", built["bundle"], "--data", digits / "test.npz")
    run = trtforge(*check, store=store)
    run.assert_clean_failure(4)
    assert "host code, which is not allowed" in run.stderr
    assert "--allow-host-code" in run.stderr
    found = asked(*check, "--allow-host-code", store=store)
    assert found["checks"]["engine:trt"]["verdict"] == "pass"


@pytest.mark.parametrize("simulated", ["11"], indirect=True)
def test_an_engine_for_windows_is_shipped_and_not_run(
    simulated: Simulation, digits: Path, tmp_path: Path
) -> None:
    """Source: NvInfer.h, RuntimePlatform: it does not run on the system that built it."""
    path = recipe(tmp_path, digits, "fp16", "{runtime_platform: windows_amd64}")
    asking = ("build", path, "--out", tmp_path / "out")
    (built,) = asked(*asking, store=tmp_path / "store")["builds"]
    parity = built["verdicts"]["engine_parity"]["trt"]
    assert (parity["verdict"], parity["reason"]) == ("not_run", "it is built for Windows")


@pytest.mark.parametrize("simulated", ["11"], indirect=True)
def test_sparsity_of_dense_weights_is_said_to_change_nothing(
    simulated: Simulation, digits: Path, tmp_path: Path
) -> None:
    path = recipe(tmp_path, digits, "fp16", "{sparsity: true}")
    run = trtforge("build", path, "--out", tmp_path / "out", "-q", store=tmp_path / "store")
    assert run.status == 0
    assert "target 'trt': no layer has 2:4 sparse weights, so sparsity changes" in run.stderr
    built = json.loads(next((tmp_path / "out").glob("*/engines/trt/build.json")).read_bytes())
    assert [layer["sparse"] for layer in built["sparsity"]] == [0] * len(built["sparsity"])


@pytest.mark.parametrize("simulated", ["11"], indirect=True)
def test_a_stripped_engine_without_its_model_is_not_run(simulated: Simulation) -> None:
    question: Any = SimpleNamespace(reference=Path("model.onnx"))
    engine = EngineCandidate(Path("model.engine"), "tensorrt", {"strip_weights": True})
    report = judge_engine(question, engine)
    assert report.verdict == "not_run"
    assert report.reason == (
        "its weights are stripped, and there is no ONNX file to put them back from"
    )
