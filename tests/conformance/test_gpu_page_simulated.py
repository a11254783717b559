"""benchmarks/gpu.py runs to its end: on the simulated TensorRT, whose figures mean nothing."""

import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulator.simulation import Simulation

from trtforge.engine.environment import Driver, Gpu, driver
from trtforge.errors import BuildError

SCRIPTS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(SCRIPTS)
    module = importlib.import_module("gpu")
    monkeypatch.setattr(module, "BACKENDS", ("tensorrt",))
    monkeypatch.setattr(module, "TYPING", {"fp16": module.TYPING["fp16"]})
    monkeypatch.setattr(module, "SCENARIOS", module.SCENARIOS[2:4])
    monkeypatch.setitem(os.environ, "TRTFORGE_CACHE", "")
    yield module
    for name in ("gpu", "gpu_page", "gpu_network"):
        sys.modules.pop(name, None)


def rows_of(text: str, *beginning: str) -> list[list[str]]:
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return [row for row in rows if row[: len(beginning)] == list(beginning)]


@pytest.mark.skipif(driver().reason is None, reason="there is a GPU: make test-gpu")
def test_without_a_gpu_no_page_is_written(script: Any, tmp_path: Path) -> None:
    assert script.main(["--output", str(tmp_path / "page.md")]) == 3
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("simulated", ["11"], indirect=True)
def test_the_page_tells_what_ran_where_and_what_failed(
    simulated: Simulation, script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(folder: Path) -> Any:
        raise RuntimeError("no | network\nhere")

    monkeypatch.setattr(script, "make_network", broken)
    page = tmp_path / "page.md"
    assert script.main(["--output", str(page), "--seconds", "0.01"]) == 0
    text = page.read_text()
    assert "device: Simulated GPU (compute capability 8.9)" in text
    assert f"tensorrt {simulated.version}" in text
    assert "error TF" not in text
    assert "- Engines of tensorrt on compute capability 8.9: 1 of 1 ran\n" in text
    assert [row[1] for row in rows_of(text, "tensorrt") if "and ran" in row[2]] == [
        *script.WEIGHT_OPTIONS
    ]
    exact, *measured, graphs = rows_of(text, "digits", "tensorrt", "fp16")
    assert exact[3].endswith("and ran")
    assert float(exact[4]) > 40
    assert 0 < int(exact[6]) <= int(exact[5]) < 1000, "units in the last place"
    assert [row[3] for row in measured] == [
        "offline, batch 32, 1 stream(s)",
        "offline, batch 32, 2 stream(s)",
    ]
    assert all(float(row[7]) > 0 for row in measured)
    assert graphs[5].startswith("not captured")
    (row,) = rows_of(text, "residual")
    assert row[3] == "not_run: a bug: RuntimeError: no / network here"


@pytest.mark.parametrize("simulated", ["11"], indirect=True)
def test_when_time_is_up_the_rest_is_said_to_be_not_run(
    simulated: Simulation, script: Any, tmp_path: Path
) -> None:
    page = tmp_path / "page.md"
    assert script.main(["--output", str(page), "--budget", "0"]) == 0
    text = page.read_text()
    assert [row[2] for row in rows_of(text, "tensorrt")] == ["not_run: time"] * 3
    assert [row[3] for row in rows_of(text, "digits")] == ["not_run: time"]
    assert "0 of 0 ran" not in text


def test_each_failure_is_a_finding(script: Any, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(left: float, error: Exception) -> None:
        assert 0 < left <= 90
        raise error

    steps = script.Steps(100.0)
    assert steps.take(fail, BuildError("TF0613", "cannot | load")) == "error TF0613: cannot / load"
    assert steps.take(fail, AttributeError("x" * 999)).startswith("a bug: AttributeError: xxx")
    assert len(steps.take(fail, AttributeError("x" * 999))) < 400
    assert "Traceback" in capsys.readouterr().err
    assert steps.take(lambda left, text: text, "done") == "done"
    with pytest.raises(RuntimeError, match="`trtforge inspect`: error"):
        steps.trtforge("inspect", "nothing.onnx", limit=60)
    with pytest.raises(RuntimeError, match="took over"):
        steps.trtforge("doctor", limit=0.01)


def test_of_several_gpus_the_page_says_which_is_used(
    script: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = sys.modules["gpu_page"]
    gpus = (Gpu("NVIDIA H100 MIG 1g.10gb", "9.0"), Gpu("NVIDIA GeForce RTX 4090", "8.9"))
    monkeypatch.setattr(page, "driver", lambda: Driver("12.4", gpus, None))
    text = page.head()
    assert "- device: NVIDIA H100 MIG 1g.10gb (compute capability 9.0); not used: " in text
    assert "takes CUDA up to 12.4" in text
    findings = [
        ("runs", "tensorrt_rtx", "built in 1 s (1 MB); it did not run: error TF0613: no"),
        ("runs", "tensorrt_rtx", "built in 1 s (1 MB) and ran"),
        ("exact", "digits fp16, tensorrt_rtx", ["61.0", "40", "12", "60.0"]),
        ("exact", "digits fp8, tensorrt_rtx", ["-"] * 4),
    ]
    _, _, runs, exact = page.answers(findings)
    assert runs.startswith("- Engines of tensorrt_rtx on compute capability 9.0: 1 of 2 ran; first")
    assert exact == "- digits fp16, tensorrt_rtx beside its emulation: 61.0 dB, at most 40 ULP"


def test_units_in_the_last_place(script: Any) -> None:
    distance = sys.modules["gpu_page"].ulp_distance
    one = np.array([1.0, -1.0, 0.0, -0.0])
    assert distance(one, one, "fp32") == (0, 0)
    above = np.nextafter(one.astype(np.float32), np.float32(9))
    assert distance(one, above, "fp32") == (1, 1)
    assert distance([-(2.0**-24)], [2.0**-24], "fp16") == (2, 2), "the smallest of both signs"
    assert distance([1.0], [1 + 2.0**-7], "bf16") == (1, 1)
    assert distance([1.0], [np.nan], "fp16")[0] == 2**15 - 1
