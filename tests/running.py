"""Runs the real command line in its own process, with a store of the test's own."""

import functools
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trtforge import open_bundle


@dataclass(frozen=True)
class Finished:
    """What a run of the command line left: its exit status and both streams."""

    status: int
    stdout: str
    stderr: str

    def assert_clean_failure(self, status: int) -> None:
        """One clear message, the right status, nothing like a traceback, nothing on stdout."""
        assert self.status == status, f"exit {self.status}\n{self.stdout}\n{self.stderr}"
        assert "error[TF" in self.stderr, self.stderr
        assert "Traceback" not in self.stderr
        assert "TF0001" not in self.stderr, f"reported as a bug of ours:\n{self.stderr}"
        assert self.stdout == "", f"a failure printed a result: {self.stdout}"


def environment(store: Path, **more: str) -> dict[str, str]:
    """Return the process environment with the store at `store`."""
    return {**os.environ, "TRTFORGE_CACHE": str(store), "PYTHONUNBUFFERED": "1", **more}


def trtforge(
    *args: object, store: Path, cwd: Path | None = None, timeout_s: float = 300
) -> Finished:
    """Run `trtforge ARGS...` to its end."""
    run = subprocess.run(
        [sys.executable, "-m", "trtforge.cli.main", *map(str, args)],
        capture_output=True,
        text=True,
        env=environment(store),
        cwd=cwd,
        timeout=timeout_s,
        stdin=subprocess.DEVNULL,
    )
    return Finished(run.returncode, run.stdout, run.stderr)


FIXES_LAYOUT = """
import ctypes, sys
sys.exit(0 if ctypes.CDLL(None).personality(ctypes.c_ulong(0x0040000)) != -1 else 1)
"""


@functools.cache
def layout_can_be_fixed() -> bool:
    """Say whether this system lets a process switch off address space randomization.

    Without it the bytes of a quantized engine differ from build to build, see
    docs/decisions/0003.
    """
    if not sys.platform.startswith("linux"):
        return False
    return subprocess.run([sys.executable, "-c", FIXES_LAYOUT]).returncode == 0


def content_without_times(bundle: Path) -> dict[str, Any]:
    """Return what must be equal in two builds of the same: all but times.

    The builder's log holds TensorRT's own timing lines, so its bytes do not count; nor do an
    engine's and what quotes its digest, where the system does not let them be reproducible.
    """
    content = open_bundle(bundle).manifest.content()
    volatile = ["engines/rtx/build.log"]
    if not layout_can_be_fixed():
        content["id"] = None
        volatile += ["engines/rtx/model.engine", "engines/rtx/build.json", "reports/report.html"]
    for path in volatile:
        content["files"][path] = None
    return content
