"""Polygraphy's `convert` and `run` command lines (0.4x)."""

import re
from collections.abc import Callable, Iterator, Sequence

from trtforge.errors import UsageError
from trtforge.recipe.migration.polygraphy_flags import (
    ENGINE,
    REFUSED,
    SKIPPED,
    WITH_ONE_VALUE,
    WITHOUT_VALUE,
)
from trtforge.recipe.migration.precision import SIMPLE, PrecisionFlags
from trtforge.recipe.migration.profiles import Profiles
from trtforge.recipe.migration.result import Draft, malformed
from trtforge.recipe.migration.values import mebibytes, whole

_OPTIONS = "targets.0.options"
_WRITES_ONNX = "it writes an ONNX file and no engine: `trtforge optimize` or `trtforge cast` does"


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
    runs_trt = arguments[0] == "convert" or "--trt" in arguments
    if not runs_trt:
        raise UsageError(
            "TF0122",
            "'polygraphy run' without --trt builds no engine",
            "`trtforge verify` compares two ONNX files",
        )
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
            name, values = _full(name), [value] if equals else []
        else:
            values.append(word)
    yield from _split(name, values)


def _split(name: str, values: list[str]) -> Iterator[tuple[str, list[str]]]:
    """A flag without values does not own what follows: it is the model."""
    most = 0 if name in WITHOUT_VALUE else 1 if name in WITH_ONE_VALUE else len(values)
    if name:
        yield name, values[:most]
        values = values[most:]
    for value in values:
        yield "MODEL", [value]


def _full(name: str) -> str:
    """A name that is cut short, as argparse takes it where only one begins so."""
    known = {*SIMPLE, *_HANDLERS, *SKIPPED, *REFUSED}
    found = [one for one in known if one.startswith(name)] if name.startswith("--") else []
    return found[0] if name not in known and len(found) == 1 else name


def _model(command: _Command, text: str, values: list[str]) -> None:
    command.draft.put(values[0], "model.onnx", values[0])


def _output(command: _Command, text: str, values: list[str]) -> None:
    if values and values[0].lower().endswith(".onnx"):
        command.draft.refuse(text, _WRITES_ONNX)
    else:
        command.draft.skip(text, ENGINE)


def _convert_to(command: _Command, text: str, values: list[str]) -> None:
    if values and values[0] != "trt":
        command.draft.refuse(text, _WRITES_ONNX)
    else:
        command.draft.skip(text, "a build makes engines")


def _shapes(bound: str) -> _Handler:
    def take(command: _Command, text: str, values: list[str]) -> None:
        index = command.given.get(bound, 0)  # an option that is repeated starts a new profile
        command.given[bound] = index + 1
        command.profiles.bound(text, index, bound, list(_named_shapes(text, values)))

    return take


def _run_shapes(command: _Command, text: str, values: list[str]) -> None:
    command.profiles.run(text, list(_named_shapes(text, values)))


def _named_shapes(text: str, values: list[str]) -> Iterator[tuple[str, list[int]]]:
    """Read `input:[1,3,224,224]`, and `input,1x3x224x224` as versions before 0.30 took it."""
    for value in values:
        name, separator, dims = value.rpartition(":")
        if not separator:
            name, separator, dims = value.partition(",")
        numbers = [one for one in re.split(r"[\s,x]+", dims.strip("[]()")) if one]
        if not separator or not name or not all(one.isdigit() for one in numbers):
            raise malformed(text, "shapes such as input:[1,3,224,224]")
        yield name.strip("'\""), [int(one) for one in numbers]


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
            if not output:
                command.draft.put(text, f"verify.tolerance.{bound}", amount, _EITHER.get(bound, ""))
                continue
            command.draft.set("verify.outputs", command.draft.get("verify.outputs") or {})
            bounds = command.draft.get("verify.outputs").setdefault(output, {})
            bounds[bound] = amount  # a name may hold dots, or be a number
            command.draft.note(text, f"verify.outputs.{output}.{bound}", _EITHER.get(bound, ""))

    return take


_EITHER = dict.fromkeys(
    ("max_abs", "max_rel"), "here each bound holds by itself; polygraphy asks for one of the two"
)


def _cache(command: _Command, text: str, values: list[str]) -> None:
    if len(values) != 1:
        raise malformed(text, "--calibration-cache calib.cache")
    command.precision.calibrate_with(text, values[0])


def _data(command: _Command, text: str, values: list[str]) -> None:
    if len(values) != 1:
        raise malformed(text, "--data-loader-script load.py")
    command.precision.measure(text, values[0], "its load_data() is read as it is")


def _layer_types(command: _Command, text: str, values: list[str]) -> None:
    command.precision.layers(text, ",".join(values))


def _choice(key: str) -> _Handler:
    """The members of TensorRT's enumerations, in small letters, are a recipe's values."""

    def take(command: _Command, text: str, values: list[str]) -> None:
        command.draft.put(text, f"{_OPTIONS}.{key}", values[0].lower() if values else "")

    return take


def _timing_cache(command: _Command, text: str, values: list[str]) -> None:
    place = f"{_OPTIONS}.timing_cache"
    is_required = text == "--error-on-timing-cache-miss" or command.draft.get(place) == "require"
    command.draft.set(place, "require" if is_required else "use")
    command.draft.note(text, place, "kept in the store")


def _backends(command: _Command, text: str, values: list[str]) -> None:
    command.draft.skip(text, "a build always compares with the original in ONNX Runtime")


_HANDLERS: dict[str, _Handler] = {
    "MODEL": _model,
    "--trt-min-shapes": _shapes("min"),
    "--trt-opt-shapes": _shapes("opt"),
    "--trt-max-shapes": _shapes("max"),
    "--input-shapes": _run_shapes,
    "--inputs": _run_shapes,
    "-o": _output,
    "--output": _output,
    "--convert-to": _convert_to,
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
    "--abs-tol": _tolerance("max_abs"),
    "--rel-tol": _tolerance("max_rel"),
    "--cosine-similarity-threshold": _tolerance("cosine"),
    "--snr-threshold": _tolerance("sqnr_db"),
    "--snr-tolerance": _tolerance("sqnr_db"),
    "--seed": _number("verify.seed"),
    "--builder-optimization-level": _number(f"{_OPTIONS}.optimization_level"),
    "--hardware-compatibility-level": _choice("hardware_compatibility"),
    "--tiling-optimization-level": _choice("tiling"),
    "--runtime-platform": _choice("runtime_platform"),
    "--max-aux-streams": _number(f"{_OPTIONS}.max_aux_streams"),
    "--version-compatible": _put(f"{_OPTIONS}.version_compatible", True),
    "--exclude-lean-runtime": _put(f"{_OPTIONS}.exclude_lean_runtime", True),
    "--sparse-weights": _put(f"{_OPTIONS}.sparsity", True),
    "--refittable": _put(f"{_OPTIONS}.refit", "all"),
    "--strip-plan": _put(f"{_OPTIONS}.strip_weights", True),
    "--weight-streaming": _put(f"{_OPTIONS}.weight_streaming", True),
    "--error-on-timing-cache-miss": _timing_cache,
    "--load-timing-cache": _timing_cache,
    "--save-timing-cache": _timing_cache,
    "--trt": _backends,
    "--onnxrt": _backends,
}
