"""Options of a recipe's target, put into the builder's configuration and read back.

Names are looked up in the module at hand: what a version does not have is refused by name, since
the libraries log an ERROR or say nothing when they drop a setting, and never raise.
"""

from collections.abc import Mapping
from typing import Any

from trtforge.engine.environment import driver
from trtforge.engine.flavour import Flavour
from trtforge.errors import BuildError, MissingError

FLAGS: dict[str, str] = {
    "version_compatible": "VERSION_COMPATIBLE",
    "exclude_lean_runtime": "EXCLUDE_LEAN_RUNTIME",
    "strip_weights": "STRIP_PLAN",
    "weight_streaming": "WEIGHT_STREAMING",
    "sparsity": "SPARSE_WEIGHTS",
    "strict_nans": "STRICT_NANS",
}
"""Option -> member of BuilderFlag."""

REFIT: dict[str, str] = {"all": "REFIT", "identical": "REFIT_IDENTICAL"}
"""Value of `refit` -> member of BuilderFlag."""

TIMING: dict[str, tuple[str, ...]] = {
    "off": ("DISABLE_TIMING_CACHE",),
    "require": ("ERROR_ON_TIMING_CACHE_MISS",),
    "use": (),
}
"""Value of `timing_cache` -> members of BuilderFlag."""

NUMBERS: dict[str, str] = {
    "optimization_level": "builder_optimization_level",
    "tiling_l2_bytes": "l2_limit_for_tiling",
    "max_aux_streams": "max_aux_streams",
    "avg_timing_iterations": "avg_timing_iterations",
    "max_tactics": "max_num_tactics",
}
"""Option -> property of IBuilderConfig that takes the number."""

CHOICES: dict[str, tuple[str, str]] = {
    "tiling": ("tiling_optimization_level", "TilingOptimizationLevel"),
    "hardware_compatibility": ("hardware_compatibility_level", "HardwareCompatibilityLevel"),
    "runtime_platform": ("runtime_platform", "RuntimePlatform"),
    "profiling": ("profiling_verbosity", "ProfilingVerbosity"),
}
"""Option -> property of IBuilderConfig, and the enumeration whose member has the option's value in
capitals."""

POOLS: dict[str, tuple[str, int]] = {
    "workspace_mib": ("WORKSPACE", 1 << 20),
    "tactic_shared_memory_kib": ("TACTIC_SHARED_MEMORY", 1 << 10),
    "tactic_dram_mib": ("TACTIC_DRAM", 1 << 20),
}
"""Option -> member of MemoryPoolType, and the bytes of its unit."""


NEEDS_DRIVER: dict[str, tuple[str, ...]] = {"tensorrt_rtx": ("refit", "strip_weights")}
"""Options that a backend takes on a machine with an NVIDIA driver alone.

Source: TensorRT-RTX 1.7.1 without one fails in its compiler (`CHECK(status == CUDA_SUCCESS)`)."""


def require_driver_for(flavour: Flavour, options: Mapping[str, Any]) -> None:
    """Refuse options that this flavour can build on a machine with a driver alone.

    Raises:
        MissingError: TF0603, there is none here.
    """
    wanted = [key for key in NEEDS_DRIVER.get(flavour.name, ()) if key in options]
    if wanted and (reason := driver().reason) is not None:
        raise MissingError(
            "TF0603",
            f"{flavour.name} builds with {wanted[0]} only on a machine with a GPU: {reason}",
            hint=f"build there, or remove {wanted[0]} from the target's options",
        )


def apply_options(trt: Any, config: Any, options: Mapping[str, Any]) -> None:
    """Set each option and hold what the configuration then says against it.

    Args:
        trt: the module of the flavour.
        config: an IBuilderConfig.
        options: option -> value, as a recipe's target gives them.

    Raises:
        BuildError: TF0619, this version of the library has no such setting, or did not take it.
    """
    for key, value in options.items():
        if key in FLAGS:
            _set_flag(trt, config, key, FLAGS[key])
        elif key == "refit":
            _set_flag(trt, config, key, REFIT[value])
        elif key == "timing_cache":
            for name in TIMING[value]:
                _set_flag(trt, config, key, name)
        elif key in POOLS:
            _set_pool(trt, config, key, value)
        else:
            _set_property(trt, config, key, value)
    if "strip_weights" in options and "refit" not in options:
        # What is stripped must be put back; with the same weights it costs no optimization.
        # Source: TensorRT documentation, "Weight-Stripped Engines".
        _set_flag(trt, config, "strip_weights", REFIT["identical"])


def _set_flag(trt: Any, config: Any, key: str, name: str) -> None:
    flag = _member(trt, "BuilderFlag", name, key)
    config.set_flag(flag)
    if not config.get_flag(flag):
        raise _not_taken(trt, key, True)


def _set_pool(trt: Any, config: Any, key: str, value: int) -> None:
    name, unit = POOLS[key]
    pool = _member(trt, "MemoryPoolType", name, key)
    config.set_memory_pool_limit(pool, value * unit)
    if config.get_memory_pool_limit(pool) != value * unit:
        raise _not_taken(trt, key, value)


def _set_property(trt: Any, config: Any, key: str, value: Any) -> None:
    name, wanted = NUMBERS.get(key, ""), value
    if key in CHOICES:
        name, kind = CHOICES[key]
        wanted = _member(trt, kind, str(value).upper(), key)
    if not name or not hasattr(type(config), name):
        raise _unknown(trt, key)
    setattr(config, name, wanted)
    if getattr(config, name) != wanted:
        raise _not_taken(trt, key, value)


def _member(trt: Any, kind: str, name: str, key: str) -> Any:
    found = getattr(getattr(trt, kind, None), name, None)
    if found is None:
        raise _unknown(trt, key)
    return found


def _unknown(trt: Any, key: str) -> BuildError:
    return BuildError(
        "TF0619",
        f"{trt.__name__} {trt.__version__} has no setting for {key}",
        hint=f"remove {key} from the target's options, or use a newer version",
    )


def _not_taken(trt: Any, key: str, value: Any) -> BuildError:
    return BuildError(
        "TF0619",
        f"{trt.__name__} {trt.__version__} did not take {key}: {value}",
        hint="the build's log says why",
    )
