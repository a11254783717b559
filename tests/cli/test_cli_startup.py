"""The command line starts light: no heavy library before a command needs it."""

import json
import subprocess
import sys

import pytest

from trtforge.cli.main import COMMANDS

HEAVY = (
    "onnx",
    "onnxruntime",
    "polygraphy",
    "numpy",
    "tensorrt_rtx",
    "tensorrt",
    "onnx_graphsurgeon",
)
PROBE = """
import json, sys
from trtforge.cli.main import _run
status = _run({args!r})
sys.stdout.flush()
print(json.dumps([status, sorted(sys.modules)]), file=sys.stderr)
"""


def modules_after(args: list[str]) -> tuple[int, set[str], str]:
    run = subprocess.run(
        [sys.executable, "-c", PROBE.format(args=args)], capture_output=True, text=True, timeout=60
    )
    status, names = json.loads(run.stderr.splitlines()[-1])
    return status, set(names), run.stdout


@pytest.mark.parametrize("args", [["--help"], ["-h"], ["--version"], []])
def test_help_imports_nothing_heavy(args: list[str]) -> None:
    _, names, _ = modules_after(args)
    assert not names.intersection(HEAVY)
    assert not any(name.startswith("pydantic") or name == "rich" for name in names)


def test_help_names_every_command() -> None:
    _, _, text = modules_after(["--help"])
    for command in COMMANDS:
        assert f"  {command} " in text


@pytest.mark.parametrize("command", list(COMMANDS))
def test_every_command_has_help_and_takes_json(command: str) -> None:
    status, names, text = modules_after([command, "--help"])
    assert status == 0
    assert "Usage: trtforge" in text
    assert not names.intersection(HEAVY)
    if command not in ("cache", "calib", "profiles"):  # groups
        assert "--json" in text
