"""The timing cache through our own worker, on the simulated TensorRT 10 and 11."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from engine_models import CONV_PROFILE, conv_net, matmul, save
from simulator.building import STEP_MS
from simulator.simulation import Simulation

from trtforge.engine.backend import BuildReport, BuildRequest, get_backend
from trtforge.errors import BuildError, MissingError

ON_ONE = pytest.mark.parametrize("simulated", ["10"], indirect=True)


def request(folder: Path, graph: Any, cache: Path, **more: Any) -> BuildRequest:
    folder.mkdir(exist_ok=True)
    path = save(graph, folder)
    return BuildRequest(
        path, folder / "m.plan", folder / "m.log", "tensorrt", timing_cache=cache, **more
    )


def build(wanted: BuildRequest) -> BuildReport:
    return get_backend("tensorrt").build(wanted)


def timings(cache: Path) -> dict[str, float]:
    held: dict[str, float] = json.loads(cache.read_bytes())["timings"]
    return held


def test_what_was_timed_is_kept_and_used(simulated: Simulation, tmp_path: Path) -> None:
    cache = tmp_path / "timing" / "device.cache"
    require = {"timing_cache": "require"}
    with pytest.raises(BuildError, match=r"no timing of .* in the timing cache"):
        build(request(tmp_path / "a", matmul(), cache, options=require))
    first = build(request(tmp_path / "b", matmul(), cache))
    again = build(request(tmp_path / "c", matmul(), cache, options=require))
    assert first.warnings == again.warnings == ()
    assert timings(cache)
    assert not list(cache.parent.glob("*.partial"))


@ON_ONE
def test_two_builds_at_once_keep_what_both_timed(
    simulated: Simulation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(STEP_MS, "150")  # so that each has read the file before the other writes it
    cache = tmp_path / "device.cache"
    wanted = [
        request(tmp_path / "a", matmul(), cache),
        request(tmp_path / "b", conv_net(), cache, profiles=(CONV_PROFILE,)),
    ]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(build, wanted))
    monkeypatch.delenv(STEP_MS)
    for one in wanted:
        build(
            request(
                one.onnx.parent,
                matmul() if not one.profiles else conv_net(),
                cache,
                profiles=one.profiles,
                options={"timing_cache": "require"},
            )
        )


def test_a_cache_of_another_device_is_started_anew_with_a_warning(
    simulated: Simulation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "device.cache"
    monkeypatch.setenv("TRT_SIMULATED_CAPABILITY", "8.6")
    build(request(tmp_path / "a", conv_net(), cache, profiles=(CONV_PROFILE,)))
    before = timings(cache)
    monkeypatch.delenv("TRT_SIMULATED_CAPABILITY")
    report = build(request(tmp_path / "b", matmul(), cache))
    assert "device.cache belongs to another device or version: started anew" in report.warnings[0]
    assert json.loads(cache.read_bytes())["device"] == "8.9"
    assert not set(before) & set(timings(cache))


@ON_ONE
@pytest.mark.parametrize("held", [b"", b"garbage \xff" * 50])
def test_a_damaged_cache_is_started_anew(
    simulated: Simulation, tmp_path: Path, held: bytes
) -> None:
    cache = tmp_path / "device.cache"
    cache.write_bytes(held)
    report = build(request(tmp_path / "a", matmul(), cache))
    assert len(report.warnings) == (1 if held else 0)
    assert timings(cache)


@ON_ONE
def test_a_place_that_cannot_be_written_is_said_before_the_build(
    simulated: Simulation, tmp_path: Path
) -> None:
    (tmp_path / "timing").write_text("a file where the folder should be")
    wanted = request(tmp_path / "a", matmul(), tmp_path / "timing" / "device.cache")
    with pytest.raises(MissingError, match="cannot write the timing cache"):
        build(wanted)
    assert not wanted.output.exists()


@ON_ONE
def test_an_engine_is_not_lost_to_its_timings(simulated: Simulation, tmp_path: Path) -> None:
    cache = tmp_path / "device.cache"
    (cache / "in the way").mkdir(parents=True)
    wanted = request(tmp_path / "a", matmul(), cache)
    report = build(wanted)
    assert wanted.output.stat().st_size == report.engine_bytes
    assert "what was timed is not kept: cannot write" in report.warnings[0]
