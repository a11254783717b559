"""Several engines in one build: each to its own end, all failures told, memory shared."""

import json
import shlex
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from engine_models import matmul, save
from faulty_builds import RECIPE, failing_build, inject, stored_engines

from trtforge.cli.main import _run
from trtforge.engine import builder, supervisor
from trtforge.engine.backend import BuildReport, BuildRequest
from trtforge.errors import BuildError
from trtforge.pipeline.run import BuildOptions, build_recipe

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model and a store of its own."""
    save(matmul(), tmp_path)
    monkeypatch.setenv("TRTFORGE_CACHE", str(tmp_path / "store"))
    return tmp_path


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_all_failures_are_told_and_the_status_is_that_of_the_first(
    jobs: str, work: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (work / "recipe.yaml").write_text(
        RECIPE.format(target="")
        + "  - {name: worse, backend: tensorrt_rtx, tf32: true, workspace_mib: 64}\n"
    )
    inject("library", "bad", monkeypatch)
    inject("abort", "worse", monkeypatch)
    status, err = failing_build(work, capfd, "--jobs", jobs)
    assert status == 3
    assert "warning: nothing is shipped; `--target good` ships what can be built" in err
    assert err.index("error[TF0602]: target 'bad': ") < err.index("error[TF0609]: target 'worse': ")
    assert err.count("error[TF") == 2
    assert "faulty_worker.py" in err.partition("\ntarget 'worse':\n")[2]
    assert len(stored_engines(work)) == 1


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        ("flipped", "TF0625", "the engine of 'bad' changed on the disk after it was built"),
        ("gone", "TF0623", "left no whole engine: it cannot be read: No such file or directory"),
    ],
)
def test_an_engine_that_is_not_what_was_built_is_not_stored(
    fault: str,
    code: str,
    words: str,
    work: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (work / "recipe.yaml").write_text(RECIPE.format(target=""))
    inject(fault, "bad", monkeypatch)
    status, err = failing_build(work, capfd)
    assert status == 4
    assert f"error[{code}]: target 'bad': " in err
    assert words in err
    assert len(stored_engines(work)) == 1


def test_a_memory_limit_that_cannot_be_watched_is_refused(
    work: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As outside of Linux."""
    monkeypatch.setattr(supervisor, "peak_rss_of", lambda process: None)
    (work / "recipe.yaml").write_text(RECIPE.format(target="memory_limit_mib: 4000"))
    status, err = failing_build(work, capfd)
    assert status == 3
    assert "error[TF0622]: target 'bad': the memory of building model.onnx" in err
    assert len(stored_engines(work)) == 1


def test_a_peak_between_two_looks_is_above_the_limit_too(
    work: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "peak_rss_of", lambda process: 1)
    (work / "recipe.yaml").write_text(RECIPE.format(target="memory_limit_mib: 100"))
    status, err = failing_build(work, capfd)
    assert status == 4
    assert "error[TF0618]: target 'bad': the build took " in err
    assert " MiB of memory, the limit is 100 MiB" in err
    assert len(stored_engines(work)) == 1
    assert not list(work.glob("store/builds/*/model.engine"))


def test_a_limit_that_is_kept_changes_nothing(
    work: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither the engine nor its place in the store."""
    recipe = work / "recipe.yaml"
    arguments = ["build", str(recipe), "--out", str(work / "out"), "--target", "bad"]
    outcomes = []
    for target in ("memory_limit_mib: 4000", "memory_limit_mib: 3000"):
        recipe.write_text(RECIPE.format(target=target))
        assert _run(arguments) == 0
        line = next(row for row in capfd.readouterr().err.splitlines() if "build:bad" in row)
        outcomes.append("from the store" in line)
    assert outcomes == [False, True]


def _repeated(command: list[str]) -> dict[str, Any]:
    """What a failed build says when it is run by hand."""
    again = subprocess.run(
        command,
        cwd="/",
        env={"PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert again.returncode == 4
    said: dict[str, Any] = json.loads(again.stdout.splitlines()[-1])
    return said


def test_a_failed_build_is_repeated_by_the_command_that_it_prints(
    work: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    target = "options: {profiling: detailed}, compute_capabilities: ['9.9']"
    (work / "recipe.yaml").write_text(RECIPE.format(target=target))
    status, err = failing_build(work, capfd)
    assert status == 4
    assert "error[TF0606]: target 'bad': compute capability 9.9 is unknown" in err
    command = shlex.split(err.partition("the same again by hand: ")[2].partition("\n")[0])
    said = _repeated(command)
    assert (said["event"], said["code"]) == ("error", "TF0606")
    assert said["message"] in err


def test_a_failed_build_whose_model_was_removed_says_how_to_get_it_back(
    work: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (work / "recipe.yaml").write_text(RECIPE.format(target="compute_capabilities: ['9.9']"))
    _, err = failing_build(work, capfd)
    command = shlex.split(err.partition("the same again by hand: ")[2].partition("\n")[0])
    assert _run(["cache", "prune"]) == 0
    assert "9.9 is unknown" in _repeated(command)["message"], "the build's folder has the model"
    (model,) = work.glob("store/builds/*/model.onnx")
    model.unlink()
    said = _repeated(command)
    assert said["message"] == "model.onnx is no longer there"
    assert "run `trtforge build` again" in said["hint"]


@pytest.mark.parametrize("days", ["-1", "nan", "soon"])
def test_days_that_are_none_prune_nothing(
    work: Path, capfd: pytest.CaptureFixture[str], days: str
) -> None:
    (work / "recipe.yaml").write_text(RECIPE.format(target="compute_capabilities: ['9.9']"))
    failing_build(work, capfd)
    assert _run(["cache", "prune", "--unused-days", days]) == 2
    assert "error[TF0100]" in capfd.readouterr().err
    assert len(stored_engines(work)) == 1


@pytest.mark.parametrize(("memory_mib", "most"), [(700, 2), (500, 1), (1, 1)])
def test_builds_at_once_keep_to_the_memory_budget(
    memory_mib: int, most: int, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is estimated at 286 MiB, and one alone is always built."""
    running, seen, lock = 0, [], threading.Lock()

    def build(backend: object, request: BuildRequest, *following: object) -> BuildReport:
        nonlocal running
        with lock:
            running += 1
            seen.append(running)
        deadline = time.monotonic() + 10
        while max(seen) < most and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.2)  # for one that should still wait
        with lock:
            running -= 1
        raise BuildError("TF0608", "that was all")

    monkeypatch.setattr(builder.TensorRtRtxBackend, "build", build)
    (work / "recipe.yaml").write_text(
        RECIPE.format(target="") + "  - {name: third, backend: tensorrt_rtx, workspace_mib: 64}\n"
    )
    options = BuildOptions(work / "out", jobs=3, memory_mib=memory_mib)
    with pytest.raises(BuildError) as caught:
        build_recipe(work / "recipe.yaml", options)
    assert len(caught.value.problems) == 3
    assert len(seen) == 3
    assert max(seen) == most
