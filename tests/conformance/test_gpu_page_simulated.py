"""benchmarks/gpu.py runs to its end: on the simulated TensorRT, whose figures mean nothing."""

import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest
from simulator.simulation import Simulation

from trtforge.engine.environment import driver

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    spec = importlib.util.spec_from_file_location("gpu_page", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "BACKENDS", ("tensorrt",))
    monkeypatch.setattr(module, "PRECISIONS", {"fp16": "{type: fp16}"})
    monkeypatch.setattr(module, "SCENARIOS", module.SCENARIOS[2:4])
    monkeypatch.setitem(os.environ, "TRTFORGE_CACHE", "")
    return module


@pytest.mark.skipif(driver().reason is None, reason="there is a GPU: make test-gpu")
def test_without_a_gpu_no_page_is_written(script: Any, tmp_path: Path) -> None:
    assert script.main(["--output", str(tmp_path / "page.md")]) == 3
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("simulated", ["11"], indirect=True)
def test_the_page_tells_what_ran_where(simulated: Simulation, script: Any, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    assert script.main(["--output", str(page), "--seconds", "0.01"]) == 0
    text = page.read_text()
    assert "device: Simulated GPU (compute capability 8.9)" in text
    assert f"tensorrt {simulated.version}" in text
    assert "error TF" not in text
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| tensorrt |")]
    ran = [row for row in rows if row[1] == "fp16"]
    assert [len(row) for row in ran] == [5, 8, 8, 6]
    assert ran[0][2] == "ran; parity pass"
    assert float(ran[0][3]) > 40
    assert [row[2] for row in rows if "and ran" in row[-1]] != []
