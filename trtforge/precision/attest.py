"""What a typed graph really computes in: nodes, weights and multiply-accumulates by type."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, helper

from trtforge.errors import GraphError, Place
from trtforge.graph.execute import Session
from trtforge.graph.inputs import random_feeds
from trtforge.graph.model import Model
from trtforge.precision.bodies import known_shapes, with_body_shapes
from trtforge.precision.emulate import emulate
from trtforge.precision.macs import MACS, OPERANDS
from trtforge.precision.opgroups import CONVERTERS, MULTIPLY_ACCUMULATE
from trtforge.precision.placement_rules import JOINING, PASSING
from trtforge.precision.typeinfo import infer
from trtforge.recipe.schema import FloatType, Precision, QuantizedType

QUANTIZED = ("int8", "fp8")

_SHORT: dict[int, str] = {
    TensorProto.FLOAT: "fp32",
    TensorProto.FLOAT16: "fp16",
    TensorProto.BFLOAT16: "bf16",
    TensorProto.DOUBLE: "fp64",
    TensorProto.FLOAT8E4M3FN: "fp8",
}

_INT4 = {TensorProto.INT4, TensorProto.UINT4}
_HALF_BYTES = (TensorProto.INT4, TensorProto.UINT4, TensorProto.FLOAT4E2M1)
"""Element types of which two lie in a byte (onnx.proto3, TensorProto.int32_data)."""


@dataclass(frozen=True)
class NodeAttest:
    """One node: the type it computes in, and its multiply-accumulates at the given shapes."""

    name: str
    op: str
    type: str
    macs: int

    def as_json(self) -> dict[str, Any]:
        """Return the node as plain JSON data."""
        return {"name": self.name, "op": self.op, "type": self.type, "macs": self.macs}


@dataclass(frozen=True)
class Attestation:
    """Shares of each type in a typed graph.

    Attributes:
        macs: type -> multiply-accumulates of the operators in `macs.MACS`.
        nodes: type -> nodes; Cast, Q and DQ are conversions and not counted.
        weights_bytes: type -> bytes of initializers; INT4 takes half a byte.
        per_node: every counted node, in graph order.
        shapes: the input shapes that the MACs are for.
    """

    macs: Mapping[str, int]
    nodes: Mapping[str, int]
    weights_bytes: Mapping[str, int]
    per_node: tuple[NodeAttest, ...]
    shapes: Mapping[str, tuple[int, ...]]

    @property
    def quantized_macs_share(self) -> float:
        """Share of MACs in INT8 or FP8, 0..1; 0 when there are none at all."""
        total = sum(self.macs.values())
        quantized = sum(self.macs.get(kind, 0) for kind in QUANTIZED)
        return quantized / total if total else 0.0

    def as_json(self) -> dict[str, Any]:
        """Return the attestation as plain JSON data."""
        return {
            "macs": dict(self.macs),
            "nodes": dict(self.nodes),
            "weights_bytes": dict(self.weights_bytes),
            "quantized_macs_share": self.quantized_macs_share,
            "shapes": {name: list(shape) for name, shape in self.shapes.items()},
            "per_node": [node.as_json() for node in self.per_node],
        }


def attest(model: Model, shapes: Mapping[str, tuple[int, ...]]) -> Attestation:
    """Count what each type does.

    A multiply-accumulate is INT8 (FP8) when both operands of its node come out of a
    DequantizeLinear of that type; otherwise it has the type of the node's output: quantized
    weights alone make no quantized product. Bodies of Loop and Scan are counted once.

    Args:
        model: the typed model.
        shapes: concrete shape of every dynamic input.

    Raises:
        GraphError: a shape is missing or does not fit (TF0533).
    """
    proto = with_body_shapes(infer(model.proto, fixed=shapes))
    counter = _Counter(model, dict(shapes))
    per_node = tuple(counter.count(proto.graph))
    weights: Counter[str] = Counter()
    for tensor in _initializers(model.proto.graph):
        weights[_type_name(tensor.data_type)] += _bytes_of(tensor)
    macs: Counter[str] = Counter()
    nodes: Counter[str] = Counter()
    for node in per_node:
        nodes[node.type] += 1
        if node.macs:
            macs[node.type] += node.macs
    return Attestation(
        dict(sorted(macs.items())),
        dict(sorted(nodes.items())),
        dict(sorted(weights.items())),
        per_node,
        dict(shapes),
    )


def declared_precision(model: Model) -> Precision:
    """Return the narrowest types that a graph holds, in a recipe's words.

    Q/DQ pairs make it int8, or fp8 where an FP8 constant stands; DequantizeLinear without any
    QuantizeLinear makes it weight-only; FP16 or BF16 constants and Casts make it fp16 or bf16. It
    says by which measure the graph can be judged, not how much of it is of that type: that is
    `attest`.
    """
    graph = model.proto.graph
    types = {tensor.data_type for tensor in _initializers(graph)}
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
            quantize = "int4_weight_only" if types & _INT4 else "int8_weight_only"
    floats: FloatType = "fp32"
    if TensorProto.BFLOAT16 in types:
        floats = "bf16"
    elif TensorProto.FLOAT16 in types:
        floats = "fp16"
    return Precision(type=floats, quantize=quantize)


class _Counter:
    def __init__(self, model: Model, shapes: dict[str, tuple[int, ...]]) -> None:
        self._model = model
        self._inputs = shapes
        self._types: dict[str, int] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._sources: dict[str, int] = {}
        self._measured = False

    def count(self, graph: GraphProto) -> Iterator[NodeAttest]:
        self._read_scope(graph)
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    yield from self.count(attribute.g)
            if node.op_type == "DequantizeLinear":
                self._sources[node.output[0]] = self._types.get(node.input[0], 0)
            elif node.op_type in PASSING or node.op_type in JOINING:
                self._pass_on(node)
            if node.op_type in CONVERTERS:
                continue
            kind = self._type_of(node)
            yield NodeAttest(node.name, node.op_type, kind, self._macs(node))

    def _read_scope(self, graph: GraphProto) -> None:
        for tensor in graph.initializer:
            self._types[tensor.name] = tensor.data_type
        for value in (*graph.input, *graph.value_info, *graph.output):
            tensor_type = value.type.tensor_type
            if tensor_type.elem_type:
                self._types[value.name] = tensor_type.elem_type
        self._shapes.update(known_shapes(graph))

    def _pass_on(self, node: NodeProto) -> None:
        """What only moves dequantized values computes nothing: targets move the stored ones."""
        moved = node.input if node.op_type in JOINING else node.input[:1]
        stored = {self._sources.get(name) for name in moved}
        if len(stored) == 1 and (source := stored.pop()) is not None:
            self._sources.update(dict.fromkeys(node.output, source))

    def _type_of(self, node: NodeProto) -> str:
        if node.op_type in MULTIPLY_ACCUMULATE:
            operands = {self._sources.get(name) for name in node.input[:2]}
            if len(operands) == 1 and (stored := operands.pop()):
                return _type_name(stored)
        for name in (*node.output, *node.input):
            if name in self._types:
                return _type_name(self._types[name])
        return "unknown"

    def _macs(self, node: NodeProto) -> int:
        count = MACS.get(node.op_type)
        if count is None or node.domain not in ("", "ai.onnx"):
            return 0
        shapes = [self._shape(name) for name in node.input[: OPERANDS[node.op_type]]]
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        return count(shapes, self._shape(_first_output(node)), attributes)

    def _shape(self, name: str) -> tuple[int, ...]:
        if name not in self._shapes and not self._measured:
            self._measure()
        try:
            return self._shapes[name]
        except KeyError:
            raise GraphError(
                "TF0533",
                f"the shape of '{name}' is not known, so its multiply-accumulates are not either",
                "give concrete shapes for all dynamic inputs; inside the body of a Loop or Scan, "
                "export the model with the shapes of the body's tensors",
                Place(node=name),
            ) from None

    def _measure(self) -> None:
        """Where inference gives up (values decide a shape), run the graph and look."""
        self._measured = True
        twin = emulate(self._model)
        names = [
            name
            for node in self._model.proto.graph.node
            if node.op_type in MACS
            for name in (*node.input[: OPERANDS[node.op_type]], _first_output(node))
        ]
        computed = {name for node in twin.proto.graph.node for name in node.output}
        wanted = [n for n in dict.fromkeys(names) if n not in self._shapes and n in computed]
        feeds = random_feeds(self._model, self._inputs, 0)
        values = Session(twin, outputs=wanted).run(feeds, wanted)
        self._shapes.update((name, value.shape) for name, value in values.items())


def _first_output(node: NodeProto) -> str:
    # LSTM and its kin may leave out the first.
    return str(next(name for name in node.output if name))


def _initializers(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _initializers(attribute.g)


def _bytes_of(tensor: TensorProto) -> int:
    count: int = math.prod(tensor.dims)
    if tensor.data_type in _HALF_BYTES:
        return (count + 1) // 2
    return count * int(np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type)).itemsize)


def _type_name(element_type: int) -> str:
    if element_type in _SHORT:
        return _SHORT[element_type]
    return str(TensorProto.DataType.Name(element_type)).lower()
