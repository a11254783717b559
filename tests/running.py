"""Runs the real command line in its own process, with a store of the test's own."""

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


def content_without_times(bundle: Path) -> dict[str, Any]:
    """Return what must be equal in two builds of the same: all but times.

    The builder's log holds TensorRT's own timing lines, so its bytes do not count.
    """
    content = open_bundle(bundle).manifest.content()
    for path in content["files"]:
        if path.endswith("/build.log"):
            content["files"][path] = None
    return content
