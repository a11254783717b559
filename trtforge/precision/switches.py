"""Twins of a model in which each layer is there twice, in floats and quantized.

The layers come from comparing a model with what quantization made of it: a layer is a node that
reads something else than before, and its quantized form is that node with all that was inserted in
front of it. So the twins follow every rule of placement without knowing any.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, ValueInfoProto, helper
from onnx.numpy_helper import from_array

from trtforge.graph.model import Model
from trtforge.graph.weights import is_external
from trtforge.precision.cache import CalibrationCache
from trtforge.precision.cast import quantized_only
from trtforge.precision.typeinfo import element_types
from trtforge.recipe.schema import Precision


@dataclass(frozen=True, eq=False)
class Layer:
    """A node that quantization touches.

    Attributes:
        node: the node as it is without quantization.
        quantized: the node as it is with it.
        inserted: what stands between the model's own tensors and `quantized`, in order; other
            layers may have the same nodes.
    """

    node: NodeProto
    quantized: NodeProto
    inserted: tuple[NodeProto, ...]

    @property
    def output(self) -> str:
        """The tensor that the layer computes."""
        return first_output(self.node)


@dataclass(frozen=True, eq=False)
class LayeredModel:
    """A float model and the quantized forms of its layers.

    Attributes:
        model: the float model, raised to the operator set of the quantized one.
        layers: in graph order.
        added: initializers that only the quantized forms read.
    """

    model: Model
    layers: tuple[Layer, ...]
    added: tuple[TensorProto, ...]

    def switched(self, first: int = 0, stop: int | None = None) -> "SwitchedModel":
        """Make the twin with one more input, that says of each layer which form is to compute.

        Both forms stand in the branches of an If, so that only the chosen one costs anything.
        If, ONNX operator since opset 1: https://onnx.ai/onnx/operators/onnx__If.html

        Args:
            first: the first layer that has two forms. What comes before it is left out: its
                results become inputs of the twin, since no later layer changes them.
            stop: the layer behind the last that has two forms; None: all of the rest.
        """
        layers = self.layers[first:stop]
        names = _Prefix(self)
        nodes, passed = self._from(layers[0]) if first else (self._nodes(), {})
        chosen = {layer.output: index for index, layer in enumerate(layers)}
        conditions = [names(f"chosen_{index}") for index in range(len(layers))]
        mask = names("mask")
        split = helper.make_node(
            "Split", [mask], conditions, names("split"), axis=0, num_outputs=len(conditions)
        )
        twin = [split]
        for node in nodes:
            index = chosen.get(first_output(node))
            twin.append(node if index is None else _either(layers[index], conditions[index], names))
        given = helper.make_tensor_value_info(mask, TensorProto.BOOL, [len(layers)])
        inputs = [helper.make_tensor_value_info(name, kind, None) for name, kind in passed.items()]
        model = self._twin(twin, inputs=(given, *inputs))
        return SwitchedModel(model, layers, mask, tuple(passed))

    def doubled(self) -> "DoubledModel":
        """Make the twin that computes both forms of each layer from the same float inputs.

        It sums the squares of the layer's output, and of what quantization changes there.
        """
        names = _Prefix(self)
        computed = {layer.output: layer for layer in self.layers}
        nodes: list[NodeProto] = []
        sums: list[tuple[str, str]] = []
        for node in self._nodes():
            nodes.append(node)
            layer = computed.get(first_output(node))
            if layer is not None:
                own = names.within(str(len(sums)))
                nodes.extend(_form(layer, layer.quantized, own))
                nodes.append(helper.make_node("Sub", [layer.output, own(layer.output)], [own("-")]))
                nodes.append(_sum_of_squares(layer.output, own("signal")))
                nodes.append(_sum_of_squares(own("-"), own("noise")))
                sums.append((own("signal"), own("noise")))
        outputs = tuple(
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [])
            for pair in sums
            for name in pair
        )
        return DoubledModel(self._twin(nodes, outputs=outputs), self.layers, tuple(sums))

    def _nodes(self) -> list[NodeProto]:
        return list(self.model.proto.graph.node)

    def _from(self, layer: Layer) -> tuple[list[NodeProto], dict[str, int]]:
        """The nodes from a layer on, and what earlier ones give to them: element types by name.

        All nodes and nothing, where the type of such a tensor is not known.
        """
        nodes = self._nodes()
        start = next(i for i, node in enumerate(nodes) if first_output(node) == layer.output)
        before = {name for node in nodes[:start] for name in node.output if name}
        read = {name for node in nodes[start:] for name in _read(node)}
        types = element_types(self.model.proto)
        passed = {name: types.get(name, 0) for name in sorted(before & read)}
        return (nodes[start:], passed) if all(passed.values()) else (nodes, {})

    def _twin(
        self,
        nodes: list[NodeProto],
        *,
        inputs: tuple[ValueInfoProto, ...] = (),
        outputs: tuple[ValueInfoProto, ...] = (),
    ) -> Model:
        source = self.model.proto
        proto = type(source)(ir_version=source.ir_version)
        proto.opset_import.extend(source.opset_import)
        proto.functions.extend(source.functions)
        graph = proto.graph
        graph.name = source.graph.name or "graph"
        graph.node.extend(nodes)
        read = {name for node in nodes for name in _read(node)}
        weights = (*source.graph.initializer, *self.added)
        graph.initializer.extend(weight for weight in weights if weight.name in read)
        graph.input.extend(value for value in source.graph.input if value.name in read)
        graph.input.extend(inputs)
        computed = {name for node in nodes for name in node.output}
        graph.output.extend(value for value in source.graph.output if value.name in computed)
        graph.output.extend(outputs)
        return Model(proto, files=self.model.files)


@dataclass(frozen=True, eq=False)
class SwitchedModel:
    """A model that has layers in two forms.

    Attributes:
        model: the twin; it has those inputs and outputs of the float model that it needs.
        layers: those that have two forms.
        mask: the input that says which of them are quantized, one bool each.
        passed: inputs that are tensors of the float model.
    """

    model: Model
    layers: tuple[Layer, ...]
    mask: str
    passed: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class DoubledModel:
    """A model with two more outputs per layer: sums of squares of its output and of its change."""

    model: Model
    layers: tuple[Layer, ...]
    sums: tuple[tuple[str, str], ...]


def layered(model: Model, cache: CalibrationCache | None, precision: Precision) -> LayeredModel:
    """Find what quantization would change.

    Args:
        model: an FP32 model.
        cache: ranges of its activations; None where weights alone are quantized.
        precision: what the recipe asks for.

    Raises:
        DataError: the cache lacks a tensor (TF0521).
        GraphError: ranges are needed and there are none (TF0532), quantization refuses the model.
    """
    quantized = quantized_only(model, cache, precision)[0]
    raised = model if model.opset >= quantized.opset else model.with_opset(quantized.opset)
    graph = raised.proto.graph
    own = {value.name for value in graph.input} | {weight.name for weight in graph.initializer}
    own.update(name for node in graph.node for name in node.output)
    before = {first_output(node): node for node in graph.node}
    after = quantized.proto.graph
    makers = {name: node for node in after.node for name in node.output if name not in own}
    layers = []
    for node in after.node:
        original = before.get(first_output(node))
        if original is not None and list(original.input) != list(node.input):
            layers.append(Layer(original, node, tuple(_inserted(node, makers))))
    read = {name for layer in layers for node in layer.inserted for name in node.input}
    read |= {name for layer in layers for name in layer.quantized.input}
    added = [weight for weight in after.initializer if weight.name in read - own]
    return LayeredModel(raised, tuple(layers), tuple(_whole(quantized, one) for one in added))


def first_output(node: NodeProto) -> str:
    """The first output that a node has; empty when it has none."""
    return next((str(name) for name in node.output if name), "")


class _Prefix:
    """Names that clash with none of a model: no name in it begins like these."""

    def __init__(self, layered_model: LayeredModel, prefix: str = "") -> None:
        if not prefix:
            taken = set(_names(layered_model.model.proto.graph))
            taken |= {weight.name for weight in layered_model.added}
            prefix = "twin"
            while any(name.startswith(prefix) for name in taken):
                prefix += "_"
        self._prefix = prefix
        self._model = layered_model

    def __call__(self, name: str) -> str:
        return f"{self._prefix}/{name}"

    def within(self, name: str) -> "_Prefix":
        return _Prefix(self._model, self(name))


def _names(graph: GraphProto) -> Iterator[str]:
    for value in (*graph.input, *graph.initializer):
        yield value.name
    for node in graph.node:
        yield node.name
        yield from node.output
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from _names(attribute.g)


def _read(node: NodeProto) -> Iterator[str]:
    """What a node and its bodies read; names that a body computes itself may be among it."""
    yield from node.input
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            for inner in attribute.g.node:
                yield from _read(inner)
            yield from (value.name for value in attribute.g.output)


def _inserted(node: NodeProto, makers: Mapping[str, NodeProto]) -> list[NodeProto]:
    """The nodes of `makers` that a node needs, each after those that it needs itself."""
    found: dict[int, NodeProto] = {}

    def visit(name: str) -> None:
        maker = makers.get(name)
        if maker is not None and id(maker) not in found:
            for needed in maker.input:
                visit(needed)
            found[id(maker)] = maker

    for name in node.input:
        visit(name)
    return list(found.values())


def _either(layer: Layer, condition: str, names: _Prefix) -> NodeProto:
    branches = {}
    for key, node, suffix in (
        ("then_branch", layer.quantized, "quantized"),
        ("else_branch", layer.node, "float"),
    ):
        own = names.within(f"{condition}/{suffix}")
        inserted = _form(layer, node, own)
        # The outputs are given without types: ONNX Runtime infers them.
        outputs = [ValueInfoProto(name=own(name)) for name in layer.node.output if name]
        branches[key] = helper.make_graph(inserted, suffix, [], outputs)
    outputs_of_node = [name for name in layer.node.output if name]
    return helper.make_node("If", [condition], outputs_of_node, names(condition), **branches)


def _form(layer: Layer, node: NodeProto, own: _Prefix) -> list[NodeProto]:
    """One form of a layer under names of its own, with what was inserted for it."""
    sources = (*layer.inserted, node) if node is layer.quantized else (node,)
    made = {name for one in sources for name in one.output if name}
    copies = []
    for one in sources:
        copy = NodeProto()
        copy.CopyFrom(one)
        copy.name = own(one.name)
        copy.input[:] = [own(name) if name in made else name for name in one.input]
        copy.output[:] = [own(name) if name else name for name in one.output]
        copies.append(copy)
    return copies


def _sum_of_squares(name: str, result: str) -> NodeProto:
    # ReduceSumSquare, opset 18: https://onnx.ai/onnx/operators/onnx__ReduceSumSquare.html
    return helper.make_node("ReduceSumSquare", [name], [result], keepdims=0)


def _whole(model: Model, tensor: TensorProto) -> TensorProto:
    """An initializer with its bytes."""
    if not is_external(tensor):
        return tensor
    return from_array(model.initializer(tensor.name), tensor.name)
