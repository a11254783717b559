"""Builds of which one target's worker is replaced by the stand-in in `faulty_worker.py`."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from trtforge.cli.main import _run
from trtforge.engine import builder
from trtforge.engine.backend import BuildRequest
from trtforge.engine.supervisor import Job
from trtforge.pipeline.store import Store

STAND_IN = Path(__file__).parent / "faulty_worker.py"

RECIPE = """
version: 1
name: small
model: {{onnx: model.onnx}}
precision: {{type: fp32}}
targets:
  - {{name: bad, backend: tensorrt_rtx, tf32: true, {target}}}
  - {{name: good, backend: tensorrt_rtx}}
"""


def inject(fault: str, target: str, patch: pytest.MonkeyPatch) -> None:
    """Have the stand-in do the builds of one target."""
    real = builder.build_job

    def build_job(request: BuildRequest) -> Job:
        job = real(request)
        if not request.log.parent.name.startswith(f"{target}-"):
            return job
        return replace(job, program=(sys.executable, str(STAND_IN), fault))

    patch.setattr(builder, "build_job", build_job)


def assert_nothing_half_written(store: Path) -> None:
    """Failed builds leave their job and log, no part of an engine and no work folder."""
    left = {path.name for path in (store / "builds").rglob("*") if path.is_file()}
    assert left <= {"build.log", "build.job.json", "model.onnx"}, left
    assert list((store / "tmp").iterdir()) == []


def failing_build(work: Path, capfd: pytest.CaptureFixture[str], *more: str) -> tuple[int, str]:
    """Exit status and what was said of a build that is to fail."""
    capfd.readouterr()
    status = _run(["build", str(work / "recipe.yaml"), "--out", str(work / "out"), *more])
    out, err = capfd.readouterr()
    assert out == ""
    assert "Traceback" not in err
    assert "TF0001" not in err, f"reported as a bug of ours:\n{err}"
    assert not (work / "out").exists()
    return status, err


def stored_engines(work: Path) -> list[int]:
    """Sizes of the engines in the store, each read back with its digests."""
    store = Store(work / "store")
    found = (store.get(row["stage"], row["key"]) for row in store.entries())
    stored = [entry for entry in found if entry is not None and entry.stage == "build"]
    return [entry.file("model.engine").stat().st_size for entry in stored]
