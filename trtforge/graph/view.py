"""One graph of a model, looked at: nodes by operator, who computes and who reads a tensor."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from trtforge.graph.facts import Dims, Facts
from trtforge.graph.nodes import STANDARD_DOMAINS, bodies, in_onnx_domain


class GraphView:
    """A graph with an index of its nodes, and what is known about its tensors.

    Args:
        graph: the graph; its nodes belong to this view from now on.
        facts: what is known about its tensors.
    """

    def __init__(self, graph: gs.Graph, facts: Facts) -> None:
        self.graph = graph
        self.facts = facts
        self._kept = {tensor.name for tensor in graph.outputs}
        self._by_op: dict[str, list[gs.Node]] = {}
        self._with_bodies: list[gs.Node] = []
        for position, node in enumerate(graph.nodes):
            node.dead, node.owner, node.position = False, self, position
            self._index(node)
        self._mark_kept()

    @property
    def opset(self) -> int:
        """The version of the standard operator set that the graph is written in."""
        return int(self.graph.opset)

    def nodes(self, *ops: str) -> Iterator[gs.Node]:
        """Yield the graph's live nodes in order, those of the given standard operators only.

        Nodes that are added meanwhile are not seen before the next pass.
        """
        if not ops:
            found: Iterable[gs.Node] = tuple(self.graph.nodes)
        elif len(ops) == 1:
            found = tuple(self._by_op.get(ops[0], ()))
        else:
            listed = [node for op in ops for node in self._by_op.get(op, ())]
            found = sorted(listed, key=lambda node: int(node.position))
        for node in found:
            if node.dead or node.owner is not self:  # an inlined body's nodes have a new owner
                continue
            if not ops or (node.op in ops and node.domain in STANDARD_DOMAINS):
                yield node

    def has(self, ops: Iterable[str]) -> bool:
        """Return whether there is a node of one of these operators, of any domain."""
        return any(self._by_op.get(op) for op in ops)

    def nodes_with_bodies(self) -> Iterator[gs.Node]:
        """Yield the live nodes that have subgraphs (If, Loop, Scan, SequenceMap)."""
        for node in self._with_bodies:
            if not node.dead:
                yield node

    def is_kept(self, tensor: gs.Tensor) -> bool:
        """Return whether a tensor's name is an output of the graph or of a body in it."""
        return tensor.name in self._kept

    def users(self, tensor: gs.Tensor, at_most: int = 2) -> list[gs.Node]:
        """Return live nodes that read a tensor, once per use, the first `at_most` of them.

        Nodes in bodies count, too: their `owner` is not this editor.
        """
        found = []
        for node in tensor.outputs:
            if not getattr(node, "dead", False):
                found.append(node)
                if len(found) == at_most:
                    break
        return found

    def is_private(self, tensor: gs.Tensor) -> bool:
        """Return whether exactly one input of one node reads a tensor, and nothing else does."""
        return not self.is_kept(tensor) and len(self.users(tensor)) == 1

    def is_local(self, tensor: gs.Tensor) -> bool:
        """Return whether only nodes of this very graph read a tensor."""
        return all(
            getattr(node, "owner", None) is self
            for node in tensor.outputs
            if not getattr(node, "dead", False)
        )

    def producer(self, tensor: gs.Tensor, *ops: str) -> gs.Node | None:
        """Return the live node of this graph that computes a tensor, if it is one of `ops`.

        A tensor that comes from outside the graph (an input, a constant, an outer graph's) has
        none.
        """
        for node in tensor.inputs:
            if not getattr(node, "dead", True) and node.owner is self:
                return node if not ops or in_onnx_domain(node, *ops) else None
        return None

    def dims(self, tensor: gs.Tensor) -> Dims | None:
        """Return a tensor's dimensions (numbers, names, None where unknown), None without rank."""
        return self.facts.dims(tensor)

    def dtype(self, tensor: gs.Tensor) -> "np.dtype[Any] | None":
        """Return a tensor's element type, None when it is not known."""
        return self.facts.dtype(tensor)

    def _index(self, node: gs.Node) -> None:
        self._by_op.setdefault(node.op, []).append(node)
        if any(isinstance(value, gs.Graph) for value in node.attrs.values()):
            self._with_bodies.append(node)

    def _mark_kept(self) -> None:
        for node in self._with_bodies:
            for body in bodies(node):
                # A body may give back an outer tensor by naming it as its output.
                self._kept.update(tensor.name for tensor in body.outputs)
