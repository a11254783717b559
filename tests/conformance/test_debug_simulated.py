"""`trtforge debug` that builds and runs an engine for each trial, on the simulated TensorRT.

Nothing here is a GPU result.
"""

import json
from pathlib import Path

import pytest
from running import trtforge
from simulator.simulation import Simulation

RECIPE = """
version: 1
name: digits
model: {{onnx: {digits}/model.onnx}}
shapes: {{image: {{min: [1, 1, 8, 8], opt: [8, 1, 8, 8], max: [16, 1, 8, 8]}}}}
precision: {{type: bf16}}
targets: [{{name: trt, backend: tensorrt}}]
verify: {{data: {digits}/test.npz, tolerance: {{sqnr_db: 55}}}}
"""


@pytest.mark.parametrize("simulated", ["11"], indirect=True)
def test_nodes_are_found_by_engines(simulated: Simulation, digits: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.format(digits=digits))
    asked = ("--backend", "tensorrt", "--evaluations", "6", "--json")
    run = trtforge("debug", recipe, *asked, store=tmp_path / "store")
    assert run.status == 0, run.stdout + run.stderr
    found = json.loads(run.stdout)
    assert found["outcome"] == "not_minimal"  # the limit is reached
    assert (found["before"]["verdict"], found["after"]["verdict"]) == ("fail", "pass")
    assert found["keep"]
    assert found["after"]["candidate"].startswith("tensorrt")


@pytest.mark.parametrize("simulated", ["11"], indirect=True)
def test_an_engine_file_is_not_debugged(simulated: Simulation, tmp_path: Path) -> None:
    engine = tmp_path / "m.engine"
    engine.write_bytes(b"ftrt")
    run = trtforge("debug", engine, store=tmp_path / "store")
    run.assert_clean_failure(2)
    assert "name an ONNX file, a recipe" in run.stderr
