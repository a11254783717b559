"""The TensorRT backends as the pipeline sees them: a request goes to a worker, a report returns."""

import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from trtforge.engine.backend import Availability, BuildReport, BuildRequest, OnProgress
from trtforge.engine.environment import driver
from trtforge.engine.flavour import FLAVOURS, installed_version, is_installed
from trtforge.engine.supervisor import Job, Worker
from trtforge.errors import BuildError


class _NativeBackend:
    """A flavour of TensorRT, built with in a worker process."""

    name: ClassVar[str]

    def available(self) -> Availability:
        """Say what can be done here; the library is looked for, not imported."""
        flavour = FLAVOURS[self.name]
        if not is_installed(flavour):
            return Availability(self.name, False, None, False, False, flavour.install)
        reason = driver().reason
        return Availability(
            name=self.name,
            installed=True,
            version=installed_version(flavour),
            can_build=flavour.builds_without_gpu or reason is None,
            can_run=reason is None,
            reason=reason,
        )

    def build(
        self,
        request: BuildRequest,
        on_progress: OnProgress | None = None,
        cancelled: threading.Event | None = None,
    ) -> BuildReport:
        """Build `request.output` in a worker; `request.log` gets the builder's log.

        Raises:
            MissingError: the library, a GPU that it needs, disk space or a permission is missing.
            BuildError: the library refused, crashed, ran out of time or was cancelled, or what it
                left is no whole engine.
        """
        job = replace(build_job(request), cancelled=cancelled)
        with Worker(job) as worker:
            report = BuildReport.from_json(worker.answer(on_progress))
        _require_whole(request.output, report, job)
        job.file.unlink(missing_ok=True)
        return report


class TensorRtRtxBackend(_NativeBackend):
    """TensorRT-RTX: builds ahead of time on the CPU."""

    name = "tensorrt_rtx"


class TensorRtBackend(_NativeBackend):
    """TensorRT 10 and 11: build on the GPU that they build for."""

    name = "tensorrt"


def build_job(request: BuildRequest) -> Job:
    """The worker's job for a build; its paths are absolute, so it can be repeated anywhere."""
    absolute = BuildRequest.from_json(
        request.as_json()
        | {
            name: str(path.absolute())
            for name in ("onnx", "output", "log", "timing_cache")
            if (path := getattr(request, name)) is not None
        }
    )
    return Job(
        subject=f"building {request.onnx.name} with {request.backend}",
        command={"command": "build", "request": absolute.as_json()},
        log=request.log,
        timeout_s=request.timeout_s,
        memory_limit_mib=request.memory_limit_mib,
        output=request.output,
    )


def _require_whole(engine: Path, report: BuildReport, job: Job) -> None:
    """Look at what a worker says it wrote; whoever stores it compares the digest, at no cost.

    Raises:
        BuildError: the file is missing, shorter or longer than was written, or no plan; it is
            removed.
    """
    tag = FLAVOURS[report.backend].plan_tag
    try:
        with engine.open("rb") as file:
            begins, size = file.read(len(tag)), file.seek(0, os.SEEK_END)
        fault = ""
    except OSError as error:
        begins, size, fault = b"", 0, f"it cannot be read: {error.strerror or error}"
    if not fault and size != report.engine_bytes:
        fault = f"it has {size} bytes of {report.engine_bytes}"
    if not fault and begins != tag:
        fault = f"it begins with {begins!r}, plans with {tag!r}"
    if fault:
        engine.unlink(missing_ok=True)
        raise BuildError(
            "TF0623",
            f"{job.subject} left no whole engine: {fault}",
            hint=f"the same again by hand: {job.repeat}",
        )
