"""Laws between the values of a recipe: what no single field can check.

They work on plain data that may still be wrong elsewhere, so that `load.py` can report a broken
law beside an unknown key. The schema applies the same laws to recipes made in code.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from trtforge.recipe import codes
from trtforge.recipe.attest_laws import attestation_laws
from trtforge.recipe.broken import Broken, get, is_list, is_number, items
from trtforge.recipe.budget_laws import auto_laws, choice_laws, without_auto
from trtforge.recipe.fields import MOST_DIMENSIONS
from trtforge.recipe.nodes import Loc
from trtforge.recipe.performance_laws import performance_laws
from trtforge.recipe.target_laws import hardware_laws, target_laws, unique_names
from trtforge.recipe.technique_laws import technique_laws


def recipe_laws(data: Any) -> Iterator[Broken]:
    """Yield every broken law of a whole recipe, given as plain data that may be malformed."""
    yield from auto_laws(get(data, "precision"), ("precision",))
    if isinstance(data, Mapping):
        data = {**data, "precision": without_auto(data.get("precision"))}
    shapes = get(data, "shapes")
    for index, profile in enumerate(shapes if is_list(shapes) else (shapes,)):
        for name, dims in profile.items() if isinstance(profile, Mapping) else ():
            yield from shape_laws(dims, ("shapes", index, str(name)))
        for place, dims in enumerate(items(profile)):
            yield from shape_laws(dims, ("shapes", index, place))
    for key in ("keep", "force"):
        for index, rule in enumerate(items(get(data, "precision", key))):
            yield from keep_laws(rule, ("precision", key, index))
    targets = items(get(data, "targets"))
    for index, target in enumerate(targets):
        yield from target_laws(target, ("targets", index))
        yield from hardware_laws(data, target, ("targets", index))
    yield from unique_names(targets)
    yield from _quantization_laws(data)
    yield from choice_laws(data)
    yield from _calibration_laws(data)
    yield from attestation_laws(data)
    yield from _verification_laws(data)
    yield from performance_laws(get(data, "performance"), ("performance",))


def shape_laws(dims: Any, loc: Loc = ()) -> Iterator[Broken]:
    """Yield what is impossible in one input's min, opt and max."""
    low, mid, high = (_dims(get(dims, key)) for key in ("min", "opt", "max"))
    if low is None or mid is None or high is None:
        return
    name = _input_at(loc)
    if get(dims, "values") is not True:
        yield from _size_laws(dims, name, loc)
    if not len(low) == len(mid) == len(high):
        yield _rank_law(loc, low, mid, high)
        return
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


def _input_at(loc: Loc) -> str:
    if not loc:
        return "an input"
    return f"input '{loc[-1]}'" if isinstance(loc[-1], str) else f"input {loc[-1]} (from 0)"


def _size_laws(dims: Any, name: str, loc: Loc) -> Iterator[Broken]:
    """What numbers a shape has not; values may be any."""
    hint = "min, opt and max are shapes; add `values: true` if they are the input's values"
    for key in ("min", "opt", "max"):
        shape = items(get(dims, key))
        if len(shape) > MOST_DIMENSIONS:
            yield Broken(
                (*loc, key),
                codes.WRONG_VALUE,
                f"{key} of {name} has {len(shape)} dimensions; "
                f"TensorRT's tensors have at most {MOST_DIMENSIONS}",
                hint,
            )
        for axis, size in enumerate(shape):
            if size < 0:
                yield Broken(
                    (*loc, key, axis),
                    codes.WRONG_VALUE,
                    f"{key} of {name} is {size} in dimension {axis}; a size is at least 0",
                    hint,
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


def _quantization_laws(data: Any) -> Iterator[Broken]:
    """A calibration without quantize is no error: `--set precision.quantize=none` must work."""
    quantize = get(data, "precision", "quantize")
    if quantize in ("int8", "fp8") and get(data, "calibration") is None:
        yield Broken(
            ("precision", "quantize"),
            codes.CONTRADICTION,
            f"quantize: {quantize} needs activation ranges, and there is no calibration",
            "add `calibration: {data: calib.npz}`, or set quantize: none",
        )
    if get(data, "precision", "io_types") == "convert" and (
        get(data, "precision", "type") in (None, "fp32")
    ):
        yield Broken(
            ("precision", "io_types"),
            codes.CONTRADICTION,
            "there is no narrow type that inputs and outputs could be converted to",
            "set precision.type to fp16 or bf16, or remove io_types",
        )
    if get(data, "precision", "compact") is True and quantize != "int8":
        yield Broken(
            ("precision", "compact"),
            codes.CONTRADICTION,
            f"compact is about INT8 kernels, and quantize is {quantize or 'none'}",
            "remove it, or set quantize: int8",
        )
    yield from technique_laws(data)


def _calibration_laws(data: Any) -> Iterator[Broken]:
    calibration = get(data, "calibration")
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
        values = items(given.get(key))
        if len(values) not in (0, 1, channels):
            yield Broken(
                (*loc, key),
                codes.CONTRADICTION,
                f"{key} has {len(values)} numbers, the images have {channels} "
                f"channel{'s' if channels > 1 else ''}",
                f"give one number, or {channels}" if channels > 1 else "give one number",
            )
    resize, crop = given.get("resize"), given.get("crop")
    sizes, cuts = ([value, value] if is_number(value) else items(value) for value in (resize, crop))
    short = [cut for size, cut in zip(sizes, cuts, strict=False) if _both_less(size, cut)]
    if short:
        yield Broken(
            (*loc, "crop"),
            codes.CONTRADICTION,
            f"crop: {crop} is larger than what resize: {resize} leaves",
            "a crop lies within the resized image",
        )


def _both_less(size: Any, cut: Any) -> bool:
    return is_number(size) and is_number(cut) and size < cut


def _verification_laws(data: Any) -> Iterator[Broken]:
    if get(data, "verify", "data") is not None:
        return
    outputs = get(data, "verify", "outputs")
    judged: list[Loc] = [("verify", "tolerance")]
    if isinstance(outputs, Mapping):
        judged += [("verify", "outputs", str(name)) for name in outputs]
    for loc in judged:
        if get(data, *loc, "accuracy_drop") is not None:
            yield Broken(
                (*loc, "accuracy_drop"),
                codes.CONTRADICTION,
                "accuracy_drop needs labels, and verify has no data",
                "add `data: test.npz` with an array 'labels' to verify, or remove this bound",
            )
    if get(data, "verify", "samples") is not None:
        yield Broken(
            ("verify", "samples"),
            codes.CONTRADICTION,
            "verify.samples limits the data, and verify has no data",
            "add `data: test.npz` to verify, or remove samples",
        )


def _rank_law(loc: Loc, low: list[int], mid: list[int], high: list[int]) -> Broken:
    ranks = {"min": len(low), "opt": len(mid), "max": len(high)}
    odd = [key for key, rank in ranks.items() if list(ranks.values()).count(rank) == 1]
    name = _input_at(loc)
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


def _dims(value: Any) -> list[int] | None:
    found = items(value)
    whole = all(isinstance(item, int) and not isinstance(item, bool) for item in found)
    return list(found) if is_list(value) and whole else None
