"""A model whose nodes are there twice, in FP32 and rounded to FP16 or BF16: for their harm."""

from collections.abc import Collection, Iterator

from onnx import NodeProto, TensorProto, helper

from trtforge.graph.model import Model
from trtforge.precision.quantize import MIN_OPSET
from trtforge.precision.switches import Layer, LayeredModel, first_output

_ELEMENT = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}


def rounded(model: Model, outputs: Collection[str], kind: str) -> LayeredModel:
    """Give nodes a second form that rounds their weights and their first result.

    It is what `emulate` makes of a node of that type: FP32 arithmetic between values of the
    narrow type. What a node reads of other nodes is left alone, since these round it themselves.

    Args:
        model: an FP32 model.
        outputs: first results of the nodes that get two forms.
        kind: fp16 or bf16.
    """
    raised = model if model.opset >= MIN_OPSET else model.with_opset(MIN_OPSET)
    graph = raised.proto.graph
    weights = {one.name for one in graph.initializer if one.data_type == TensorProto.FLOAT}
    taken = {name for node in graph.node for name in node.output} | weights
    prefix = "rounded"
    while any(name.startswith(prefix) for name in taken):
        prefix += "_"
    layers = [
        _layer(node, weights, prefix, _ELEMENT[kind])
        for node in graph.node
        if first_output(node) in outputs
    ]
    return LayeredModel(raised, tuple(layers), ())


def _layer(node: NodeProto, weights: Collection[str], prefix: str, element: int) -> Layer:
    copy = NodeProto()
    copy.CopyFrom(node)
    result = first_output(node)
    inserted: list[NodeProto] = []
    for index, name in enumerate(node.input):
        if name in weights:
            copy.input[index] = f"{prefix}/{name}"
            inserted += _rounding(name, copy.input[index], element)
    exact = f"{prefix}/{result}"
    copy.output[list(node.output).index(result)] = exact
    down, up = _rounding(exact, result, element)
    return Layer(node, up, (*_once(inserted), copy, down))


def _rounding(name: str, result: str, element: int) -> tuple[NodeProto, NodeProto]:
    # Cast, ONNX operator: https://onnx.ai/onnx/operators/onnx__Cast.html
    narrow = f"{result}/narrow"
    down = helper.make_node("Cast", [name], [narrow], narrow, to=element)
    return down, helper.make_node("Cast", [narrow], [result], result, to=TensorProto.FLOAT)


def _once(nodes: list[NodeProto]) -> Iterator[NodeProto]:
    """A weight that a node reads twice is rounded once."""
    yield from {node.output[0]: node for node in nodes}.values()
