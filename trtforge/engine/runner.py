"""An engine as a Runner: a worker process holds it on the GPU and answers batch after batch."""

import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from trtforge.engine import arrays
from trtforge.engine.backend import Feeds, Outputs
from trtforge.engine.environment import driver
from trtforge.engine.flavour import FLAVOURS
from trtforge.engine.supervisor import WORKER_PROGRAM, Job, Worker
from trtforge.errors import MissingError


class EngineRunner:
    """Runs an engine file; a crash of the library ends the worker and not this process.

    The engine is loaded once, when the context is entered. An engine is native code: check its
    digest first.

    Args:
        engine: the engine file.
        backend: "tensorrt_rtx" or "tensorrt", as it was built with.
        timeout_s: how long loading, and each batch, may take. TensorRT-RTX compiles kernels when
            an engine first runs, so this is minutes and not seconds.
        allow_host_code: let code inside a version-compatible engine run on the CPU.
        weights: the typed ONNX whose weights are put back into a stripped engine.
        program: the worker to start.
    """

    def __init__(
        self,
        engine: Path,
        backend: str,
        *,
        timeout_s: float = 600.0,
        allow_host_code: bool = False,
        weights: Path | None = None,
        program: tuple[str, ...] = WORKER_PROGRAM,
    ) -> None:
        self.name = backend
        self._engine = engine
        self._timeout_s = timeout_s
        self._allow_host_code = allow_host_code
        self._weights = weights
        self._program = program
        self._count = 0

    @staticmethod
    def unavailable_reason() -> str | None:
        """Why no engine can run on this machine, e.g. "no NVIDIA driver"; None when one can."""
        return driver().reason

    def __enter__(self) -> Self:
        """Start the worker and load the engine.

        Raises:
            MissingError: there is no driver or GPU; nothing is attempted then.
            BuildError: the library does not take the engine, crashed, or ran out of time.
        """
        if (reason := self.unavailable_reason()) is not None:
            raise MissingError("TF0603", f"cannot run {self._engine.name}: {reason}")
        self._folder = tempfile.TemporaryDirectory(prefix="trtforge-infer-")
        self._worker = Worker(self._job(Path(self._folder.name)))
        try:
            self._worker.__enter__()
            self._worker.answer()
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._worker.__exit__(kind, error, trace)
        self._folder.cleanup()

    def infer(self, feeds: Feeds) -> Outputs:
        """Compute all outputs of one batch.

        Raises:
            BuildError: no profile covers the shapes, or the worker crashed or ran out of time.
        """
        folder = Path(self._folder.name)
        inputs, outputs = (folder / f"in{self._count}.npz", folder / f"out{self._count}.npz")
        self._count += 1
        members = arrays.store(inputs, feeds)
        answer = self._worker.ask(
            {"feeds": str(inputs), "members": members, "outputs": str(outputs)}
        )
        inputs.unlink()
        result = arrays.load(outputs, answer["members"])
        outputs.unlink()
        return result

    def _job(self, folder: Path) -> Job:
        rtx = FLAVOURS[self.name].module == "tensorrt_rtx"
        return Job(
            subject=f"running {self._engine.name} with {self.name}",
            command={
                "command": "infer",
                "backend": self.name,
                "engine": str(self._engine.absolute()),
                "allow_host_code": self._allow_host_code,
                "weights": None if self._weights is None else str(self._weights.absolute()),
            },
            log=folder / "infer.log",
            timeout_s=self._timeout_s,
            program=self._program,
            environment={"POLYGRAPHY_USE_TENSORRT_RTX": "1" if rtx else "0"},
            is_kept=False,
        )
