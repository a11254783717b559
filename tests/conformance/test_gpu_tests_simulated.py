"""The tests of tests/gpu run as they are written, on the simulated TensorRT 11: no GPU's figures.

So that nothing in them is run for the first time where there is a GPU. Left out is what the fake
cannot do: capture a graph, and TensorRT-RTX's own library.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from simulator.simulation import Simulation

FOLDER = Path(__file__).parents[1] / "gpu"
LEFT_OUT = "not tensorrt_rtx and not digits and not a_session_computes"


@pytest.mark.parametrize("simulated", ["11"], indirect=True)
def test_the_gpu_tests_run(simulated: Simulation, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", str(FOLDER)]
    done = subprocess.run(
        [*command, "--require-gpu", "-k", LEFT_OUT, "--basetemp", str(tmp_path / "runs")],
        env={**os.environ, **simulated.environment},
        cwd=FOLDER.parents[1],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "SKIPPED" not in done.stdout, done.stdout
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) >= 13
