"""Views of what computes in which type: the typed ONNX, the parsed network, the engine itself."""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trtforge.engine.inspector import engine_layers, engine_types
from trtforge.engine.network_types import bytes_of, network_types, short_type
from trtforge.pipeline.attesting import TYPED_ONNX, contradictions, macs_by
from trtforge.precision.attest import shares

NETWORK = "parsed network"
ENGINE = "engine"

UNKNOWN = "unknown"
"""The type of what a view does not tell."""


@dataclass(frozen=True)
class View:
    """What one look at a model has seen.

    Attributes:
        name: `typed ONNX`, `parsed network`, `parsed network rtx`, `engine rtx`, ...
        attested: whether anything was seen.
        reason: why nothing was seen, or what limits what was.
        amounts: macs, nodes, weights and activations: type -> multiply-accumulates, nodes or
            bytes; None for what this view does not tell, and the type "unknown" for parts of it.
        contradictions: where it differs from the typed ONNX.
    """

    name: str
    attested: bool
    reason: str | None = None
    amounts: Mapping[str, Mapping[str, int] | None] = field(default_factory=dict)
    contradictions: tuple[Mapping[str, str], ...] = ()

    def share(self, what: str, kinds: Sequence[str]) -> tuple[float, float] | None:
        """Return the least and the largest share that some types together can have.

        They differ by the share of what is unknown. None where the view does not tell at all.
        """
        amounts = self.amounts.get(what)
        if amounts is None:
            return None
        found = shares(amounts)
        least = sum(found.get(kind, 0.0) for kind in kinds)
        return least, least + found.get(UNKNOWN, 0.0)

    def as_json(self) -> dict[str, Any]:
        """Return the view as plain JSON data."""
        return {
            "name": self.name,
            "attested": self.attested,
            "reason": self.reason,
            **{
                key: None if amounts is None else dict(amounts)
                for key, amounts in self.amounts.items()
            },
            "shares": {
                key: None if amounts is None else shares(amounts)
                for key, amounts in self.amounts.items()
            },
            "contradictions": [dict(one) for one in self.contradictions],
        }


def not_attested(name: str, reason: str) -> View:
    """Return a view of which nothing was seen."""
    return View(name, attested=False, reason=reason)


def onnx_view(attested: Mapping[str, Any], reason: str | None = None) -> View:
    """Return the view of a typed ONNX, from `Attestation.as_json()`."""
    amounts = {
        "macs": attested["macs"],
        "nodes": attested["nodes"],
        "weights": attested["weights_bytes"],
        "activations": attested["activations_bytes"],
    }
    if count := attested["unmeasured_activations"]:
        reason = reason or f"{count} activations have no known size and are not counted"
    return View(TYPED_ONNX, attested=True, reason=reason, amounts=amounts)


def network_view(
    layers: Sequence[Mapping[str, Any]],
    attested: Mapping[str, Any] | None,
    elements: Mapping[str, int] | None = None,
    name: str = NETWORK,
) -> View:
    """Return the view of a parsed network.

    Its MACs are those of the typed ONNX, under the types of the network's own layers; nodes,
    weights and activations are its own.

    Args:
        layers: as `layers.describe` gives them.
        attested: the typed ONNX's own attestation; None where there is no ONNX.
        elements: tensor -> elements, for tensors whose shape is not in the network.
        name: of the view.
    """
    network = network_types(layers)
    amounts: dict[str, Mapping[str, int] | None] = {
        "macs": None if attested is None else macs_by(attested["per_node"], network.products),
        "nodes": network.nodes,
        "weights": network.weights_bytes,
        "activations": _activations(layers, elements or {}),
    }
    found = () if attested is None else tuple(contradictions(attested, network))
    reason = None if attested is not None else "without the ONNX there are no MACs to count"
    return View(name, attested=True, reason=reason, amounts=amounts, contradictions=found)


def engine_view(document: Any, attested: Mapping[str, Any] | None, name: str = ENGINE) -> View:
    """Return the view of an engine, from its inspector's JSON in either form.

    Raises:
        ValueError: this is no such document.
    """
    layers = engine_layers(document)
    if layers is None:
        raise ValueError("no layer information")
    found = engine_types(layers)
    if not set(found.nodes) - {UNKNOWN}:
        reason = (
            f"it tells no types of its {found.layers} layers: build it with detailed profiling "
            "verbosity"
        )
        return not_attested(name, reason)
    macs = None if attested is None else macs_by(attested["per_node"], found.products)
    differ = [] if attested is None else _differences(attested, found.products)
    amounts = {
        "macs": macs if macs is None or set(macs) - {UNKNOWN} else None,
        "nodes": found.nodes,
        "weights": found.weights_bytes,
        "activations": found.activations_bytes,
    }
    return View(name, attested=True, amounts=amounts, contradictions=tuple(differ))


def _differences(
    attested: Mapping[str, Any], products: Mapping[str, str]
) -> list[Mapping[str, str]]:
    return [
        {"node": node["name"], "op": node["op"], "onnx": node["type"], "network": has}
        for node in attested["per_node"]
        if node["macs"] and (has := products.get(node["name"])) not in (None, UNKNOWN, node["type"])
    ]


_HANDS_ON = frozenset(["CAST", "QUANTIZE"])


def _activations(
    layers: Sequence[Mapping[str, Any]], elements: Mapping[str, int]
) -> dict[str, int] | None:
    """Return type -> bytes, by the rule of `attest`; None where the size of one is not known.

    What nothing reads is an output of the network.
    """
    readers: dict[str, set[str]] = defaultdict(set)
    tensors: dict[str, Mapping[str, Any]] = {}
    constants: set[str] = set()
    dequantized: set[str] = set()
    for layer in layers:
        given = [tensor for tensor in layer["inputs"] if tensor is not None]
        for tensor in given:
            readers[tensor["name"]].add(layer["type"])
            tensors.setdefault(tensor["name"], tensor)
        made = {tensor["name"]: tensor for tensor in layer["outputs"]}
        # A layer that is given nothing is a constant, as is what is computed from constants.
        if constants.issuperset(tensor["name"] for tensor in given):
            constants.update(made)
        elif layer["type"] == "DEQUANTIZE":
            dequantized.update(made)  # the values that it reads are there already
        else:
            tensors.update(made)
    found: Counter[str] = Counter()
    for name, tensor in tensors.items():
        is_converted = bool(readers[name]) and readers[name] <= _HANDS_ON
        if name in constants or name in dequantized or is_converted:
            continue
        count = _count(tensor["shape"])
        count = elements.get(name) if count is None else count
        if count is None:
            return None
        kind = short_type(tensor["dtype"])
        found[kind] += bytes_of(count, kind)
    return dict(sorted(found.items()))


def _count(shape: Sequence[int] | None) -> int | None:
    return None if shape is None or min(shape, default=0) < 0 else math.prod(shape)
