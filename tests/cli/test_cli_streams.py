"""Output that is closed, full or no longer read, and terminals that are narrow."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import onnx
import pytest
from onnx import helper
from running import environment

PROGRAM = f"{sys.executable} -m trtforge.cli.main"
FULL = "error[TF0301]: cannot write the output: No space left on device"


def shell(line: str, store: Path) -> subprocess.CompletedProcess[str]:
    """Run a line of bash in which `trtforge` is the program."""
    script = f'set -o pipefail; trtforge() {{ {PROGRAM} "$@"; }}; {line}'
    return subprocess.run(
        ["bash", "-c", script],
        capture_output=True,
        text=True,
        env=environment(store),
        timeout=120,
        stdin=subprocess.DEVNULL,
    )


@pytest.mark.parametrize("command", ["doctor", "doctor --json", "schema", "inspect MODEL"])
def test_a_full_output_is_exit_3_and_no_traceback(
    command: str, digits: Path, tmp_path: Path
) -> None:
    line = command.replace("MODEL", str(digits / "model.onnx"))
    run = shell(f"trtforge {line} > /dev/full", tmp_path)
    assert run.returncode == 3
    assert run.stderr.strip() == FULL


@pytest.mark.parametrize("redirect", ["> /dev/full", "2> /dev/full", "> /dev/full 2> /dev/full"])
def test_an_error_that_cannot_be_shown_still_has_a_status(redirect: str, tmp_path: Path) -> None:
    run = shell(f"trtforge build missing.yaml --json {redirect}", tmp_path)
    assert run.returncode in (2, 3)
    assert "Traceback" not in run.stdout + run.stderr


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&- <&-"])
def test_closed_streams_are_no_bug(closed: str, digits: Path, tmp_path: Path) -> None:
    run = shell(f"trtforge inspect {digits / 'model.onnx'} {closed}", tmp_path)
    assert run.returncode == 0
    assert run.stderr == ""
    assert run.stdout.startswith("kind: onnx") == (closed == "2>&-")


@pytest.mark.parametrize("reader", ["head -1", "true"])
def test_a_reader_that_goes_away_is_a_broken_pipe_and_not_a_bug(
    reader: str, digits: Path, tmp_path: Path
) -> None:
    line = f"trtforge build {digits / 'fp32.yaml'} --out {tmp_path / 'out'} -v 2>&1 | {reader}"
    run = shell(line, tmp_path / "store")
    assert run.returncode == 141, run.stdout + run.stderr
    assert run.stderr == ""


def test_the_live_line_fits_a_narrow_terminal(digits: Path, tmp_path: Path) -> None:
    """A line that wraps cannot be taken back by a carriage return."""
    outer, inner = pty.openpty()
    fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 30, 0, 0))
    process = subprocess.Popen(
        [*PROGRAM.split(), "optimize", str(digits / "model.onnx"), "-o", str(tmp_path / "o.onnx")],
        stderr=inner,
        stdout=subprocess.DEVNULL,
        env=environment(tmp_path),
    )
    os.close(inner)
    shown = b""
    while piece := _read(outer):
        shown += piece
    os.close(outer)
    assert process.wait(timeout=60) == 0
    live = [line for line in shown.decode().split("\r") if line.strip()]
    assert any(line.startswith("optimize: ") for line in live)
    assert max(map(len, live)) < 30


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # Linux says EIO when the other side has closed
        return b""


def test_names_in_a_model_cannot_speak_to_the_terminal(tmp_path: Path) -> None:
    name = "\x1b[2Jred\nnode"
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["i"], name), helper.make_node("Relu", ["i"], [name])],
        "g",
        [helper.make_tensor_value_info("x", 1, ["N", 4])],
        [helper.make_tensor_value_info(name, 1, ["N", 4])],
    )
    opsets = [helper.make_opsetid("", 17)]
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    outer, inner = pty.openpty()
    commands = (
        f"inspect {path}",
        f"optimize {path} -o {tmp_path / 'o.onnx'} --explain",
        f"verify {path} --against {path} -v",
    )
    shown = b""
    for command in commands:
        process = subprocess.Popen(
            [*PROGRAM.split(), *command.split()],
            stdout=inner,
            stderr=subprocess.PIPE,
            env=environment(tmp_path),
        )
        assert process.communicate(timeout=60)
        assert process.returncode == 0
        shown += os.read(outer, 65536)
    os.close(inner)
    os.close(outer)
    assert shown.count(b"red\xef\xbf\xbdnode") >= 4
    assert b"\x1b" not in shown
