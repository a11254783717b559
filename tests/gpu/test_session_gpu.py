"""Sessions and measurements on a real GPU, of every engine library that is installed."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_models import CONV_PROFILE
from session_program import PROGRAM, REFUSALS, assert_scores_are_right

from trtforge.engine.backend import BuildRequest, get_backend
from trtforge.engine.engine_worker import EngineSource
from trtforge.engine.measuring.meter import EngineLoad, EngineMeter
from trtforge.engine.measuring.scenarios import SCENARIOS, Load
from trtforge.engine.runner import EngineRunner
from trtforge.errors import BuildError
from trtforge.pipeline.bench import BenchOptions, bench

pytestmark = pytest.mark.gpu

QUICK: dict[str, Any] = {"seconds": 0.2, "queries": 50, "warmup_seconds": 0.1}


def batches(size: int) -> list[dict[str, Any]]:
    return [{"image": np.full((size, 3, 16, 16), 0.5, np.float32)} for _ in range(2)]


def test_a_session_computes_what_onnxruntime_computes(
    built: tuple[str, Path, Path], tmp_path: Path
) -> None:
    backend, path, engine = built
    is_rtx = backend == "tensorrt_rtx"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, backend, str(tmp_path), str(engine)],
        env={**os.environ, "POLYGRAPHY_USE_TENSORRT_RTX": "1" if is_rtx else "0"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    facts, *refusals = done.stdout.splitlines()
    assert ("'by TensorRT-RTX'" if is_rtx else "'captured'") in facts, "CUDA graphs"
    assert refusals == REFUSALS
    assert (tmp_path / "kernels").exists() == is_rtx, "the runtime cache"
    assert_scores_are_right(tmp_path, path, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("graphs", [False, True])
def test_every_scenario_is_measured_and_the_gpus_time_is_part_of_it(
    built: tuple[str, Path, Path], graphs: bool
) -> None:
    backend, _, engine = built
    subject = EngineLoad(engine, backend, streams=2, graphs=graphs)
    with EngineMeter(subject, batches(4)) as meter:
        for scenario in SCENARIOS:
            found = meter.measure(Load(scenario, 4, rate=500.0, streams=2, **QUICK))
            assert len(found.device_times) == len(found.times) >= 50
            assert 0 < np.median(found.device_times) < np.median(found.times)


def test_compiled_kernels_are_found_again(built: tuple[str, Path, Path], tmp_path: Path) -> None:
    backend, _, engine = built
    subject = EngineLoad(engine, backend, runtime_cache=tmp_path / "store" / "kernels")
    said = []
    for _ in range(2):
        with EngineMeter(subject, batches(1)) as meter:
            said.append(meter.facts.get("runtime_cache"))
    assert said == (["new", "loaded"] if backend == "tensorrt_rtx" else [None, None])


def test_an_engine_takes_turns_with_its_onnx(built: tuple[str, Path, Path]) -> None:
    backend, path, engine = built
    options = BenchOptions(Load(**QUICK), backend=backend, against=path, rounds=6)
    found = bench(engine, options)
    assert found.comparison is not None
    assert found.comparison.rounds == 6
    assert found.measurement.device_times


@pytest.mark.parametrize(
    "options", [{"refit": "all"}, {"refit": "identical", "strip_weights": True}]
)
def test_engines_with_weights_to_be_put_in_run(
    built: tuple[str, Path, Path], tmp_path: Path, options: dict[str, Any]
) -> None:
    """Whether a library builds these with a driver is its own matter; what it builds must run."""
    backend, path, _ = built
    request = BuildRequest(
        path, tmp_path / "m.engine", tmp_path / "m.log", backend, (CONV_PROFILE,), options=options
    )
    try:
        get_backend(backend).build(request)
    except BuildError as error:
        pytest.skip(f"not run: {backend} does not build it: {error.message}")
    weights = path if options.get("strip_weights") else None
    feeds = batches(2)[0]
    with (
        EngineRunner(EngineSource(request.output, backend, weights=weights)) as candidate,
        EngineRunner(EngineSource(built[2], backend)) as plain,
    ):
        np.testing.assert_allclose(
            candidate.infer(feeds)["scores"], plain.infer(feeds)["scores"], rtol=1e-3, atol=1e-4
        )
