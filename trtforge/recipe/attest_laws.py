"""Laws of attested shares: bounds that nothing can meet, or that bound nothing."""

from collections.abc import Iterator, Mapping
from typing import Any

from trtforge.recipe import codes
from trtforge.recipe.broken import Broken, get, is_number
from trtforge.recipe.nodes import Loc
from trtforge.recipe.target_laws import WEIGHT_ONLY

ATTESTED = ("macs", "nodes", "weights", "activations")
"""What shares are of."""

_GIVEN_BY: dict[str, dict[str, tuple[str, ...]]] = {
    "int8": {
        "weights": ("int8", "int8_weight_only", "int4_weight_only"),
        **dict.fromkeys(("macs", "nodes", "activations"), ("int8",)),
    },
    "fp8": dict.fromkeys(ATTESTED, ("fp8",)),
    "int4": {"weights": ("int4_weight_only",)},
}
"""Quantized type -> what may have it -> the values of `precision.quantize` that give it.

There is no such table of float types: a model may come in FP16 and is left so.
"""

_SLACK = 1e-9
"""Decimal shares that sum to 1 may sum to a little more in binary."""


def share_laws(share: Any, loc: Loc = ()) -> Iterator[Broken]:
    """Yield what is wrong with the bounds of one share."""
    if not isinstance(share, Mapping):
        return
    low, high = share.get("min"), share.get("max")
    name = f"the share of {loc[-1]}" if loc else "a share"
    if low is None and high is None:
        yield Broken(
            loc,
            codes.MISSING_KEY,
            f"{name} has neither 'min' nor 'max'",
            "write `{min: 0.8}` or `{max: 0.1}`, or remove it",
        )
    if low is not None and high is not None and is_number(low) and is_number(high) and low > high:
        yield Broken(
            (*loc, "min"),
            codes.CONTRADICTION,
            f"min is above max for {name}: {low} > {high}",
            f"did you mean {{min: {high}, max: {low}}}?",
        )


def attest_laws(attest: Any, loc: Loc = ()) -> Iterator[Broken]:
    """Yield what is wrong with an attest section by itself."""
    for what in ATTESTED:
        bounds = get(attest, what)
        if not isinstance(bounds, Mapping):
            continue
        for kind, share in bounds.items():
            yield from share_laws(share, (*loc, what, str(kind)))
        floors = {kind: _floor(share) for kind, share in bounds.items()}
        quantized = sum(floors.pop(kind, 0.0) for kind in ("int8", "fp8"))
        if what == "macs" and is_number(least := get(attest, "min_quantized_macs")):
            quantized = max(quantized, float(least))
        total = quantized + sum(floors.values())
        if total > 1 + _SLACK:
            yield Broken(
                (*loc, what),
                codes.CONTRADICTION,
                f"the least shares of {what} sum to {total:g}, more than all there is",
                "lower some of the bounds",
            )


def attestation_laws(data: Any) -> Iterator[Broken]:
    """Yield bounds of a whole recipe that its precision can never meet."""
    quantize = get(data, "precision", "quantize") or "none"
    loc: Loc = ("verify", "attest")
    yield from attest_laws(get(data, *loc), loc)
    share = get(data, *loc, "min_quantized_macs")
    if is_number(share) and share > 0 and quantize in (*WEIGHT_ONLY, "none"):
        weight_only = quantize in WEIGHT_ONLY
        why = (
            f"with {quantize} every product computes in the float type"
            if weight_only
            else "nothing is quantized"
        )
        repair = "set precision.quantize to int8 or fp8"
        yield Broken(
            (*loc, "min_quantized_macs"),
            codes.CONTRADICTION,
            f"min_quantized_macs asks for a share of {share}, but {why}",
            f"remove this bound, or {repair}" if weight_only else f"{repair}, or remove this bound",
        )
    for what in ATTESTED:
        bounds = get(data, *loc, what)
        for kind, bound in bounds.items() if isinstance(bounds, Mapping) else ():
            least = _floor(bound)
            ways = _GIVEN_BY.get(str(kind), {}).get(what, ())
            if (
                least > 0
                and kind in _GIVEN_BY
                and isinstance(quantize, str)
                and quantize not in ways
            ):
                yield _never((*loc, what, str(kind), "min"), least, quantize, ways)


def _never(loc: Loc, least: float, quantize: str, ways: tuple[str, ...]) -> Broken:
    what, kind = loc[-3], loc[-2]
    return Broken(
        loc,
        codes.CONTRADICTION,
        f"at least {least:g} of the {what} are to be {kind}, and quantize: {quantize} never gives "
        "that",
        f"set precision.quantize to {' or '.join(ways)}, or remove this bound"
        if ways
        else f"remove it: {what} are never {kind}",
    )


def _floor(share: Any) -> float:
    least = get(share, "min")
    return float(least) if is_number(least) else 0.0
