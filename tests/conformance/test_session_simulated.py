"""Engines run and measured through the worker, on the simulated TensorRT 10 and 11.

A fake stands at the GPU boundary (simulator over host memory): no time of it is a GPU result.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_models import CONV_PROFILE, conv_net, save
from session_program import PROGRAM, REFUSALS, assert_scores_are_right
from simulator.simulation import Simulation

from trtforge.engine.backend import BuildRequest, get_backend
from trtforge.engine.measuring.meter import EngineLoad, EngineMeter
from trtforge.engine.measuring.scenarios import SCENARIOS, Load
from trtforge.errors import BuildError

WIDE = {"image": ((9, 3, 16, 16), (16, 3, 16, 16), (32, 3, 16, 16))}
QUICK: dict[str, Any] = {"seconds": 0.0, "queries": 12, "warmup_seconds": 0.0}


@pytest.fixture
def engine(simulated: Simulation, tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """(model, engine) with two profiles."""
    path = save(conv_net(), tmp_path)
    wanted = BuildRequest(
        path, tmp_path / "m.engine", tmp_path / "m.log", "tensorrt", (CONV_PROFILE, WIDE)
    )
    get_backend("tensorrt").build(wanted)
    return path, wanted.output


def test_a_session_computes_what_onnxruntime_computes(
    simulated: Simulation, engine: tuple[Path, Path], tmp_path: Path
) -> None:
    path, built = engine
    said = simulated.python(PROGRAM, "tensorrt", str(tmp_path), str(built)).splitlines()
    # The fake cannot capture what runs in Python, and says so as the real runtime would.
    assert said[0].startswith("{'cuda_graphs': 'not captured: cudaStreamBeginCapture failed")
    assert said[1:] == REFUSALS
    assert not (tmp_path / "kernels").exists(), "TensorRT has no runtime cache"
    assert_scores_are_right(tmp_path, path, rtol=1e-5, atol=1e-6)


def batches(*sizes: int) -> list[dict[str, Any]]:
    return [{"image": np.ones((size, 3, 16, 16), np.float32)} for size in sizes]


ON_ONE = pytest.mark.parametrize("simulated", ["11"], indirect=True)
"""For what does not depend on the major version."""


@ON_ONE
def test_an_engine_is_measured_in_every_scenario(engine: tuple[Path, Path]) -> None:
    with EngineMeter(EngineLoad(engine[1], "tensorrt", streams=3), batches(2, 2)) as meter:
        for scenario in SCENARIOS:
            load = Load(scenario, 2, rate=500.0, streams=3, **QUICK)
            one = meter.measure(load)
            assert len(one.device_times) == len(one.times) == 12
            assert one.samples == 24
            assert min(one.device_times) >= 0
            assert np.median(one.device_times) <= np.median(one.times)
            assert one.as_json()["device"]["count"] == 12
            assert (one.joules is None) == ("reason" in meter.facts["gpu"])


@ON_ONE
def test_what_no_profile_takes_is_refused_and_the_worker_ends(engine: tuple[Path, Path]) -> None:
    subject = EngineLoad(engine[1], "tensorrt")
    with (
        pytest.raises(BuildError, match="no optimization profile"),
        EngineMeter(subject, batches(33)),
    ):
        pass
