"""The rewriting: every graph of a typed model, its bodies included, in FP32 with rounding casts."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count

from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, ValueInfoProto, helper

from trtforge.graph.external import ExternalFiles
from trtforge.graph.nodes import STANDARD_DOMAINS
from trtforge.graph.skeleton import merge_fields
from trtforge.graph.weights import CHUNK_BYTES, graph_nodes, storage_bytes
from trtforge.precision.emulation import float8
from trtforge.precision.emulation.exact import is_exact
from trtforge.precision.emulation.types import (
    NARROW,
    STORED,
    fill,
    scope_types,
    widen_type,
    widened,
)
from trtforge.precision.emulation.weights import dequantized
from trtforge.precision.opgroups import CONTROL_FLOW, TYPE_BLIND

TYPE_ATTRIBUTES = frozenset(
    [
        *("dtype", "output_dtype", "output_datatype", "to"),
        *("precision", "stash_type", "softmax_precision"),
    ]
)
"""Attributes that hold a TensorProto.DataType: of the result, or of what is computed inside."""

_KEEPS_STORED = CONTROL_FLOW | TYPE_BLIND | {"Cast", "QuantizeLinear", "DequantizeLinear"}
_KEEPS_STORED |= {"CastLike", "Constant", "ConstantOfShape", "Transpose"}
"""What ONNX Runtime runs on FP8 and INT4; for other operators it lacks kernels of some version."""


@dataclass
class _Scope:
    """One graph: the types that it sees, and the FP32 tensors that its nodes read instead.

    Attributes:
        types: element types of the typed model's tensors.
        wide: tensors that stay narrow (ends of the main graph) -> their FP32 values.
        ends: inputs and results of the main graph that keep their narrow type.
        is_main: whether it is the main graph.
    """

    types: Mapping[str, int]
    wide: dict[str, str] = field(default_factory=dict)
    ends: frozenset[str] = frozenset()
    is_main: bool = False


class Twin:
    """Rewrites one model's graphs.

    Args:
        source: the main graph.
        files: has the external weights, and holds the new ones.
        opset: the version of the standard operator set.
        wide_ends: inputs and outputs of the main graph that become FP32; others keep their type.
        kept: FP8 tensors that must be there.
    """

    def __init__(
        self,
        source: GraphProto,
        files: ExternalFiles,
        opset: int,
        wide_ends: frozenset[str],
        kept: frozenset[str],
    ) -> None:
        self._files = files
        self._opset = opset
        self._wide_ends = wide_ends
        self._kept = kept
        self._names = set(_names(source))
        fed = {value.name for value in source.input}
        self._constants = {one.name: one for one in source.initializer if one.name not in fed}
        self._computed: list[TensorProto] = []
        self._numbers: dict[float, str] = {}
        self._float8: dict[str, float] = {}
        self._pending_bytes = 0
        self._read = set(_read(source))

    def main_graph(self, source: GraphProto, inferred: GraphProto) -> GraphProto:
        """Return the FP32 form of the main graph.

        Args:
            source: as written.
            inferred: the same graph after ONNX's inference.
        """
        types = scope_types(source, inferred, {}, self._opset)
        ends = (value.name for value in (*source.input, *source.output))
        narrow = frozenset(name for name in ends if self._keeps(name, types.get(name, 0)))
        scope = _Scope(types, {}, narrow, is_main=True)
        self._float8 = float8.float8_pairs(source, types, self._constants, self._files, self._kept)
        graph = _without_content(source)
        fed = {value.name for value in source.input}
        for value in source.input:
            graph.node.extend(self._input(value.name, scope))
            graph.input.append(self._end(value))
        for weight in source.initializer:
            if weight.name in fed | scope.ends:
                graph.initializer.append(weight)
            if weight.name not in fed:
                graph.initializer.append(self._weight(weight, scope))
        self._fill(graph, source, inferred, scope)
        graph.initializer.extend(self._computed)
        graph.output.extend(self._end(value) for value in source.output)
        return graph

    def _body(self, source: GraphProto, inferred: GraphProto, outer: _Scope) -> GraphProto:
        types = scope_types(source, inferred, outer.types, self._opset)
        own = {value.name for value in source.input} | {one.name for one in source.initializer}
        own |= {name for node in source.node for name in node.output}
        wide = {name: other for name, other in outer.wide.items() if name not in own}
        scope = _Scope(types, wide)
        graph = _without_content(source)
        graph.input.extend(map(_widened_value, source.input))
        graph.initializer.extend(widened(weight, self._files) for weight in source.initializer)
        self._fill(graph, source, inferred, scope)
        for value in source.output:
            given = graph.output.add()
            given.CopyFrom(_widened_value(value))
            if value.name not in own:  # ONNX Runtime wants results that the body itself makes
                given.name = self._fresh(f"{value.name}_given")
                source_name = wide.get(value.name, value.name)
                graph.node.append(helper.make_node("Identity", [source_name], [given.name]))
        return graph

    def _fill(
        self, graph: GraphProto, source: GraphProto, inferred: GraphProto, scope: _Scope
    ) -> None:
        for sparse in source.sparse_initializer:
            wide = graph.sparse_initializer.add()
            wide.CopyFrom(sparse)
            wide.values.CopyFrom(widened(sparse.values, self._files))
        for node, known in zip(source.node, inferred.node, strict=True):
            folded = self._dequantized(node, scope) if scope.is_main else None
            graph.node.extend((folded,) if folded else self._node(node, known, scope))
        for value in source.value_info:
            if scope.types.get(value.name) in STORED and value.name in scope.wide:
                continue  # it has another name, and another type
            graph.value_info.append(value if value.name in scope.ends else _widened_value(value))

    # -- the ends of the main graph ------------------------------------------------------------

    def _keeps(self, name: str, kind: int) -> bool:
        return kind in NARROW and name not in self._wide_ends

    def _end(self, value: ValueInfoProto) -> ValueInfoProto:
        kind = value.type.tensor_type.elem_type
        return value if self._keeps(value.name, kind) else _widened_value(value)

    def _input(self, name: str, scope: _Scope) -> Iterator[NodeProto]:
        kind = scope.types.get(name, 0)
        if kind not in NARROW or name not in self._read:
            return
        narrow, wide = name, self._fresh(f"{name}_fp32")
        if not self._keeps(name, kind):
            narrow = self._fresh(f"{name}_rounded")
            yield self._cast(name, narrow, kind)
        scope.wide[name] = wide
        yield self._cast(narrow, wide, TensorProto.FLOAT)

    def _weight(self, weight: TensorProto, scope: _Scope) -> TensorProto:
        wide = widened(weight, self._files)
        self._pending_bytes += storage_bytes(weight)
        if self._pending_bytes > CHUNK_BYTES:  # what has been read is needed no more
            self._files.release()
            self._pending_bytes = 0
        if weight.name in scope.ends:  # the output needs the name
            scope.wide[weight.name] = self._fresh(f"{weight.name}_fp32")
            wide.name = scope.wide[weight.name]
        return wide

    # -- nodes -----------------------------------------------------------------------------------

    def _node(self, node: NodeProto, inferred: NodeProto, scope: _Scope) -> Iterator[NodeProto]:
        wide = NodeProto()
        merge_fields(node, wide, skip={"attribute", "input", "output"})
        wide.input.extend(scope.wide.get(name, name) for name in node.input)
        wide.output.extend(node.output)
        for attribute, known in zip(node.attribute, inferred.attribute, strict=True):
            wide.attribute.append(self._attribute(attribute, known, scope))
        after: list[NodeProto] = []
        if node.op_type not in _KEEPS_STORED:
            yield from self._hold_stored(wide, scope, after)
        kinds = [(i, name, scope.types.get(name, 0)) for i, name in enumerate(node.output)]
        narrow = [(i, name, kind) for i, name, kind in kinds if name and kind in NARROW]
        if node.op_type == "Cast" and narrow:
            yield from self._narrowing_cast(wide, narrow[0], scope)
            return
        exact = is_exact(node, self._opset)
        made: Iterable[NodeProto] = (wide,)
        scale = self._float8.get(node.output[0]) if scope.is_main and node.output else None
        if scale is not None:
            made = self._by_arithmetic(wide, scale, scope)
        for index, name, kind in narrow:
            if not exact or name in scope.ends:
                wide.output[index] = self._fresh(f"{name}_exact")
                after.extend(self._round(wide.output[index], name, kind, scope))
        yield from made
        yield from after

    def _by_arithmetic(self, node: NodeProto, scale: float, scope: _Scope) -> Iterator[NodeProto]:
        """What stands for an FP8 conversion; of the FP8 tensor there is an FP32 form alone."""
        if node.op_type == "QuantizeLinear":
            name = node.output[0]
            node.output[0] = scope.wide[name] = self._fresh(f"{name}_halves")
            yield from float8.quantized(node, scale, self._number, self._fresh)
        else:
            yield float8.dequantized(node, scale, self._number)

    def _number(self, value: float) -> str:
        if value not in self._numbers:
            name = self._numbers[value] = self._fresh(f"number_{len(self._numbers)}")
            self._computed.append(helper.make_tensor(name, TensorProto.FLOAT, [], [value]))
        return self._numbers[value]

    def _dequantized(self, node: NodeProto, scope: _Scope) -> NodeProto | None:
        """A weight's DequantizeLinear, computed now; it leaves an Identity that bears its names."""
        name = node.output[0] if node.output else ""
        is_one = node.op_type == "DequantizeLinear" and node.domain in STANDARD_DOMAINS
        if not is_one or name in scope.ends:
            return None
        values = dequantized(node, self._constants, self._files, scope.types.get(name, 0))
        if values is None:
            return None
        weight = TensorProto(name=self._fresh(f"{name}_values"), dims=values.shape)
        fill(weight, values, self._files)
        self._computed.append(weight)
        return helper.make_node("Identity", [weight.name], [name], node.name)

    def _attribute(
        self, source: AttributeProto, inferred: AttributeProto, scope: _Scope
    ) -> AttributeProto:
        result = AttributeProto()
        if source.type == AttributeProto.GRAPH:
            result.name, result.type = source.name, source.type
            result.g.CopyFrom(self._body(source.g, inferred.g, scope))
            return result
        result.CopyFrom(source)
        if source.type == AttributeProto.INT and source.name in TYPE_ATTRIBUTES:
            result.i = TensorProto.FLOAT if source.i in NARROW else source.i
        elif source.type == AttributeProto.TENSOR:
            result.t.CopyFrom(widened(source.t, self._files))
        elif source.type == AttributeProto.SPARSE_TENSOR:
            result.sparse_tensor.values.CopyFrom(widened(source.sparse_tensor.values, self._files))
        elif source.type == AttributeProto.TYPE_PROTO:
            widen_type(result.tp)
        return result

    def _round(self, exact: str, name: str, kind: int, scope: _Scope) -> Iterator[NodeProto]:
        """Cast a result down and up again; the readers' value bears the tensor's name."""
        if name not in scope.ends:
            rounded = self._fresh(f"{name}_rounded")
            yield self._cast(exact, rounded, kind)
            yield self._cast(rounded, name, TensorProto.FLOAT)
            return
        yield self._cast(exact, name, kind)
        yield from self._read_end(name, scope)

    def _read_end(self, name: str, scope: _Scope) -> Iterator[NodeProto]:
        if name in self._read:
            scope.wide[name] = self._fresh(f"{name}_fp32")
            yield self._cast(name, scope.wide[name], TensorProto.FLOAT)

    def _narrowing_cast(
        self, cast: NodeProto, result: tuple[int, str, int], scope: _Scope
    ) -> Iterator[NodeProto]:
        """A Cast of the model's own rounds by itself: only the way back up is added."""
        _, name, kind = result
        next(a for a in cast.attribute if a.name == "to").i = kind
        if name in scope.ends:
            yield cast
            yield from self._read_end(name, scope)
            return
        cast.output[0] = self._fresh(f"{name}_rounded")
        yield cast
        yield self._cast(cast.output[0], name, TensorProto.FLOAT)

    def _hold_stored(
        self, wide: NodeProto, scope: _Scope, after: list[NodeProto]
    ) -> Iterator[NodeProto]:
        """Let a node move FP8 and INT4 values in a type that ONNX Runtime has kernels for."""
        for index, name in enumerate(wide.input):
            kind = scope.types.get(name, 0)
            if kind in STORED:
                wide.input[index] = self._fresh(f"{name}_held")
                yield self._cast(name, wide.input[index], STORED[kind])
        for index, name in enumerate(wide.output):
            kind = scope.types.get(name, 0)
            if kind in STORED:
                wide.output[index] = self._fresh(f"{name}_held")
                after.append(self._cast(wide.output[index], name, kind))

    def _cast(self, source: str, result: str, to: int) -> NodeProto:
        node = helper.make_node("Cast", [source], [result], self._fresh(f"{result}_Cast"), to=to)
        if to in (TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT8E5M2):
            node.attribute.append(helper.make_attribute("saturate", 0))  # inf stays inf
        return node

    def _fresh(self, wanted: str) -> str:
        numbers = count(2)
        name = wanted
        while name in self._names:
            name = f"{wanted}_{next(numbers)}"
        self._names.add(name)
        return name


def _without_content(source: GraphProto) -> GraphProto:
    graph = GraphProto()
    weights = {"initializer", "sparse_initializer"}
    merge_fields(source, graph, skip={"node", "input", "output", "value_info", *weights})
    return graph


def _widened_value(value: ValueInfoProto) -> ValueInfoProto:
    wide = ValueInfoProto()
    wide.CopyFrom(value)
    widen_type(wide.type)
    return wide


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    yield graph
    for node in graph_nodes(graph):
        yield from (a.g for a in node.attribute if a.type == AttributeProto.GRAPH)


def _names(main: GraphProto) -> Iterator[str]:
    for graph in _graphs(main):
        yield from (weight.name for weight in graph.initializer)
        yield from (sparse.values.name for sparse in graph.sparse_initializer)
        yield from (value.name for value in (*graph.input, *graph.output))
        for node in graph.node:
            yield from (node.name, *node.input, *node.output)


def _read(main: GraphProto) -> Iterable[str]:
    """Yield what nodes and bodies read; what the main graph's outputs read is not among it."""
    for graph in _graphs(main):
        for node in graph.node:
            yield from node.input
        if graph is not main:
            yield from (value.name for value in graph.output)
