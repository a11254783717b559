"""Single engine files: without their weights, in and outside of their bundle, what is told of them.

On the simulated TensorRT: nothing here is a GPU result.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import onnx
import pytest
from engine_models import CONV_PROFILE, conv_net, save
from running import trtforge
from simulator.simulation import Simulation

from trtforge.engine.backend import BuildRequest, get_backend
from trtforge.engine.measuring.scenarios import Load
from trtforge.errors import BuildError, UsageError
from trtforge.pipeline.bench import BenchOptions, bench
from trtforge.pipeline.compare import VerifyOptions, verify
from trtforge.pipeline.inspect import inspect_path
from trtforge.pipeline.preflight import machine_here, preflight

ON_TEN = pytest.mark.parametrize("simulated", ["10"], indirect=True)
"""For what does not depend on the major version."""

RECIPE = """
version: 1
name: digits
model: {{onnx: {digits}/model.onnx}}
shapes: {{image: {{min: [1, 1, 8, 8], opt: [8, 1, 8, 8], max: [16, 1, 8, 8]}}}}
precision: {{type: bf16, io_types: convert}}
targets:
  - {{name: small, backend: tensorrt, options: {{strip_weights: true, weight_streaming: true}}}}
verify: {{data: {digits}/test.npz, tolerance: {{sqnr_db: 18}}}}
bundle: {{include_onnx: {included}}}
"""


def built(folder: Path, graph: onnx.ModelProto, **more: Any) -> tuple[Path, Path]:
    """Build an engine; returns the model and the engine."""
    folder.mkdir(exist_ok=True)
    path, engine = save(graph, folder), folder / "m.plan"
    get_backend("tensorrt").build(BuildRequest(path, engine, folder / "m.log", "tensorrt", **more))
    return path, engine


@ON_TEN
def test_a_stripped_engine_takes_the_weights_that_it_is_given(
    simulated: Simulation, tmp_path: Path
) -> None:
    model, whole = built(tmp_path / "whole", conv_net(), profiles=(CONV_PROFILE,))
    options = {"strip_weights": True}
    _, bare = built(tmp_path / "bare", conv_net(), profiles=(CONV_PROFILE,), options=options)
    with pytest.raises(BuildError, match=r"m\.plan' was built without its weights"):
        verify(bare, VerifyOptions(against=model))
    for against in (model, whole):
        given = VerifyOptions(against=against, weights=model)
        assert verify(bare, given).verdict == "pass"
    given = VerifyOptions(against=bare, against_weights=model)
    assert verify(whole, given).verdict == "pass"
    with pytest.raises(UsageError, match="is no ONNX file to take weights from"):
        verify(bare, VerifyOptions(against=model, weights=tmp_path / "none.onnx"))
    with pytest.raises(UsageError, match="--weights is of a single engine file"):
        verify(model, VerifyOptions(against=model, weights=model))
    load = Load(seconds=0.0, queries=4, warmup_seconds=0.0)
    with pytest.raises(BuildError, match="built without its weights"):
        bench(bare, BenchOptions(load))
    found = bench(bare, BenchOptions(load, weights=model, against=whole, rounds=6))
    assert found.comparison is not None
    with pytest.raises(UsageError, match="--weights is of a bare engine"):
        bench(model, BenchOptions(load, weights=model))
    answers = {one.what: one.answer for one in look(bare)["m.plan"]}
    assert answers == {
        "header": "load",
        "library": "load",
        "device": "unknown",
        "host code": "unknown",
        "weights": "unknown",
    }
    bare.write_bytes(b"no engine")
    assert preflight(bare, machine_here(None, None, allow_host_code=False)).exit_status == 4


def look(path: Path) -> Any:
    return preflight(path, machine_here(None, None, allow_host_code=False)).targets


@ON_TEN
def test_an_engine_in_its_bundle_is_told_of_by_its_manifest(
    simulated: Simulation, digits: Path, tmp_path: Path
) -> None:
    recipe, store = tmp_path / "recipe.yaml", tmp_path / "store"
    recipe.write_text(RECIPE.format(digits=digits, included="true"))
    run = trtforge("build", recipe, "--out", tmp_path, "--json", store=store)
    assert run.status == 0, run.stdout + run.stderr
    (made,) = json.loads(run.stdout)["builds"]
    # BF16 inputs and outputs, weights put back and streamed.
    assert made["verdicts"]["engine_parity"]["small"]["verdict"] == "pass"
    bundle = Path(made["bundle"])
    engine = bundle / "engines" / "small" / "model.engine"
    # Against its own typed ONNX, which is BF16, on data that is FP32; and tensor by tensor.
    data = digits / "test.npz"
    own = verify(bundle, VerifyOptions(data=data))
    assert own.checks["engine:small"].accuracy is not None
    assert own.verdict == "pass"
    layered = verify(
        bundle, VerifyOptions(against=digits / "model.onnx", data=data, layers=True, samples=4)
    )
    assert layered.verdict == "pass"
    assert layered.layers is not None
    assert len(layered.layers.layers) > 10
    with pytest.raises(UsageError, match="--layers compares a typed ONNX file"):
        verify(engine, VerifyOptions(against=digits / "model.onnx", layers=True))
    assert "stripped" in inspect_path(engine)["weights"]
    whys = {one.what: one.why for one in look(engine)["small"]}
    assert whys == {one.what: one.why for one in look(bundle)["small"]}
    assert "put back from the bundle's ONNX" in whys["weights"]
    beside = verify(bundle, VerifyOptions(against=engine))
    assert {name: one.verdict for name, one in beside.checks.items()} == {"engine:small": "pass"}
    short = ("--seconds", "0", "--queries", "4", "--warmup", "0", "--weight-budget")
    for budget, said in (("0", "holds 0 of"), ("auto", "MiB of weights")):
        run = trtforge("bench", engine, *short, budget, store=store)
        assert run.status == 0, run.stdout + run.stderr
        assert said in run.stdout
    load = Load(seconds=0.0, queries=4, warmup_seconds=0.0)
    assert bench(bundle, BenchOptions(load, data=data)).measurement.samples == 4  # FP32, rounded
    trtforge("bench", engine, *short, "-1", store=store).assert_clean_failure(2)
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "manifest.json").write_text('{"name": "of another tool"}')
    shutil.copy(engine, alone / "model.engine")
    assert "weights" not in inspect_path(alone / "model.engine")
    with pytest.raises(BuildError, match="built without its weights"):
        verify(alone / "model.engine", VerifyOptions(against=bundle / "model.onnx"))
    engine.write_bytes(engine.read_bytes()[:-1] + b"!")
    trtforge("bench", engine, store=store).assert_clean_failure(7)
