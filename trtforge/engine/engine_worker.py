"""A worker process with an engine loaded on the GPU, for runners and for meters."""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from trtforge.engine.backend import load_backend, require_installed
from trtforge.engine.environment import ELSEWHERE, driver
from trtforge.engine.supervisor import WORKER_PROGRAM, Job, Worker
from trtforge.errors import MissingError

Command = Callable[[Path], Mapping[str, Any]]
"""Takes the worker's folder; returns what the worker is to do, beside loading the engine."""


@dataclass(frozen=True)
class EngineSource:
    """An engine, and what loading it takes.

    Attributes:
        engine: the engine file; native code, so check its digest first.
        backend: "tensorrt_rtx" or "tensorrt", as it was built with.
        allow_host_code: let code inside a version-compatible engine run on the CPU.
        weights: the typed ONNX whose weights are put back into a stripped engine.
        weight_budget: of an engine that streams weights: MiB of them that the GPU keeps, or "auto"
            for what the library thinks fits; None for all.
        program: the worker to start.
    """

    engine: Path
    backend: str
    allow_host_code: bool = False
    weights: Path | None = None
    weight_budget: float | Literal["auto"] | None = None
    program: tuple[str, ...] = WORKER_PROGRAM

    def as_json(self) -> dict[str, Any]:
        """Return what `infer.load_engine` takes, as plain JSON data."""
        return {
            "backend": self.backend,
            "engine": str(self.engine.absolute()),
            "allow_host_code": self.allow_host_code,
            "weights": None if self.weights is None else str(self.weights.absolute()),
            "weight_budget": self.weight_budget,
        }


class EngineWorker:
    """A worker process that holds an engine; a crash of the library ends it and nothing else.

    Args:
        source: what is loaded.
        doing: what it is loaded for, for messages: "running" or "measuring".
        command: what the worker is to do.
        timeout_s: how long loading, and each answer, may take. TensorRT-RTX compiles kernels when
            an engine first runs, so this is minutes and not seconds.

    Attributes:
        worker: the process, once the context is entered.
        folder: where files for it are put; gone when the context is left.
        said: what it said of the engine when it had loaded it.
    """

    def __init__(
        self, source: EngineSource, doing: str, command: Command, timeout_s: float
    ) -> None:
        self._source = source
        self._doing = doing
        self._command = command
        self._timeout_s = timeout_s

    def __enter__(self) -> Self:
        """Start the worker and load the engine.

        Raises:
            UsageError: no backend has this name.
            MissingError: there is no driver, GPU or library; nothing is attempted then.
            BuildError: the library does not take the engine, crashed, or ran out of time.
        """
        source = self._source
        if (reason := driver().reason) is not None:
            raise MissingError("TF0603", f"cannot run {source.engine.name}: {reason}", ELSEWHERE)
        if source.program == WORKER_PROGRAM:  # another interpreter has libraries of its own
            require_installed(load_backend(source.backend))
        self._temporary = tempfile.TemporaryDirectory(prefix=f"trtforge-{self._doing}-")
        self.folder = Path(self._temporary.name)
        try:
            self.worker = Worker(self._job())
            self._enter_worker()
        except BaseException:
            self._temporary.cleanup()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.worker.__exit__(kind, error, trace)
        self._temporary.cleanup()

    def _enter_worker(self) -> None:
        self.worker.__enter__()
        try:
            self.said: dict[str, Any] = self.worker.answer()
        except BaseException as error:
            self.worker.__exit__(type(error), error, error.__traceback__)
            raise

    def _job(self) -> Job:
        source = self._source
        return Job(
            subject=f"{self._doing} {source.engine.name} with {source.backend}",
            command={**self._command(self.folder), **source.as_json()},
            log=self.folder / "worker.log",
            timeout_s=self._timeout_s,
            program=source.program,
            is_kept=False,
        )
