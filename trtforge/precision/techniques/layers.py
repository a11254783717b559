"""The layers whose outputs are compared channel by channel."""

import onnx_graphsurgeon as gs

from trtforge.graph.model import Model
from trtforge.precision.constants import editable_graph
from trtforge.precision.sites import Site, find_sites
from trtforge.precision.techniques.paired import Layer
from trtforge.precision.typeinfo import tensors_of
from trtforge.recipe.schema import Precision


def layers_of(model: Model, precision: Precision) -> dict[str, Layer]:
    """Find the layers with a constant weight on the right, no vector, that quantization changes.

    Returns:
        By the tensor that they compute, in graph order.
    """
    graph = editable_graph(model)
    found = {}
    for site in find_sites(graph, tensors_of(model.proto), precision):
        if isinstance(site, Site) and site.weight_index == 1 and len(site.weight.shape) > 1:
            layer = _layer(site.node)
            found[layer.output] = layer
    return found


def _layer(node: gs.Node) -> Layer:
    shape = [int(size) for size in node.inputs[1].shape]
    output = node.outputs[0].name
    if node.op == "Conv":
        return Layer(output, shape[0], 1, len(shape))
    if node.op == "ConvTranspose":
        return Layer(output, shape[1] * int(node.attrs.get("group", 1)), 1, len(shape))
    if node.op == "Gemm":
        return Layer(output, shape[0 if node.attrs.get("transB", 0) else 1], -1, 2)
    return Layer(output, shape[-1], -1, len(shape))
