"""One batch under way: an execution context with its stream, buffers and perhaps a graph.

Inside the worker process only.
"""

from typing import Any

from trtforge.engine.arrays import Array
from trtforge.engine.backend import Dims
from trtforge.engine.cuda import Cuda, PinnedArray
from trtforge.engine.interface import Interface, choose_profile
from trtforge.errors import BuildError

Pinned = dict[str, PinnedArray]
"""The arrays of one batch in pinned memory, by input."""


class Lane:
    """One execution context with what a batch needs on the device.

    Args:
        trt: the module that the context comes from.
        context: an IExecutionContext.
        interface: of its engine.
        cuda: the CUDA runtime.
        is_captured: launch each batch as one CUDA graph, where that can be.

    Attributes:
        refusal: why no graph was captured.
    """

    def __init__(
        self, trt: Any, context: Any, interface: Interface, cuda: Cuda, is_captured: bool
    ) -> None:
        self._results: Pinned = {}
        self.refusal = ""
        self._trt = trt
        self._context = context
        self._interface = interface
        self._cuda = cuda
        self._wants_graph = is_captured
        self._graph = 0
        self._stream = cuda.create_stream()
        self._events = (cuda.create_event(), cuda.create_event())
        self._ready_for: dict[str, tuple[Dims, bytes]] | None = None
        self._room = _Room(cuda)
        self._allocator: Any = None
        self._sized_by_data: set[str] = set()

    @property
    def is_captured(self) -> bool:
        """Whether batches of these shapes are launched as one graph."""
        return bool(self._graph)

    def start(self, feeds: Pinned) -> None:
        """Queue the copies in, the computation, and the copies out.

        Raises:
            BuildError: TF0614, no profile covers the shapes; TF0626, the engine fails.
        """
        if self._key(feeds) != self._ready_for:
            self._take_shapes(feeds)
        for name, one in feeds.items():
            if name in self._interface.on_host:
                self._tell(name, one.address)
            else:
                self._cuda.to_device(self._room.address(name), one, self._stream)
        self._cuda.record(self._events[0], self._stream)
        if self._graph:
            self._cuda.launch(self._graph, self._stream)
        else:
            self._execute()
        self._cuda.record(self._events[1], self._stream)
        for name in self._sized_by_data:
            if name not in self._room.shapes:
                raise _failure(f"the engine does not tell the shape of '{name}'")
            self._make_result(name, self._room.shapes[name])
        for name, one in self._results.items():
            if name not in self._interface.on_host and one.array.nbytes:
                source = self._interface.aliases.get(name, name)
                self._cuda.to_host(one, self._room.address(source), self._stream)

    def wait(self) -> float:
        """Wait for the outputs; returns the device's time, seconds."""
        self._cuda.synchronize(self._stream)
        return self._cuda.seconds_between(*self._events)

    def outputs(self) -> dict[str, Array]:
        """The outputs of the last batch, copied, as the next batch writes there."""
        return {name: self._results[name].array.copy() for name in self._interface.outputs}

    def free(self) -> None:
        """Give everything back; the context before the engine that it belongs to."""
        self._drop_graph()
        self._room.free()
        for one in self._results.values():
            one.free()
        for event in self._events:
            self._cuda.destroy_event(event)
        self._cuda.destroy_stream(self._stream)
        del self._context, self._allocator

    def _key(self, feeds: Pinned) -> dict[str, tuple[Dims, bytes]]:
        """What shapes of outputs depend on: shapes of inputs, values of those in host memory."""
        on_host = self._interface.on_host
        return {
            name: (one.array.shape, one.array.tobytes() if name in on_host else b"")
            for name, one in feeds.items()
        }

    def _execute(self) -> None:
        self._room.shapes.clear()  # of the last run
        if self._context.execute_async_v3(self._stream):
            return
        if self._room.failure is not None:
            failure, self._room.failure = self._room.failure, None
            raise failure
        raise _failure("the engine did not run")

    def _tell(self, name: str, address: int) -> None:
        if not self._context.set_tensor_address(name, address):
            raise _failure(f"the engine does not take an address for '{name}'")

    def _take_shapes(self, feeds: Pinned) -> None:
        """Choose a profile, and make room for these shapes and for what they lead to."""
        context, interface = self._context, self._interface
        self._drop_graph()
        self._ready_for = None
        arrays = {name: one.array for name, one in feeds.items()}
        profile = choose_profile(interface.profiles, arrays)
        if context.active_optimization_profile != profile:
            if not context.set_optimization_profile_async(profile, self._stream):
                raise _failure(f"the engine does not take its profile {profile}")
            self._cuda.synchronize(self._stream)
        for name, one in feeds.items():
            if not context.set_input_shape(name, one.array.shape):
                raise _failure(f"input '{name}' does not take {one.array.shape}")
            if name in interface.on_host:  # shapes of outputs may depend on its values
                self._tell(name, one.address)
            else:
                self._tell(name, self._room.place(name, one.array.nbytes))
        self._sized_by_data.clear()
        for name in interface.outputs:
            self._prepare_output(name)
        self._settle(feeds)
        self._ready_for = self._key(feeds)

    def _prepare_output(self, name: str) -> None:
        """Make room for an output, or have the engine ask for it where data decides its size."""
        context, interface = self._context, self._interface
        shape = tuple(context.get_tensor_shape(name))
        if -1 in shape:
            if self._allocator is None:
                self._allocator = _allocator(self._trt, self._room)
            if not context.set_output_allocator(name, self._allocator):
                raise _failure(f"the engine does not take memory for '{name}'")
            self._sized_by_data.add(name)
            return
        result = self._make_result(name, shape)
        if name in interface.on_host:
            self._tell(name, result.address)
        elif name in interface.aliases:
            self._tell(name, self._room.address(interface.aliases[name]))
        else:
            self._tell(name, self._room.place(name, result.array.nbytes))

    def _make_result(self, name: str, shape: Dims) -> PinnedArray:
        """Have pinned memory for an output of this shape; larger memory at hand is kept."""
        held = self._results.get(name)
        if held is None or not held.take_shape(shape):
            if held is not None:
                del self._results[name]
                held.free()
            held = PinnedArray(self._cuda, shape, self._interface.outputs[name])
            self._results[name] = held
        return held

    def _settle(self, feeds: Pinned) -> None:
        """Capture a graph where one is wanted.

        After a run: TensorRT ends a change of shapes in the next run, which cannot be captured.
        """
        if not self._wants_graph:
            return
        if self._interface.on_host:
            self.refusal = "not captured: the engine reads or writes host memory"
            return
        if self._sized_by_data:
            self.refusal = "not captured: the size of an output depends on the data"
            return
        for name, one in feeds.items():
            self._cuda.to_device(self._room.address(name), one, self._stream)
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


def _failure(what: str) -> BuildError:
    """The engine refuses what it is documented to take; the worker adds what the library logged."""
    return BuildError("TF0626", what, hint="build it again with this library, for this GPU")


class _Room:
    """Device memory by tensor, which grows and never shrinks.

    Attributes:
        shapes: of outputs whose size the data decides, as the engine told them in its last run.
        failure: why no memory could be given to the engine, which cannot pass an exception on.
    """

    def __init__(self, cuda: Cuda) -> None:
        self.shapes: dict[str, Dims] = {}
        self.failure: BuildError | None = None
        self._cuda = cuda
        self._buffers: dict[str, tuple[int, int]] = {}

    def address(self, name: str) -> int:
        """Where a tensor lies."""
        return self._buffers[name][0]

    def place(self, name: str, size: int) -> int:
        """Have at least `size` bytes on the device for a tensor; returns where."""
        address, held = self._buffers.get(name, (0, -1))
        if held < size:
            if address:
                del self._buffers[name]
                self._cuda.free(address)
            address = self._cuda.allocate(size)
            self._buffers[name] = (address, size)
        return address

    def free(self) -> None:
        """Give all of it back."""
        while self._buffers:
            self._cuda.free(self._buffers.popitem()[1][0])


def _allocator(trt: Any, room: _Room) -> Any:
    """An IOutputAllocator: a class of the module at hand, as the bindings demand.

    The engine calls it before `execute_async_v3` returns, so shapes are known then
    (NvInferRuntime.h, `notifyShape`). What cudaMalloc gives is aligned to 256 bytes at least.
    """

    class Allocator(trt.IOutputAllocator):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IOutputAllocator.__init__(self)

        def reallocate_output(
            self, tensor_name: str, memory: int, size: int, alignment: int
        ) -> int:
            try:
                return room.place(tensor_name, size)
            except BuildError as error:
                room.failure = error
                return 0

        def reallocate_output_async(
            self, tensor_name: str, memory: int, size: int, alignment: int, stream: int
        ) -> int:
            return self.reallocate_output(tensor_name, memory, size, alignment)

        def notify_shape(self, tensor_name: str, shape: Any) -> None:
            room.shapes[tensor_name] = tuple(shape)

    return Allocator()
