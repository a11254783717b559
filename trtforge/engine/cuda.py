"""The few calls of the CUDA runtime that a session makes; inside the worker process only.

By ctypes on the runtime's own library, which Polygraphy finds, so that no package for CUDA has to
be installed. Signatures are those of CUDA 12 and 13 (cuda_runtime_api.h).
"""

import contextlib
import ctypes
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from trtforge.engine.arrays import Array
from trtforge.errors import BuildError, MissingError

# Source: driver_types.h.
_HOST_TO_DEVICE, _DEVICE_TO_HOST = 1, 2
_CAPTURE_THREAD_LOCAL = 1
_BUS_ID_LENGTH = 32


class PinnedArray:
    """Host memory that the device copies from and to without a detour, as a numpy array.

    Attributes:
        array: the memory; not to be used after `free`.
        address: where it lies.
    """

    def __init__(self, cuda: "Cuda", shape: Sequence[int], dtype: np.dtype[Any]) -> None:
        self._cuda = cuda
        self._dtype = dtype
        self._size = _bytes_of(shape, dtype)
        self.address = cuda.allocate_host(max(1, self._size))
        self.take_shape(shape)

    def take_shape(self, shape: Sequence[int]) -> bool:
        """Use the memory for an array of another shape; False where it is too small."""
        size = _bytes_of(shape, self._dtype)
        if size > self._size:
            return False
        held = memoryview((ctypes.c_uint8 * size).from_address(self.address))
        flat = np.frombuffer(held, self._dtype) if size else np.empty(0, self._dtype)
        self.array: Array = flat.reshape(tuple(shape))
        return True

    def free(self) -> None:
        """Give the memory back."""
        if self.address:
            self._cuda.free_host(self.address)
            self.address = 0


def _bytes_of(shape: Sequence[int], dtype: np.dtype[Any]) -> int:
    return math.prod(shape) * dtype.itemsize


_OUT_OF_MEMORY = 2
"""cudaErrorMemoryAllocation (driver_types.h)."""


class Cuda:
    """The CUDA runtime; streams, events, graphs and device memory are plain addresses.

    Raises:
        MissingError: TF0621, its library is not found.
        BuildError: TF0627, the device cannot be used.
    """

    def __init__(self) -> None:
        from polygraphy.cuda import wrapper

        try:
            self._library = wrapper().handle
        except Exception as error:  # Polygraphy's own kind, or the loader's OSError
            raise MissingError(
                "TF0621",
                f"the CUDA runtime library (libcudart) is not found: {error}",
                hint="pip install 'trtforge[gpu]', or put CUDA's lib64 on LD_LIBRARY_PATH",
            ) from error
        self._library.cudaGetErrorString.restype = ctypes.c_char_p
        # Opens this process's context on the device, which a runtime cache is checked against.
        self._call("cudaFree", None)

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, name)(*arguments)
        if status != 0:
            self._library.cudaGetLastError()  # it would be reported again by the next call
            text = (self._library.cudaGetErrorString(status) or b"").decode(errors="replace")
            hint = "look at the GPU with nvidia-smi, and run it again"
            if status == _OUT_OF_MEMORY:
                hint = "take smaller batches or fewer streams, or free device memory"
            raise BuildError("TF0627", f"{name} failed: CUDA error {status} ({text})", hint)

    def _made(self, name: str, *arguments: Any) -> int:
        """Call a function that writes the address of what it made to its first argument."""
        address = ctypes.c_void_p()
        self._call(name, ctypes.byref(address), *arguments)
        return address.value or 0

    def bus_id(self) -> str:
        """Where the device at hand sits, e.g. "0000:01:00.0"; NVML knows it by that."""
        text = ctypes.create_string_buffer(_BUS_ID_LENGTH)
        self._call("cudaDeviceGetPCIBusId", text, _BUS_ID_LENGTH, 0)
        return text.value.decode()

    def free_bytes(self) -> int:
        """Device memory that nobody holds now, bytes; of a MIG instance its own."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self._call("cudaMemGetInfo", ctypes.byref(free), ctypes.byref(total))
        return free.value

    def allocate(self, size: int) -> int:
        """Allocate device memory, bytes; at least one."""
        return self._made("cudaMalloc", ctypes.c_size_t(max(1, size)))

    def free(self, address: int) -> None:
        """Give device memory back."""
        self._call("cudaFree", ctypes.c_void_p(address))

    def allocate_host(self, size: int) -> int:
        """Allocate pinned host memory, bytes."""
        return self._made("cudaHostAlloc", ctypes.c_size_t(size), ctypes.c_uint(0))

    def free_host(self, address: int) -> None:
        """Give pinned host memory back."""
        self._call("cudaFreeHost", ctypes.c_void_p(address))

    def to_device(self, device: int, host: PinnedArray, stream: int) -> None:
        """Copy to the device, in the order of the stream."""
        self._copy(device, host.address, host.array.nbytes, _HOST_TO_DEVICE, stream)

    def to_host(self, host: PinnedArray, device: int, stream: int) -> None:
        """Copy from the device, in the order of the stream."""
        self._copy(host.address, device, host.array.nbytes, _DEVICE_TO_HOST, stream)

    def _copy(self, to: int, source: int, size: int, kind: int, stream: int) -> None:
        self._call(
            "cudaMemcpyAsync",
            ctypes.c_void_p(to),
            ctypes.c_void_p(source),
            ctypes.c_size_t(size),
            ctypes.c_int(kind),
            ctypes.c_void_p(stream),
        )

    def create_stream(self) -> int:
        """Make a stream."""
        return self._made("cudaStreamCreate")

    def synchronize(self, stream: int) -> None:
        """Wait for all that a stream has to do."""
        self._call("cudaStreamSynchronize", ctypes.c_void_p(stream))

    def destroy_stream(self, stream: int) -> None:
        """Give a stream back."""
        self._call("cudaStreamDestroy", ctypes.c_void_p(stream))

    def create_event(self) -> int:
        """Make an event that takes the time."""
        return self._made("cudaEventCreate")

    def record(self, event: int, stream: int) -> None:
        """Have an event take the time when the stream comes to it."""
        self._call("cudaEventRecord", ctypes.c_void_p(event), ctypes.c_void_p(stream))

    def seconds_between(self, first: int, second: int) -> float:
        """Time between two events that have passed, by the device's clock, seconds."""
        milliseconds = ctypes.c_float()
        self._call(
            "cudaEventElapsedTime",
            ctypes.byref(milliseconds),
            ctypes.c_void_p(first),
            ctypes.c_void_p(second),
        )
        return milliseconds.value / 1e3

    def destroy_event(self, event: int) -> None:
        """Give an event back."""
        self._call("cudaEventDestroy", ctypes.c_void_p(event))

    def capture(self, stream: int, work: Callable[[], None]) -> int:
        """Note down what `work` gives to a stream, undone; returns it as a graph to be launched.

        Raises:
            BuildError: the work cannot be captured; the stream is as it was then.
        """
        self._call(
            "cudaStreamBeginCapture", ctypes.c_void_p(stream), ctypes.c_int(_CAPTURE_THREAD_LOCAL)
        )
        graph = ctypes.c_void_p()
        ending = ("cudaStreamEndCapture", ctypes.c_void_p(stream), ctypes.byref(graph))
        try:
            work()
        except BaseException:
            with contextlib.suppress(BuildError):  # it is broken already; this ends it
                self._call(*ending)
            raise
        self._call(*ending)
        try:
            return self._made("cudaGraphInstantiateWithFlags", graph, ctypes.c_ulonglong(0))
        finally:
            self._call("cudaGraphDestroy", graph)

    def launch(self, graph: int, stream: int) -> None:
        """Do on a stream what was noted."""
        self._call("cudaGraphLaunch", ctypes.c_void_p(graph), ctypes.c_void_p(stream))

    def destroy_graph(self, graph: int) -> None:
        """Give what was noted back."""
        self._call("cudaGraphExecDestroy", ctypes.c_void_p(graph))
