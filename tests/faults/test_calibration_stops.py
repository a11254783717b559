"""Calibration that is killed or interrupted leaves a sound partial cache, and goes on from it."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from precision_samples import Samples, net

from trtforge.graph.inputs import random_feeds
from trtforge.precision.cache import CalibrationCache
from trtforge.precision.calibrate import CalibrationRequest, calibrate
from trtforge.precision.quantize import candidate_tensors
from trtforge.precision.streaming import Progress
from trtforge.recipe.schema import Precision

SAMPLES = 60

PROGRAM = """
import sys, time
sys.path[:0] = sys.argv[1:3]
from pathlib import Path
from test_calibration_stops import measure

def slowly(fraction, text):
    Path(sys.argv[3]).with_name("started").touch()
    time.sleep(0.05)

measure(Path(sys.argv[3]), float(sys.argv[4]), slowly)
"""


def measure(
    checkpoint: Path | None, seconds: float = 20.0, told: Progress | None = None
) -> CalibrationCache:
    model = net("cnn")
    data = Samples(random_feeds(model, {"image": (SAMPLES, 3, 16, 16)}, 4))
    names = candidate_tensors(model, Precision(quantize="int8"))
    request = CalibrationRequest(
        names, "entropy", checkpoint=checkpoint, checkpoint_seconds=seconds
    )
    return calibrate(model, data, request, told)


@contextmanager
def running(checkpoint: Path, seconds: float) -> Iterator[subprocess.Popen[str]]:
    here = Path(__file__).parent
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(here), str(here.parent), str(checkpoint), str(seconds)],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.005)


def resumed(checkpoint: Path) -> tuple[int, str]:
    """How many samples are left to run, and the cache."""
    told: list[str] = []
    cache = measure(checkpoint, told=lambda fraction, text: told.append(text))
    return len(told), cache.as_text()


def test_a_killed_run_goes_on_to_the_same_cache(tmp_path: Path) -> None:
    checkpoint = tmp_path / "cache.json"
    with running(checkpoint, 0.0) as process:
        wait_for(lambda: any(tmp_path.glob("cache.json.*.partial")), process)
        time.sleep(0.12)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    left, text = resumed(checkpoint)
    assert left < SAMPLES
    assert text == measure(None).as_text()
    assert list(tmp_path.glob("cache.json*")) == []


def test_a_run_killed_before_its_first_partial_cache_starts_again(tmp_path: Path) -> None:
    with running(tmp_path / "cache.json", 1e9) as process:
        time.sleep(0.2)
        process.kill()
    assert resumed(tmp_path / "cache.json") == (SAMPLES, measure(None).as_text())


@pytest.mark.parametrize("when", [0.0, 0.3])
def test_ctrl_c_leaves_a_sound_partial_cache(tmp_path: Path, when: float) -> None:
    """No time-out writes one here: only the interrupt does."""
    checkpoint = tmp_path / "cache.json"
    with running(checkpoint, 1e9) as process:
        wait_for((tmp_path / "started").exists, process)
        time.sleep(when)
        process.send_signal(signal.SIGINT)
        errors = process.communicate(timeout=30)[1]
    assert process.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" in errors
    (partial,) = tmp_path.glob("cache.json.*.partial")
    found = CalibrationCache.load(partial)
    assert 0 < found.samples < SAMPLES
    assert all(seen.runs == found.samples for seen in found.ranges.values())
    assert resumed(checkpoint) == (SAMPLES - found.samples, measure(None).as_text())
