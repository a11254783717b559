"""Walks a typed graph and counts: what type each node computes in, and what it hands on."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from onnx import FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto, helper

from trtforge.errors import GraphError, Place
from trtforge.graph.cleanup.functions import InlineFunctions
from trtforge.graph.execute import Session
from trtforge.graph.inputs import Values, random_feeds
from trtforge.graph.model import Model
from trtforge.graph.weights import graph_nodes, storage_bytes
from trtforge.precision.bodies import known_shapes, with_body_shapes
from trtforge.precision.emulate import emulate
from trtforge.precision.known_values import infer_with_values
from trtforge.precision.macs import MACS, OPERANDS
from trtforge.precision.opgroups import CONVERTERS, MULTIPLY_ACCUMULATE
from trtforge.precision.placement_rules import JOINING, PASSING
from trtforge.precision.typeinfo import light_copy

INT4 = frozenset([TensorProto.INT4, TensorProto.UINT4])

_SHORT: dict[int, str] = {
    TensorProto.FLOAT: "fp32",
    TensorProto.FLOAT16: "fp16",
    TensorProto.BFLOAT16: "bf16",
    TensorProto.DOUBLE: "fp64",
    TensorProto.FLOAT8E4M3FN: "fp8",
}
_SIGNED: dict[int, int] = {TensorProto.UINT8: TensorProto.INT8, TensorProto.UINT4: TensorProto.INT4}
"""A product of unsigned and signed integers of one width is one of integers of that width."""

_COMPUTES_NOTHING = CONVERTERS | {"Constant"}
_HANDS_ON = frozenset(["Cast", "QuantizeLinear"])
"""Their input is not kept where nothing else reads it: kernels convert what they make."""

_OUTPUT = "graph output"


@dataclass(frozen=True)
class Seen:
    """A counted node: the type it computes in, the type of its result, its MACs."""

    node: NodeProto
    type: str
    result: str
    macs: int


class Count:
    """The counts of one model at one set of input shapes; `attest.attest` says what they mean.

    Attributes:
        nodes: the counted nodes, in graph order.
        activations: type -> bytes.
        unmeasured: how many activations have a size that is not known.
        elements: tensor -> how many elements it has, for every tensor whose shape is known.

    Raises:
        GraphError: a shape is missing or does not fit (TF0533).
    """

    def __init__(self, model: Model, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._model = model
        self._inputs = dict(shapes)
        self._types: dict[str, int] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._sources: dict[str, int] = {}
        self._readers: dict[str, set[str]] = defaultdict(set)
        self._made: list[str] = []
        self._nodes: list[tuple[NodeProto, str]] = []
        self._constants = {name for name, _, _ in stored_weights(model.proto.graph)}
        fixed = {name: at for name, at in shapes.items() if not isinstance(at, Values)}
        graph = with_body_shapes(infer_with_values(_inlined(model.proto), fixed)).graph
        self._made += [value.name for value in graph.input if value.name not in self._constants]
        self._walk(graph)
        kept = [name for name in dict.fromkeys(self._made) if self._is_kept(name)]
        self._measure(kept)
        self.nodes = [
            Seen(node, kind, self._result_of(node), self._macs(node)) for node, kind in self._nodes
        ]
        self.elements = {name: math.prod(shape) for name, shape in self._shapes.items()}
        sized = [name for name in kept if name in self.elements]
        self.unmeasured = len(kept) - len(sized)
        self.activations: Counter[str] = Counter()
        for name in sized:
            kind = self._types[name]
            self.activations[type_name(kind)] += storage_bytes(
                TensorProto(dims=[self.elements[name]], data_type=kind)
            )

    def _walk(self, graph: GraphProto) -> None:
        self._read_scope(graph)
        for node in graph.node:
            bodies = [one.g for one in node.attribute if one.HasField("g")]
            for body in bodies:
                self._walk(body)
            for name in node.input:
                self._readers[name].add(node.op_type)
            given = [name for name in node.input if name]
            if not bodies and given and self._constants.issuperset(given):
                self._constants.update(node.output)
            self._made += [name for name in node.output if name and name not in self._constants]
            if node.op_type == "DequantizeLinear":
                self._sources[node.output[0]] = self._types.get(node.input[0], 0)
            elif node.op_type in PASSING or node.op_type in JOINING:
                self._pass_on(node)
            if node.op_type not in _COMPUTES_NOTHING:
                self._nodes.append((node, self._type_of(node)))
        for value in graph.output:
            self._readers[value.name].add(_OUTPUT)

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

    def _is_kept(self, name: str) -> bool:
        """Whether a tensor with a type and a reader is an activation of its own."""
        readers = self._readers[name]
        if _OUTPUT in readers:
            return name in self._types
        is_stored_already = name in self._sources
        is_converted = readers <= _HANDS_ON
        return name in self._types and bool(readers) and not (is_stored_already or is_converted)

    def _type_of(self, node: NodeProto) -> str:
        if node.op_type in MULTIPLY_ACCUMULATE:
            stored = [self._sources.get(name, 0) for name in node.input[:2]]
            operands = {_SIGNED.get(kind, kind) for kind in stored}
            if len(operands) == 1 and (kind := operands.pop()):
                return type_name(kind)
        return self._result_of(node)

    def _result_of(self, node: NodeProto) -> str:
        for name in (*node.output, *node.input):
            if name in self._types:
                return type_name(self._types[name])
        return "unknown"

    def _macs(self, node: NodeProto) -> int:
        names = _measured_names(node)
        if not names:
            return 0
        for name in names:
            if name not in self._shapes:
                raise GraphError(
                    "TF0533",
                    f"the shape of '{name}' is not known, so its multiply-accumulates are not "
                    "either",
                    "give concrete shapes for all dynamic inputs; inside the body of a Loop or "
                    "Scan, export the model with the shapes of the body's tensors",
                    Place(node=name),
                )
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        *operands, result = (self._shapes[name] for name in names)
        return MACS[node.op_type](operands, result, attributes)

    def _measure(self, activations: list[str]) -> None:
        """Where inference gives up (values decide a shape), run the graph and look.

        What fails then concerns the multiply-accumulates only: activations may stay unmeasured.
        """
        needed = [name for node, _ in self._nodes for name in _measured_names(node)]
        missing = [name for name in needed if name not in self._shapes]
        wanted = {name for name in (*missing, *activations) if name not in self._shapes}
        if not wanted:
            return
        try:
            self._shapes.update(_run_for_shapes(self._model, self._inputs, wanted))
        except GraphError:
            if missing:
                raise


def _run_for_shapes(
    model: Model, inputs: dict[str, tuple[int, ...]], wanted: set[str]
) -> dict[str, tuple[int, ...]]:
    """Run the FP32 twin on random inputs; return the shapes of those tensors that it computes."""
    contract = model.contract
    narrow = {
        spec.name
        for spec in (*contract.inputs, *contract.outputs)
        if spec.dtype in ("float16", "bfloat16")
    }
    twin = emulate(model, wide_ends=narrow)  # ONNX Runtime's Python has no BF16 arrays
    computed = [name for node in twin.proto.graph.node for name in node.output if name in wanted]
    if not computed:  # what stands in bodies is no output that can be asked for
        return {}
    proto = ModelProto()
    proto.CopyFrom(twin.proto)
    prefix = "shape of "
    while any(name.startswith(prefix) for node in proto.graph.node for name in node.output):
        prefix += "_"
    proto.graph.node.extend(helper.make_node("Shape", [name], [prefix + name]) for name in computed)
    feeds = {
        name: values.astype(np.float32) if name in narrow else values
        for name, values in random_feeds(model, inputs, 0).items()
    }
    names = [prefix + name for name in computed]
    found = Session(Model(proto, files=twin.files), outputs=names).run(feeds, names)
    return {name.removeprefix(prefix): tuple(map(int, shape)) for name, shape in found.items()}


def _inlined(proto: ModelProto) -> ModelProto:
    """Return the model with its functions written out, without the values of big weights."""
    if not proto.functions:
        return proto
    return InlineFunctions().apply_model(Model(light_copy(proto)))[0].proto


def _measured_names(node: NodeProto) -> list[str]:
    """Return the operands and the result whose shapes tell a node's multiply-accumulates."""
    if node.op_type not in MACS or node.domain not in ("", "ai.onnx"):
        return []
    # LSTM and its kin may leave out the first result.
    result = next(name for name in node.output if name)
    return [*node.input[: OPERANDS[node.op_type]], result]


def weight_bytes(proto: ModelProto) -> tuple[Counter[str], Counter[str]]:
    """Return type -> bytes of all stored weights, and of those that a DequantizeLinear reads."""
    stored: Counter[str] = Counter()
    quantized: Counter[str] = Counter()
    for scope in (proto.graph, *proto.functions):
        dequantized = {
            node.input[0] for node in graph_nodes(scope) if node.op_type == "DequantizeLinear"
        }
        for name, kind, size in stored_weights(scope):
            stored[type_name(kind)] += size
            if name in dequantized:
                quantized[type_name(kind)] += size
    return stored, quantized


def stored_weights(graph: GraphProto | FunctionProto) -> Iterator[tuple[str, int, int]]:
    """Yield name, element type and bytes of initializers and Constant nodes, bodies included.

    A sparse tensor takes the bytes of its values and of its indices.
    """
    if isinstance(graph, GraphProto):
        for tensor in graph.initializer:
            yield tensor.name, tensor.data_type, storage_bytes(tensor)
        for sparse in graph.sparse_initializer:
            size = storage_bytes(sparse.values) + storage_bytes(sparse.indices)
            yield sparse.values.name, sparse.values.data_type, size
    for node in graph.node:
        if node.op_type == "Constant":
            yield from _constant(node)
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from stored_weights(attribute.g)


def _constant(node: NodeProto) -> Iterator[tuple[str, int, int]]:
    name = node.output[0]
    for attribute in node.attribute:
        if attribute.HasField("t"):
            yield name, attribute.t.data_type, storage_bytes(attribute.t)
        elif attribute.HasField("sparse_tensor"):
            values, indices = attribute.sparse_tensor.values, attribute.sparse_tensor.indices
            yield name, values.data_type, storage_bytes(values) + storage_bytes(indices)
        elif attribute.name in ("value_float", "value_floats"):
            yield name, TensorProto.FLOAT, 4 * max(len(attribute.floats), 1)
        elif attribute.name in ("value_int", "value_ints"):
            yield name, TensorProto.INT64, 8 * max(len(attribute.ints), 1)
        elif attribute.name in ("value_string", "value_strings"):
            yield name, TensorProto.STRING, 0


def type_name(element_type: int) -> str:
    """Return "fp16", "int8", ... for an ONNX element type."""
    if element_type in _SHORT:
        return _SHORT[element_type]
    return str(TensorProto.DataType.Name(element_type)).lower()
