"""Laws of a budget: one measure, something to choose from, and samples to judge by."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from trtforge.recipe import codes
from trtforge.recipe.broken import Broken, get, is_number, items
from trtforge.recipe.nodes import Loc
from trtforge.recipe.target_laws import WEIGHT_ONLY

_MEASURES = ("sqnr_db", "top1_drop", "metric")
_METRIC = re.compile(r".+\.py:\w+|\w+(\.\w+)*:\w+")
_EXAMPLE = "write `budget: {sqnr_db: 30}`, `{top1_drop: 0.5}` or `{metric: m:score, at_least: 0.9}`"


def without_auto(precision: Any) -> Any:
    """Return a precision section with `type: auto` put into plain words.

    The base of an automatic choice is FP16; INT8 is what it may go down to, unless the section
    names another quantized type. Anything else comes back as it is.
    """
    if not isinstance(precision, Mapping) or precision.get("type") != "auto":
        return precision
    quantize = precision.get("quantize", "int8")
    return {**precision, "type": "fp16", "quantize": quantize}


def auto_laws(precision: Any, loc: Loc = ()) -> Iterator[Broken]:
    """Yield what is wrong with a precision section that says `type: auto`."""
    if get(precision, "type") == "auto" and get(precision, "budget") is None:
        yield Broken(
            loc,
            codes.MISSING_KEY,
            "type: auto chooses types by a budget, and there is none",
            _EXAMPLE,
        )


def budget_laws(budget: Any, loc: Loc = ()) -> Iterator[Broken]:
    """Yield what is wrong with a budget by itself."""
    if not isinstance(budget, Mapping):
        return
    given = [name for name in _MEASURES if budget.get(name) is not None]
    if len(given) != 1:
        yield Broken(
            loc,
            codes.CONTRADICTION if given else codes.MISSING_KEY,
            f"a budget has one measure, this one has {' and '.join(given)}"
            if given
            else "a budget needs 'sqnr_db', 'top1_drop' or 'metric'",
            _EXAMPLE,
        )
    metric = budget.get("metric")
    if metric is not None and budget.get("at_least") is None:
        yield Broken(
            loc, codes.MISSING_KEY, "a budget by metric needs 'at_least'", "add `at_least: 0.9`"
        )
    if metric is None and budget.get("at_least") is not None:
        yield Broken(
            (*loc, "at_least"),
            codes.CONTRADICTION,
            "at_least is the bound on a metric, and there is none",
            "remove it, or add `metric: module:function`",
        )
    if isinstance(metric, str) and not _METRIC.fullmatch(metric):
        yield Broken(
            (*loc, "metric"),
            codes.WRONG_VALUE,
            f"'{metric[:100]}' names no function",
            "write `module:function` or `file.py:function`",
        )


def choice_laws(data: Any) -> Iterator[Broken]:
    """Yield what of a whole recipe does not go with its budget."""
    precision, budget = get(data, "precision"), get(data, "precision", "budget")
    yield from budget_laws(budget, ("precision", "budget"))
    if not isinstance(budget, Mapping):
        return
    quantize = get(precision, "quantize") or "none"
    if quantize in WEIGHT_ONLY:
        yield Broken(
            ("precision", "quantize"),
            codes.CONTRADICTION,
            f"a budget chooses among int8, fp8 and float types, not with {quantize}",
            "set quantize: int8, fp8 or none, or remove the budget and use keep rules",
        )
    if quantize == "none" and get(precision, "type") in (None, "fp32"):
        yield Broken(
            ("precision", "budget"),
            codes.CONTRADICTION,
            "a budget chooses among types, and there is only fp32",
            "set type: auto, fp16 or bf16, or quantize: int8 or fp8",
        )
    for index, name in enumerate(items(get(precision, "techniques"))):
        if name == "rounding":
            yield Broken(
                ("precision", "techniques", index),
                codes.CONTRADICTION,
                "rounding changes the weights for one fixed set of quantized layers, "
                "which a budget is about to choose",
                "remove it",
            )
    yield from _sample_laws(data, budget)


def _sample_laws(data: Any, budget: Mapping[str, Any]) -> Iterator[Broken]:
    recorded = get(data, "calibration", "data")
    has_labels_in_verify = get(data, "verify", "data") is not None
    if has_labels_in_verify:
        return
    loc: Loc = ("precision", "budget")
    if recorded is None and get(data, "calibration", "synthetic") is not True:
        yield Broken(
            loc,
            codes.CONTRADICTION,
            "a budget is met on samples, and there are none",
            "add `calibration: {data: calib.npz}`, or `data: test.npz` to verify",
        )
    elif is_number(budget.get("top1_drop")) and not str(recorded).endswith(".npz"):
        yield Broken(
            (*loc, "top1_drop"),
            codes.CONTRADICTION,
            "top1_drop needs labels, and nothing here can have any",
            "add `data: test.npz` with an array 'labels' to verify, or to calibration",
        )
