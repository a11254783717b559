"""An engine ready to be run again and again; inside the worker process only.

Buffers on the device and pinned memory on the host are allocated once for the shapes at hand. Each
stream has an execution context of its own, so that several batches are under way at a time.
"""

import queue
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from trtforge.disk import write_bytes
from trtforge.engine.arrays import Array
from trtforge.engine.cuda import Cuda, PinnedArray
from trtforge.engine.interface import Interface
from trtforge.engine.lane import Lane, Pinned
from trtforge.engine.weight_streaming import weight_facts
from trtforge.errors import BuildError


@dataclass(frozen=True)
class SessionOptions:
    """How an engine is run.

    Attributes:
        streams: how many batches may be under way at a time.
        graphs: launch each batch as one CUDA graph; TensorRT-RTX makes them itself.
        runtime_cache: TensorRT-RTX: the file that keeps kernels compiled for this device; made
            where it is not there. None for none.
    """

    streams: int = 1
    graphs: bool = False
    runtime_cache: Path | None = None


class Session:
    """An engine with execution contexts, streams and buffers; leaving the context frees them.

    Args:
        trt: the module that the engine comes from.
        engine: an ICudaEngine.
        cuda: the CUDA runtime.
        options: how it is run.

    Attributes:
        interface: the engine's inputs and outputs.
        facts: `cuda_graphs` and `runtime_cache`: what became of them, where they were asked for;
            `streamable_weights_bytes` and `weight_budget_bytes` of an engine that streams weights.
    """

    def __init__(
        self, trt: Any, engine: Any, cuda: Cuda, options: SessionOptions | None = None
    ) -> None:
        self.facts: dict[str, Any] = {**weight_facts(engine)}
        self._options = options or SessionOptions()
        self._cuda = cuda
        self.interface = Interface.of(engine)
        self._runtime_config, self._runtime_cache = self._configure(trt, engine)
        is_captured = self._options.graphs and not self._makes_graphs
        self._lanes = [
            Lane(trt, self._context(engine), self.interface, cuda, is_captured)
            for _ in range(self._options.streams)
        ]
        self._free = queue.SimpleQueue[Lane]()
        for lane in self._lanes:
            self._free.put(lane)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        while self._lanes:
            self._lanes.pop().free()
        del self._free, self._runtime_cache, self._runtime_config

    def pin(self, feeds: Mapping[str, Array]) -> Pinned:
        """Copy the inputs of one batch to pinned memory; `free` each when it is no longer needed.

        Raises:
            BuildError: TF0616, an input is missing, or of another type.
        """
        self.interface.check(feeds)
        pinned = {}
        for name, array in feeds.items():
            pinned[name] = PinnedArray(self._cuda, array.shape, array.dtype)
            pinned[name].array[...] = array
        return pinned

    def prepare(self, feeds: Pinned) -> None:
        """Run a batch once on every stream: kernels are compiled, buffers made, graphs captured.

        Raises:
            BuildError: no profile covers the shapes, or the engine fails.
        """
        for lane in self._lanes:
            lane.start(feeds)
            lane.wait()
        captured = [lane.is_captured for lane in self._lanes]
        if self._options.graphs and not self._makes_graphs:
            self.facts["cuda_graphs"] = "captured" if all(captured) else self._lanes[0].refusal

    def keep_runtime_cache(self) -> None:
        """Write the kernels compiled so far to the runtime cache, where there is one."""
        path, runtime_cache = self._options.runtime_cache, self._runtime_cache
        if path is not None and runtime_cache is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(path, bytes(runtime_cache.serialize()))

    def submit(self, feeds: Pinned) -> "Pending":
        """Start a batch on a free stream, waiting for one; returns at once then.

        Raises:
            BuildError: no profile covers the shapes, or the engine fails.
        """
        lane = self._free.get()
        try:
            lane.start(feeds)
        except BaseException:
            self._free.put(lane)
            raise
        return Pending(lane, self._free)

    def infer(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Compute all outputs of one batch.

        Raises:
            BuildError: as `pin` and `submit`.
        """
        pinned = self.pin(feeds)
        try:
            with self.submit(pinned) as pending:
                return pending.outputs()
        finally:
            for one in pinned.values():
                one.free()

    @property
    def _makes_graphs(self) -> bool:
        return self._runtime_config is not None and self._options.graphs

    def _configure(self, trt: Any, engine: Any) -> tuple[Any, Any]:
        """What TensorRT-RTX is told of how to run; TensorRT has nothing of the kind."""
        if not hasattr(trt.IRuntimeConfig, "create_runtime_cache"):
            return None, None
        runtime_config = engine.create_runtime_config()
        if self._options.graphs:
            runtime_config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
            self.facts["cuda_graphs"] = "by TensorRT-RTX"
        path = self._options.runtime_cache
        if path is None:
            return runtime_config, None
        runtime_cache = runtime_config.create_runtime_cache()
        known = path.read_bytes() if path.is_file() else b""
        is_known = bool(known) and bool(runtime_cache.deserialize(known))
        self.facts["runtime_cache"] = (
            "loaded" if is_known else "of another device or version: made anew" if known else "new"
        )
        runtime_config.set_runtime_cache(runtime_cache)
        return runtime_config, runtime_cache

    def _context(self, engine: Any) -> Any:
        if self._runtime_config is None:
            context = engine.create_execution_context()
        else:
            context = engine.create_execution_context(self._runtime_config)
        if context is None:
            raise BuildError(
                "TF0626",
                "the engine gives no execution context; most likely device memory ran out",
                hint="run fewer streams, or free device memory"
                + (", or give a smaller --weight-budget" if weight_facts(engine) else ""),
            )
        return context


class Pending:
    """A batch under way. Leaving the context gives its stream to the next."""

    def __init__(self, lane: Lane, free: queue.SimpleQueue[Lane]) -> None:
        self._lane = lane
        self._free = free

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._free.put(self._lane)

    def wait(self) -> float:
        """Wait until the outputs are in host memory; returns the device's time, seconds.

        That is the time between the inputs' arrival on the device and the end of the last kernel:
        copies are not in it.
        """
        return self._lane.wait()

    def outputs(self) -> dict[str, Array]:
        """Wait, and copy the outputs out of pinned memory, as the next batch writes there."""
        self.wait()
        return self._lane.outputs()
