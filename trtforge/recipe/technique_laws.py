"""Laws of `precision.techniques` and `calibration.method`: what is named must have a use."""

from collections.abc import Iterator, Mapping
from typing import Any

from trtforge.recipe import codes
from trtforge.recipe.broken import Broken, get, items

SERVES: Mapping[str, tuple[tuple[str, ...], str]] = {
    "equalize": (("int8",), "evens out channels for INT8"),
    "smoothquant": (("int8",), "evens out channels for INT8"),
    "refine-scales": (("int8",), "moves ranges for INT8"),
    "mse-weights": (("int8", "fp8"), "chooses scales of INT8 or FP8 weights"),
    "rounding": (("int8",), "rounds INT8 weights"),
    "bias-correction": (("int8", "fp8"), "corrects for INT8 or FP8"),
    "gptq": (("int4_weight_only",), "rounds INT4 weights"),
}
"""By technique: for which values of `precision.quantize` it does something, and what."""


def technique_laws(data: Any) -> Iterator[Broken]:
    """Yield named techniques that would do nothing; unknown names are refused elsewhere.

    Beside them the method `entropy` with FP8: divergence weighs the share of values in each step,
    and E4M3's steps are so fine near zero that the best match clips nearly all that is larger (the
    digits network is left with -0.2 dB, and has 25 dB with any other method).
    """
    quantize = get(data, "precision", "quantize")
    if quantize == "fp8" and get(data, "calibration", "method") == "entropy":
        yield Broken(
            ("calibration", "method"),
            codes.CONTRADICTION,
            "entropy is made for the equal steps of INT8; of FP8 values it would clip nearly all",
            "set method: mse or minmax",
        )
    for index, name in enumerate(items(get(data, "precision", "techniques"))):
        if not isinstance(name, str) or name not in SERVES:
            continue
        kinds, does = SERVES[name]
        loc = ("precision", "techniques", index)
        if quantize not in kinds:
            yield Broken(
                loc,
                codes.CONTRADICTION,
                f"{name} {does}, and quantize is {quantize or 'none'}",
                f"remove it, or set quantize: {' or '.join(kinds)}",
            )
        elif name == "gptq" and get(data, "calibration") is None:
            yield Broken(
                loc,
                codes.CONTRADICTION,
                "gptq needs samples, and there is no calibration",
                "add `calibration: {data: calib.npz}`, or remove it",
            )
