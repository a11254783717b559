"""A session's graphs, runtime cache and refusals, over fakes of the engine and of CUDA."""

import ctypes
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from trtforge.engine.cuda import Cuda
from trtforge.engine.session import Session, SessionOptions
from trtforge.errors import BuildError, MissingError


class FakeRuntime:
    """libcudart over host memory, which notes its calls; captured work is what it can replay."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.held: dict[int, Any] = {}
        self.broken: set[str] = set()
        self.capturing = False
        self._actions = {
            "cudaMemcpyAsync": self._copy,
            "cudaStreamBeginCapture": self._begin,
            "cudaStreamEndCapture": self._end,
            "cudaEventElapsedTime": self._take_time,
            "cudaDeviceGetPCIBusId": self._say_bus,
        }

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("cuda"):
            raise AttributeError(name)

        def call(*arguments: Any) -> int:
            self.calls.append(name)
            if name in self.broken:
                return 901
            self._actions.get(name, self._make)(*arguments)
            return 0

        if name == "cudaGetErrorString":
            return SayError()
        return call

    def _make(self, *arguments: Any) -> None:
        """Whatever makes something has a place for its address first, or last."""
        for one in arguments:
            if type(one).__name__ == "CArgObject":
                memory = ctypes.create_string_buffer(4096)
                self.held[ctypes.addressof(memory)] = memory
                one._obj.value = ctypes.addressof(memory)

    def _copy(self, to: Any, source: Any, size: Any, kind: Any, stream: Any) -> None:
        ctypes.memmove(to.value, source.value, size.value)

    def _begin(self, stream: Any, mode: Any) -> None:
        self.capturing = True

    def _end(self, stream: Any, graph: Any) -> None:
        self.capturing = False
        self._make(graph)

    def _take_time(self, milliseconds: Any, *events: Any) -> None:
        milliseconds._obj.value = 2.0

    def _say_bus(self, text: Any, length: int, device: int) -> None:
        text.value = b"0000:01:00.0"


class SayError:
    """A function whose result type can be set."""

    restype: Any = None

    def __call__(self, status: int) -> bytes:
        return b"capture is not allowed"


class FakeContext:
    active_optimization_profile = 0

    def __init__(self, engine: "FakeEngine") -> None:
        self.engine = engine
        self.addresses: dict[str, int] = {}
        self.shape: tuple[int, ...] = ()
        self.runs, self.shaped = 0, 0

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shape = tuple(shape)
        self.shaped += 1
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (-1,) if self.engine.depends_on_data else self.shape

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def set_output_allocator(self, name: str, allocator: Any) -> bool:
        self.allocator = allocator
        return True

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        self.active_optimization_profile = index
        return True

    def execute_async_v3(self, stream: int) -> bool:
        self.runs += 1
        if self.engine.depends_on_data:  # as many rows as the first value says
            rows = int(ctypes.c_float.from_address(self.addresses["x"]).value)
            place = self.allocator.reallocate_output_async("y", 0, rows * 16, 256, stream)
            if not place:
                return False
            ctypes.memset(place, 0, rows * 16)
            self.allocator.notify_shape("y", (rows, 4))
        return self.engine.works


class FakeEngine:
    num_io_tensors, num_optimization_profiles = 2, 1
    streamable_weights_size = 0

    def __init__(self) -> None:
        self.works, self.depends_on_data = True, False
        self.dtype, self.location = "FLOAT", "DEVICE"
        self.given: list[Any] = []
        self.contexts: list[FakeContext] = []
        self.has_memory = True

    def get_tensor_name(self, index: int) -> str:
        return "xy"[index]

    def get_tensor_mode(self, name: str) -> Any:
        return SimpleNamespace(name="INPUT" if name == "x" else "OUTPUT")

    def get_tensor_dtype(self, name: str) -> Any:
        return SimpleNamespace(name=self.dtype)

    def get_tensor_location(self, name: str) -> Any:
        return SimpleNamespace(name=self.location)

    def is_shape_inference_io(self, name: str) -> bool:
        return False

    def get_tensor_profile_shape(self, name: str, index: int) -> Any:
        return [(1, 4), (2, 4), (8, 4)]

    def create_runtime_config(self) -> Any:
        return FakeConfig()

    def create_execution_context(self, *given: Any) -> Any:
        self.given.append(given)
        if not self.has_memory:
            return None
        self.contexts.append(FakeContext(self))
        return self.contexts[-1]


class FakeCache:
    content = b""

    def deserialize(self, blob: bytes) -> bool:
        self.content = blob
        return blob == b"kernels"

    def serialize(self) -> bytes:
        return b"kernels"


class FakeConfig:
    cuda_graph_strategy: Any = None
    cache: Any = None

    def create_runtime_cache(self) -> FakeCache:
        return FakeCache()

    def set_runtime_cache(self, cache: Any) -> bool:
        self.cache = cache
        return True


class FakeAllocator:
    """The base class that the bindings have."""


TRT = SimpleNamespace(IRuntimeConfig=object, IOutputAllocator=FakeAllocator)
RTX = SimpleNamespace(
    IRuntimeConfig=FakeConfig, CudaGraphStrategy=SimpleNamespace(WHOLE_GRAPH_CAPTURE="whole")
)
X = np.ones((2, 4), np.float32)


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> FakeRuntime:
    fake = FakeRuntime()
    monkeypatch.setattr("polygraphy.cuda.wrapper", lambda: SimpleNamespace(handle=fake))
    return fake


def test_a_batch_is_captured_once_and_launched_after_that(runtime: FakeRuntime) -> None:
    engine = FakeEngine()
    with Session(TRT, engine, Cuda(), SessionOptions(streams=2, graphs=True)) as session:
        session.prepare(session.pin({"x": X}))
        assert session.facts == {"cuda_graphs": "captured"}
        assert [one.runs for one in engine.contexts] == [2, 2], "one settles, one is captured"
        for _ in range(3):
            session.infer({"x": X})
        assert sum(one.runs for one in engine.contexts) == 4
        assert runtime.calls.count("cudaGraphLaunch") == 5
        session.infer({"x": np.ones((3, 4), np.float32)})  # another shape, another graph
        assert runtime.calls.count("cudaGraphExecDestroy") == 1
        assert runtime.calls.count("cudaStreamBeginCapture") == 3
    assert runtime.calls.count("cudaGraphExecDestroy") == 3
    assert runtime.calls.count("cudaStreamCreate") == runtime.calls.count("cudaStreamDestroy") == 2
    assert runtime.calls.count("cudaMalloc") == runtime.calls.count("cudaFree") - 1, "one opens"


@pytest.mark.parametrize("where", ["cudaStreamBeginCapture", "cudaGraphInstantiateWithFlags"])
def test_what_cannot_be_captured_runs_without(runtime: FakeRuntime, where: str) -> None:
    runtime.broken = {where}
    with Session(TRT, FakeEngine(), Cuda(), SessionOptions(graphs=True)) as session:
        session.prepare(session.pin({"x": X}))
        assert "capture is not allowed" in session.facts["cuda_graphs"]
        session.infer({"x": X})
        assert "cudaGraphLaunch" not in runtime.calls
        assert not runtime.capturing


def test_host_tensors_are_not_copied_nor_captured(runtime: FakeRuntime) -> None:
    engine = FakeEngine()
    engine.location = "HOST"
    with Session(TRT, engine, Cuda(), SessionOptions(graphs=True)) as session:
        pinned = session.pin({"x": X})
        session.prepare(pinned)
        assert engine.contexts[0].addresses["x"] == pinned["x"].address
        assert "host memory" in session.facts["cuda_graphs"]
        before = engine.contexts[0].shaped
        session.infer({"x": X})
        assert engine.contexts[0].shaped == before
        session.infer({"x": X * 2})  # other sizes in it may make other shapes of outputs
        assert engine.contexts[0].shaped == before + 1
    assert "cudaMemcpyAsync" not in runtime.calls


def test_tensorrt_rtx_is_told_by_its_own_settings(runtime: FakeRuntime, tmp_path: Path) -> None:
    path = tmp_path / "store" / "kernels.cache"
    options = SessionOptions(graphs=True, runtime_cache=path)
    said = []
    for content in (None, b"kernels", b"of another GPU"):
        if content is not None:
            path.write_bytes(content)
        engine = FakeEngine()
        with Session(RTX, engine, Cuda(), options) as session:
            session.prepare(session.pin({"x": X}))
            session.keep_runtime_cache()
            said.append(session.facts["runtime_cache"])
            assert session.facts["cuda_graphs"] == "by TensorRT-RTX"
        ((config,),) = engine.given
        assert config.cuda_graph_strategy == "whole"
        assert config.cache is not None
        assert path.read_bytes() == b"kernels"
    assert said == ["new", "loaded", "of another device or version: made anew"]
    assert "cudaStreamBeginCapture" not in runtime.calls


def test_an_output_whose_size_the_data_decides_gets_its_memory_when_it_is_known(
    runtime: FakeRuntime,
) -> None:
    engine = FakeEngine()
    engine.depends_on_data = True
    with Session(TRT, engine, Cuda(), SessionOptions(graphs=True)) as session:
        session.prepare(session.pin({"x": X}))
        assert "depends on the data" in session.facts["cuda_graphs"]
        for rows in (3, 0, 5, 1):
            assert session.infer({"x": X * rows})["y"].shape == (rows, 4)
        runtime.broken = {"cudaMalloc"}
        with pytest.raises(BuildError, match="cudaMalloc failed"):
            session.infer({"x": X * 9})
        runtime.broken = set()
        assert session.infer({"x": X * 9})["y"].shape == (9, 4)
    assert runtime.calls.count("cudaMalloc") == runtime.calls.count("cudaFree"), (
        "one opens, one failed"
    )


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"works": False}, "TF0626"),
        ({"has_memory": False}, "TF0626"),
        ({"dtype": "FP4"}, "TF0631"),
    ],
)
def test_engines_that_do_not_run(runtime: FakeRuntime, change: dict[str, Any], code: str) -> None:
    engine = FakeEngine()
    for name, value in change.items():
        setattr(engine, name, value)
    with pytest.raises(BuildError) as caught, Session(TRT, engine, Cuda()) as session:
        session.infer({"x": X})
    assert caught.value.code == code


def test_a_failing_call_is_one_clear_error(runtime: FakeRuntime) -> None:
    runtime.broken = {"cudaMalloc"}
    with Session(TRT, FakeEngine(), Cuda()) as session:
        with pytest.raises(BuildError, match=r"cudaMalloc failed: CUDA error 901 \(capture"):
            session.infer({"x": X})
        runtime.broken = set()
        assert session.infer({"x": X})["y"].shape == (2, 4), "its stream is free again"
    assert Cuda().bus_id() == "0000:01:00.0"


def test_a_missing_library_and_a_device_in_use_are_said(
    runtime: FakeRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime.broken = {"cudaFree"}
    with pytest.raises(BuildError, match="cudaFree failed"):
        Cuda()

    def missing() -> None:
        raise OSError("libcudart.so: cannot open shared object file")

    monkeypatch.setattr("polygraphy.cuda.wrapper", missing)
    with pytest.raises(MissingError, match="libcudart"):
        Cuda()
