"""Laws between the values of a recipe: what no single field can check.

They work on plain data that may still be wrong elsewhere, so that `load.py` can report a broken
law beside an unknown key. The schema applies the same laws to recipes made in code.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trtforge.recipe import codes
from trtforge.recipe.nodes import Loc

_OLDEST = {"fp8": (8, 9), "bf16": (8, 0), "int4_weight_only": (8, 0)}
"""First compute capability with tensor cores for a type, or that takes such weights.

Sources: CUDA C++ Programming Guide, "Arithmetic Instructions" and the tensor core table of the
compute capabilities appendix; for INT4, TensorRT-RTX's support matrix ("INT4 WoQ GEMM": no for 7.5,
yes from 8.6) and Model-Optimizer's ("GPUs: Ampere and later"). The TensorRT-RTX builder refuses
older ones in its own words ("contains HW-specific datatypes")."""

_WEIGHT_ONLY = ("int8_weight_only", "int4_weight_only")


@dataclass(frozen=True)
class Broken:
    """One broken law, at a location of the recipe."""

    loc: Loc
    code: str
    message: str
    hint: str


def recipe_laws(data: Any) -> Iterator[Broken]:
    """Yield every broken law of a whole recipe, given as plain data that may be malformed."""
    shapes = _get(data, "shapes")
    profiles = shapes if _is_list(shapes) else (shapes,)
    for index, profile in enumerate(profiles):
        for name, dims in profile.items() if isinstance(profile, Mapping) else ():
            yield from shape_laws(dims, ("shapes", index, str(name)))
    for index, rule in enumerate(_list(_get(data, "precision", "keep"))):
        yield from keep_laws(rule, ("precision", "keep", index))
    targets = _list(_get(data, "targets"))
    for index, target in enumerate(targets):
        yield from target_laws(target, ("targets", index))
        yield from _hardware_laws(data, target, ("targets", index))
    yield from _unique_names(targets)
    yield from _quantization_laws(data)
    yield from _calibration_laws(data)
    yield from _attestation_laws(data)
    yield from _verification_laws(data)


def shape_laws(dims: Any, loc: Loc = ()) -> Iterator[Broken]:
    """Yield what is impossible in one input's min, opt and max."""
    low, mid, high = (_dims(_get(dims, key)) for key in ("min", "opt", "max"))
    if low is None or mid is None or high is None:
        return
    if not len(low) == len(mid) == len(high):
        yield _rank_law(loc, low, mid, high)
        return
    name = f"input '{loc[-1]}'" if loc else "an input"
    crossed = [axis for axis in range(len(low)) if low[axis] > high[axis]]
    if crossed:
        axis = crossed[0]
        smaller = [min(pair) for pair in zip(low, high, strict=True)]
        larger = [max(pair) for pair in zip(low, high, strict=True)]
        yield Broken(
            (*loc, "min"),
            codes.SHAPES,
            f"min is above max for {name} in dimension {axis}: {low[axis]} > {high[axis]}",
            f"did you mean min: {smaller}, max: {larger}?",
        )
        return
    outside = [axis for axis in range(len(mid)) if not low[axis] <= mid[axis] <= high[axis]]
    if outside:
        axis = outside[0]
        yield Broken(
            (*loc, "opt"),
            codes.SHAPES,
            f"opt is outside min..max for {name} in dimension {axis}: "
            f"{mid[axis]} not in {low[axis]}..{high[axis]}",
            "opt must lie between min and max in every dimension; "
            f"did you mean {_repair(low, mid, high)}?",
        )


def keep_laws(rule: Any, loc: Loc = ()) -> Iterator[Broken]:
    """Yield what is wrong with one rule that names nodes."""
    selects = ("op", "name", "path")
    if isinstance(rule, Mapping) and all(rule.get(key) is None for key in selects):
        yield Broken(
            loc,
            codes.MISSING_KEY,
            "a rule needs 'op', 'name' or 'path', or several of them",
            'write {op: Softmax} or {name: "/head/*"}',
        )


def target_laws(target: Any, loc: Loc = ()) -> Iterator[Broken]:
    """Yield options of one target that its backend does not have."""
    backend = _get(target, "backend")
    listed = _list(_get(target, "compute_capabilities"))
    if listed and backend in ("tensorrt", "onnxruntime"):
        yield Broken(
            (*loc, "compute_capabilities"),
            codes.CONTRADICTION,
            f"compute_capabilities is for tensorrt_rtx, not for '{backend}'",
            "remove it; tensorrt builds for the GPU at hand"
            if backend == "tensorrt"
            else "remove it; onnxruntime builds no engine",
        )
    for index, value in enumerate(listed):
        if isinstance(value, str) and value in listed[:index]:
            yield Broken(
                (*loc, "compute_capabilities", index),
                codes.DUPLICATE,
                f"compute capability {value} is given twice",
                "remove one of them",
            )
    for key in ("workspace_mib", "tf32"):
        if backend == "onnxruntime" and _get(target, key):
            yield Broken(
                (*loc, key),
                codes.CONTRADICTION,
                f"{key} is an option of the TensorRT builders; onnxruntime builds no engine",
                "remove it",
            )


def _unique_names(targets: Sequence[Any]) -> Iterator[Broken]:
    names = [_get(target, "name") for target in targets]
    for index, name in enumerate(names):
        if isinstance(name, str) and name in names[:index]:
            yield Broken(
                ("targets", index, "name"),
                codes.DUPLICATE,
                f"two targets have the name '{name}'",
                "each engine gets a folder named after its target; choose another name, "
                f"such as '{name}-{index + 1}'",
            )


def _hardware_laws(data: Any, target: Any, loc: Loc) -> Iterator[Broken]:
    kept = (_get(rule, "type") for rule in _list(_get(data, "precision", "keep")))
    used = (_get(data, "precision", "quantize"), _get(data, "precision", "type"), *kept)
    for kind in dict.fromkeys(k for k in used if isinstance(k, str) and k in _OLDEST):
        for index, value in enumerate(_list(_get(target, "compute_capabilities"))):
            capability = _capability(value)
            if capability is not None and capability < _OLDEST[kind]:
                oldest = ".".join(map(str, _OLDEST[kind]))
                word = "INT4" if kind in _WEIGHT_ONLY else kind.upper()
                yield Broken(
                    (*loc, "compute_capabilities", index),
                    codes.CONTRADICTION,
                    f"GPUs of compute capability {value} have no {word}",
                    f"{word} needs {oldest} or later; remove {value} from this target",
                )


def _quantization_laws(data: Any) -> Iterator[Broken]:
    """A calibration without quantize is no error: `--set precision.quantize=none` must work."""
    quantize = _get(data, "precision", "quantize")
    if quantize in ("int8", "fp8") and _get(data, "calibration") is None:
        yield Broken(
            ("precision", "quantize"),
            codes.CONTRADICTION,
            f"quantize: {quantize} needs activation ranges, and there is no calibration",
            "add `calibration: {data: calib.npz}`, or set quantize: none",
        )
    for index, name in enumerate(_list(_get(data, "precision", "techniques"))):
        if name != "gptq":
            continue
        if quantize != "int4_weight_only":
            yield Broken(
                ("precision", "techniques", index),
                codes.CONTRADICTION,
                f"gptq rounds INT4 weights, and quantize is {quantize or 'none'}",
                "remove it, or set quantize: int4_weight_only",
            )
        elif _get(data, "calibration") is None:
            yield Broken(
                ("precision", "techniques", index),
                codes.CONTRADICTION,
                "gptq needs samples, and there is no calibration",
                "add `calibration: {data: calib.npz}`, or remove it",
            )


def _calibration_laws(data: Any) -> Iterator[Broken]:
    calibration = _get(data, "calibration")
    if not isinstance(calibration, Mapping):
        return
    given, synthetic = calibration.get("data"), calibration.get("synthetic")
    reused = calibration.get("reuse")
    if reused is None and calibration.get("accept_stale") is True:
        yield Broken(
            ("calibration", "accept_stale"),
            codes.CONTRADICTION,
            "accept_stale is about the cache of `reuse`, and there is none",
            "remove it, or add `reuse: cache.json`",
        )
    if given is None and reused is None and synthetic in (None, False):
        yield Broken(
            ("calibration",),
            codes.MISSING_KEY,
            "'data' is missing in calibration",
            "add `data: calib.npz`, or `synthetic: true` for random samples to try things out",
        )
    if given is not None and synthetic is True:
        yield Broken(
            ("calibration", "synthetic"),
            codes.CONTRADICTION,
            "synthetic: true asks for random samples, and there is data",
            "remove one of them",
        )
    if isinstance(given, Mapping) and given.get("images") is not None:
        yield from _image_laws(given, ("calibration", "data"))


def _image_laws(given: Mapping[str, Any], loc: Loc) -> Iterator[Broken]:
    channels = 1 if given.get("colour") == "grey" else 3
    for key in ("mean", "std"):
        values = _list(given.get(key))
        if len(values) not in (0, 1, channels):
            yield Broken(
                (*loc, key),
                codes.CONTRADICTION,
                f"{key} has {len(values)} numbers, the images have {channels} "
                f"channel{'s' if channels > 1 else ''}",
                f"give one number, or {channels}" if channels > 1 else "give one number",
            )
    resize, crop = given.get("resize"), given.get("crop")
    sizes, cuts = (
        [value, value] if _is_number(value) else _list(value) for value in (resize, crop)
    )
    short = [cut for size, cut in zip(sizes, cuts, strict=False) if _both_less(size, cut)]
    if short:
        yield Broken(
            (*loc, "crop"),
            codes.CONTRADICTION,
            f"crop: {crop} is larger than what resize: {resize} leaves",
            "a crop lies within the resized image",
        )


def _both_less(size: Any, cut: Any) -> bool:
    return _is_number(size) and _is_number(cut) and size < cut


def _attestation_laws(data: Any) -> Iterator[Broken]:
    quantize = _get(data, "precision", "quantize")
    share = _get(data, "verify", "attest", "min_quantized_macs")
    if not (isinstance(data, Mapping) and _is_number(share) and share > 0):
        return
    if quantize in _WEIGHT_ONLY:
        yield Broken(
            ("verify", "attest", "min_quantized_macs"),
            codes.CONTRADICTION,
            f"min_quantized_macs asks for a share of {share}, but with {quantize} every product "
            "computes in the float type",
            "remove this bound, or set precision.quantize to int8 or fp8",
        )
    if quantize in (None, "none"):
        yield Broken(
            ("verify", "attest", "min_quantized_macs"),
            codes.CONTRADICTION,
            f"min_quantized_macs asks for a share of {share}, but nothing is quantized",
            "set precision.quantize to int8 or fp8, or remove this bound",
        )


def _verification_laws(data: Any) -> Iterator[Broken]:
    if _get(data, "verify", "data") is not None:
        return
    outputs = _get(data, "verify", "outputs")
    judged: list[Loc] = [("verify", "tolerance")]
    if isinstance(outputs, Mapping):
        judged += [("verify", "outputs", str(name)) for name in outputs]
    for loc in judged:
        if _get(data, *loc, "accuracy_drop") is not None:
            yield Broken(
                (*loc, "accuracy_drop"),
                codes.CONTRADICTION,
                "accuracy_drop needs labels, and verify has no data",
                "add `data: test.npz` with an array 'labels' to verify, or remove this bound",
            )
    if _get(data, "verify", "samples") is not None:
        yield Broken(
            ("verify", "samples"),
            codes.CONTRADICTION,
            "verify.samples limits the data, and verify has no data",
            "add `data: test.npz` to verify, or remove samples",
        )


def _rank_law(loc: Loc, low: list[int], mid: list[int], high: list[int]) -> Broken:
    ranks = {"min": len(low), "opt": len(mid), "max": len(high)}
    odd = [key for key, rank in ranks.items() if list(ranks.values()).count(rank) == 1]
    name = f"input '{loc[-1]}'" if loc else "an input"
    return Broken(
        (*loc, odd[0] if len(odd) == 1 else "opt"),
        codes.SHAPES,
        f"min, opt and max of {name} differ in rank: {len(low)}, {len(mid)} and {len(high)}",
        "each has one number per dimension of the input, batch included",
    )


def _repair(low: list[int], mid: list[int], high: list[int]) -> str:
    """The smallest change that makes opt lie within: stretch one end, or move opt."""
    if all(value >= bound for value, bound in zip(mid, low, strict=True)):
        return f"max: {[max(pair) for pair in zip(mid, high, strict=True)]}"
    if all(value <= bound for value, bound in zip(mid, high, strict=True)):
        return f"min: {[min(pair) for pair in zip(mid, low, strict=True)]}"
    clamped = [min(max(m, lo), hi) for lo, m, hi in zip(low, mid, high, strict=True)]
    return f"opt: {clamped}"


def _get(data: Any, *keys: Any) -> Any:
    for key in keys:
        if not isinstance(data, Mapping):
            return None
        data = data.get(key)
    return data


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else ()


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _dims(value: Any) -> list[int] | None:
    items = _list(value)
    whole = all(isinstance(item, int) and not isinstance(item, bool) for item in items)
    return list(items) if _is_list(value) and whole else None


def _capability(value: Any) -> tuple[int, int] | None:
    major, dot, minor = value.partition(".") if isinstance(value, str) else ("", "", "")
    if not (dot and major.isascii() and major.isdigit() and minor.isascii() and minor.isdigit()):
        return None
    return int(major), int(minor)
