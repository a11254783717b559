"""IBuilderConfig, IOptimizationProfile and ITimingCache: settings and the laws they obey."""

import json
from typing import Any

from .device import capability
from .saying import say

_DEFAULTS = {
    "builder_optimization_level": 3,
    "avg_timing_iterations": 1,
    "max_aux_streams": -1,
    "max_num_tactics": -1,
    "l2_limit_for_tiling": -1,
}
_CHOICES = {
    "profiling_verbosity": ("ProfilingVerbosity", "LAYER_NAMES_ONLY"),
    "hardware_compatibility_level": ("HardwareCompatibilityLevel", "NONE"),
    "runtime_platform": ("RuntimePlatform", "SAME_AS_BUILD"),
    "tiling_optimization_level": ("TilingOptimizationLevel", "NONE"),
    "engine_capability": ("EngineCapability", "STANDARD"),
}
_LIMITS = {"builder_optimization_level": (0, 5), "avg_timing_iterations": (1, 1 << 31)}
_POOL_BYTES = {"WORKSPACE": 24 << 30, "TACTIC_DRAM": 24 << 30, "TACTIC_SHARED_MEMORY": 100 << 10}


def _number(name: str) -> property:
    def read(self: Any) -> int:
        return int(self._settings.get(name, _DEFAULTS[name]))

    def write(self: Any, value: int) -> None:
        low, high = _LIMITS.get(name, (-(1 << 62), 1 << 62))
        if low <= value <= high:
            self._settings[name] = int(value)
        else:  # as the library: logged, dropped, not raised
            text = f"Error Code 3: API Usage Error (Parameter check failed: {name} {value})"
            say(self._trt, self._logger, "ERROR", text)

    return property(read, write)


def _choice(name: str) -> property:
    kind, default = _CHOICES[name]

    def read(self: Any) -> Any:
        return getattr(getattr(self._trt, kind), self._settings.get(name, default))

    def write(self: Any, value: Any) -> None:
        self._settings[name] = value.name

    return property(read, write)


class IBuilderConfig:
    builder_optimization_level = _number("builder_optimization_level")
    avg_timing_iterations = _number("avg_timing_iterations")
    max_aux_streams = _number("max_aux_streams")
    max_num_tactics = _number("max_num_tactics")
    l2_limit_for_tiling = _number("l2_limit_for_tiling")
    profiling_verbosity = _choice("profiling_verbosity")
    hardware_compatibility_level = _choice("hardware_compatibility_level")
    runtime_platform = _choice("runtime_platform")
    tiling_optimization_level = _choice("tiling_optimization_level")
    engine_capability = _choice("engine_capability")

    def set_flag(self, flag: Any) -> None:
        self._flag_names.add(flag.name)

    def clear_flag(self, flag: Any) -> None:
        self._flag_names.discard(flag.name)

    def get_flag(self, flag: Any) -> bool:
        return flag.name in self._flag_names

    @property
    def flags(self) -> int:
        return sum(1 << int(getattr(self._trt.BuilderFlag, name)) for name in self._flag_names)

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        self._pools[pool.name] = int(pool_size)

    def get_memory_pool_limit(self, pool: Any) -> int:
        return int(self._pools.get(pool.name, _POOL_BYTES.get(pool.name, 0)))

    @property
    def num_optimization_profiles(self) -> int:
        return len(self._profiles)

    def add_optimization_profile(self, profile: Any) -> int:
        for name, (low, mid, high) in (*profile._shapes.items(), *profile._values.items()):
            if not all(a <= b <= c for a, b, c in zip(low, mid, high, strict=True)):
                text = f"Invalid optimization profile: {name} must have MIN<=OPT<=MAX"
                say(self._trt, self._logger, "ERROR", text)
                return -1
        self._profiles.append(profile)
        return len(self._profiles) - 1

    @property
    def progress_monitor(self) -> Any:
        return self._monitor

    @progress_monitor.setter
    def progress_monitor(self, value: Any) -> None:
        self._monitor = value

    def create_timing_cache(self, serialized_timing_cache: Any) -> Any:
        made = {"device": capability(), "version": self._trt.__version__, "timings": {}}
        if held := bytes(serialized_timing_cache):
            try:
                made = json.loads(held)
            except ValueError:
                say(self._trt, self._logger, "ERROR", "the timing cache cannot be read")
                return None
        return self._trt.ITimingCache._made(_facts=made, _config=self)

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        here = (self._trt.__version__, capability())
        version, device = (cache._facts["version"], cache._facts["device"])
        if version != here[0] or (device != here[1] and not ignore_mismatch):
            text = f"the timing cache is of {version} on {device}, here are {here[0]} on {here[1]}"
            say(self._trt, self._logger, "ERROR", f"Error Code 3: API Usage Error ({text})")
            return False
        self._cache = cache
        return True

    def get_timing_cache(self) -> Any:
        return self._cache


class ITimingCache:
    def serialize(self) -> Any:
        text = json.dumps(self._facts, sort_keys=True)
        return self._trt.IHostMemory._made(_data=text.encode())

    def combine(self, input_cache: Any, ignore_mismatch: bool) -> bool:
        mine, theirs = (self._facts, input_cache._facts)
        if mine["version"] != theirs["version"]:
            return False
        if mine["device"] != theirs["device"] and not ignore_mismatch:
            text = "Error Code 3: API Usage Error (timing caches of different devices)"
            say(self._trt, self._config._logger, "ERROR", text)
            return False
        mine["timings"] = theirs["timings"] | mine["timings"]
        return True

    def reset(self) -> bool:
        self._facts["timings"] = {}
        return True


class IOptimizationProfile:
    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:
        shapes = (tuple(min), tuple(opt), tuple(max))
        if len({len(shape) for shape in shapes}) != 1:
            raise ValueError("Shape provided for min is inconsistent with other shapes.")
        self._shapes[input] = shapes

    def get_shape(self, input: str) -> Any:
        return [self._trt.Dims(list(shape)) for shape in self._shapes.get(input, ())]

    def set_shape_input(self, input: str, min: Any, opt: Any, max: Any) -> None:
        self._values[input] = (list(min), list(opt), list(max))

    def get_shape_input(self, input: str) -> Any:
        return [list(values) for values in self._values.get(input, ())]

    def __bool__(self) -> bool:
        return True


class IHostMemory:
    @property
    def nbytes(self) -> int:
        return len(self._data)
