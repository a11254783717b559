"""Builder: from a network and its configuration to a plan, or the error that is logged."""

import hashlib
import os
import time
from collections.abc import Iterator
from typing import Any

import onnx

from . import onnx_layers, plan
from .device import capability
from .saying import say

STEP_MS = "TRT_SIMULATOR_STEP_MS"
"""Environment variable: how long the timing of a layer takes, for tests that cancel."""

FAULT = "TRT_SIMULATOR_FAULT"
"""Environment variable: what goes wrong in a build; see `_FAULTS`."""

_FAULTS = {
    "error_line": "Error Code 2: Internal Error (Assertion x failed. simulated)",
    "skipped_tactic": "Error Code 9: Skipping tactic 0x00000000000003e8 due to exception simulated",
}
_CHUNK_BYTES = 1 << 16
_TYPED_FLAGS = {"FP16", "BF16", "INT8", "FP8", "INT4", "FP4"}


class Builder:
    def __init__(self, logger: Any) -> None:
        self._logger = logger

    @property
    def logger(self) -> Any:
        return self._logger

    def create_network(self, flags: int = 0) -> Any:
        return self._trt.INetworkDefinition._made(
            _flags=int(flags), _inputs=[], _outputs=[], _layers=[], _tensors={}, _model=None
        )

    def create_builder_config(self) -> Any:
        return self._trt.IBuilderConfig._made(
            _logger=self._logger, _settings={}, _flag_names={"TF32"}, _pools={}, _profiles=[],
            _monitor=None, _cache=None,
        )  # fmt: skip

    def create_optimization_profile(self) -> Any:
        return self._trt.IOptimizationProfile._made(_shapes={}, _values={})

    def build_serialized_network(self, network: Any, config: Any) -> Any:
        data = self._build(network, config)
        return None if data is None else self._trt.IHostMemory._made(_data=data)

    def build_serialized_network_to_stream(self, network: Any, config: Any, writer: Any) -> bool:
        data = self._build(network, config)
        if data is None:
            return False
        for start in range(0, len(data), _CHUNK_BYTES):
            chunk = data[start : start + _CHUNK_BYTES]
            if writer.write(chunk) != len(chunk):
                return self._fail("Error Code 1: Serialization (the writer took less)") or False
        return True

    def _build(self, network: Any, config: Any) -> bytes | None:
        for problem in _problems(network, config):
            return self._fail(problem)
        if config._flag_names & {"EXCLUDE_LEAN_RUNTIME", "VERSION_COMPATIBLE"} == {
            "EXCLUDE_LEAN_RUNTIME"
        }:
            self._fail("Error Code 3: API Usage Error (EXCLUDE_LEAN_RUNTIME is ignored)")
        if text := _FAULTS.get(os.environ.get(FAULT, "")):
            self._fail(text)
        if not self._time_layers(network, config):
            return None
        facts = _facts(self._trt, network, config)
        say(
            self._trt, self._logger, "INFO", f"Total Activation Memory: {4096 * network.num_layers}"
        )
        model = onnx.ModelProto()
        model.CopyFrom(network._model)
        if facts["stripped"]:
            _strip(model)
        return plan.write(self._trt.__version__, plan.Plan(facts, model.SerializeToString()))

    def _time_layers(self, network: Any, config: Any) -> bool:
        steps = _Steps(config._monitor)
        known = config._cache._facts["timings"] if config._cache is not None else {}
        if "DISABLE_TIMING_CACHE" in config._flag_names:
            known = {}
        pause = float(os.environ.get(STEP_MS, "0")) / 1000
        steps.start("Building engine", None, 2)
        steps.start("Timing tactics", "Building engine", len(network._layers))
        for index, layer in enumerate(network._layers):
            key = _timing_key(layer, config)
            if key not in known and "ERROR_ON_TIMING_CACHE_MISS" in config._flag_names:
                self._fail(f"Error Code 4: no timing of {layer.name} in the timing cache")
                return False
            if key not in known:
                time.sleep(pause)
                known[key] = int(key[:6], 16) / 1e6
            if not steps.step("Timing tactics", index):
                self._fail("Error Code 7: BuildCanceled (build was cancelled by user)")
                return False
        steps.finish("Timing tactics")
        steps.finish("Building engine")
        return True

    def _fail(self, text: str) -> None:
        say(self._trt, self._logger, "ERROR", text)


class _Steps:
    """An IProgressMonitor, or none."""

    def __init__(self, monitor: Any) -> None:
        self._monitor = monitor

    def start(self, name: str, parent: str | None, steps: int) -> None:
        if self._monitor is not None:
            self._monitor.phase_start(name, parent, steps)

    def step(self, name: str, index: int) -> bool:
        return self._monitor is None or self._monitor.step_complete(name, index)

    def finish(self, name: str) -> None:
        if self._monitor is not None:
            self._monitor.phase_finish(name)


def _problems(network: Any, config: Any) -> Iterator[str]:
    usage = "Error Code 4: API Usage Error"
    if not network._outputs:
        yield f"{usage} (Network must have at least one output)"
    is_typed = network.get_flag(network._trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    flags = config._flag_names & _TYPED_FLAGS
    if is_typed and flags:
        yield f"{usage} (a strongly typed network takes no flag {', '.join(sorted(flags))})"
    kinds = {layer._layer.kind for layer in network._layers}
    if not is_typed and kinds & {"QUANTIZE", "DEQUANTIZE"} and not flags & {"INT8", "FP8"}:
        yield f"{usage} (Networks with Q/DQ layers need the flag of their type)"
    shapes = {tensor.name: tensor._value.shape for tensor in network._inputs}
    dynamic = [name for name, shape in shapes.items() if -1 in shape]
    deciding = [tensor.name for tensor in network._inputs if tensor.is_shape_tensor]
    if (dynamic or deciding) and not config._profiles:
        yield (
            f"{usage} (Network has dynamic or shape inputs, but no optimization profile has been "
            "defined.)"
        )
    for index, profile in enumerate(config._profiles):
        for name in dynamic:
            if name not in profile._shapes:
                yield f"Dynamic input tensor {name} is missing dimensions in profile {index}"
        for name in deciding:
            if name not in profile._values:
                yield f"Shape tensor {name} is missing values in profile {index}"
        for name, triple in profile._shapes.items():
            if name in shapes and not all(_fits(shapes[name], shape) for shape in triple):
                yield f"{usage} (profile {index} does not fit {name})"


def _fits(dims: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    pairs = list(zip(dims, shape, strict=False))
    return len(dims) == len(shape) and all(dim in (-1, size) for dim, size in pairs)


def _timing_key(layer: Any, config: Any) -> str:
    tensors = [*layer._inputs, *layer._outputs]
    parts = [(tensor._value.dtype, tensor._value.shape) for tensor in tensors if tensor is not None]
    profiles = [
        sorted([*profile._shapes.items(), *profile._values.items()]) for profile in config._profiles
    ]
    text = repr((layer._layer.kind, layer.name, parts, profiles, sorted(config._settings.items())))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _facts(trt: Any, network: Any, config: Any) -> dict[str, Any]:
    flags = config._flag_names
    refit = [name for name in ("REFIT", "REFIT_IDENTICAL", "REFIT_INDIVIDUAL") if name in flags]
    return {
        "capability": capability(),
        "strongly_typed": network.get_flag(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED),
        "flags": sorted(flags),
        "settings": config._settings,
        "pools": config._pools,
        "profiles": [profile._shapes for profile in config._profiles],
        "values": [profile._values for profile in config._profiles],
        "refit": refit,
        "stripped": "STRIP_PLAN" in flags,
        "host_code": "VERSION_COMPATIBLE" in flags and "EXCLUDE_LEAN_RUNTIME" not in flags,
    }


def _strip(model: Any) -> None:
    """Take the floating point weights out; their shapes stay."""
    for tensor in model.graph.initializer:
        if onnx_layers.DATA_TYPES.get(tensor.data_type) in ("FLOAT", "HALF", "BF16"):
            array = onnx.numpy_helper.to_array(tensor) * 0
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
