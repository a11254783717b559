"""Constant weights that stand behind Transpose, Reshape and their like become plain constants.

TensorRT wants a quantized constant directly in front of its DequantizeLinear, and a scale per
output channel needs the weight as the operator reads it. The cleaning passes fold such nodes
anyway; this is for models that did not go through them.
"""

import numpy as np
import onnx_graphsurgeon as gs

from trtforge.graph.evaluate import evaluate
from trtforge.precision.placement_rules import WEIGHTED

_FOLDED = frozenset(["Identity", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten"])


def expose_weights(graph: gs.Graph) -> None:
    """Compute, in place, what moves a constant on its way to a weighted operator.

    Args:
        graph: topologically sorted; Constant nodes have become constants.
    """
    outputs = {tensor.name for tensor in graph.outputs}
    ways = _ways_to_weights(graph)
    kept = []
    for node in graph.nodes:
        is_way = id(node) in ways and node.outputs[0].name not in outputs
        if not (is_way and all(isinstance(tensor, gs.Constant) for tensor in node.inputs)):
            kept.append(node)
        elif node.op == "Identity":
            _read_instead(node.outputs[0], node.inputs[0])
        else:
            values = evaluate(node.op, [np.asarray(t.values) for t in node.inputs], node.attrs)
            if values is None:
                kept.append(node)
                continue
            tensor = node.outputs[0]
            node.outputs.clear()
            tensor.to_constant(values)
    graph.nodes[:] = kept


def _ways_to_weights(graph: gs.Graph) -> set[int]:
    """Nodes that move a tensor, and nothing else, in front of an operand of a weighted operator."""
    wanted: set[str] = set()
    found: set[int] = set()
    for node in reversed(graph.nodes):
        if node.op in WEIGHTED:
            wanted.update(tensor.name for tensor in node.inputs[:2])
        elif node.op in _FOLDED and node.outputs[0].name in wanted:
            found.add(id(node))
            wanted.add(node.inputs[0].name)
    return found


def _read_instead(old: gs.Tensor, new: gs.Tensor) -> None:
    for reader in list(old.outputs):
        for index, tensor in enumerate(reader.inputs):
            if tensor is old:
                reader.inputs[index] = new
