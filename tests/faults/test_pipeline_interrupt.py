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


def said_of(status: int) -> str:
    name = "" if status == 130 else f" ({signal.Signals(status - 128).name})"
    return f"interrupted{name}"


@pytest.mark.parametrize(
    ("jobs", "numbers"),
    [
        (1, [signal.SIGINT]),
        (2, [signal.SIGINT]),
        (2, [signal.SIGTERM]),
        (2, [signal.SIGHUP, signal.SIGTERM]),
    ],
)
def test_signals_end_the_build_and_its_workers(
    digits: Path, tmp_path: Path, jobs: int, numbers: list[signal.Signals]
) -> None:
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
    for number in numbers:
        os.kill(process.pid, number)
    out, err = process.communicate(timeout=20)
    assert process.returncode in [128 + one for one in numbers], err
    assert err.splitlines()[-1] == said_of(process.returncode)
    assert err.count("interrupted") == 1
    assert "Traceback" not in err
    assert out == ""
    assert list((tmp_path / "store" / "tmp").iterdir()) == []
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
    assert not (tmp_path / "out").exists()
    again = trtforge(
        "build", tmp_path / "r.yaml", "--out", tmp_path / "out", store=tmp_path / "store"
    )
    assert again.status == 0, again.stderr


SLOW_DATA = """
import time
from pathlib import Path
import numpy as np

def samples():
    for count in range(1000):
        yield {"image": np.ones((1, 1, 8, 8), np.float32)}
        if count == 20:
            Path("started").touch()
            time.sleep(60)
"""


@pytest.mark.parametrize(
    ("command", "number"),
    [
        ("quantize MODEL --data slow:samples -o q.onnx --cache c.json", signal.SIGTERM),
        ("cast MODEL --data slow:samples --samples 500 -o h.onnx", signal.SIGHUP),
        ("bench MODEL --seconds 60 --shape image=1x1x8x8 --plot p.svg", signal.SIGTERM),
    ],
)
def test_other_commands_end_by_signals_too(
    digits: Path, tmp_path: Path, command: str, number: signal.Signals
) -> None:
    (tmp_path / "slow.py").write_text(SLOW_DATA)
    words = command.replace("MODEL", str(digits / "model.onnx")).split()
    process = subprocess.Popen(
        [sys.executable, "-m", "trtforge.cli.main", *words],
        cwd=tmp_path,
        env=environment(tmp_path / "store", TMPDIR=str(tmp_path)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if is_under_way(process.pid, tmp_path, words[0]):
            break
        time.sleep(0.05)
    os.kill(process.pid, number)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 128 + number, err
    assert err.splitlines()[-1] == said_of(process.returncode)
    assert "Traceback" not in err
    assert out == ""
    left = {path.name for path in tmp_path.iterdir()} - {"store", "__pycache__"}
    assert left <= {"slow.py", "started"}


def is_under_way(pid: int, folder: Path, command: str) -> bool:
    """Whether the data was asked for; of a benchmark, whether ONNX Runtime is being loaded."""
    if command != "bench":
        return (folder / "started").exists()
    return "libonnxruntime" in Path(f"/proc/{pid}/maps").read_text()


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


def test_an_output_folder_that_cannot_be_made_is_exit_3_before_the_work(
    digits: Path, tmp_path: Path
) -> None:
    blocked = in_the_way(tmp_path / "file") / "out"
    run = trtforge("build", digits / "fp32.yaml", "--out", blocked, store=tmp_path / "store")
    run.assert_clean_failure(3)
    assert str(tmp_path / "file") in run.stderr
    assert "import " not in run.stderr


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
