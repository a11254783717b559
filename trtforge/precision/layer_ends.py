"""The first and the last layers of a network, which often suffer most from quantization.

A first layer is a weighted operator that no other one precedes on any path; a last layer is one
that no other one follows. A network may have several of each: one per input, or per head.
"""

from collections.abc import Container, Iterator, Sequence

import onnx_graphsurgeon as gs

from trtforge.graph.dialect import all_nodes
from trtforge.precision.opgroups import TYPE_BLIND
from trtforge.precision.placement_rules import WEIGHTED

_LAYERS = WEIGHTED.keys() | {"LSTM", "GRU", "RNN", "Attention"}


def end_layers(graph: gs.Graph, ends: Sequence[str], ignored: Container[int]) -> dict[int, str]:
    """Find the layers at the ends of a network that are not to be quantized.

    Args:
        graph: topologically sorted.
        ends: "first", "last", both or none.
        ignored: id of nodes that are no layers, such as products that compute positions.

    Returns:
        id(node) -> the reason in words.
    """
    found: dict[int, str] = {}
    for end in ends:
        forward = end == "first"
        reached: set[str] = set()
        for node in graph.nodes if forward else reversed(graph.nodes):
            if node.op in TYPE_BLIND:
                continue  # a shape carries no values from one layer to the next
            before, behind = _reads(node), (tensor.name for tensor in node.outputs)
            source, result = (before, behind) if forward else (behind, before)
            is_layer = node.op in _LAYERS and id(node) not in ignored
            is_reached = any(name in reached for name in list(source))
            if is_layer and not is_reached:
                found[id(node)] = f"one of the {end} layers, which `unquantized: [{end}]` leaves"
            if is_layer or is_reached:
                reached.update(name for name in result if name)
    return found


def _reads(node: gs.Node) -> Iterator[str]:
    yield from (tensor.name for tensor in node.inputs)
    for body in node.subgraphs():
        for inner in all_nodes(body):
            yield from (tensor.name for tensor in inner.inputs)
