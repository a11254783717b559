"""Single nodes and tensors of a GraphSurgeon graph, looked at."""

import math
from collections.abc import Iterator

import numpy as np
import onnx_graphsurgeon as gs
from onnx_graphsurgeon.ir.tensor import LazyValues, SparseValues

STANDARD_DOMAINS = (None, "", "ai.onnx")


def node_label(node: gs.Node) -> str:
    """Return what a user knows a node by: its name, else that of its first output."""
    return str(node.name or (node.outputs[0].name if node.outputs else node.op))


def is_standard(node: gs.Node) -> bool:
    """Return whether a node is of the standard operator set."""
    return node.domain in STANDARD_DOMAINS


def in_onnx_domain(node: gs.Node, *ops: str) -> bool:
    """Return whether a node is one of these standard operators."""
    return node.op in ops and node.domain in STANDARD_DOMAINS


def constant_values(tensor: gs.Tensor) -> np.ndarray | None:
    """Return a constant's values, read-only, or None for anything else.

    Unlike `gs.Constant.values` this leaves lazy values lazy: they are written out untouched.
    """
    if not isinstance(tensor, gs.Constant) or isinstance(tensor._values, SparseValues):
        return None
    values = tensor._values
    array: np.ndarray = values.load() if isinstance(values, LazyValues) else values
    return array


def constant_bytes(tensor: gs.Tensor) -> int:
    """Return the size of a constant's values, bytes; 0 for anything else."""
    if not isinstance(tensor, gs.Constant):
        return 0
    return int(math.prod(tensor.shape)) * int(getattr(tensor.dtype, "itemsize", 1))


def inner_nodes(node: gs.Node) -> Iterator[gs.Node]:
    """Yield the nodes of a node's subgraphs, to any depth."""
    for body in bodies(node):
        yield from body.nodes


def bodies(node: gs.Node) -> Iterator[gs.Graph]:
    """Yield the subgraphs of a node, to any depth."""
    for value in node.attrs.values():
        if isinstance(value, gs.Graph):
            yield value
            for inner in value.nodes:
                yield from bodies(inner)
