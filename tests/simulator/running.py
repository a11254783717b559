"""Runtime, ICudaEngine and IExecutionContext: a plan is loaded and computed by ONNX Runtime."""

import ctypes
import math
import os
import weakref
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import numpy_helper

from . import computing, onnx_layers, plan
from .device import capability
from .module import only
from .saying import say

FAULT = "TRT_SIMULATOR_RUN_FAULT"
"""Environment variable: "failed" makes every execution fail, "plugin" every engine need one."""

_NUMPY: dict[str, Any] = {
    "FLOAT": np.float32, "HALF": np.float16, "BF16": ml_dtypes.bfloat16, "INT8": np.int8,
    "UINT8": np.uint8, "INT32": np.int32, "INT64": np.int64, "BOOL": np.bool_,
    "FP8": ml_dtypes.float8_e4m3fn,
}  # fmt: skip


class Runtime:
    def __init__(self, logger: Any) -> None:
        self._logger = logger
        self._host_code = False

    @property
    def logger(self) -> Any:
        return self._logger

    @property
    def engine_host_code_allowed(self) -> bool:
        return bool(self._host_code)

    @engine_host_code_allowed.setter
    def engine_host_code_allowed(self, value: bool) -> None:
        self._host_code = value

    def deserialize_cuda_engine(self, serialized_engine: Any) -> Any:
        data = bytes(serialized_engine)
        try:
            version = plan.version_of(data)
            built = plan.read(data)
        except plan.UnreadableError as error:
            return self._refuse(f"Error Code 1: Serialization (Serialization assertion: {error})")
        if os.environ.get(FAULT) == "plugin":
            return self._refuse(
                "Error Code 4: API Usage Error (Cannot deserialize plugin since corresponding "
                "IPluginCreator not found in Plugin Registry)"
            )
        facts, here = (built.facts, self._trt.__version__)
        if version != here and "VERSION_COMPATIBLE" not in facts["flags"]:
            return self._refuse(
                "Error Code 6: API Usage Error (The engine plan file is not compatible with this "
                f"version of TensorRT, expecting library version {version} got {here})"
            )
        if facts["host_code"] and not self._host_code:
            return self._refuse(
                "Error Code 4: API Usage Error (the plan holds host code, which is not allowed)"
            )
        level = facts["settings"].get("hardware_compatibility_level", "NONE")
        if facts["capability"] != capability() and level == "NONE":
            return self._refuse(
                "Error Code 6: API Usage Error (The engine plan file is generated on an "
                f"incompatible device, expecting compute {capability()} got compute "
                f"{facts['capability']}, please rebuild.)"
            )
        model = onnx.ModelProto.FromString(built.onnx)
        engine = self._trt.ICudaEngine._made(_facts=facts, _logger=self._logger)
        engine._load(model)
        return engine

    def _refuse(self, text: str) -> None:
        say(self._trt, self._logger, "ERROR", text)


class ICudaEngine:
    def _load(self, model: Any) -> None:
        self._model = model
        self._values = onnx_layers.infer(model, {})
        constants = {tensor.name for tensor in model.graph.initializer}
        self._inputs = [held.name for held in model.graph.input if held.name not in constants]
        self._outputs = [held.name for held in model.graph.output]
        self._deciding = [n for n in self._inputs if onnx_layers.decides_shapes(model, n)]
        self._missing = set(constants) if self._facts["stripped"] else set()
        self._session: Any = None
        self._contexts = weakref.WeakSet[Any]()
        self._weight_bytes = sum(
            numpy_helper.to_array(tensor).nbytes for tensor in model.graph.initializer
        )
        self._budget = self.streamable_weights_size

    def _compute(self, feeds: dict[str, Any]) -> list[Any]:
        if self._session is None:
            self._session = computing.session_of(self._model)
        return computing.computed(self._session, self._outputs, feeds)

    def _triple(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
        profiles = self._facts["profiles"]
        given = profiles[profile_index].get(name) if profiles else None
        return [tuple(shape) for shape in given or [self._values[name].shape] * 3]

    @property
    def name(self) -> str:
        return str(self._model.graph.name)

    @property
    def num_io_tensors(self) -> int:
        return len(self._inputs) + len(self._outputs)

    @property
    def num_layers(self) -> int:
        return len(self._model.graph.node)

    @property
    def num_optimization_profiles(self) -> int:
        return max(1, len(self._facts["profiles"]))

    @property
    def refittable(self) -> bool:
        return bool(self._facts["refit"])

    @property
    def profiling_verbosity(self) -> Any:
        name = self._facts["settings"].get("profiling_verbosity", "LAYER_NAMES_ONLY")
        return getattr(self._trt.ProfilingVerbosity, name)

    @property
    def hardware_compatibility_level(self) -> Any:
        name = self._facts["settings"].get("hardware_compatibility_level", "NONE")
        return getattr(self._trt.HardwareCompatibilityLevel, name)

    @property
    def device_memory_size_v2(self) -> int:
        count = self.num_optimization_profiles
        return max(self.get_device_memory_size_for_profile_v2(index) for index in range(count))

    @property
    @only("10")
    def device_memory_size(self) -> int:
        return int(self.device_memory_size_v2)

    def get_device_memory_size_for_profile_v2(self, profile_index: int) -> int:
        shapes = {name: self._triple(name, profile_index)[2] for name in self._inputs}
        found = onnx_layers.infer(self._model, shapes).values()
        sizes = [math.prod(value.shape) for value in found if value.shape and -1 not in value.shape]
        return 4 * max(sizes, default=0)

    def get_tensor_name(self, index: int) -> str:
        return str([*self._inputs, *self._outputs][index])

    def get_tensor_mode(self, name: str) -> Any:
        modes = self._trt.TensorIOMode
        return modes.INPUT if name in self._inputs else modes.OUTPUT

    def get_tensor_dtype(self, name: str) -> Any:
        return getattr(self._trt.DataType, self._values[name].dtype)

    def get_tensor_shape(self, name: str) -> Any:
        return self._trt.Dims(list(self._values[name].shape))

    def get_tensor_location(self, name: str) -> Any:
        places = self._trt.TensorLocation
        return places.HOST if name in self._deciding else places.DEVICE

    def get_tensor_format(self, name: str, profile_index: int = 0) -> Any:
        return self._trt.TensorFormat.LINEAR

    def get_aliased_input_tensor(self, name: str) -> Any:
        return onnx_layers.aliased_input(self._model, name)

    def get_engine_stat(self, stat: Any) -> int:
        if stat.name == "STRIPPED_WEIGHTS_SIZE" and not self._facts["stripped"]:
            return -1  # as documented
        return self._weight_bytes

    @property
    def streamable_weights_size(self) -> int:
        return self._weight_bytes if "WEIGHT_STREAMING" in self._facts["flags"] else 0

    def get_weight_streaming_automatic_budget(self) -> int:
        return self.streamable_weights_size // 2

    @property
    def weight_streaming_budget_v2(self) -> int:
        return int(self._budget)

    @weight_streaming_budget_v2.setter
    def weight_streaming_budget_v2(self, value: int) -> None:
        if self._contexts:  # as documented: logged, dropped, not raised
            text = "the weight streaming budget cannot change while a context lives"
        elif value < 0 or not self.streamable_weights_size:
            text = f"Parameter check failed: weight streaming budget {value}"
        else:
            self._budget = min(int(value), self.streamable_weights_size)
            return
        say(self._trt, self._logger, "ERROR", f"Error Code 3: API Usage Error ({text})")

    def is_shape_inference_io(self, name: str) -> bool:
        return name in self._deciding

    def get_tensor_profile_values(self, name: int, profile_index: str) -> Any:
        # The bindings name the two so, and take them in this order: the index, then the tensor.
        return [list(one) for one in self._facts["values"][name][profile_index]]

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> Any:
        return [self._trt.Dims(list(shape)) for shape in self._triple(name, profile_index)]

    def create_engine_inspector(self) -> Any:
        return self._trt.EngineInspector._made(_engine=self)

    def create_execution_context(self, strategy: Any = None) -> Any:
        context = self._trt.IExecutionContext._made(
            _engine=self, _profile=0, _shapes={}, _addresses={}, _allocators={}
        )
        self._contexts.add(context)
        return context


class IExecutionContext:
    @property
    def engine(self) -> Any:
        return self._engine

    @property
    def active_optimization_profile(self) -> int:
        return int(self._profile)

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        if not 0 <= profile_index < self._engine.num_optimization_profiles:
            return self._refuse(f"there is no profile {profile_index}")
        self._profile = int(profile_index)
        self._shapes.clear()
        return True

    def set_input_shape(self, name: str, shape: Any) -> bool:
        low, _, high = self._engine._triple(name, self._profile)
        sizes = tuple(shape)
        inside = len(sizes) == len(low) and all(
            a <= size <= b for a, size, b in zip(low, sizes, high, strict=True)
        )
        if not inside:
            return self._refuse(f"{name} {sizes} is outside of profile {self._profile}")
        self._shapes[name] = sizes
        for output in self._engine._outputs:  # of the last run
            self._shapes.pop(output, None)
        return True

    def get_tensor_shape(self, name: str) -> Any:
        known = self._shapes.get(name, self._engine._values[name].shape)
        if name in self._engine._outputs and -1 in known and self._knows_inputs:
            inferred = onnx_layers.infer(self._engine._model, self._shapes, self._decisions())
            known = inferred[name].shape
        return self._trt.Dims(list(known))

    def _decisions(self) -> dict[str, Any]:
        """Values that decide shapes: of host memory, as soon as the context knows where."""
        found = {}
        for name in self._engine._deciding:
            value = self._engine._values[name]
            if address := self.get_tensor_address(name):
                found[name] = _read(address, value.shape, value.dtype)
        return found

    @property
    def _knows_inputs(self) -> bool:
        return not any(-1 in self.get_tensor_shape(name) for name in self._engine._inputs)

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = int(memory)
        for output in self._engine._outputs if name in self._engine._deciding else ():
            self._shapes.pop(output, None)  # of the last run, for other values
        return True

    def get_tensor_address(self, name: str) -> int:
        return int(self._addresses.get(name, 0))

    def set_output_allocator(self, name: str, output_allocator: Any) -> bool:
        self._allocators[name] = output_allocator
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        engine = self._engine
        if os.environ.get(FAULT) == "failed":
            return self._refuse("Error Code 1: Cuda Runtime (simulated)")
        if engine._missing:
            return self._refuse(f"weights are missing: {min(engine._missing)}")
        feeds = {}
        for name, decided in self._decisions().items():
            low, _, high = engine.get_tensor_profile_values(self._profile, name)
            if not all(a <= n <= b for a, n, b in zip(low, decided.flat, high, strict=True)):
                return self._refuse(f"values of {name} are outside of profile {self._profile}")
        for name in engine._inputs:
            shape = tuple(self.get_tensor_shape(name))
            if -1 in shape or not self.get_tensor_address(name):
                return self._refuse(f"input {name} has no shape or no address")
            feeds[name] = _read(self._addresses[name], shape, engine._values[name].dtype)
        results = engine._compute(feeds)
        for name, result in zip(engine._outputs, results, strict=True):
            if problem := self._put(name, np.asarray(result, order="C"), int(stream_handle)):
                return self._refuse(f"output {name} {problem}")
        return True

    def _put(self, name: str, result: Any, stream: int) -> str:
        """Write a result where it belongs; returns what is wrong."""
        address = self.get_tensor_address(name)
        source = self._engine.get_aliased_input_tensor(name)
        if source is not None and address != self.get_tensor_address(source):
            return f"is not where its input {source} is"
        allocator = self._allocators.get(name)
        if allocator is not None:
            address = allocator.reallocate_output_async(name, address, result.nbytes, 256, stream)
            allocator.notify_shape(name, self._trt.Dims(list(result.shape)))
        elif -1 in self.get_tensor_shape(name):
            return "has a size that depends on the data, and no allocator"
        if not address:
            return "has no address"
        ctypes.memmove(address, result.ctypes.data, result.nbytes)
        return ""

    def _refuse(self, text: str) -> bool:
        text = f"IExecutionContext: Error Code 3: API Usage Error ({text})"
        say(self._trt, self._engine._logger, "ERROR", text)
        return False


def _read(address: int, shape: tuple[int, ...], dtype: str) -> Any:
    kind = np.dtype(_NUMPY[dtype])
    held = ctypes.string_at(address, math.prod(shape) * kind.itemsize)
    return np.frombuffer(held, kind).reshape(shape)


class IOutputAllocator:
    """Made by the user, who gives it methods that the bindings do not list."""

    def __init__(self) -> None: ...
