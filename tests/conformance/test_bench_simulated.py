"""`trtforge bench` on bundles and engines, on the simulated TensorRT 11.

A fake stands at the GPU boundary: no figure of it is a GPU result.
"""

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from running import trtforge
from simulator import running as simulated_runs
from simulator.bindings import VERSIONS
from simulator.simulation import Simulation, simulation

from trtforge.engine import environment
from trtforge.engine.measuring.meter import EngineLoad, EngineMeter
from trtforge.engine.measuring.scenarios import Load
from trtforge.errors import BuildError, DataError, UsageError
from trtforge.pipeline.bench import BenchOptions, BenchResult, bench
from trtforge.pipeline.declared import Asked, declared

RECIPE = """
version: 1
name: digits
model: {{onnx: {digits}/model.onnx}}
shapes:
  image: {{min: [1, 1, 8, 8], opt: [8, 1, 8, 8], max: [16, 1, 8, 8]}}
targets:
  - {{name: one, backend: tensorrt}}
  - {{name: two, backend: tensorrt, options: {{refit: identical, strip_weights: true}}}}
performance: {{scenario: offline, batch: 4, limits: ["samples_per_second>=1", "p99_ms<=1e-9"]}}
verify: {{data: {digits}/test.npz}}
"""
LOAD = Load(seconds=0.0, queries=12, warmup_seconds=0.0)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One simulator for all of this file, seen by this process and its workers."""
    with pytest.MonkeyPatch.context() as patch:
        found = simulation(VERSIONS["11"], tmp_path_factory.mktemp("simulated"))
        for name, value in found.environment.items():
            patch.setenv(name, value)
        patch.syspath_prepend(found.modules)
        patch.setattr(environment, "DRIVER_LIBRARY", str(found.driver))
        environment.driver.cache_clear()
        yield found
    environment.driver.cache_clear()


@pytest.fixture(scope="module")
def bundle(simulated: Simulation, digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    (folder / "recipe.yaml").write_text(RECIPE.format(digits=digits))
    run = trtforge(
        "build", folder / "recipe.yaml", "--out", folder, "--json", store=folder / "store"
    )
    assert run.status == 0, run.stdout + run.stderr
    (built,) = json.loads(run.stdout)["builds"]
    return Path(built["bundle"])


def measured(subject: Path, load: Load = LOAD, **more: Any) -> BenchResult:
    return bench(subject, BenchOptions(load, **more))


def test_a_bundles_engine_is_measured_and_limits_hold(bundle: Path, digits: Path) -> None:
    found = measured(
        bundle,
        Load("offline", 4, seconds=0.0, queries=12, warmup_seconds=0.0, streams=2),
        target="two",
        data=digits / "test.npz",
        limits=("p99_ms<=1e-9", "samples_per_second>=1"),
        graphs=True,
    )
    document = found.as_json()
    assert document["backend"] == "tensorrt"
    assert document["device"]["count"] == 12
    assert document["samples"] == 48
    assert "not captured" in document["environment"]["cuda_graphs"]
    assert [text.split(":")[0] for text in found.missed] == ["p99_ms <= 1e-09"]
    assert found.exit_status == 6


def test_the_highest_rate_of_an_engine_is_searched_for(bundle: Path) -> None:
    load = Load("server", seconds=0.05, queries=10, warmup_seconds=0.0, streams=2)
    found = measured(bundle, load, target="one", target_ms=1000.0)
    assert found.rates
    assert found.missed == ()
    assert found.measurement.latency_ms <= 1000.0


def test_engines_take_turns_with_each_other_and_with_onnx(bundle: Path, digits: Path) -> None:
    for against, target in ((bundle, "two"), (digits / "model.onnx", None)):
        found = measured(bundle, target="one", against=against, against_target=target, rounds=6)
        assert found.comparison is not None
        assert found.comparison.rounds == 6
        assert found.other is not None
        assert len(found.measurement.device_times) == len(found.measurement.times) == 12
        assert bool(found.other.device_times) == (target is not None)


def test_a_bare_engine_says_itself_what_it_takes(
    bundle: Path, digits: Path, tmp_path: Path
) -> None:
    engine = bundle / "engines" / "one" / "model.engine"
    load = Load("multi-stream", 5, seconds=0.0, queries=8, warmup_seconds=0.0)
    assert measured(engine, load, backend="tensorrt").measurement.samples == 40
    found = measured(engine, load, backend="tensorrt", data=digits / "test.npz")
    assert found.measurement.samples == 40
    few = tmp_path / "few.npz"
    np.savez(few, image=np.zeros((2, 1, 8, 8), np.float32))
    with pytest.raises(UsageError, match="a query takes 5"):
        measured(engine, load, backend="tensorrt", data=few)
    with pytest.raises(UsageError, match="needs the model"):
        measured(engine, backend="tensorrt", shapes=("image=1x1x8x8",))
    few.write_bytes(b"no archive")
    with pytest.raises(DataError, match="is no"):
        measured(engine, backend="tensorrt", data=few)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "has 2 such engines"),
        ({"backend": "tensorrt_rtx"}, "has 0 such engines"),
        ({"target": "three"}, "has no engine 'three'"),
        ({"target": "one", "backend": "onnxruntime"}, "a target is one of"),
        ({"target": "one", "threads": 2}, "threads are of ONNX Runtime"),
    ],
)
def test_which_engine_must_be_clear(bundle: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        measured(bundle, **options)


def test_a_bare_engine_has_no_targets(bundle: Path) -> None:
    engine = bundle / "engines" / "one" / "model.engine"
    with pytest.raises(UsageError, match="a target is one of"):
        measured(engine, target="one")
    with pytest.raises(UsageError, match="ONNX Runtime does not run"):
        measured(engine, backend="onnxruntime")


def test_an_engine_that_does_not_run_tells_why(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stripped = bundle / "engines" / "two" / "model.engine"
    assert measured(stripped, backend="tensorrt").measurement.samples == 12
    monkeypatch.setenv(simulated_runs.FAULT, "failed")
    with pytest.raises(BuildError, match=r"did not run: .*Cuda Runtime \(simulated\)"):
        measured(stripped, backend="tensorrt")


def test_a_worker_that_dies_is_one_clear_error(bundle: Path) -> None:
    subject = EngineLoad(bundle / "engines" / "one" / "model.engine", "tensorrt")
    with EngineMeter(subject, ()) as meter:
        os.kill(meter.worker.process_id, signal.SIGKILL)
        with pytest.raises(BuildError, match="was killed") as caught:
            meter.measure(LOAD)
    assert caught.value.exit_status == 4
    assert "/" not in (caught.value.hint or ""), "no file is named that is gone"


def test_the_recipe_says_what_is_measured_and_what_must_hold(bundle: Path, tmp_path: Path) -> None:
    found = declared(bundle, Asked())
    assert (found.load.scenario, found.load.samples_per_query) == ("offline", 4)
    assert found.limits == ("samples_per_second>=1", "p99_ms<=1e-9")
    assert declared(bundle, Asked(limits=("p99_ms<=5",))).limits == ("p99_ms<=5",)
    other = declared(bundle, Asked(scenario="multi-stream"))
    assert (other.load.samples_per_query, other.limits) == (8, ())
    assert "not judged" in (other.note or "")
    assert declared(bundle, Asked(batch=2)).note
    assert declared(bundle / "model.onnx", Asked()).load == Load()

    short = ("--seconds", "0", "--queries", "8", "--warmup", "0", "--target", "one")
    run = trtforge("bench", bundle, *short, store=tmp_path)
    assert run.status == 6, run.stdout + run.stderr
    assert "missed: p99_ms <= 1e-09" in run.stdout
    assert "GPU's own time" in run.stdout
    run = trtforge("bench", bundle, *short, "--batch", "2", "--json", store=tmp_path)
    assert run.status == 0, run.stdout + run.stderr
    (note,) = [text for text in json.loads(run.stdout)["warnings"] if "not judged" in text]
    assert "the recipe's limits" in note
