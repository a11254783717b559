"""The TensorRT backends as the pipeline sees them: a request goes to a worker, a report returns."""

from typing import ClassVar

from trtforge.engine.backend import Availability, BuildReport, BuildRequest, OnProgress
from trtforge.engine.environment import driver
from trtforge.engine.flavour import FLAVOURS, installed_version, is_installed
from trtforge.engine.supervisor import Job, run_worker


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

    def build(self, request: BuildRequest, on_progress: OnProgress | None = None) -> BuildReport:
        """Build `request.output` in a worker; `request.log` gets the builder's log.

        Raises:
            MissingError: the library, a GPU that it needs, disk space or a permission is missing.
            BuildError: the library refused, crashed or ran out of time.
        """
        return BuildReport.from_json(run_worker(build_job(request), on_progress))


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
        output=request.output,
    )
