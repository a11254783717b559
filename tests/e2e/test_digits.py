"""The main job on the quickstart: four precisions, from recipe to bundle, with the real builder."""

import json
import shutil
from pathlib import Path

import pytest
from running import content_without_times, trtforge

from trtforge import open_bundle


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


def build(digits: Path, name: str, store: Path, out: Path, *more: object) -> dict:
    run = trtforge("build", digits / f"{name}.yaml", "--out", out, "--json", *more, store=store)
    assert run.status == 0, run.stdout + run.stderr
    (result,) = json.loads(run.stdout)["builds"]
    return result


@pytest.mark.parametrize("name", ["fp32", "fp16", "int8", "fp8"])
def test_each_precision_builds_to_a_verified_bundle(
    name: str, digits: Path, store: Path, tmp_path: Path
) -> None:
    result = build(digits, name, store, tmp_path)
    bundle = open_bundle(Path(result["bundle"]))
    verdicts = bundle.manifest.verdicts
    assert verdicts.graph_parity.verdict == "pass"
    engine = verdicts.engine_parity["rtx"]
    assert engine.verdict in ("pass", "not_run")
    if engine.verdict == "not_run":
        assert engine.reason == "no NVIDIA driver"
    accuracy = result["verdicts"]["graph_parity"]["accuracy"]
    assert accuracy["samples"] == 797
    assert accuracy["candidate"] >= accuracy["reference"] - 0.01
    assert accuracy["reference"] >= 0.985
    if name in ("int8", "fp8"):
        assert verdicts.attest.verdict == "pass"
        assert result["verdicts"]["attest"]["quantized_macs_share"] >= 0.8
        # Only INT8's techniques reshape the graph, and TensorRT's format cannot tell of that.
        has_text = (bundle.path / "calibration/tensorrt.calib").exists()
        assert has_text == (name == "fp8")
        # Compared with the graph that was calibrated: channels that techniques scaled are no error.
        profile = json.loads(bundle.file("reports/layers.json").read_text())
        assert min(layer["sqnr_db"] for layer in profile["layers"]) > (25 if name == "int8" else 15)
        kinds = {layer["op"]: layer["type"] for layer in profile["layers"]}
        assert (kinds["Conv"], kinds["Relu"]) == (name, "fp16"), "what is not quantized is FP16"
    else:
        assert verdicts.attest.verdict == ("pass" if name == "fp16" else "not_run")
    assert bundle.file("engines/rtx/model.engine").stat().st_size > 100_000
    assert [row["name"] for row in result["stages"]][-1] == "bundle"


def test_a_second_build_is_all_hits_and_the_same_bundle(
    digits: Path, store: Path, tmp_path: Path
) -> None:
    first = build(digits, "int8", store, tmp_path)
    second = build(digits, "int8", store, tmp_path)
    assert second["bundle"] == first["bundle"]
    assert {row["outcome"] for row in second["stages"]} == {"hit"}


def test_force_runs_everything_and_gives_the_same_content(
    digits: Path, store: Path, tmp_path: Path
) -> None:
    one = build(digits, "int8", store, tmp_path / "one")
    two = build(digits, "int8", store, tmp_path / "two", "--force")
    assert {row["outcome"] for row in two["stages"]} == {"ran"}
    first, second = (content_without_times(Path(result["bundle"])) for result in (one, two))
    assert first == second


def test_a_changed_tolerance_runs_verify_and_what_follows_only(
    digits: Path, store: Path, tmp_path: Path
) -> None:
    build(digits, "int8", store, tmp_path)
    result = build(digits, "int8", store, tmp_path, "--set", "verify.tolerance.sqnr_db=19")
    ran = [row["name"] for row in result["stages"] if row["outcome"] == "ran"]
    assert ran == ["verify", "report", "bundle"]
    plan = trtforge(
        "plan", digits / "int8.yaml", "--set", "verify.tolerance.sqnr_db=18", "--json", store=store
    )
    rows = {row["name"]: row for row in json.loads(plan.stdout)["stages"]}
    assert rows["build:rtx"]["outcome"] == "hit"
    assert rows["verify"]["outcome"] == "run"
    assert "sqnr_db" in rows["verify"]["why"]
    assert rows["report"]["outcome"] == "unknown"


def test_parity_out_of_tolerance_ships_nothing_and_keeps_the_report(
    digits: Path, store: Path, tmp_path: Path
) -> None:
    run = trtforge(
        "build",
        digits / "int8.yaml",
        "--out",
        tmp_path,
        "--set",
        "verify.tolerance.sqnr_db=90",
        store=store,
    )
    run.assert_clean_failure(5)
    assert "graph parity" in run.stderr
    assert "calibration.method minmax" in run.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["digits-int8.failed"]
    assert (tmp_path / "digits-int8.failed" / "report.html").stat().st_size > 1000


def test_attestation_below_the_recipes_share_is_exit_5(
    digits: Path, store: Path, tmp_path: Path
) -> None:
    run = trtforge(
        "build",
        digits / "int8.yaml",
        "--out",
        tmp_path,
        "--set",
        "precision.keep=[{op: Conv}]",
        store=store,
    )
    run.assert_clean_failure(5)
    assert "attest" in run.stderr


def test_verify_compares_a_bundle_with_the_original(
    digits: Path, store: Path, tmp_path: Path
) -> None:
    bundle = build(digits, "int8", store, tmp_path)["bundle"]
    arguments = (
        "verify",
        bundle,
        "--against",
        digits / "model.onnx",
        "--data",
        digits / "test.npz",
    )
    run = trtforge(*arguments, "--tolerance", "sqnr_db=20", "--json", store=store)
    assert run.status == 0, run.stderr
    document = json.loads(run.stdout)
    assert document["checks"]["graph"]["verdict"] == "pass"
    engine = document["checks"]["engine:rtx"]
    assert engine["verdict"] in ("pass", "not_run")
    assert trtforge(*arguments, "--tolerance", "sqnr_db=200", store=store).status == 5
    if engine["verdict"] == "not_run":
        assert trtforge(*arguments, "--require-engine", store=store).status == 3
        assert trtforge("verify", bundle, store=store).status == 3


def test_a_changed_byte_in_a_bundle_is_exit_7(digits: Path, store: Path, tmp_path: Path) -> None:
    bundle = Path(build(digits, "int8", store, tmp_path)["bundle"])
    broken = tmp_path / "broken"
    shutil.copytree(bundle, broken)
    engine = broken / "engines" / "rtx" / "model.engine"
    data = bytearray(engine.read_bytes())
    data[len(data) // 2] ^= 1
    engine.write_bytes(data)
    for arguments in (("verify", broken, "--against", digits / "model.onnx"), ("inspect", broken)):
        run = trtforge(*arguments, store=store)
        run.assert_clean_failure(7)
        assert "engines/rtx/model.engine" in run.stderr


def test_bf16_for_onnx_runtime_is_warned_of(digits: Path, store: Path, tmp_path: Path) -> None:
    change = ["--set", "precision.type=bf16", "--target", "cpu"]
    result = build(digits, "fp16", store, tmp_path, *change)
    (warning,) = result["warnings"]
    assert "BF16" in warning
    session_error = pytest.importorskip("onnxruntime").capi.onnxruntime_pybind11_state
    import onnxruntime

    typed = str(Path(result["bundle"]) / "model.onnx")
    with pytest.raises(session_error.NotImplemented):  # when this passes, drop the warning
        onnxruntime.InferenceSession(typed, providers=["CPUExecutionProvider"])


def test_a_keep_rule_that_does_nothing_is_warned_of_on_every_build(
    digits: Path, store: Path, tmp_path: Path
) -> None:
    change = "precision.keep=[{name: /haed/*}]"
    command = ["build", digits / "fp16.yaml", "--out", tmp_path, "--set", change]
    for outcome in ("made now", "from the store"):
        run = trtforge(*command, "-q", store=store)
        assert run.status == 0, run.stderr
        assert run.stderr.startswith("warning: the keep rule {name: /haed/*"), outcome
    run = trtforge(*command, "--json", store=store)
    (result,) = json.loads(run.stdout)["builds"]
    assert result["warnings"] == ["the keep rule {name: /haed/*, type: fp32} selects no node"]
    assert set(result["macs"]) == {"fp16"}
