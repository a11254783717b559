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

import numpy as np

from trtforge.disk import write_bytes
from trtforge.engine.arrays import Array
from trtforge.engine.backend import Dims
from trtforge.engine.cuda import Cuda, PinnedArray
from trtforge.engine.infer import choose_profile
from trtforge.engine.interface import Interface
from trtforge.errors import BuildError

Pinned = dict[str, PinnedArray]
"""The arrays of one batch in pinned memory, by input."""


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
        facts: `cuda_graphs` and `runtime_cache`: what became of them, where they were asked for.
    """

    def __init__(
        self, trt: Any, engine: Any, cuda: Cuda, options: SessionOptions | None = None
    ) -> None:
        self.facts: dict[str, Any] = {}
        self._options = options or SessionOptions()
        self._cuda = cuda
        self.interface = Interface.of(engine)
        self._runtime_config, self._runtime_cache = self._configure(trt, engine)
        is_captured = self._options.graphs and not self._makes_graphs
        self._lanes = [
            _Lane(self._context(engine), self.interface, cuda, is_captured)
            for _ in range(self._options.streams)
        ]
        self._free = queue.SimpleQueue[_Lane]()
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
            BuildError: TF0623, an input is missing, or of another type.
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
                "TF0624",
                "the engine gives no execution context; most likely device memory ran out",
                hint="run fewer streams, or free device memory",
            )
        return context


class Pending:
    """A batch under way. Leaving the context gives its stream to the next."""

    def __init__(self, lane: "_Lane", free: "queue.SimpleQueue[_Lane]") -> None:
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
        return {name: one.array.copy() for name, one in self._lane.results.items()}


class _Lane:
    """One execution context with its stream, its buffers and perhaps a captured graph."""

    def __init__(self, context: Any, interface: Interface, cuda: Cuda, is_captured: bool) -> None:
        self.context = context
        self.results: Pinned = {}
        self.refusal = ""
        self._interface = interface
        self._cuda = cuda
        self._wants_graph = is_captured
        self._graph = 0
        self._stream = cuda.create_stream()
        self._events = (cuda.create_event(), cuda.create_event())
        self._ready_for: dict[str, tuple[Dims, bytes]] | None = None
        self._buffers: dict[str, tuple[int, int]] = {}

    @property
    def is_captured(self) -> bool:
        """Whether batches of these shapes are launched as one graph."""
        return bool(self._graph)

    def start(self, feeds: Pinned) -> None:
        """Queue the copies in, the computation, and the copies out."""
        context = self.context
        if self._key(feeds) != self._ready_for:
            self._take_shapes(feeds)
        for name, one in feeds.items():
            if name in self._interface.on_host:
                context.set_tensor_address(name, one.address)
            else:
                self._cuda.to_device(self._buffers[name][0], one, self._stream)
        self._cuda.record(self._events[0], self._stream)
        if self._graph:
            self._cuda.launch(self._graph, self._stream)
        else:
            self._execute()
        self._cuda.record(self._events[1], self._stream)
        for name, one in self.results.items():
            if name not in self._interface.on_host:
                self._cuda.to_host(one, self._buffers[name][0], self._stream)

    def wait(self) -> float:
        """Wait for the outputs; returns the device's time, seconds."""
        self._cuda.synchronize(self._stream)
        return self._cuda.seconds_between(*self._events)

    def free(self) -> None:
        """Give everything back; the context before the engine that it belongs to."""
        self._drop_graph()
        for address, _ in self._buffers.values():
            self._cuda.free(address)
        for one in self.results.values():
            one.free()
        for event in self._events:
            self._cuda.destroy_event(event)
        self._cuda.destroy_stream(self._stream)
        del self.context

    def _key(self, feeds: Pinned) -> dict[str, tuple[Dims, bytes]]:
        """What shapes of outputs depend on: shapes of inputs, values of those in host memory."""
        on_host = self._interface.on_host
        return {
            name: (one.array.shape, one.array.tobytes() if name in on_host else b"")
            for name, one in feeds.items()
        }

    def _execute(self) -> None:
        context = self.context
        if not context.execute_async_v3(self._stream):
            raise BuildError("TF0624", "the engine did not run")

    def _take_shapes(self, feeds: Pinned) -> None:
        """Choose a profile, and make room for these shapes and for what they lead to."""
        context, interface = self.context, self._interface
        self._drop_graph()
        self._ready_for = None
        arrays = {name: one.array for name, one in feeds.items()}
        profile = choose_profile(interface.profiles, arrays)
        if context.active_optimization_profile != profile:
            if not context.set_optimization_profile_async(profile, self._stream):
                raise BuildError("TF0624", f"the engine does not take its profile {profile}")
            self._cuda.synchronize(self._stream)
        for name, one in feeds.items():
            if not context.set_input_shape(name, one.array.shape):
                raise BuildError("TF0624", f"input '{name}' does not take {one.array.shape}")
            if name in interface.on_host:  # shapes of outputs may depend on its values
                context.set_tensor_address(name, one.address)
            else:
                self._place(name, one.array.nbytes)
        for name, dtype in interface.outputs.items():
            self._make_result(name, dtype)
        self._settle(feeds)
        self._ready_for = self._key(feeds)

    def _make_result(self, name: str, dtype: np.dtype[Any]) -> None:
        context = self.context
        shape = tuple(context.get_tensor_shape(name))
        if -1 in shape:
            raise BuildError(
                "TF0625",
                f"the shape of output '{name}' depends on the data: {list(shape)}",
                hint="buffers are allocated before a run; such engines are not measured",
            )
        if name in self.results:
            self.results.pop(name).free()
        self.results[name] = PinnedArray(self._cuda, shape, dtype)
        if name in self._interface.on_host:
            context.set_tensor_address(name, self.results[name].address)
        else:
            self._place(name, self.results[name].array.nbytes)

    def _place(self, name: str, size: int) -> None:
        """Have at least `size` bytes on the device for a tensor, and tell the context where."""
        context = self.context
        address, held = self._buffers.get(name, (0, -1))
        if held < size:
            if address:
                del self._buffers[name]
                self._cuda.free(address)
            address = self._cuda.allocate(size)
            self._buffers[name] = (address, size)
        context.set_tensor_address(name, address)

    def _settle(self, feeds: Pinned) -> None:
        """Capture a graph where one is wanted.

        After a run: TensorRT ends a change of shapes in the next run, which cannot be captured.
        """
        if not self._wants_graph:
            return
        if self._interface.on_host:
            self.refusal = "not captured: the engine reads or writes host memory"
            return
        for name, one in feeds.items():
            self._cuda.to_device(self._buffers[name][0], one, self._stream)
        self._execute()
        self._cuda.synchronize(self._stream)
        try:
            self._graph = self._cuda.capture(self._stream, self._execute)
        except BuildError as refused:  # it runs without a graph then, and `facts` tells
            self.refusal = f"not captured: {refused.message}"

    def _drop_graph(self) -> None:
        if self._graph:
            self._cuda.destroy_graph(self._graph)
            self._graph = 0
