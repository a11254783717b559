"""The 15 faults of a worker: one clear error each, nothing half-written, the other engine built."""

import errno
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from engine_models import matmul, save
from faulty_builds import (
    RECIPE,
    assert_nothing_half_written,
    failing_build,
    inject,
    stored_engines,
)

from trtforge.engine import supervisor

REPOSITORY = Path(__file__).parents[2]
CRASH = "building model.onnx with tensorrt_rtx failed: it crashed"


@dataclass(frozen=True)
class Fault:
    """One fault of the target `bad`.

    Attributes:
        stand_in: the fault that the stand-in for the worker plays; empty for the real worker.
        status: the exit status of the build.
        code: the code of its one error.
        words: what its message says.
        target: settings of the target, as in a recipe.
        around: what is wrong in the process that builds, rather than in the worker.
    """

    stand_in: str
    status: int
    code: str
    words: str
    target: str = ""
    around: Callable[[pytest.MonkeyPatch], None] = lambda patch: None


def wall_clock_jumps(patch: pytest.MonkeyPatch) -> None:
    """Each look at the wall clock shows another day; builds are to be timed by another clock."""
    days: Iterator[float] = iter(86_400.0 * (-1) ** day * day for day in range(10**6))
    patch.setattr(time, "time", lambda: next(days))


def store_is_read_only(patch: pytest.MonkeyPatch) -> None:
    """The folder of this one build cannot be made: the store's disk went read-only."""
    mkdir = Path.mkdir

    def refuse(path: Path, *args: Any, **options: Any) -> None:
        if path.name.startswith("bad-"):
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        mkdir(path, *args, **options)

    patch.setattr(Path, "mkdir", refuse)


HANG = "took longer than 1.5 s and was stopped"
FAULTS = {
    "segfault": Fault("segfault", 4, "TF0609", f"{CRASH} (SIGSEGV)"),
    "abort": Fault("abort", 4, "TF0609", f"{CRASH} (SIGABRT)"),
    "kill -9": Fault("kill", 4, "TF0610", "was killed (SIGKILL), most likely for want of memory"),
    "hang": Fault("hang", 4, "TF0612", HANG, "timeout_s: 1.5"),
    "out of memory": Fault(
        "memory", 4, "TF0618", "MiB of memory, the limit is 450 MiB", "memory_limit_mib: 450"
    ),
    "full disk": Fault("disk", 3, "TF0301", "no space left for"),
    "unreadable log": Fault("log", 4, "TF0609", f"{CRASH} (SIGSEGV)"),
    "wrong magic": Fault("magic", 4, "TF0623", r"begins with b'\x00\x00\x00\x00', plans with"),
    "truncated engine": Fault("truncated", 4, "TF0623", "left no whole engine: it has"),
    "parser that says True": Fault("garbage", 4, "TF0604", "is empty or no ONNX model"),
    "ERROR line with success": Fault("error-line", 4, "TF0608", "something is not as it should be"),
    "clock that jumps": Fault("hang", 4, "TF0612", HANG, "timeout_s: 1.5", around=wall_clock_jumps),
    "missing library": Fault("library", 3, "TF0602", "libtensorrt_rtx.so.1: cannot open shared"),
    "wrong version": Fault("version", 3, "TF0624", "tensorrt_rtx 1.2.0.54 is too old: 1.7 or"),
    "read-only store": Fault(
        "", 3, "TF0302", "cannot write the build's folder: Read-only", around=store_is_read_only
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model and a store, shared: what stands before the engines is made once."""
    folder = tmp_path_factory.mktemp("faults")
    save(matmul(), folder)
    return folder


@pytest.fixture
def work(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder, with no engine in its store."""
    for name in ("objects/build", "builds"):
        shutil.rmtree(folder / "store" / name, ignore_errors=True)
    monkeypatch.setenv("TRTFORGE_CACHE", str(folder / "store"))
    monkeypatch.setattr(supervisor, "CANCEL_GRACE_S", 0.3)
    return folder


@pytest.mark.parametrize("name", FAULTS)
def test_fault(
    name: str, work: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = FAULTS[name]
    (work / "recipe.yaml").write_text(RECIPE.format(target=fault.target))
    if fault.stand_in:
        inject(fault.stand_in, "bad", monkeypatch)
    started = time.monotonic()
    with monkeypatch.context() as around:
        fault.around(around)
        status, err = failing_build(work, capfd)
    assert time.monotonic() - started < 20
    assert status == fault.status, err
    assert err.count("error[TF") == 1
    assert f"error[{fault.code}]: target 'bad': " in err
    assert fault.words in err
    assert len(stored_engines(work)) == 1, "the other engine is in the store"
    assert_nothing_half_written(work / "store")
    if name == "unreadable log":
        assert "its log cannot be read: Is a directory" in err


def test_there_are_15_faults() -> None:
    assert len(FAULTS) == 15
