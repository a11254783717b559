"""Constants of a graph and its bodies in one form: dense initializers."""

import numpy as np
import onnx_graphsurgeon as gs

from trtforge.errors import GraphError, Place
from trtforge.graph.model import Model

_ATTRIBUTES = (
    ("value_float", np.float32),
    ("value_floats", np.float32),
    ("value_int", np.int64),
    ("value_ints", np.int64),
)


def editable_graph(model: Model) -> gs.Graph:
    """Import a model's graph with its Constant nodes as initializers.

    Raises:
        GraphError: the model has sparse weights (TF0534).
    """
    for sparse in model.proto.graph.sparse_initializer:
        # GraphSurgeon misreads the values of sparse tensors that are stored as raw bytes.
        raise GraphError(
            "TF0534",
            f"the weight '{sparse.values.name}' is sparse; its type cannot be changed",
            "store it as a dense initializer (TensorRT finds 2:4 sparsity in dense weights)",
            Place(node=sparse.values.name),
        )
    graph = model.to_graph()
    _fold_constant_nodes(graph)
    return graph


def _fold_constant_nodes(graph: gs.Graph) -> None:
    """Turn Constant nodes into constants in place; those that are outputs of a graph stay nodes.

    Constant, ONNX operator since opset 1: https://onnx.ai/onnx/operators/onnx__Constant.html
    """
    outputs = {tensor.name for tensor in graph.outputs}
    kept = []
    for node in graph.nodes:
        for body in node.attrs.values():
            if isinstance(body, gs.Graph):
                _fold_constant_nodes(body)
        values = _values(node) if node.op == "Constant" else None
        if values is None or node.outputs[0].name in outputs:
            kept.append(node)
            continue
        tensor = node.outputs[0]
        node.outputs.clear()
        tensor.to_constant(values)
    graph.nodes[:] = kept


def _values(node: gs.Node) -> np.ndarray | None:
    value = node.attrs.get("value")
    if isinstance(value, gs.Constant):
        return np.asarray(value.values)
    for name, kind in _ATTRIBUTES:
        if name in node.attrs:
            return np.asarray(node.attrs[name], kind)
    return None
