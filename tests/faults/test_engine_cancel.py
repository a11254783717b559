"""Ctrl-C while two engines are built at once: cancelled, then ended, and nothing is left."""

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from engine_models import light_densenet, matmul, save
from faulty_builds import RECIPE, assert_nothing_half_written, inject

from trtforge.cli.main import _run
from trtforge.engine import supervisor
from trtforge.pipeline import execution
from trtforge.pipeline.events import Event, StageProgress
from trtforge.pipeline.run import BuildOptions, build_recipe


def interrupt_when(is_time: Callable[[], bool], said: dict[str, float]) -> None:
    """Send a Ctrl-C to this process at the right moment, from a thread."""

    def wait() -> None:
        deadline = time.monotonic() + 60
        while not is_time() and time.monotonic() < deadline:
            time.sleep(0.02)
        said["interrupted"] = time.monotonic()
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=wait, daemon=True).start()


def interrupted_build(
    work: Path, capfd: pytest.CaptureFixture[str], is_time: Callable[[], bool], jobs: int
) -> float:
    """Seconds from the Ctrl-C to the end of a build."""
    said: dict[str, float] = {}
    interrupt_when(is_time, said)
    arguments = ["build", str(work / "recipe.yaml"), "--out", str(work / "out")]
    status = _run([*arguments, "--jobs", str(jobs)])
    seconds = time.monotonic() - said["interrupted"]
    out, err = capfd.readouterr()
    assert status == 130, err
    assert err.endswith("interrupted\n")
    assert "Traceback" not in err
    assert out == ""
    assert not (work / "out").exists()
    assert_nothing_half_written(work / "store")
    assert not list((work / "store" / "objects").glob("build/*"))
    return seconds


def found(store: Path, pattern: str) -> list[Path]:
    return list((store / "builds").glob(pattern))


@pytest.mark.parametrize("jobs", [1, 2])
def test_workers_that_do_not_listen_are_ended(
    jobs: int, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both hang with half of an engine on the disk."""
    monkeypatch.setenv("TRTFORGE_CACHE", str(tmp_path / "store"))
    monkeypatch.setattr(supervisor, "CANCEL_GRACE_S", 0.5)
    save(matmul(), tmp_path)
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(target=""))
    for target in ("bad", "good"):
        inject("hang", target, monkeypatch)

    def is_time() -> bool:
        halves = found(tmp_path / "store", "*/.model.engine.*.partial")
        return len([path for path in halves if path.stat().st_size]) == jobs

    assert interrupted_build(tmp_path, capfd, is_time, jobs) < 5


def test_the_builder_is_cancelled_through_its_progress_monitor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both workers say that they were cancelled, and end by themselves."""
    monkeypatch.setattr(supervisor, "CANCEL_GRACE_S", 30.0)
    monkeypatch.setattr(execution, "_CANCEL_S", 60.0)
    ends = []
    kill = supervisor.Worker._kill

    def note(worker: supervisor.Worker) -> None:
        ends.append(worker._process.poll())
        kill(worker)

    monkeypatch.setattr(supervisor.Worker, "_kill", note)
    shutil.copy(light_densenet(), tmp_path / "model.onnx")
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(target="") + "passes: {use: none}\n")
    building: set[str] = set()

    def listen(event: Event) -> None:
        if isinstance(event, StageProgress) and (event.fraction or 0) > 0.1:
            building.add(event.stage)

    interrupt_when(lambda: building == {"build:bad", "build:good"}, {})
    options = BuildOptions(out=tmp_path / "out", store=tmp_path / "store", jobs=2)
    with pytest.raises(KeyboardInterrupt):
        build_recipe(tmp_path / "recipe.yaml", options, listen)
    assert ends == [4, 4]
    assert_nothing_half_written(tmp_path / "store")
    assert not list((tmp_path / "store" / "objects").glob("build/*"))
