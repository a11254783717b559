"""Ctrl-C, a full disk, a folder that cannot be written: one clear message, nothing left."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from running import environment, trtforge

FULL_DISK = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
sys.argv[0] = "trtforge"
from trtforge.cli.main import main
main()
"""


def children_of(pid: int) -> list[int]:
    text = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True)
    return [int(line) for line in text.stdout.split()]


@pytest.mark.parametrize("jobs", [1, 2])
def test_ctrl_c_ends_the_build_and_its_workers(digits: Path, tmp_path: Path, jobs: int) -> None:
    recipe = (digits / "int8.yaml").read_text().replace("model.onnx", str(digits / "model.onnx"))
    for name in ("calib.npz", "test.npz"):
        recipe = recipe.replace(name, str(digits / name))
    recipe = recipe.replace(
        "  - {name: cpu", "  - {name: rtx2, backend: tensorrt_rtx, tf32: true}\n  - {name: cpu"
    )
    (tmp_path / "r.yaml").write_text(recipe)
    command = [sys.executable, "-m", "trtforge.cli.main", "build", tmp_path / "r.yaml"]
    process = subprocess.Popen(
        [*command, "--out", tmp_path / "out", "--jobs", str(jobs)],
        env=environment(tmp_path / "store"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while not (workers := children_of(process.pid)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert workers, "no worker was started"
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130, err
    assert "interrupted" in err
    assert "Traceback" not in err
    assert out == ""
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
    assert not (tmp_path / "out").exists()
    again = trtforge(
        "build", tmp_path / "r.yaml", "--out", tmp_path / "out", store=tmp_path / "store"
    )
    assert again.status == 0, again.stderr


@pytest.mark.parametrize("limit", [2_000, 20_000, 60_000, 500_000])
def test_a_full_disk_is_exit_3_and_leaves_nothing_half_written(
    digits: Path, tmp_path: Path, limit: int
) -> None:
    """RLIMIT_FSIZE stands in for a full disk: writing past the limit fails (EFBIG)."""
    store, out = tmp_path / "store", tmp_path / "out"
    arguments = ["build", str(digits / "int8.yaml"), "--out", str(out)]
    run = subprocess.run(
        [sys.executable, "-c", FULL_DISK.format(limit=limit), *arguments],
        env=environment(store),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 3, run.stderr
    assert "error[TF0301]" in run.stderr
    assert "Traceback" not in run.stderr
    assert run.stdout == ""
    assert not list(out.glob("*")) if out.exists() else True
    assert list((store / "tmp").iterdir()) == []
    after = trtforge(*arguments, store=store)
    assert after.status == 0, after.stderr


def in_the_way(path: Path) -> Path:
    """Return a folder path that cannot be made, even by root: a file stands in its place."""
    path.write_text("")
    return path


def test_an_output_folder_that_cannot_be_made_is_exit_3(digits: Path, tmp_path: Path) -> None:
    blocked = in_the_way(tmp_path / "file") / "out"
    run = trtforge("build", digits / "fp32.yaml", "--out", blocked, store=tmp_path / "store")
    run.assert_clean_failure(3)
    assert str(tmp_path / "file") in run.stderr


def test_a_store_that_cannot_be_made_is_exit_3(digits: Path, tmp_path: Path) -> None:
    blocked = in_the_way(tmp_path / "file") / "store"
    run = trtforge("build", digits / "fp32.yaml", "--out", tmp_path / "out", store=blocked)
    run.assert_clean_failure(3)
    assert "TRTFORGE_CACHE" in run.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="not run: root may write anywhere")
def test_a_read_only_output_folder_is_exit_3(digits: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir(mode=0o500)
    run = trtforge("build", digits / "fp32.yaml", "--out", out, store=tmp_path / "store")
    run.assert_clean_failure(3)


def test_output_into_a_closed_pipe_ends_quietly(tmp_path: Path) -> None:
    command = f"{sys.executable} -m trtforge.cli.main schema | head -c 10"
    run = subprocess.run(
        command, shell=True, capture_output=True, text=True, env=environment(tmp_path / "store")
    )
    assert run.stdout.startswith("{")
    assert run.stderr == ""
