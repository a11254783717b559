"""The help texts, word for word: what they promise is part of the interface.

To accept changed texts: TRTFORGE_UPDATE_GOLDENS=1 pytest tests/golden/test_cli_help.py
"""

import os
from pathlib import Path

import pytest

from trtforge.cli.main import COMMANDS, _run

GOLDENS = Path(__file__).parent / "help"
CALLS = [
    [],
    *([command] for command in COMMANDS),
    *(["cache", sub] for sub in ("list", "size", "prune")),
    *(["calib", sub] for sub in ("show", "lint", "diff", "merge", "convert", "apply")),
]


@pytest.mark.parametrize("call", CALLS, ids=lambda call: "-".join(call) or "trtforge")
def test_help(
    call: list[str], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert _run([*call, "--help"]) == 0
    printed = capfd.readouterr().out
    golden = GOLDENS / f"{'-'.join(call) or 'trtforge'}.txt"
    if os.environ.get("TRTFORGE_UPDATE_GOLDENS"):
        GOLDENS.mkdir(exist_ok=True)
        golden.write_text(printed)
    assert printed == golden.read_text()
