"""A value for every option of a target, other than the library's default where it has one."""

from typing import Any

EXAMPLES: dict[str, Any] = {
    "optimization_level": 5,
    "tiling": "full",
    "tiling_l2_bytes": 1 << 20,
    "hardware_compatibility": "ampere_plus",
    "version_compatible": True,
    "exclude_lean_runtime": True,
    "runtime_platform": "same_as_build",
    "refit": "all",
    "strip_weights": True,
    "weight_streaming": True,
    "sparsity": True,
    "strict_nans": True,
    "max_aux_streams": 2,
    "avg_timing_iterations": 8,
    "max_tactics": 10,
    "tactic_shared_memory_kib": 40,
    "tactic_dram_mib": 512,
    "profiling": "detailed",
    "timing_cache": "require",
}
