"""Edits of a GraphSurgeon graph, each in constant time per place.

GraphSurgeon's own lists compare whole nodes to find one; with a tensor that ten thousand nodes
share that is quadratic. Here nodes are found by identity, and removed all at once at the end.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from onnx_graphsurgeon.ir.tensor import LazyValues, SparseValues

from trtforge.graph.report import Note, PassResult


def node_label(node: gs.Node) -> str:
    """Return what a user knows a node by: its name, else that of its first output."""
    return str(node.name or (node.outputs[0].name if node.outputs else node.op))


def in_onnx_domain(node: gs.Node, *ops: str) -> bool:
    """Return whether a node is one of these standard operators."""
    return node.op in ops and node.domain in (None, "", "ai.onnx")


def constant_values(tensor: gs.Tensor) -> np.ndarray | None:
    """Return a constant's values, read-only, or None for anything else.

    Unlike `gs.Constant.values` this leaves lazy values lazy: they are written out untouched.
    """
    if not isinstance(tensor, gs.Constant) or isinstance(tensor._values, SparseValues):
        return None
    values = tensor._values
    array: np.ndarray = values.load() if isinstance(values, LazyValues) else values
    return array


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


class Editor:
    """The edits of one application of one pass to one graph.

    Call `finish` at the end: it takes the removed nodes out and makes the result.
    """

    def __init__(self, graph: gs.Graph) -> None:
        self.graph = graph
        self.notes: list[Note] = []
        self.rewrites = 0
        self._dead: set[int] = set()
        self._removed: list[gs.Node] = []
        self._kept = {tensor.name for tensor in graph.outputs}
        for node in graph.nodes:
            for body in bodies(node):
                # A body may give back an outer tensor by naming it as its output.
                self._kept.update(tensor.name for tensor in body.outputs)
        self._names: set[str] | None = None

    def nodes(self, *ops: str) -> Iterator[gs.Node]:
        """Yield the graph's live nodes in order, those of the given standard operators only."""
        for node in self.graph.nodes:
            if id(node) not in self._dead and (not ops or in_onnx_domain(node, *ops)):
                yield node

    def is_kept(self, tensor: gs.Tensor) -> bool:
        """Return whether a tensor's name is an output of the graph or of a body in it."""
        return tensor.name in self._kept

    def users(self, tensor: gs.Tensor, at_most: int = 2) -> list[gs.Node]:
        """Return live nodes that read a tensor, once per use, the first `at_most` of them."""
        found = []
        for node in tensor.outputs:
            if id(node) not in self._dead:
                found.append(node)
                if len(found) == at_most:
                    break
        return found

    def is_private(self, tensor: gs.Tensor) -> bool:
        """Return whether exactly one input of one node reads a tensor, and nothing else does."""
        return not self.is_kept(tensor) and len(self.users(tensor)) == 1

    def producer(self, tensor: gs.Tensor) -> gs.Node | None:
        """Return the live node that computes a tensor."""
        for node in tensor.inputs:
            if id(node) not in self._dead:
                return node
        return None

    def match(self, node: gs.Node, reason: str) -> None:
        """Count a rewrite and say why."""
        self.rewrites += 1
        self.notes.append(Note("matched", node_label(node), reason))

    def refuse(self, node: gs.Node, reason: str) -> None:
        """Say why a place was left alone."""
        self.notes.append(Note("refused", node_label(node), reason))

    def replace_uses(self, old: gs.Tensor, new: gs.Tensor) -> None:
        """Let every node that reads `old` read `new`."""
        for node in dict.fromkeys(map(_Identity, old.outputs)):
            inputs = node.value.inputs
            for index, tensor in enumerate(inputs):
                if tensor is old:
                    list.__setitem__(inputs, index, new)
                    list.append(new.outputs, node.value)
        list.clear(old.outputs)

    def set_input(self, node: gs.Node, index: int, new: gs.Tensor) -> None:
        """Let one input of a node read another tensor, appending the input if need be."""
        if index == len(node.inputs):
            list.append(node.inputs, new)
        else:
            old = node.inputs[index]
            for position, user in enumerate(old.outputs):
                if user is node:
                    list.__delitem__(old.outputs, position)
                    break
            list.__setitem__(node.inputs, index, new)
        list.append(new.outputs, node)

    def set_output(self, node: gs.Node, index: int, new: gs.Tensor) -> None:
        """Let one output of a node be another tensor, which must lose its producer."""
        list.clear(node.outputs[index].inputs)
        list.clear(new.inputs)
        list.__setitem__(node.outputs, index, new)
        list.append(new.inputs, node)

    def remove(self, node: gs.Node) -> None:
        """Take a node and its bodies out; its outputs have no readers, or another producer."""
        self._dead.update(map(id, (node, *inner_nodes(node))))
        self._removed.append(node)

    def constant(self, base: str, values: np.ndarray) -> gs.Constant:
        """Make a constant whose name begins with `base` and is new in the graph."""
        if self._names is None:
            self._names = self._all_names()
        name, number = base, 0
        while name in self._names:
            number += 1
            name = f"{base}_{number}"
        self._names.add(name)
        return gs.Constant(name, values)

    def _all_names(self) -> set[str]:
        names = {tensor.name for tensor in (*self.graph.inputs, *self.graph.outputs)}
        for node in self.graph.nodes:
            for inner in (node, *inner_nodes(node)):
                names.update(tensor.name for tensor in (*inner.inputs, *inner.outputs))
        origin = getattr(self.graph, "origin", None)
        if origin is not None:
            names.update(tensor.name for tensor in origin.proto.initializer)
        return names

    def finish(self) -> PassResult:
        """Take the removed nodes out of the graph and return what was done."""
        touched: dict[int, gs.Tensor] = {}
        for node in self._removed:
            for reader in (node, *inner_nodes(node)):  # bodies read outer tensors
                touched.update((id(tensor), tensor) for tensor in reader.inputs)
            for tensor in node.outputs:
                if len(tensor.inputs) == 1 and tensor.inputs[0] is node:
                    list.clear(tensor.inputs)
            list.clear(node.inputs)
            list.clear(node.outputs)
        for tensor in touched.values():
            alive = [user for user in tensor.outputs if id(user) not in self._dead]
            list.clear(tensor.outputs)
            list.extend(tensor.outputs, alive)
        if self._removed:
            self.graph.nodes = [n for n in self.graph.nodes if id(n) not in self._dead]
        return PassResult(self.rewrites, tuple(self.notes))


class _Identity:
    """A node as a dictionary key; GraphSurgeon's nodes cannot be hashed."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identity) and other.value is self.value
