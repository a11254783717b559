"""`trtexec` (TensorRT 8 to 11) and `tensorrt_rtx` command lines.

The flags are those of their --help; what TensorRT 11 removed is named as such, with NVIDIA's
replacement (docs.nvidia.com, "Migrating from TensorRT 10.x to 11.x", trtexec).
"""

from collections.abc import Callable, Iterator, Sequence

from trtforge.recipe.migration.arguments import Word, words_of
from trtforge.recipe.migration.precision import SIMPLE, PrecisionFlags
from trtforge.recipe.migration.profiles import Profiles
from trtforge.recipe.migration.result import Draft, malformed
from trtforge.recipe.migration.trtexec_flags import DLA, ELSEWHERE, REFUSED, SKIPPED
from trtforge.recipe.migration.values import FLOATS, mebibytes, pairs, shapes, whole

_OPTIONS = "targets.0.options"


class _Command:
    def __init__(self, draft: Draft) -> None:
        self.draft = draft
        self.precision = PrecisionFlags(draft)
        self.profiles = Profiles(draft)
        self.profile = 0
        self.formats: dict[str, Word] = {}


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
    _close_formats(command)
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
        found = list(shapes(word.text, word.value or ""))
        command.profiles.bound(word.text, command.profile, bound, found)

    return take


def _run_shapes(command: _Command, word: Word) -> None:
    command.profiles.run(word.text, list(shapes(word.text, word.value or "")))


def _profile(command: _Command, word: Word) -> None:
    command.profile = whole(word.text, word.value)
    if command.profile in command.profiles.found:
        raise malformed(word.text, "each profile once")
    command.draft.note(word.text, "shapes", "one profile per entry of the list")


def _dla(command: _Command, word: Word) -> None:
    if (word.value or "").startswith("-"):
        command.draft.skip(word.text, "it is the default: no DLA")
    else:
        command.draft.refuse(word.text, DLA)


def _strip_all(command: _Command, word: Word) -> None:
    command.draft.put(word.text, f"{_OPTIONS}.strip_weights", True)
    command.draft.set(f"{_OPTIONS}.refit", "all")


def _timing_cache(command: _Command, word: Word) -> None:
    """A cache that is named and must hold everything: the stricter of the two flags."""
    place, wanted = f"{_OPTIONS}.timing_cache", "use"
    if word.name == "--errorOnTimingCacheMiss":
        wanted = "require"
    if {command.draft.get(place), wanted} == {"use", "require"}:
        command.draft.set(place, wanted := "require")
    command.draft.put(word.text, place, wanted, "kept in the store, one per device")


def _option(key: str, value: object = True, why: str = "") -> _Handler:
    def take(command: _Command, word: Word) -> None:
        command.draft.put(word.text, f"{_OPTIONS}.{key}", value, why)

    return take


def _number(key: str) -> _Handler:
    def take(command: _Command, word: Word) -> None:
        number = whole(word.text, word.value)
        if number < 0:
            command.draft.skip(word.text, "it is the default")
        else:
            command.draft.put(word.text, f"{_OPTIONS}.{key}", number)

    return take


def _choice(key: str, known: dict[str, object]) -> _Handler:
    """A value of a fixed set; one that stands for the default is not needed."""

    def take(command: _Command, word: Word) -> None:
        values = {name.lower(): value for name, value in known.items()}
        value = values.get((word.value or "").strip().lower(), "unknown")
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
            command.draft.refuse(f"{word.name}={pool}:{size}", "there is no such pool here")


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
    if word.name in command.formats:
        raise malformed(word.text, f"{word.name} once")
    command.formats[word.name] = word


def _close_formats(command: _Command) -> None:
    """Decide on types and layouts of inputs and outputs, once the precision is known."""
    words, draft = command.formats, command.draft
    kinds = {name: _float_kinds(word.value or "") for name, word in words.items()}
    narrow = draft.get("precision.type")
    all_narrow = len(words) == 2 and all(one <= {narrow} for one in kinds.values())
    for name, word in words.items():
        if kinds[name] <= _own_kinds(draft, name):
            draft.skip(word.text, "linear, in the model's own types: so they are")
        elif all_narrow:
            why = f"all inputs and outputs in floating point become {narrow}"
            draft.put(word.text, "precision.io_types", "convert", why)
        else:
            draft.refuse(
                word.text,
                "inputs and outputs are linear, and in the model's own types or all in that of "
                "`precision.type` (both --inputIOFormats and --outputIOFormats): put a Cast or "
                "Transpose into the model for what is otherwise",
            )


def _float_kinds(text: str) -> set[str]:
    """Return the types other than those of whole numbers; a layout that is not linear is one."""
    found = set()
    for one in text.split(","):
        kind, _, layout = one.strip().lower().rpartition(":")
        if "chw" not in layout.split("+"):
            found.add(one)
        elif kind not in ("", "int32", "int64", "bool", "uint8"):
            found.add(FLOATS.get(kind, kind))
    return found


def _own_kinds(draft: Draft, flag: str) -> set[str]:
    """The floating-point types of the model's inputs or outputs; FP32 where it is not here."""
    model = draft.model
    if model is None:
        return {"fp32"}
    tensors = model.inputs if flag == "--inputIOFormats" else model.outputs
    return {FLOATS.get(tensor.dtype, tensor.dtype) for tensor in tensors.values()}


def _sparsity(command: _Command, word: Word) -> None:
    if word.value == "force":
        command.draft.refuse(
            word.text, "it overwrites weights to make them sparse: prune the model, then use enable"
        )
    else:
        _choice("sparsity", {"disable": None, "enable": True})(command, word)


def _targets(command: _Command, word: Word) -> None:
    parts = (word.value or "").lower().split(",")
    found = [one.strip().removeprefix("sm").replace(".", "") for one in parts]
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
    "--shapes": _run_shapes,
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
    "--stripAllWeights": _strip_all,
    "--weightless": _option("strip_weights"),
    "--allowWeightStreaming": _option("weight_streaming"),
    "--versionCompatible": _option("version_compatible"),
    "--vc": _option("version_compatible"),
    "--excludeLeanRuntime": _option("exclude_lean_runtime"),
    "--errorOnTimingCacheMiss": _timing_cache,
    "--noBuilderCache": _option("timing_cache", "off"),
    "--timingCacheFile": _timing_cache,
    "--useDLACore": _dla,
}

_WITHOUT_VALUE = frozenset(
    {
        *("--noTF32", "--refit", "--stripWeights", "--stripAllWeights", "--allowWeightStreaming"),
        *("--versionCompatible", "--vc", "--excludeLeanRuntime", "--errorOnTimingCacheMiss"),
        *("--noBuilderCache", "--weightless"),
    }
)
