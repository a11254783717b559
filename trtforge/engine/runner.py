"""An engine as a Runner: a worker process holds it on the GPU and answers batch after batch."""

from types import TracebackType
from typing import Any, Self

from trtforge.engine import arrays, environment
from trtforge.engine.backend import Feeds, Outputs
from trtforge.engine.engine_worker import EngineSource, EngineWorker


class EngineRunner:
    """Runs an engine file; a crash of the library ends the worker and not this process.

    The engine is loaded once, when the context is entered. An engine is native code: check its
    digest first.

    Args:
        source: the engine, and what loading it takes.
        timeout_s: how long loading, and each batch, may take.
    """

    def __init__(self, source: EngineSource, *, timeout_s: float = 600.0) -> None:
        self.name = source.backend
        self._held = EngineWorker(source, "running", lambda folder: {"command": "infer"}, timeout_s)
        self._count = 0

    @staticmethod
    def unavailable_reason() -> str | None:
        """Why no engine can run on this machine, e.g. "no NVIDIA driver"; None when one can."""
        return environment.driver().reason

    @property
    def interface(self) -> dict[str, Any]:
        """What the engine takes and gives, see `Interface.as_json`; once the context is entered."""
        return self._held.said

    def __enter__(self) -> Self:
        """Start the worker and load the engine.

        Raises:
            UsageError, MissingError, BuildError: as `EngineWorker`.
        """
        self._held.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._held.__exit__(kind, error, trace)

    def infer(self, feeds: Feeds) -> Outputs:
        """Compute all outputs of one batch.

        Raises:
            BuildError: the engine does not take the inputs, no profile covers their shapes, or the
                worker crashed or ran out of time.
        """
        folder = self._held.folder
        inputs, outputs = (folder / f"in{self._count}.npz", folder / f"out{self._count}.npz")
        self._count += 1
        members = arrays.store(inputs, feeds)
        answer = self._held.worker.ask(
            {"feeds": str(inputs), "members": members, "outputs": str(outputs)}
        )
        inputs.unlink()
        result = arrays.load(outputs, answer["members"])
        outputs.unlink()
        return result
