"""Words in which fusions say what they look for."""

from collections.abc import Iterator

import numpy as np
import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor
from trtforge.graph.nodes import constant_values

_A_FEW = 8
"""Readers that are looked at one by one, so that the time does not grow with the graph."""


def rank_of(editor: Editor, tensor: gs.Tensor) -> int | None:
    """Return how many axes a tensor has, None when that is not known."""
    dims = editor.dims(tensor)
    return None if dims is None else len(dims)


def scalar(tensor: gs.Tensor) -> float | None:
    """Return the value of a constant with exactly one element, of any rank, else None."""
    if not isinstance(tensor, gs.Constant) or any(dim != 1 for dim in tensor.shape):
        return None
    values = constant_values(tensor)
    if values is None or values.size != 1 or values.dtype.kind not in "biuf":
        return None
    return float(values.reshape(-1)[0])


def is_scalar(tensor: gs.Tensor, value: float, tolerance: float = 1e-3) -> bool:
    """Return whether a tensor is a constant of one element that is `value`, relatively close."""
    found = scalar(tensor)
    return found is not None and abs(found - value) <= tolerance * max(abs(value), 1e-12)


def with_constant(node: gs.Node) -> tuple[gs.Tensor, np.ndarray, int] | None:
    """Split the inputs of a binary node with exactly one constant.

    Returns:
        The input that is computed, the values of the other, and the index of the constant.
    """
    if len(node.inputs) != 2:
        return None
    for index in (1, 0):
        values = constant_values(node.inputs[index])
        if values is not None and not isinstance(node.inputs[1 - index], gs.Constant):
            return node.inputs[1 - index], values, index
    return None


def other_input(node: gs.Node, tensor: gs.Tensor) -> gs.Tensor | None:
    """Return the input of a binary node that is not `tensor`; None when both are, or none is."""
    first, second = node.inputs
    if (first is tensor) == (second is tensor):
        return None
    return second if first is tensor else first


def made_by(editor: Editor, tensor: gs.Tensor, *ops: str) -> gs.Node | None:
    """Return the node of these operators that computes a tensor nobody else reads."""
    return editor.producer(tensor, *ops) if editor.is_private(tensor) else None


def only_reader(editor: Editor, tensor: gs.Tensor) -> gs.Node | None:
    """Return the node of this graph that reads a tensor once, if nothing else reads it."""
    if not editor.is_private(tensor) or not editor.is_local(tensor):
        return None
    return editor.users(tensor, 1)[0]


def is_read_only_by(editor: Editor, tensor: gs.Tensor, *ops: str) -> bool:
    """Return whether all that read a tensor are a few nodes of this graph, each one of `ops`.

    Whatever computes it then goes once each of them is rewritten.
    """
    readers = editor.users(tensor, _A_FEW + 1)
    return (
        not editor.is_kept(tensor)
        and len(readers) <= _A_FEW
        and all(reader.op in ops for reader in readers)
        and editor.is_local(tensor)
    )


def arms(editor: Editor, node: gs.Node, *ops: str) -> Iterator[tuple[gs.Node, gs.Tensor]]:
    """Yield, for each input of a binary node that one of `ops` computes, it and the other input."""
    for index in (0, 1):
        producer = editor.producer(node.inputs[index], *ops)
        if producer is not None:
            yield producer, node.inputs[1 - index]


def normalized_axes(axes: "tuple[int, ...] | list[int]", rank: int) -> tuple[int, ...]:
    """Return axes counted from the front, sorted."""
    return tuple(sorted(axis % rank for axis in axes))


def reduction_axes(node: gs.Node) -> tuple[int, ...] | None:
    """Return the axes of a Reduce*, Squeeze or Unsqueeze: an attribute, or a constant input.

    Returns:
        As written (negative ones stay); None when they are computed or left out.
    """
    if "axes" in node.attrs:
        return tuple(int(axis) for axis in node.attrs["axes"])
    if len(node.inputs) < 2 or not node.inputs[1].name:
        return None
    values = constant_values(node.inputs[1])
    return None if values is None else tuple(int(axis) for axis in values.reshape(-1))
