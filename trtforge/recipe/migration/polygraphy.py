"""Polygraphy's `convert` and `run` command lines (0.4x)."""

import re
from collections.abc import Callable, Iterator, Sequence

from trtforge.recipe.migration.precision import SIMPLE, PrecisionFlags
from trtforge.recipe.migration.profiles import Profiles
from trtforge.recipe.migration.result import Draft, malformed
from trtforge.recipe.migration.values import mebibytes, whole

_OPTIONS = "targets.0.options"


class _Command:
    def __init__(self, draft: Draft) -> None:
        self.draft = draft
        self.precision = PrecisionFlags(draft)
        self.profiles = Profiles(draft)
        self.given: dict[str, int] = {}


_Handler = Callable[[_Command, str, list[str]], None]
"""Takes the flag as it was written and its values."""


def from_polygraphy(arguments: Sequence[str], draft: Draft) -> None:
    """Put a `polygraphy convert` or `polygraphy run` command into a draft.

    Raises:
        UsageError: TF0120, a value cannot be read.
    """
    command = _Command(draft)
    for name, values in _flags(arguments):
        text = " ".join([name, *values])
        if name in SIMPLE:
            command.precision.wish(text, SIMPLE[name])
        elif name in _HANDLERS:
            _HANDLERS[name](command, text, values)
        elif name in SKIPPED:
            draft.skip(text, SKIPPED[name])
        elif name in REFUSED:
            draft.refuse(text, REFUSED[name])
        else:
            draft.refuse(text, "no option of polygraphy is known by this name here")
    command.profiles.close()
    command.precision.close()


def _flags(arguments: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield each option with the words that follow it; the model stands alone, or behind a flag."""
    name, values = "", list[str]()
    for word in list(arguments)[1:]:
        if re.match(r"--?[A-Za-z]", word):
            yield from _split(name, values)
            name, equals, value = word.partition("=")
            values = [value] if equals else []
        else:
            values.append(word)
    yield from _split(name, values)


def _split(name: str, values: list[str]) -> Iterator[tuple[str, list[str]]]:
    """A flag without values does not own what follows: it is the model."""
    most = 0 if name in _WITHOUT_VALUE else 1 if name in _WITH_ONE_VALUE else len(values)
    if name:
        yield name, values[:most]
        values = values[most:]
    for value in values:
        yield "MODEL", [value]


def _model(command: _Command, text: str, values: list[str]) -> None:
    command.draft.put(values[0], "model.onnx", values[0])


def _shapes(bound: str) -> _Handler:
    def take(command: _Command, text: str, values: list[str]) -> None:
        index = command.given.get(bound, 0)  # an option that is repeated starts a new profile
        command.given[bound] = index + 1
        for value in values:
            name, colon, dims = value.rpartition(":")
            numbers = [one for one in re.split(r"[\s,x]+", dims.strip("[]()")) if one]
            if not colon or not all(one.isdigit() for one in numbers):
                raise malformed(text, "shapes such as input:[1,3,224,224]")
            command.profiles.put(index, name.strip("'\""), bound, [int(one) for one in numbers])
        command.draft.note(text, "shapes")

    return take


def _memory(command: _Command, text: str, values: list[str]) -> None:
    for value in values:
        pool, _, size = value.rpartition(":")
        amount = mebibytes(text, _with_unit(size))
        if pool == "workspace" or not pool:
            command.draft.put(text, "targets.0.workspace_mib", max(1, round(amount)))
        elif pool.lower() == "tactic_shared_memory":
            kib = max(1, round(amount * 1024))
            command.draft.put(text, f"{_OPTIONS}.tactic_shared_memory_kib", kib)
        else:
            command.draft.refuse(f"{text} ({value})", "there is no such pool here")


def _with_unit(size: str) -> str:
    """Polygraphy counts in bytes where no unit is given, and knows `1e9`."""
    try:
        return f"{float(size):.0f}B"
    except ValueError:
        return size


def _put(place: str, value: object, why: str = "") -> _Handler:
    def take(command: _Command, text: str, values: list[str]) -> None:
        command.draft.put(text, place, value, why)

    return take


def _number(place: str) -> _Handler:
    def take(command: _Command, text: str, values: list[str]) -> None:
        command.draft.put(text, place, whole(text, values[0] if values else None))

    return take


def _tolerance(bound: str) -> _Handler:
    def take(command: _Command, text: str, values: list[str]) -> None:
        for value in values:
            output, _, number = value.rpartition(":")
            try:
                amount = float(number)
            except ValueError:
                raise malformed(text, "a number, or output:number") from None
            place = "verify.tolerance" if not output else f"verify.outputs.{output}"
            command.draft.put(text, f"{place}.{bound}", amount)

    return take


def _cache(command: _Command, text: str, values: list[str]) -> None:
    if len(values) != 1:
        raise malformed(text, "--calibration-cache calib.cache")
    command.precision.calibrate_with(text, values[0])


def _data(command: _Command, text: str, values: list[str]) -> None:
    command.precision.data = values[0] if values else None
    command.draft.note(text, "calibration.data", "its load_data() is read as it is")


def _layer_types(command: _Command, text: str, values: list[str]) -> None:
    command.precision.layers(text, ",".join(values))


def _compatibility(command: _Command, text: str, values: list[str]) -> None:
    level = (values[0] if values else "").lower()
    command.draft.put(text, f"{_OPTIONS}.hardware_compatibility", level)


def _backends(command: _Command, text: str, values: list[str]) -> None:
    command.draft.skip(text, "a build always compares with the original in ONNX Runtime")


_HANDLERS: dict[str, _Handler] = {
    "MODEL": _model,
    "--trt-min-shapes": _shapes("min"),
    "--trt-opt-shapes": _shapes("opt"),
    "--trt-max-shapes": _shapes("max"),
    "--input-shapes": _shapes("all"),
    "--inputs": _shapes("all"),
    "--pool-limit": _memory,
    "--memory-pool-limit": _memory,
    "--workspace": _memory,
    "--tf32": _put("targets.0.tf32", True),
    "--calibration-cache": _cache,
    "--data-loader-script": _data,
    "--layer-precisions": _layer_types,
    "--atol": _tolerance("max_abs"),
    "--rtol": _tolerance("max_rel"),
    "--abs": _tolerance("max_abs"),
    "--rel": _tolerance("max_rel"),
    "--seed": _number("verify.seed"),
    "--builder-optimization-level": _number(f"{_OPTIONS}.optimization_level"),
    "--hardware-compatibility-level": _compatibility,
    "--version-compatible": _put(f"{_OPTIONS}.version_compatible", True),
    "--exclude-lean-runtime": _put(f"{_OPTIONS}.exclude_lean_runtime", True),
    "--sparse-weights": _put(f"{_OPTIONS}.sparsity", True),
    "--refittable": _put(f"{_OPTIONS}.refit", "all"),
    "--strip-plan": _put(f"{_OPTIONS}.strip_weights", True),
    "--weight-streaming": _put(f"{_OPTIONS}.weight_streaming", True),
    "--error-on-timing-cache-miss": _put(f"{_OPTIONS}.timing_cache", "require"),
    "--load-timing-cache": _put(f"{_OPTIONS}.timing_cache", "use", "kept in the store"),
    "--save-timing-cache": _put(f"{_OPTIONS}.timing_cache", "use", "kept in the store"),
    "--trt": _backends,
    "--onnxrt": _backends,
}

SKIPPED: dict[str, str] = {
    **dict.fromkeys(("-v", "--verbose", "-vv", "-vvv"), "use `trtforge build -v`"),
    **dict.fromkeys(("-o", "--output", "--save-engine"), "the engine is in the bundle"),
    "--convert-to": "a build makes engines",
    "--model-type": "models are ONNX",
    "--strongly-typed": "always so",
    "--explicit-batch": "always so",
    "--precision-constraints": "removed in TensorRT 11; here types always are as the graph says",
    "--obey-precision-constraints": "here types always are as the graph says",
    "--check-error-stat": "bounds are on the largest error, SQNR and cosine: verify.tolerance",
    "--fail-fast": "every output is judged",
    "--iterations": "every case is compared once",
    "--silent": "use `trtforge build -q`",
    "--quiet": "use `trtforge build -q`",
    "--profiling-verbosity": "set targets[].options.profiling",
    "--disable-compilation-cache": "it changes no engine",
    "--shape-inference": "done in every build",
    "--calib-base-cls": "the range of a cache is the same whatever made it",
    "--int-min": "random inputs follow the model's contract",
    "--int-max": "random inputs follow the model's contract",
    "--float-min": "random inputs follow the model's contract",
    "--float-max": "random inputs follow the model's contract",
    "--val-range": "random inputs follow the model's contract; give verify.data",
}
"""Option -> why it needs no counterpart."""

_TENSORS = "`trtforge verify --layers` compares every tensor of two graphs"

REFUSED: dict[str, str] = {
    "--tactic-sources": "CUBLAS, CUBLAS_LT and CUDNN were removed in TensorRT 11",
    "--trt-outputs": _TENSORS,
    "--onnx-outputs": _TENSORS,
    "--load-inputs": "write the inputs as .npz, and name it in verify.data",
    "--data-loader-func-name": "name it in calibration.data: script.py:function",
    "--load-outputs": "`trtforge verify` compares with the original itself",
    "--load-results": "`trtforge verify` compares with the original itself",
    "--save-outputs": "`trtforge verify --json` shows how outputs differ",
    "--save-results": "`trtforge verify --json` shows how outputs differ",
    "--use-dla": "there is no DLA here",
    "--allow-gpu-fallback": "there is no DLA here",
    "--plugins": "TensorRT plugins cannot be named in a recipe",
    "--trt-config-script": "a recipe is data: say in targets[].options what the script sets",
    "--trt-network-script": "a recipe is data: change the model",
    "--validate": "NaN and infinity always fail a comparison",
    "--restricted": "the safety builder is not part of trtforge",
    "--layer-output-types": "removed in TensorRT 11; use keep rules of `precision`",
}
"""Option -> why nothing does it, and what to use instead."""

_WITHOUT_VALUE = frozenset(
    {
        *SIMPLE,
        *("--tf32", "--trt", "--onnxrt", "--version-compatible", "--exclude-lean-runtime"),
        *("--sparse-weights", "--refittable", "--strip-plan", "--weight-streaming", "--validate"),
        *("--error-on-timing-cache-miss", "--strongly-typed", "--explicit-batch", "-v", "-vv"),
        *("-vvv", "--verbose", "--obey-precision-constraints", "--fail-fast", "--silent"),
        *("--quiet", "--use-dla", "--allow-gpu-fallback", "--disable-compilation-cache"),
        *("--restricted", "--shape-inference"),
    }
)
_WITH_ONE_VALUE = frozenset(
    {
        *("-o", "--output", "--save-engine", "--convert-to", "--model-type", "--seed"),
        *("--calibration-cache", "--data-loader-script", "--builder-optimization-level"),
        *("--hardware-compatibility-level", "--load-timing-cache", "--save-timing-cache"),
        *("--precision-constraints", "--profiling-verbosity", "--iterations", "--calib-base-cls"),
        *("--int-min", "--int-max", "--float-min", "--float-max", "--trt-config-script"),
        *("--trt-network-script", "--data-loader-func-name"),
    }
)
