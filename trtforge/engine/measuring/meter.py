"""An engine to be measured: a worker process holds it on the GPU and takes the times itself."""

import dataclasses
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from trtforge.engine import arrays
from trtforge.engine.backend import Feeds, load_backend, require_installed
from trtforge.engine.environment import driver
from trtforge.engine.flavour import FLAVOURS
from trtforge.engine.measuring.scenarios import Load, Measurement
from trtforge.engine.supervisor import Job, Worker
from trtforge.errors import MissingError

_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class EngineLoad:
    """What is run, and how.

    Attributes:
        engine: the engine file; native code, so check its digest first.
        backend: "tensorrt_rtx" or "tensorrt", as it was built with.
        streams: how many batches may be under way at a time.
        graphs: launch each batch as one CUDA graph.
        runtime_cache: TensorRT-RTX: the file that keeps kernels compiled for this device.
        allow_host_code: let code inside a version-compatible engine run on the CPU.
        weights: the typed ONNX whose weights are put back into a stripped engine.
    """

    engine: Path
    backend: str
    streams: int = 1
    graphs: bool = False
    runtime_cache: Path | None = None
    allow_host_code: bool = False
    weights: Path | None = None


class EngineMeter:
    """Measures an engine; a crash of the library ends the worker and not this process.

    Args:
        subject: what is run.
        batches: inputs that queries go through; where there are none, random ones are made of the
            shapes that the engine is tuned for.
        batch: samples in a random batch, where the engine takes several.
        timeout_s: how long loading, and each measurement, may take.

    Attributes:
        worker: the process, once the context is entered.
        facts: what the session says of itself: `cuda_graphs`, `runtime_cache`, `idle_watts`,
            `device_memory_bytes` (what the device has less of since the engine is loaded, other
            processes' doings included), and `gpu`: clocks, temperature and what holds the clocks
            back, after the last load.
    """

    def __init__(
        self,
        subject: EngineLoad,
        batches: Iterable[Feeds],
        batch: int = 1,
        *,
        timeout_s: float = _TIMEOUT_S,
    ) -> None:
        self.facts: dict[str, Any] = {}
        self._subject = subject
        self._batches = batches
        self._batch = batch
        self._timeout_s = timeout_s

    def __enter__(self) -> Self:
        """Start the worker, load the engine and run every batch once.

        Raises:
            UsageError: no backend has this name.
            MissingError: there is no driver, GPU or library; nothing is attempted then.
            BuildError: the library does not take the engine, crashed, or ran out of time.
        """
        name = self._subject.engine.name
        if (reason := driver().reason) is not None:
            raise MissingError("TF0603", f"cannot run {name}: {reason}")
        require_installed(load_backend(self._subject.backend))
        self._folder = tempfile.TemporaryDirectory(prefix="trtforge-measure-")
        self.worker = Worker(self._job(Path(self._folder.name)))
        try:
            self.worker.__enter__()
            self.facts = self.worker.answer()
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
        self.worker.__exit__(kind, error, trace)
        self._folder.cleanup()

    def measure(self, load: Load) -> Measurement:
        """Let the worker make queries, as `scenarios.measure` does, and take its times.

        Raises:
            BuildError: the engine failed, or the worker crashed or ran out of time.
        """
        answer = self.worker.ask({"load": dataclasses.asdict(load)})
        self.facts["gpu"] = answer["gpu"]
        return dataclasses.replace(
            Measurement.of(load, answer["times"], answer["seconds"]),
            device_times=tuple(answer["device_times"]),
            joules=answer["joules"],
        )

    def _job(self, folder: Path) -> Job:
        subject = self._subject
        batches = []
        for index, feeds in enumerate(self._batches):
            path = folder / f"{index}.npz"
            batches.append({"path": str(path), "members": arrays.store(path, feeds)})
        cache = subject.runtime_cache
        rtx = FLAVOURS[subject.backend].module == "tensorrt_rtx"
        return Job(
            subject=f"measuring {subject.engine.name} with {subject.backend}",
            command={
                "command": "measure",
                "backend": subject.backend,
                "engine": str(subject.engine.absolute()),
                "allow_host_code": subject.allow_host_code,
                "weights": None if subject.weights is None else str(subject.weights.absolute()),
                "streams": subject.streams,
                "graphs": subject.graphs,
                "runtime_cache": None if cache is None else str(cache.absolute()),
                "batches": batches,
                "batch": self._batch,
            },
            log=folder / "measure.log",
            timeout_s=self._timeout_s,
            is_kept=False,
            environment={"POLYGRAPHY_USE_TENSORRT_RTX": "1" if rtx else "0"},
        )
