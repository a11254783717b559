"""What a typed graph really computes in: nodes, weights, activations and products by type."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from onnx import TensorProto

from trtforge.graph.inputs import Values
from trtforge.graph.model import Model
from trtforge.precision.counting import INT4, Count, stored_weights, weight_bytes
from trtforge.recipe.schema import FloatType, Precision, QuantizedType

QUANTIZED = ("int8", "fp8")
"""The types of quantized products."""


@dataclass(frozen=True)
class NodeAttest:
    """One node: the type it computes in, and its multiply-accumulates at the given shapes.

    Attributes:
        name: as in the model; may be empty.
        op: the operator.
        type: of the operands of a quantized product, else of the result.
        macs: multiply-accumulates; 0 for operators that are not counted in them.
        result: the type of the first result; a quantized product gives floats.
        output: the name of the first result.
    """

    name: str
    op: str
    type: str
    macs: int
    result: str = "unknown"
    output: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the node as plain JSON data."""
        return dict(vars(self))


@dataclass(frozen=True)
class Attestation:
    """Amounts of each type in a typed graph.

    Attributes:
        macs: type -> multiply-accumulates of the operators in `macs.MACS`.
        nodes: type -> nodes; Cast, Q, DQ and constants compute nothing and are not counted.
        weights_bytes: type -> bytes of initializers and Constant nodes; INT4 takes half a byte.
        per_node: every counted node, in graph order.
        shapes: the input shapes that MACs and activations are for.
        activations_bytes: type -> bytes of the tensors that depend on inputs, each once, in the
            type in which it is handed on (see `attest`).
        results: type -> nodes whose first result has that type.
        quantized_weights_bytes: type -> those bytes of weights that a DequantizeLinear reads.
        unmeasured: how many activations have a size that is not known.
        elements: tensor -> how many elements it has, for every tensor whose shape is known.
    """

    macs: Mapping[str, int]
    nodes: Mapping[str, int]
    weights_bytes: Mapping[str, int]
    per_node: tuple[NodeAttest, ...]
    shapes: Mapping[str, tuple[int, ...]]
    activations_bytes: Mapping[str, int]
    results: Mapping[str, int]
    quantized_weights_bytes: Mapping[str, int]
    unmeasured: int
    elements: Mapping[str, int]

    @property
    def quantized_macs_share(self) -> float:
        """Share of MACs in INT8 or FP8, 0..1; 0 when there are none at all."""
        found = shares(self.macs)
        return sum(found.get(kind, 0.0) for kind in QUANTIZED)

    def as_json(self) -> dict[str, Any]:
        """Return the attestation as plain JSON data; `shares` sum to 1 where anything is."""
        amounts = {
            "macs": dict(self.macs),
            "nodes": dict(self.nodes),
            "weights_bytes": dict(self.weights_bytes),
            "activations_bytes": dict(self.activations_bytes),
        }
        return amounts | {
            "quantized_macs_share": self.quantized_macs_share,
            "shares": {
                name.removesuffix("_bytes"): shares(amount) for name, amount in amounts.items()
            },
            "results": dict(self.results),
            "quantized_weights_bytes": dict(self.quantized_weights_bytes),
            "unmeasured_activations": self.unmeasured,
            **shapes_as_json(self.shapes),
            "per_node": [node.as_json() for node in self.per_node],
        }


def shapes_as_json(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, dict[str, list[int]]]:
    """Return `shapes`, and where there are Values `values`, as plain JSON data."""
    values = {name: list(at) for name, at in shapes.items() if isinstance(at, Values)}
    written = {name: list(at) for name, at in shapes.items() if name not in values}
    return {"shapes": written, "values": values} if values else {"shapes": written}


def shapes_from_json(written: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Read what `shapes_as_json` wrote."""
    shapes = {name: tuple(at) for name, at in written["shapes"].items()}
    return shapes | {name: Values(at) for name, at in written.get("values", {}).items()}


def shares(amounts: Mapping[str, int]) -> dict[str, float]:
    """Return type -> share of the sum, 0..1; empty when the sum is 0."""
    total = sum(amounts.values())
    return {kind: amount / total for kind, amount in amounts.items()} if total else {}


def attest(model: Model, shapes: Mapping[str, tuple[int, ...]]) -> Attestation:
    """Count what each type does; the values of weights are not read.

    A multiply-accumulate is INT8 (FP8) when both operands of its node come out of a
    DequantizeLinear of that type, signed or not; otherwise it has the type of the node's output:
    quantized weights alone make no quantized product. Bodies of Loop and Scan are counted once,
    functions as often as they are called.

    An activation counts once, in the type in which it is handed on: where only Cast and
    QuantizeLinear nodes read a tensor, what they make of it counts and not the tensor; the result
    of a DequantizeLinear is no tensor of its own. What is computed from constants alone is none.

    Args:
        model: the typed model.
        shapes: concrete shape of every dynamic input; Values of those that decide shapes.

    Raises:
        GraphError: a shape is missing or does not fit (TF0533).
    """
    count = Count(model, shapes)
    per_node = tuple(
        NodeAttest(seen.node.name, seen.node.op_type, seen.type, seen.macs, seen.result, output)
        for seen in count.nodes
        for output in [next((name for name in seen.node.output if name), "")]
    )
    stored, quantized = weight_bytes(model.proto)
    macs: Counter[str] = Counter()
    for node in per_node:
        if node.macs:
            macs[node.type] += node.macs
    return Attestation(
        macs=_sorted(macs),
        nodes=_sorted(Counter(node.type for node in per_node)),
        weights_bytes=_sorted(stored),
        per_node=per_node,
        shapes=dict(shapes),
        activations_bytes=_sorted(count.activations),
        results=_sorted(Counter(node.result for node in per_node)),
        quantized_weights_bytes=_sorted(quantized),
        unmeasured=count.unmeasured,
        elements=count.elements,
    )


def declared_precision(model: Model) -> Precision:
    """Return the narrowest types that a graph holds, in a recipe's words.

    Q/DQ pairs make it int8, or fp8 where an FP8 constant stands; DequantizeLinear without any
    QuantizeLinear makes it weight-only; FP16 or BF16 constants and Casts make it fp16 or bf16. It
    says by which measure the graph can be judged, not how much of it is of that type: that is
    `attest`.
    """
    graph = model.proto.graph
    types = {kind for _, kind, _ in stored_weights(graph)}
    operators = {node.op_type for node in graph.node}
    for node in graph.node:
        if node.op_type == "Cast":
            types |= {attribute.i for attribute in node.attribute if attribute.name == "to"}
    quantize: QuantizedType = "none"
    if operators & {"QuantizeLinear", "DequantizeLinear"}:
        quantize = "int8"
        if TensorProto.FLOAT8E4M3FN in types:
            quantize = "fp8"
        elif "QuantizeLinear" not in operators:
            quantize = "int4_weight_only" if types & INT4 else "int8_weight_only"
    floats: FloatType = "fp32"
    if TensorProto.BFLOAT16 in types:
        floats = "bf16"
    elif TensorProto.FLOAT16 in types:
        floats = "fp16"
    return Precision(type=floats, quantize=quantize)


def _sorted(amounts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(amounts.items()))
