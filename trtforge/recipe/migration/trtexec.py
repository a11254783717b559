"""`trtexec` (TensorRT 8 to 11) and `tensorrt_rtx` command lines.

The flags are those of their --help; what TensorRT 11 removed is named as such, with NVIDIA's
replacement (docs.nvidia.com, "Migrating from TensorRT 10.x to 11.x", trtexec).
"""

from collections.abc import Callable, Iterator, Sequence

from trtforge.recipe.migration.arguments import Word, words_of
from trtforge.recipe.migration.precision import SIMPLE, PrecisionFlags
from trtforge.recipe.migration.profiles import Profiles
from trtforge.recipe.migration.result import Draft, malformed
from trtforge.recipe.migration.trtexec_flags import ELSEWHERE, REFUSED, SKIPPED
from trtforge.recipe.migration.values import mebibytes, pairs, shapes, whole

_OPTIONS = "targets.0.options"


class _Command:
    def __init__(self, draft: Draft) -> None:
        self.draft = draft
        self.precision = PrecisionFlags(draft)
        self.profiles = Profiles(draft)
        self.profile = 0


_Handler = Callable[[_Command, Word], None]


def from_trtexec(arguments: Sequence[str], draft: Draft) -> None:
    """Put a trtexec command into a draft.

    Raises:
        UsageError: TF0120, a value cannot be read.
    """
    command = _Command(draft)
    for word in _with_values(arguments):
        _take(command, word)
    command.profiles.close()
    command.precision.close()
    if draft.get("targets.0.tf32") is None:
        draft.set("targets.0.tf32", True)  # on unless --noTF32 says otherwise


def _with_values(arguments: Sequence[str]) -> Iterator[Word]:
    """Yield flags; a word behind a flag that may have a value, and has none, is its value."""
    pending: Word | None = None
    for word in words_of(arguments):
        if pending is not None:
            if not word.name:
                yield Word(pending.name, word.value)
                pending = None
                continue
            yield pending
            pending = None
        if word.name and word.value is None and word.name not in {*SIMPLE, *_WITHOUT_VALUE}:
            pending = word
        else:
            yield word
    if pending is not None:
        yield pending


def _take(command: _Command, word: Word) -> None:
    draft, name = command.draft, word.name
    is_off = (word.value or "").lower() in ("0", "false", "off")
    if is_off and (name in SIMPLE or name in _WITHOUT_VALUE):
        draft.skip(word.text, "it is switched off")
    elif name in SIMPLE:
        command.precision.wish(word.text, SIMPLE[name])
    elif name in _HANDLERS:
        _HANDLERS[name](command, word)
    elif name in SKIPPED:
        draft.skip(word.text, SKIPPED[name])
    elif name in ELSEWHERE:
        draft.send(word.text, *ELSEWHERE[name])
    elif name in REFUSED:
        draft.refuse(word.text, REFUSED[name])
    else:
        draft.refuse(word.text, "no flag of trtexec is known by this name: check its spelling")


def _onnx(command: _Command, word: Word) -> None:
    if not word.value:
        raise malformed(word.text, "--onnx=model.onnx")
    command.draft.put(word.text, "model.onnx", word.value)


def _shapes(bound: str) -> _Handler:
    def take(command: _Command, word: Word) -> None:
        for name, dims in shapes(word.text, word.value or ""):
            command.profiles.put(command.profile, name, bound, dims)
        command.draft.note(word.text, "shapes")

    return take


def _profile(command: _Command, word: Word) -> None:
    command.profile = whole(word.text, word.value)
    command.draft.note(word.text, "shapes", "one profile per entry of the list")


def _option(key: str, value: object = True, why: str = "") -> _Handler:
    def take(command: _Command, word: Word) -> None:
        command.draft.put(word.text, f"{_OPTIONS}.{key}", value, why)

    return take


def _number(key: str) -> _Handler:
    def take(command: _Command, word: Word) -> None:
        command.draft.put(word.text, f"{_OPTIONS}.{key}", whole(word.text, word.value))

    return take


def _choice(key: str, known: dict[str, object]) -> _Handler:
    """A value of a fixed set; one that stands for the default is not needed."""

    def take(command: _Command, word: Word) -> None:
        value = known.get((word.value or "").strip(), "unknown")
        if value == "unknown":
            raise malformed(word.text, f"one of {', '.join(known)}")
        if value is None:
            command.draft.skip(word.text, "it is the default")
        else:
            command.draft.put(word.text, f"{_OPTIONS}.{key}", value)

    return take


def _memory(command: _Command, word: Word) -> None:
    for pool, size in pairs(word.text, word.value or "", "workspace:1024,tacticSharedMem:48K"):
        amount = mebibytes(word.text, size)
        if pool == "workspace":
            command.draft.put(word.text, "targets.0.workspace_mib", max(1, round(amount)))
        elif pool == "tacticSharedMem":
            kib = max(1, round(amount * 1024))
            command.draft.put(word.text, f"{_OPTIONS}.tactic_shared_memory_kib", kib)
        else:
            command.draft.refuse(f"{word.name}={pool}:{size}", "there is no DLA here")


def _workspace(command: _Command, word: Word) -> None:
    size = mebibytes(word.text, word.value or "")
    why = "removed from trtexec for --memPoolSize=workspace:N"
    command.draft.put(word.text, "targets.0.workspace_mib", max(1, round(size)), why)


def _no_tf32(command: _Command, word: Word) -> None:
    command.draft.put(word.text, "targets.0.tf32", False)


def _calibration(command: _Command, word: Word) -> None:
    if not word.value:
        raise malformed(word.text, "--calib=calibration.cache")
    command.precision.calibrate_with(word.text, word.value)


def _layer_types(command: _Command, word: Word) -> None:
    command.precision.layers(word.text, word.value or "")


def _formats(command: _Command, word: Word) -> None:
    kinds = {one.partition(":")[0].lower() for one in (word.value or "").split(",")}
    layouts = {one.partition(":")[2].lower() or "chw" for one in (word.value or "").split(",")}
    if layouts <= {"chw"} and kinds <= {"fp32"}:
        command.draft.skip(word.text, "inputs and outputs are FP32 and linear as they are")
    elif layouts <= {"chw"} and kinds in ({"fp16"}, {"bf16"}):
        command.draft.put(
            word.text,
            "precision.io_types",
            "convert",
            "all inputs and outputs get the type of `precision.type`",
        )
    else:
        command.draft.refuse(
            word.text,
            "inputs and outputs are linear; put a Cast or Transpose into the model where another "
            "type or layout is wanted",
        )


def _sparsity(command: _Command, word: Word) -> None:
    if word.value == "force":
        command.draft.refuse(
            word.text, "it overwrites weights to make them sparse: prune the model, then use enable"
        )
    else:
        _choice("sparsity", {"disable": None, "enable": True})(command, word)


def _targets(command: _Command, word: Word) -> None:
    found = [one.strip().lower().removeprefix("sm") for one in (word.value or "").split(",")]
    if not all(len(one) in (2, 3) and one.isdigit() for one in found):
        command.draft.refuse(word.text, "give numbers such as SM86,SM89")
        return
    command.draft.put(
        word.text,
        "targets.0.compute_capabilities",
        [f"{int(one) // 10}.{int(one) % 10}" for one in found],
    )


_HANDLERS: dict[str, _Handler] = {
    "--onnx": _onnx,
    "--minShapes": _shapes("min"),
    "--optShapes": _shapes("opt"),
    "--maxShapes": _shapes("max"),
    "--shapes": _shapes("all"),
    "--profile": _profile,
    "--memPoolSize": _memory,
    "--workspace": _workspace,
    "--noTF32": _no_tf32,
    "--calib": _calibration,
    "--layerPrecisions": _layer_types,
    "--inputIOFormats": _formats,
    "--outputIOFormats": _formats,
    "--computeCapabilities": _targets,
    "--builderOptimizationLevel": _number("optimization_level"),
    "--maxAuxStreams": _number("max_aux_streams"),
    "--avgTiming": _number("avg_timing_iterations"),
    "--maxTactics": _number("max_tactics"),
    "--l2LimitForTiling": _number("tiling_l2_bytes"),
    "--tilingOptimizationLevel": _choice(
        "tiling",
        {"0": "none", "1": "fast", "2": "moderate", "3": "full"},
    ),
    "--hardwareCompatibilityLevel": _choice(
        "hardware_compatibility",
        {
            "none": None,
            "ampere+": "ampere_plus",
            "sameComputeCapability": "same_compute_capability",
        },
    ),
    "--runtimePlatform": _choice(
        "runtime_platform", {"SameAsBuild": None, "WindowsAMD64": "windows_amd64"}
    ),
    "--profilingVerbosity": _choice(
        "profiling",
        {
            "layer_names_only": "layer_names_only",
            "default": "layer_names_only",
            "detailed": None,
            "verbose": None,
            "none": "none",
        },
    ),
    "--sparsity": _sparsity,
    "--refit": _option("refit", "all"),
    "--stripWeights": _option("strip_weights"),
    "--stripAllWeights": _option("strip_weights"),
    "--allowWeightStreaming": _option("weight_streaming"),
    "--versionCompatible": _option("version_compatible"),
    "--vc": _option("version_compatible"),
    "--excludeLeanRuntime": _option("exclude_lean_runtime"),
    "--errorOnTimingCacheMiss": _option("timing_cache", "require"),
    "--noBuilderCache": _option("timing_cache", "off"),
    "--timingCacheFile": _option("timing_cache", "use", "kept in the store, one per device"),
}

_WITHOUT_VALUE = frozenset(
    {
        *("--noTF32", "--refit", "--stripWeights", "--stripAllWeights", "--allowWeightStreaming"),
        *("--versionCompatible", "--vc", "--excludeLeanRuntime", "--errorOnTimingCacheMiss"),
        "--noBuilderCache",
    }
)
