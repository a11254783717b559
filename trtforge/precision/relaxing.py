"""Cheap nodes beside FP32 nodes become FP32 where that moves fewer bytes than casting would."""

from collections.abc import Iterable
from dataclasses import replace

import onnx_graphsurgeon as gs

from trtforge.graph.dialect import all_nodes
from trtforge.precision import opgroups as ops
from trtforge.precision.fewer_casts import (
    EDGE,
    NARROW,
    WIDE,
    Net,
    Vertex,
    better_wide,
    cast_cost,
    wide_cost,
)
from trtforge.precision.interfaces import Link
from trtforge.precision.placement import Placement
from trtforge.precision.ports import is_float32
from trtforge.precision.typeinfo import Tensors
from trtforge.recipe.schema import Precision

_CHEAP = ops.MOVERS | ops.POINTWISE | ops.REDUCTIONS
_REASON = "beside FP32 nodes: casts would cost more than they save"


def relax(graph: gs.Graph, tensors: Tensors, precision: Precision, placement: Placement) -> None:
    """Widen cheap nodes, and what passes into bodies and out of them, in place.

    Nothing ever becomes narrower, so this harms no accuracy.

    Args:
        graph: with its bodies.
        tensors: element type and shape of each tensor as the graph came.
        precision: the wanted type; a model's inputs and outputs are FP32 where they are kept.
        placement: changed.
    """
    if precision.type == "fp32":
        return
    nets = _Nets(graph, tensors, placement, precision)
    nets.collect()
    for index in better_wide(nets.vertices, list(nets.nets.values())):
        item = nets.items[index]
        if isinstance(item, Link):
            placement.links[item] = "fp32"
        else:
            placed = placement.nodes[id(item)]
            placement.nodes[id(item)] = replace(placed, type="fp32", reason=_REASON)


class _Nets:
    """The graph as vertices and nets of `fewer_casts`."""

    def __init__(
        self, graph: gs.Graph, tensors: Tensors, placement: Placement, precision: Precision
    ) -> None:
        self._graph = graph
        self._types = tensors.types
        self._dims = tensors.dims
        self._placement = placement
        self._wanted = precision.type
        self._keeps_ends = precision.io_types == "keep"
        self.vertices: list[Vertex] = []
        self.items: list[gs.Node | Link] = []
        self.nets: dict[str, Net] = {}

    def collect(self) -> None:
        """Fill `vertices`, `items` (what each vertex stands for) and `nets` (by tensor)."""
        for node in all_nodes(self._graph):
            self._add_node(node)
        for link, kind in self._placement.links.items():
            member = self._settled(kind)
            if link not in self._placement.fixed and kind == self._wanted:
                member = self._vertex(link, link.tensors(), is_mover=True)
            for tensor in link.tensors():
                self._join(tensor, member)
        if self._keeps_ends:
            for tensor in (*self._graph.inputs, *self._graph.outputs):
                self._join(tensor, EDGE)

    def _add_node(self, node: gs.Node) -> None:
        placed = self._placement.nodes[id(node)]
        if placed.type is None or not placed.ports.any:
            return
        member = self._settled(placed.type)
        if node.op in _CHEAP and placed.type == self._wanted and not placed.is_forced:
            member = self._vertex(node, node.outputs, is_mover=node.op in ops.MOVERS)
        for index, switches in placed.ports.inputs.items():
            self._join(node.inputs[index], member if switches else WIDE)
        for index, switches in placed.ports.outputs.items():
            self._join(node.outputs[index], member if switches else WIDE)

    def _settled(self, kind: str) -> int | None:
        """None for a second narrow type: it is cast to and from whatever is chosen."""
        if kind == "fp32":
            return WIDE
        return NARROW if kind == self._wanted else None

    def _vertex(self, item: gs.Node | Link, made: Iterable[gs.Tensor], *, is_mover: bool) -> int:
        cost = sum(
            wide_cost(self._dims.get(tensor.name))
            for tensor in made
            if is_float32(tensor, self._types)
        )
        self.vertices.append(Vertex(cost, is_mover))
        self.items.append(item)
        return len(self.items) - 1

    def _join(self, tensor: gs.Tensor, member: int | None) -> None:
        if member is None or isinstance(tensor, gs.Constant):
            return
        if not is_float32(tensor, self._types):
            return
        if tensor.name not in self.nets:
            self.nets[tensor.name] = Net(cast_cost(self._dims.get(tensor.name)))
        self.nets[tensor.name].members.append(member)
