"""The verdict on attested types: what was asked for is there, bounds hold, and the views agree."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trtforge.engine.network_types import NetworkTypes
from trtforge.recipe.attest_laws import ATTESTED
from trtforge.recipe.schema import Attest, Precision, Share

TYPED_ONNX = "typed ONNX"
"""The view that a recipe's bounds are on."""

WORDS = {
    "macs": "MACs",
    "nodes": "nodes",
    "weights": "weights' bytes",
    "activations": "activations' bytes",
}
"""How messages call what shares are of."""

_FLOATS = frozenset(["fp32", "fp16", "bf16", "fp8", "fp4"])
_SHORTFALLS = {
    "precision.quantize": "nothing is quantized to",
    "precision.type": "nothing computes in",
}
"""How the warnings of `precision.shortfall` begin; the reason stands behind the colon."""

_MOST_NAMED = 3


@dataclass(frozen=True)
class Check:
    """One thing that was judged.

    Attributes:
        what: macs, nodes, weights or activations.
        type: the type whose share it is; "quantized" for int8 and fp8 together.
        share: 0..1; None where the view does not tell.
        min: the least share asked for; None without one. A check without any bound asks for more
            than nothing.
        max: the largest share allowed; None without one.
        verdict: pass, fail or not_run.
        view: what was looked at.
        reason: why it is not pass.
        remedy: what to do about it; None where the bound says it.
    """

    what: str
    type: str
    share: float | None
    min: float | None
    max: float | None
    verdict: str
    view: str = TYPED_ONNX
    reason: str | None = None
    remedy: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the check as plain JSON data."""
        return dict(vars(self))


def judge_attest(
    precision: Precision,
    wanted: Attest,
    attested: Mapping[str, Any],
    networks: Mapping[str, NetworkTypes],
    warnings: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the verdict on what a typed graph holds; it is not_run only where nothing is asked.

    Args:
        precision: what the recipe asks for.
        wanted: the recipe's bounds.
        attested: `Attestation.as_json()` of the typed graph.
        networks: target -> what its parser made of the typed graph.
        warnings: of the typing, which tell why a type is nowhere.
    """
    checks = [*asked_checks(precision, wanted, attested, warnings), *bound_checks(wanted, attested)]
    views = {name: network_view(attested, network) for name, network in networks.items()}
    reasons = [check.reason for check in checks if check.verdict == "fail" and check.reason]
    remedies = [check.remedy for check in checks if check.verdict == "fail" and check.remedy]
    for name, view in views.items():
        if view["contradictions"]:
            reasons.append(f"the network of '{name}' is another: {_named(view['contradictions'])}")
            remedies.append("the parser changed what the typed ONNX says: report it with its log")
    facts = {
        "quantized_macs_share": float(attested["quantized_macs_share"]),
        "min_quantized_macs": wanted.min_quantized_macs,
        "checks": [check.as_json() for check in checks],
        "networks": views,
        "remedy": remedies[0] if remedies else None,
    }
    if reasons:
        return facts | {"verdict": "fail", "reason": "; ".join(reasons)}
    if not checks and precision.budget is None:
        return facts | {"verdict": "not_run", "reason": "the recipe asks for no share"}
    return facts | {"verdict": "pass", "reason": None}


def asked_checks(
    precision: Precision, wanted: Attest, attested: Mapping[str, Any], warnings: Sequence[str] = ()
) -> Iterator[Check]:
    """Yield whether the types that a precision asks for are there at all.

    A budget asks for a quality and not for a type, so there is nothing to check with one. A bound
    `{min: 0}` on the type accepts that it is nowhere.
    """
    if precision.budget is not None:
        return
    quantize, kind = precision.quantize, precision.type
    macs, results = attested["macs"], attested["results"]
    why = _Why(attested, warnings)
    if quantize in ("int8", "fp8"):
        asked = f"precision.quantize {quantize}"
        yield _presence(asked, "macs", (quantize,), _share(macs, quantize), wanted, why)
    elif quantize != "none":
        kinds = ("int8",) if quantize == "int8_weight_only" else ("int4", "int8")
        stored = sum(attested["quantized_weights_bytes"].get(one, 0) for one in kinds)
        share = stored / max(sum(attested["weights_bytes"].values()), 1)
        yield _presence(f"precision.quantize {quantize}", "weights", kinds, share, wanted, why)
    if kind != "fp32":
        asked = f"precision.type {kind}"
        yield _presence(asked, "nodes", (kind,), _share(results, kind), wanted, why)
        in_floats = set(macs) - {"int8", "fp8"}  # a model may bring pairs of its own
        if quantize not in ("int8", "fp8") and in_floats:
            yield _presence(asked, "macs", (kind,), _share(macs, kind), wanted, why)


def bound_checks(wanted: Attest, attested: Mapping[str, Any]) -> Iterator[Check]:
    """Yield whether the shares of the typed graph lie within the recipe's bounds."""
    if wanted.min_quantized_macs is not None:
        share = float(attested["quantized_macs_share"])
        bound = Share(min=wanted.min_quantized_macs)
        yield check_bound("macs", "quantized", share, bound)
    for what in ATTESTED:
        for kind, bound in getattr(wanted, what).items():
            yield check_bound(what, kind, attested["shares"][what].get(kind, 0.0), bound)


def check_bound(
    what: str, kind: str, share: float | None, bound: Share, view: str = TYPED_ONNX
) -> Check:
    """Hold one share against its bounds; None for one that the view does not tell."""
    facts = (what, kind, share, bound.min, bound.max)
    if share is None:
        reason = f"the {view} does not tell the {WORDS[what]} of each type"
        return Check(*facts, "not_run", view, reason)
    found = f"{share:.1%} of the {WORDS[what]} are {kind}"
    place = "" if view == TYPED_ONNX else f"{view}: "
    if bound.min is not None and share < bound.min:
        reason = f"{place}{found}, the recipe asks for {bound.min:.1%}"
        return Check(*facts, "fail", view, reason)
    if bound.max is not None and share > bound.max:
        reason = f"{place}{found}, the recipe allows {bound.max:.1%}"
        return Check(*facts, "fail", view, reason)
    return Check(*facts, "pass", view)


def network_view(attested: Mapping[str, Any], network: NetworkTypes) -> dict[str, Any]:
    """Return what a parsed network computes in, as plain JSON data.

    Its MACs are those of the typed graph, each under the type that its node has in the network;
    "unknown" where no layer tells that it came from the node.
    """
    return {
        "layers": {kind: dict(counts) for kind, counts in network.layers.items()},
        "nodes": dict(network.nodes),
        "weights_bytes": dict(network.weights_bytes),
        "macs": macs_by(attested["per_node"], network.products),
        "contradictions": contradictions(attested, network),
    }


def macs_by(per_node: Sequence[Mapping[str, Any]], products: Mapping[str, str]) -> dict[str, int]:
    """Return type -> MACs of the typed graph's nodes, by the type that another view gives each."""
    macs: Counter[str] = Counter()
    for node in per_node:
        if node["macs"]:
            macs[products.get(node["name"], "unknown")] += node["macs"]
    return dict(sorted(macs.items()))


def contradictions(attested: Mapping[str, Any], network: NetworkTypes) -> list[dict[str, str]]:
    """Return what the network computes in another type than the typed graph says.

    Products are compared node by node, float results tensor by tensor. FP64 is no contradiction:
    TensorRT has none and takes it for FP32. A type that the graph has and the network has nowhere
    is one without a node.
    """
    found = []
    names = Counter(node["name"] for node in attested["per_node"])
    for node in attested["per_node"]:
        pairs = []
        if node["macs"] and names[node["name"]] == 1:
            pairs.append((node["type"], network.products.get(node["name"])))
        result = network.tensors.get(node["output"])
        if {node["result"], result} <= _FLOATS:
            pairs.append((node["result"], result))
        for says, has in pairs:
            if has is not None and has != says and says != "fp64":
                found.append({"node": node["name"], "op": node["op"], "onnx": says, "network": has})
                break
    present = {kind for counts in network.layers.values() for kind in counts}
    wanted = {*attested["results"], *attested["macs"], *attested["quantized_weights_bytes"]}
    for kind in sorted(wanted & {"fp16", "bf16", "fp8", "int8", "int4"} - present):
        found.append({"node": "", "op": "", "onnx": kind, "network": "none"})
    return found


@dataclass(frozen=True)
class _Why:
    """Why a type is nowhere, as far as the typing told."""

    attested: Mapping[str, Any]
    warnings: Sequence[str]

    def __call__(self, asked: str, what: str) -> str:
        beginning = next(text for key, text in _SHORTFALLS.items() if asked.startswith(key))
        for text in self.warnings:
            if text.startswith(beginning):
                return text.partition(": ")[2]
        if what == "macs" and not self.attested["macs"]:
            return "the model has no products that are counted"
        if what == "nodes" and not set(self.attested["results"]) & (_FLOATS | {"fp64"}):
            return "no node of the model gives floats"
        return "nothing says why: report it with the recipe"


def _presence(
    asked: str, what: str, kinds: Sequence[str], share: float, wanted: Attest, why: _Why
) -> Check:
    kind = kinds[0]
    if share > 0:
        return Check(what, kind, share, None, None, "pass")
    bounds = getattr(wanted, what)
    accepted = any(one in bounds and bounds[one].min == 0 for one in kinds)
    if what == "macs" and kind in ("int8", "fp8"):
        accepted |= wanted.min_quantized_macs == 0
    if accepted:
        return Check(what, kind, share, 0.0, None, "pass")
    reason = f"{asked} is asked for and {share:.1%} of the {WORDS[what]} are {' or '.join(kinds)}"
    remedy = (
        f"`precision` in the report says what was kept and why; where it is right, remove {asked}, "
        f"or accept it with verify.attest.{what}: {{{kind}: {{min: 0}}}}"
    )
    reason = f"{reason}: {why(asked, what)}"
    return Check(what, kind, share, None, None, "fail", reason=reason, remedy=remedy)


def _share(amounts: Mapping[str, int], kind: str) -> float:
    total = sum(amounts.values())
    return amounts.get(kind, 0) / total if total else 0.0


def _named(found: Sequence[Mapping[str, str]]) -> str:
    """Name the first contradictions and count the others."""
    texts = [
        f"{one['op']} '{one['node']}' is {one['onnx']} in the ONNX and {one['network']} there"
        if one["op"]
        else f"{one['onnx']} is in the ONNX and nowhere there"
        for one in found[:_MOST_NAMED]
    ]
    more = len(found) - len(texts)
    return ", ".join(texts) + (f" and {more} more" if more else "")
