"""An engine to be measured: a worker process holds it on the GPU and takes the times itself."""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from trtforge.engine import arrays
from trtforge.engine.backend import Feeds
from trtforge.engine.engine_worker import EngineSource, EngineWorker
from trtforge.engine.measuring.scenarios import Load, Measurement
from trtforge.engine.supervisor import Worker

_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class EngineLoad(EngineSource):
    """An engine, what loading it takes, and how it is run.

    Attributes:
        streams: how many batches may be under way at a time.
        graphs: launch each batch as one CUDA graph.
        runtime_cache: TensorRT-RTX: the file that keeps kernels compiled for this device.
    """

    streams: int = 1
    graphs: bool = False
    runtime_cache: Path | None = None


class EngineMeter:
    """Measures an engine; a crash of the library ends the worker and not this process.

    Args:
        subject: what is run.
        batches: inputs that queries go through; where there are none, random ones are made of the
            shapes that the engine is tuned for.
        batch: samples in a random batch, where the engine takes several.
        timeout_s: how long loading, and each measurement, may take.

    Attributes:
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
        self._held = EngineWorker(subject, "measuring", self._command, timeout_s)

    @property
    def worker(self) -> Worker:
        """The process, once the context is entered."""
        return self._held.worker

    def __enter__(self) -> Self:
        """Start the worker, load the engine and run every batch once.

        Raises:
            UsageError, MissingError, BuildError: as `EngineWorker`.
        """
        self._held.__enter__()
        self.facts = self._held.said
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._held.__exit__(kind, error, trace)

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

    def _command(self, folder: Path) -> dict[str, Any]:
        subject = self._subject
        batches = []
        for index, feeds in enumerate(self._batches):
            path = folder / f"{index}.npz"
            batches.append({"path": str(path), "members": arrays.store(path, feeds)})
        cache = subject.runtime_cache
        return {
            "command": "measure",
            "streams": subject.streams,
            "graphs": subject.graphs,
            "runtime_cache": None if cache is None else str(cache.absolute()),
            "batches": batches,
            "batch": self._batch,
        }
