"""Bounds: the documented defaults by precision, which bounds fit an output, and how they judge."""

import difflib
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from trtforge.errors import UsageError
from trtforge.verify.types import Bounds, Metrics, OutputVerdict, Tolerances

DEFAULTS: dict[str, tuple[Bounds, str]] = {
    "fp32": (
        Bounds(sqnr_db=80.0, exact_agreement=0.999),
        "fp32: the same arithmetic in another order; 80 dB is an RMS error of 1e-4, two decades "
        "above the 2^-24 of one rounding",
    ),
    "tf32": (
        Bounds(sqnr_db=40.0, exact_agreement=0.99),
        "tf32: 10-bit mantissas as in FP16, so FP16's bound",
    ),
    "fp16": (
        Bounds(sqnr_db=40.0, exact_agreement=0.99),
        "fp16: rounding after every operator leaves 59 to 65 dB on squeezenet, densenet121 and "
        "resnet50; 40 dB (1 % RMS) leaves room for deeper models",
    ),
    "bf16": (
        Bounds(sqnr_db=22.0, exact_agreement=0.97),
        "bf16: three mantissa bits less than FP16, 6.02 dB each: FP16's 40 dB less 18",
    ),
    "int8": (
        Bounds(sqnr_db=15.0, exact_agreement=0.95),
        "int8: 8-bit steps over a clipped range are near 30 dB per tensor and add up over the "
        "layers; below 15 dB (18 % RMS) arg-max decisions begin to change",
    ),
    "fp8": (
        Bounds(sqnr_db=15.0, exact_agreement=0.95),
        "fp8: E4M3's 3-bit mantissa rounds by up to 1/16, near 31 dB per tensor; judged like INT8",
    ),
    "int8_weight_only": (
        Bounds(sqnr_db=25.0, exact_agreement=0.98),
        "int8_weight_only: 8-bit steps per output channel are near 42 dB, and activations are not "
        "rounded; 46 to 50 dB on small trained networks",
    ),
    "int4_weight_only": (
        Bounds(sqnr_db=10.0, exact_agreement=0.9),
        "int4_weight_only: 16 steps per block are near 20 dB per weight; 24 to 27 dB on a small "
        "trained transformer, 10 to 13 dB through the many layers of BERT and Llama with random "
        "weights, where only a broken model is to be found",
    ),
}
"""What is asked of an output when the recipe asks nothing that fits it: bounds, and why these.

59 to 65 dB: relative errors of 5.6e-4 to 1.1e-3, measured with a cast pair after every operator.
`exact_agreement` is for integer and bool outputs (class ids, masks), where near-ties flip.
"""

CASE_SLACK_DB = 6.0
"""How far a single corner or random case may stay below an SQNR bound (twice the noise).

The bound is meant for the data as a whole; one case may hold a single row, and rows differ.
"""

_AT_LEAST = ("sqnr_db", "cosine", "top1_agreement", "top5_agreement", "exact_agreement")
_FITTING: dict[str, tuple[str, ...]] = {
    "float": ("sqnr_db", "cosine", "max_abs", "max_rel", "exact_agreement"),
    "integer": ("max_abs", "max_rel", "exact_agreement"),
    "other": ("exact_agreement",),
}
_SAID = {
    "sqnr_db": ("SQNR", " dB"),
    "cosine": ("cosine similarity", ""),
    "max_abs": ("largest absolute error", ""),
    "max_rel": ("largest relative error", ""),
    "top1_agreement": ("top-1 agreement", ""),
    "top5_agreement": ("top-5 agreement", ""),
    "exact_agreement": ("share of equal values", ""),
    "accuracy_drop": ("top-1 accuracy drop", ""),
}


@dataclass(frozen=True)
class OutputForm:
    """What decides which bounds fit an output.

    Attributes:
        name: of the output.
        dtype: numpy type name, for messages.
        kind: "float", "integer" or "other".
        has_classes: its last axis holds class scores.
        has_top5: it holds more than five of them.
        has_accuracy: labels were given and it predicts a class per sample.
    """

    name: str
    dtype: str
    kind: str
    has_classes: bool
    has_top5: bool
    has_accuracy: bool

    @property
    def fitting(self) -> tuple[str, ...]:
        """The names of the bounds that can be judged on this output."""
        names = _FITTING[self.kind]
        names += ("top1_agreement",) if self.has_classes else ()
        names += ("top5_agreement",) if self.has_top5 else ()
        return names + (("accuracy_drop",) if self.has_accuracy else ())


def fallback_for(precision: str) -> tuple[Bounds, str]:
    """Return the default bounds for a precision and the reason for the numbers.

    Args:
        precision: a key of DEFAULTS: the quantized type where there is one, else the float type.

    Raises:
        UsageError: no such precision.
    """
    if precision not in DEFAULTS:
        raise UsageError(
            "TF0708",
            f"there are no default tolerances for precision '{precision}'",
            hint=f"known are: {', '.join(DEFAULTS)}",
        )
    return DEFAULTS[precision]


def check_output_names(tolerances: Tolerances, names: Collection[str]) -> None:
    """Refuse tolerances for outputs that the model does not have.

    Raises:
        UsageError: with the nearest name as a hint.
    """
    for name in tolerances.outputs:
        if name in names:
            continue
        near = difflib.get_close_matches(name, list(names), n=1)
        have = ", ".join(f"'{known}'" for known in names)
        raise UsageError(
            "TF0704",
            f"a tolerance is given for output '{name}', which the model does not have",
            hint=f"did you mean '{near[0]}'?" if near else f"its outputs are: {have}",
        )


def check_bounds_fit(tolerances: Tolerances, forms: Collection[OutputForm]) -> None:
    """Refuse bounds that nothing could be judged by; they would else pass in silence.

    Raises:
        UsageError: a bound for one output does not fit it, or a bound for all fits none.
    """
    unnamed = [form for form in forms if form.name not in tolerances.outputs]
    for form in forms:
        for bound in tolerances.outputs.get(form.name, Bounds()).given:
            if bound not in form.fitting:
                raise _misfit(bound, f"output '{form.name}'", [form])
    for bound in tolerances.default.given if unnamed else ():
        if not any(bound in form.fitting for form in unnamed):
            raise _misfit(bound, "any output", unnamed)


def bounds_for(tolerances: Tolerances, form: OutputForm) -> tuple[Bounds, str]:
    """Return the bounds that judge one output, and where they come from."""
    own = _only(tolerances.outputs.get(form.name, Bounds()), form.fitting)
    if own.given:
        return own, "recipe (this output)"
    general = _only(tolerances.default, form.fitting)
    if general.given and form.name not in tolerances.outputs:
        return general, "recipe"
    # Equality is a default for integers alone: floats are never asked to be equal unasked.
    fitting = ("exact_agreement",) if form.kind != "float" else _FITTING["float"][:-1]
    return _only(tolerances.fallback, fitting), f"default ({tolerances.fallback_reason})"


def missed_bounds(bounds: Bounds, metrics: Metrics) -> list[str]:
    """Return a sentence for every bound that the metrics of all judged cases miss."""
    return [
        _sentence(name, value, bound)
        for name, bound in bounds.given.items()
        if name != "accuracy_drop" and not _holds(name, value := getattr(metrics, name), bound)
    ]


def missed_case_bounds(bounds: Bounds, metrics: Metrics) -> list[str]:
    """Return a sentence for every bound that a single case misses, with slack for its few rows.

    SQNR may be CASE_SLACK_DB lower, 1 - cosine correspondingly larger (it goes with the noise's
    square), and of the counted shares one more row or element may differ than the bound allows.
    """
    return [
        f"{_sentence(name, value, bound)} for a single case"
        for name, bound in _with_slack(bounds, metrics).items()
        if not _holds(name, value := getattr(metrics, name), bound)
    ]


def missed_accuracy(bounds: Bounds, verdict_accuracy: tuple[float, float] | None) -> list[str]:
    """Return a sentence when accuracy fell by more than allowed; (reference, candidate) shares."""
    if bounds.accuracy_drop is None or verdict_accuracy is None:
        return []
    reference, candidate = verdict_accuracy
    # One part in 1e12: 0.97 - 0.96 is 0.010000000000000009 in binary.
    if reference - candidate <= bounds.accuracy_drop + 1e-12:
        return []
    return [
        f"top-1 accuracy fell from {reference:.2%} to {candidate:.2%}, by more than "
        f"{_points(bounds.accuracy_drop)}"
    ]


def summary(outputs: Mapping[str, OutputVerdict]) -> str:
    """Return one sentence on the outputs that failed."""
    failed = [(name, verdict) for name, verdict in outputs.items() if verdict.verdict == "fail"]
    name, verdict = failed[0]
    others = f" (and {len(failed) - 1} more outputs failed)" if len(failed) > 1 else ""
    return f"output '{name}': {verdict.failures[0]}{others}"


def _holds(name: str, value: float | None, bound: float) -> bool:
    if value is None or math.isnan(value):
        return False
    return value >= bound if name in _AT_LEAST else value <= bound


def _with_slack(bounds: Bounds, metrics: Metrics) -> dict[str, float]:
    relaxed = {}
    for name, bound in bounds.given.items():
        if name == "sqnr_db":
            relaxed[name] = bound - CASE_SLACK_DB
        elif name == "cosine":
            relaxed[name] = 1.0 - (1.0 - bound) * 10.0 ** (CASE_SLACK_DB / 10.0)
        elif name in ("top1_agreement", "top5_agreement") and metrics.rows:
            relaxed[name] = max(0.0, bound - 1.0 / metrics.rows)
        elif name == "exact_agreement":
            relaxed[name] = max(0.0, bound - 1.0 / metrics.elements)
    return relaxed


def _only(bounds: Bounds, names: Collection[str]) -> Bounds:
    return Bounds(**{name: bound for name, bound in bounds.given.items() if name in names})


def _misfit(bound: str, target: str, forms: Collection[OutputForm]) -> UsageError:
    what = ", ".join(f"'{form.name}' is {form.dtype}" for form in forms)
    hints = {
        "accuracy_drop": "it needs 'labels' in the verification data and an output with one row "
        "of class scores (or one class id) per sample",
        "top1_agreement": "it needs a float output with at least two axes and two classes on the "
        "last",
        "top5_agreement": "it needs a float output with at least two axes and six classes on the "
        "last",
    }
    return UsageError(
        "TF0705",
        f"{bound} cannot be judged on {target} ({what})",
        hint=hints.get(bound, f"bounds that fit: {', '.join(next(iter(forms)).fitting)}"),
    )


def _sentence(name: str, value: float | None, bound: float) -> str:
    what, unit = _SAID[name]
    if value is None:
        return f"{what} could not be measured"
    relation = "below" if name in _AT_LEAST else "above"
    return f"{what} {value:.4g}{unit} is {relation} the bound {bound:.4g}{unit}"


def _points(share: float) -> str:
    return f"{share * 100:g} point{'' if share == 0.01 else 's'}"
