"""A float model and its quantized form in one graph, sample by sample side by side."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper
from onnx.numpy_helper import from_array

from trtforge.graph.model import Model


@dataclass(frozen=True)
class Layer:
    """A node whose output is compared channel by channel.

    Attributes:
        output: the tensor that it computes.
        channels: how many.
        axis: 1, or -1 for the last.
        rank: of the output; used with axis 1.
    """

    output: str
    channels: int
    axis: int
    rank: int


def paired(model: Model, quantized: Model, layers: Mapping[str, Layer]) -> Model:
    """Make the graph that computes both, and how the layers' outputs differ in the mean.

    After each layer the quantized side is shifted by that difference, channel by channel, so that
    the layers behind see inputs without it.

    Args:
        model: the float model.
        quantized: what quantization made of it.
        layers: by the tensor that they compute.

    Returns:
        A model with the float model's inputs and one output of `channels` values for each layer:
        the mean of (quantized - float) over samples and positions. `shift_name` names it.
    """
    raised = model if model.opset >= quantized.opset else model.with_opset(quantized.opset)
    source, other = raised.proto.graph, quantized.proto.graph
    proto = ModelProto(ir_version=quantized.proto.ir_version)
    proto.opset_import.extend(quantized.proto.opset_import)
    proto.functions.extend(quantized.proto.functions)
    graph = proto.graph
    graph.name = source.name or "graph"
    graph.input.extend(source.input)
    graph.initializer.extend(source.initializer)
    known = {weight.name for weight in source.initializer}
    dense = _dense_weights(quantized)
    left = [node for node in other.node if node.output[0] not in dense]
    read = {name for node in left for name in _reads(node)}
    for weight in other.initializer:
        if weight.name in read and weight.name not in known:
            graph.initializer.append(from_array(quantized.initializer(weight.name), weight.name))
    graph.initializer.extend(from_array(dense[name], name) for name in dense if name in read)
    graph.node.extend(source.node)
    graph.node.extend(_second_side(source, left, layers, graph))
    for name in layers:
        value = helper.make_tensor_value_info(shift_name(name), TensorProto.FLOAT, None)
        graph.output.append(value)
    return Model(proto, files=raised.files)


def second_name(tensor: str) -> str:
    """What the quantized side calls a tensor that it computes otherwise than the float side."""
    return f"paired/{tensor}"


def shift_name(output: str) -> str:
    """The output of `paired` that says how a layer's output differs."""
    return f"paired/{output}/shift"


def _dense_weights(quantized: Model) -> dict[str, np.ndarray]:
    """What DequantizeLinear makes of stored weights: it would do so anew for each sample.

    DequantizeLinear: https://onnx.ai/onnx/operators/onnx__DequantizeLinear.html
    """
    stored = quantized.initializers
    dense = {}
    for node in quantized.proto.graph.node:
        if node.op_type != "DequantizeLinear" or len(node.input) != 2:
            continue
        if not all(name in stored for name in node.input):
            continue
        values, scale = (quantized.initializer(name) for name in node.input)
        axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
        if scale.ndim == 1:
            scale = scale.reshape(
                [-1 if i == axis % values.ndim else 1 for i in range(values.ndim)]
            )
        if scale.ndim in (0, values.ndim) and scale.dtype == np.float32:
            dense[node.output[0]] = values.astype(np.float32) * scale
    return dense


def _second_side(
    source: GraphProto,
    nodes: Sequence[NodeProto],
    layers: Mapping[str, Layer],
    graph: GraphProto,
) -> Iterator[NodeProto]:
    """The quantized nodes, but for those that compute what the float ones do."""
    own = {name for node in source.node for name in node.output if name}
    moved: dict[str, str] = {}
    new = {weight.name for weight in graph.initializer}
    new -= {weight.name for weight in source.initializer}
    for node in nodes:
        outputs = [name for name in node.output if name]
        layer = layers.get(outputs[0]) if outputs else None
        differs = any(name in moved or name in new for name in _reads(node))
        if not differs and layer is None and all(name in own for name in outputs):
            continue
        new.update(name for name in outputs if name not in own)
        copy = _renamed(node, moved)
        moved |= {name: second_name(name) for name in outputs if name in own}
        copy.output[:] = [moved.get(name, name) for name in node.output]
        if layer is None:
            yield copy
        else:
            raw = copy.output[0] = f"paired/{layer.output}/raw"
            yield copy
            yield from _shifted(layer, raw, graph)


def _shifted(layer: Layer, raw: str, graph: GraphProto) -> Iterator[NodeProto]:
    name = second_name(layer.output)
    values = difference = f"{name}/difference"
    shift = shift_name(layer.output)
    yield helper.make_node("Sub", [raw, layer.output], [difference])
    axes = [0]
    if layer.axis == 1:
        axes += range(2, layer.rank)
    else:
        values = f"{name}/rows"
        shape = from_array(np.array([-1, layer.channels], np.int64), f"{name}/shape")
        graph.initializer.append(shape)
        yield helper.make_node("Reshape", [difference, shape.name], [values])
    axes_of = from_array(np.array(axes, np.int64), f"{name}/axes")
    graph.initializer.append(axes_of)
    # ReduceMean-18 takes its axes as an input: https://onnx.ai/onnx/operators/onnx__ReduceMean.html
    keep = int(layer.axis == 1)
    yield helper.make_node("ReduceMean", [values, axes_of.name], [shift], keepdims=keep)
    yield helper.make_node("Sub", [raw, shift], [name])


def _reads(node: NodeProto) -> Iterator[str]:
    """What a node and its bodies read; names that a body computes itself are among it."""
    yield from node.input
    for body in _bodies(node):
        for inner in body.node:
            yield from _reads(inner)
        yield from (value.name for value in body.output)


def _renamed(node: NodeProto, moved: Mapping[str, str]) -> NodeProto:
    """A copy that reads other tensors; bodies may shadow their names."""
    copy = NodeProto()
    copy.CopyFrom(node)
    copy.name = f"paired/{node.name}"
    copy.input[:] = [moved.get(name, name) for name in node.input]
    for body in _bodies(copy):
        made = {value.name for value in (*body.input, *body.initializer)}
        made |= {name for inner in body.node for name in inner.output}
        seen = {name: new for name, new in moved.items() if name not in made}
        inner_nodes = [_renamed(inner, seen) for inner in body.node]
        del body.node[:]
        body.node.extend(inner_nodes)
        for value in body.output:
            value.name = seen.get(value.name, value.name)
    return copy


def _bodies(node: NodeProto) -> Iterator[GraphProto]:
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
