"""The recipe's `targets[].options`: what the builder of an engine can be told, and which takes it.

The table says for each option and backend why it is refused, so that none is ever ignored.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from trtforge.recipe import codes
from trtforge.recipe.broken import Broken, get
from trtforge.recipe.fields import Flag, Integer, Section, keep_laws
from trtforge.recipe.nodes import Loc


class EngineOptions(Section):
    """Options of the engine builder; each is left to the library where it is not given."""

    optimization_level: Integer | None = Field(
        None, ge=0, le=5, description="how long the builder searches: 0 (shortest) to 5; default 3"
    )
    tiling: Literal["none", "fast", "moderate", "full"] | None = Field(
        None, description="how hard the builder searches for tilings that use the L2 cache"
    )
    tiling_l2_bytes: Integer | None = Field(
        None, ge=1, description="bytes of L2 cache that tilings may use; default all"
    )
    hardware_compatibility: Literal["none", "ampere_plus", "same_compute_capability"] | None = (
        Field(None, description="which other GPUs the engine must run on")
    )
    version_compatible: Flag = Field(
        False, description="the engine can be loaded by later TensorRT versions as well"
    )
    exclude_lean_runtime: Flag = Field(
        False, description="version_compatible: leave the lean runtime out of the engine"
    )
    runtime_platform: Literal["same_as_build", "windows_amd64"] | None = Field(
        None, description="the system that the engine runs on"
    )
    refit: Literal["all", "identical"] | None = Field(
        None, description="weights can be replaced: by any others, or by the very same ones"
    )
    strip_weights: Flag = Field(
        False, description="leave out weights that can be put back by a refit; a small plan"
    )
    weight_streaming: Flag = Field(
        False, description="weights may stay in host memory and be streamed to the GPU"
    )
    sparsity: Flag = Field(
        False, description="use 2:4 sparse kernels where weights have that pattern"
    )
    strict_nans: Flag = Field(False, description="keep NaN as IEEE 754 says, at the cost of speed")
    max_aux_streams: Integer | None = Field(
        None, ge=0, le=64, description="streams on which one execution may run in parallel"
    )
    avg_timing_iterations: Integer | None = Field(
        None, ge=1, le=64, description="how often a tactic is timed; more is steadier"
    )
    max_tactics: Integer | None = Field(
        None, ge=1, le=2**31 - 1, description="how many tactics are tried per layer at most"
    )
    tactic_shared_memory_kib: Integer | None = Field(
        None, ge=1, le=2**20, description="shared memory that a tactic may use, KiB"
    )
    tactic_dram_mib: Integer | None = Field(
        None, ge=1, le=2**24, description="device memory that a tactic may use while tuned, MiB"
    )
    profiling: Literal["layer_names_only", "detailed", "none"] | None = Field(
        None, description="what the engine tells of its layers; default detailed, to be attested"
    )
    timing_cache: Literal["use", "require", "off"] | None = Field(
        None, description="timings kept from build to build; 'require' refuses to time anew"
    )

    @model_validator(mode="after")
    def _laws(self) -> Self:
        keep_laws(_pair_laws(self.given, ()))
        return self

    @property
    def given(self) -> dict[str, Any]:
        """The options that are set, by name, as plain JSON data."""
        return {
            name: value
            for name, value in self.model_dump(mode="json").items()
            if value is not None and value is not False
        }


_INERT = "TensorRT-RTX takes no notice of it (1.7: the engine is the same byte for byte)"
_REMOVE = "remove it, or build with the backend tensorrt"

REFUSED: dict[str, dict[str, tuple[str, str]]] = {
    "tensorrt_rtx": {
        **dict.fromkeys(
            (
                *("optimization_level", "tiling", "tiling_l2_bytes", "sparsity", "strict_nans"),
                *("max_aux_streams", "avg_timing_iterations", "max_tactics", "tactic_dram_mib"),
            ),
            (_INERT, _REMOVE),
        ),
        "hardware_compatibility": (
            "TensorRT-RTX has no compatibility levels",
            "list the GPUs in compute_capabilities instead",
        ),
        "version_compatible": (
            "an engine of TensorRT-RTX can be loaded by the release that built it alone",
            "build one target per release, or use the backend tensorrt",
        ),
        "exclude_lean_runtime": (
            "engines of TensorRT-RTX hold no lean runtime",
            "remove it",
        ),
        "runtime_platform": (
            "TensorRT-RTX builds for the system that it runs on",
            "remove it, and build on Windows for Windows",
        ),
        "timing_cache": (
            "TensorRT-RTX times nothing when it builds, and its timing cache would ask for a GPU",
            "remove it",
        ),
    },
    "tensorrt": {},
}
"""Backend -> option -> why it is refused, and what to do instead.

Sources: TensorRT-RTX 1.7.1, engines built with and without each option and compared byte by byte;
its documentation for compatibility, the lean runtime and timing caches."""


def option_laws(target: Any, loc: Loc = ()) -> Iterator[Broken]:
    """Yield options that the target's backend does not have, or that contradict each other."""
    options, backend = get(target, "options"), get(target, "backend")
    if not isinstance(options, Mapping):
        return
    given = {key: value for key, value in options.items() if value not in (None, False)}
    place = (*loc, "options")
    for key in given:
        if backend == "onnxruntime" and key in EngineOptions.model_fields:
            reason = (f"{key} is an option of the TensorRT builders", "remove it")
        elif isinstance(backend, str) and key in REFUSED.get(backend, {}):
            reason = REFUSED[backend][key]
        else:
            continue
        yield Broken(
            (*place, str(key)),
            codes.CONTRADICTION,
            f"{backend} has no {key}: {reason[0]}",
            reason[1],
        )
    yield from _pair_laws(given, place)


def _pair_laws(given: Mapping[str, Any], place: Loc) -> Iterator[Broken]:
    for key, needs, why in (
        ("exclude_lean_runtime", "version_compatible", "the lean runtime is in such engines alone"),
        ("tiling_l2_bytes", "tiling", "it limits the tilings that `tiling` looks for"),
    ):
        if key in given and needs not in given:
            yield Broken(
                (*place, key),
                codes.CONTRADICTION,
                f"{key} without {needs}: {why}",
                f"add {needs}, or remove {key}",
            )
    if (
        given.get("runtime_platform") == "windows_amd64"
        and "version_compatible" in given
        and "exclude_lean_runtime" not in given
    ):
        # Source: NvInfer.h, RuntimePlatform: the build machine has the lean runtime of Linux alone.
        yield Broken(
            (*place, "version_compatible"),
            codes.CONTRADICTION,
            "version_compatible for windows_amd64: the lean runtime of this system would go along",
            "add exclude_lean_runtime: true; the lean runtime then comes with the application",
        )
