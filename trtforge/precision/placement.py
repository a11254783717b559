"""Which float type each node computes in, and why when it is not the wanted one. Decides only."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import onnx_graphsurgeon as gs

from trtforge.graph.nodes import bodies
from trtforge.precision import opgroups as ops
from trtforge.precision.hazards import RangeHazards, index_arithmetic
from trtforge.precision.interfaces import Link, links_of
from trtforge.precision.ports import FloatPorts, float_ports, is_float32
from trtforge.precision.rules import Spot, describe, selected
from trtforge.precision.typeinfo import Tensors
from trtforge.recipe.schema import KeepRule, Precision

_NO_PORTS = FloatPorts({}, {})

_CARRIED = (
    "what it carries from one iteration to the next stays FP32: its rounding would add up; "
    "the nodes inside have types of their own"
)


@dataclass(frozen=True)
class Placed:
    """The decision for one node.

    Attributes:
        type: fp32, fp16 or bf16; None where the node has no float type of its own.
        ports: its FP32 ports and whether each takes the type.
        reason: why it is not the wanted type, or is in spite of a hazard; else None.
        is_forced: a rule said so.
    """

    type: str | None
    ports: FloatPorts = _NO_PORTS
    reason: str | None = None
    is_forced: bool = False


@dataclass
class Placement:
    """The decisions for a graph and its bodies.

    Attributes:
        nodes: id(node) -> its decision.
        links: the type of what passes between nodes and their bodies.
        fixed: the links whose type a rule or their nature settles.
    """

    nodes: dict[int, Placed] = field(default_factory=dict)
    links: dict[Link, str] = field(default_factory=dict)
    fixed: set[Link] = field(default_factory=set)


def place(
    graph: gs.Graph,
    tensors: Tensors,
    precision: Precision,
    observed: Mapping[str, float] | None = None,
) -> Placement:
    """Choose the type of every node of the graph and of bodies; tensor names are unique.

    Args:
        graph: topologically sorted.
        tensors: element type and shape of each tensor as the graph came.
        precision: the wanted type and the rules.
        observed: largest magnitude that calibration saw, per tensor.
    """
    chooser = _Chooser(graph, tensors.types, precision, observed or {})
    chooser.visit(graph, _Surroundings())
    return chooser.placement


@dataclass(frozen=True)
class _Surroundings:
    """What holds for all nodes of a body: where it is, what keeps it, why it stays FP32."""

    path: str = ""
    kept: KeepRule | None = None
    blocked: str | None = None


class _Chooser:
    def __init__(
        self,
        graph: gs.Graph,
        types: Mapping[str, int],
        precision: Precision,
        observed: Mapping[str, float],
    ) -> None:
        self.placement = Placement()
        self._opset = int(graph.opset)
        self._types = types
        self._precision = precision
        wanted = precision.type
        is_narrow = wanted != "fp32"
        self._range = RangeHazards(wanted, observed) if is_narrow else None
        self._indices: dict[int, str] = {}
        for scope in scopes(graph) if is_narrow else ():
            self._indices |= index_arithmetic(scope, types)

    def visit(self, graph: gs.Graph, around: _Surroundings) -> None:
        """Decide for the nodes of one scope; those of bodies come before the node they are in."""
        for node in graph.nodes:
            spot = Spot.of(node, around.path)
            kept = selected(spot, self._precision.keep) or around.kept
            here = replace(around, kept=kept)
            inner = [value for value in node.attrs.values() if isinstance(value, gs.Graph)]
            if inner:
                self.placement.nodes[id(node)] = self._visit_bodies(node, inner, spot, here)
                continue
            hazard = self._range.visit(node) if self._range is not None else None
            self.placement.nodes[id(node)] = self._choose(node, spot, here, hazard)

    def _visit_bodies(
        self, node: gs.Node, inner: Sequence[gs.Graph], spot: Spot, around: _Surroundings
    ) -> Placed:
        links = links_of(node, self._opset)
        blocked = around.blocked
        if links is None:
            blocked = f"the types of {node.op}'s bodies cannot be told, so they stay FP32"
        for link in links or ():
            if link.outer_input is not None and link.inner_input is not None:
                self._pass_on(node.inputs[link.outer_input], link.inner_input)
        for body in inner:
            self.visit(body, _Surroundings(spot.path, around.kept, blocked))
        hazard = self._range.visit(node) if self._range is not None else None
        if blocked is not None or links is None:
            return self._choose(node, spot, replace(around, blocked=blocked), hazard)
        for link in links:
            found = hazard
            for body, index in link.inner_outputs if link.outer_output is not None else ():
                passed = self._pass_on(body.outputs[index], node.outputs[link.outer_output])
                found = found or passed
            self._place_link(link, spot, around.kept, found)
        return self._of_links(node, spot, around.kept, links)

    def _pass_on(self, source: gs.Tensor, target: gs.Tensor) -> str | None:
        is_float = is_float32(source, self._types)
        return self._range.pass_on(source, target) if self._range and is_float else None

    def _choose(
        self, node: gs.Node, spot: Spot, around: _Surroundings, hazard: str | None
    ) -> Placed:
        if node.op in ops.CONVERTERS | ops.TYPE_BLIND and not node.domain:
            return Placed(None)
        blocked = around.blocked or self._blocked(node)
        if blocked is not None:
            ports = _all_fixed(node, self._types)
            return Placed("fp32", ports, blocked) if ports.any else Placed(None)
        keep = around.kept
        force = None if keep is not None else selected(spot, self._precision.force)
        rule = keep or force
        wanted = rule.type if rule is not None else self._precision.type
        ports_or_none = float_ports(node, self._types, self._opset, _narrow(wanted))
        if ports_or_none is None:
            reason = f"'{node.domain}.{node.op}' is no standard operator, its types are unknown"
            return Placed("fp32", _all_fixed(node, self._types), reason)
        ports = ports_or_none
        if not ports.any:
            return Placed(None)
        if keep is not None and wanted == "fp32":
            return Placed("fp32", ports, describe(keep), is_forced=True)
        if (refusal := self._refusal(node, ports, wanted)) is not None:
            unmet = f"{describe(force)} cannot be met: " if force is not None else ""
            return Placed("fp32", ports, f"{unmet}{refusal}")
        wider = self._indices.get(id(node)) or hazard
        if force is not None:
            in_spite = f", in spite of this: {wider}" if wider else ""
            reason_or_none = f"{describe(force)}{in_spite}"
            is_news = bool(wider) or wanted != self._precision.type
            return Placed(wanted, ports, reason_or_none if is_news else None, is_forced=True)
        if keep is not None:
            return Placed(wanted, ports, describe(keep), is_forced=True)
        return Placed("fp32" if wider else wanted, ports, wider)

    def _refusal(self, node: gs.Node, ports: FloatPorts, wanted: str) -> str | None:
        """Why no rule and no type can make the node narrow."""
        if wanted == "fp32":
            return None
        if not ports.can_switch:
            return f"{node.op} has no {wanted.upper()} form at opset {self._opset}"
        if node.op in ops.REFUSED_BY_TARGET.get(wanted, ()):
            return f"TensorRT-RTX does not build {node.op} in {wanted.upper()}"
        return None

    def _place_link(
        self, link: Link, spot: Spot, kept: KeepRule | None, hazard: str | None
    ) -> None:
        """What a branch gives, and what is sliced or stacked, is only moved and may be narrow."""
        if not any(is_float32(tensor, self._types) for tensor in link.tensors()):
            return
        rule = kept or (selected(spot, self._precision.force) if link.is_carried else None)
        kind = rule.type if rule is not None else self._precision.type
        if rule is None and (link.is_carried or hazard is not None):
            kind = "fp32"
        self.placement.links[link] = kind
        if rule is not None or kind != self._precision.type:
            self.placement.fixed.add(link)

    def _of_links(
        self, node: gs.Node, spot: Spot, kept: KeepRule | None, links: Sequence[Link]
    ) -> Placed:
        """An If, Loop or Scan has no type but that of what it carries from iteration to iteration.

        A force rule makes that narrow; for the nodes inside it needs a path.
        """
        rule = kept or selected(spot, self._precision.force)
        carried = {self.placement.links.get(link) for link in links if link.is_carried} - {None}
        kind = rule.type if rule is not None else next(iter(carried), None)
        if kind is None or kind == self._precision.type:
            return Placed(kind, is_forced=rule is not None)
        return Placed(kind, reason=describe(rule) if rule else _CARRIED, is_forced=bool(rule))

    @staticmethod
    def _blocked(node: gs.Node) -> str | None:
        if node.op in ops.SEQUENCES:
            return "the element type is part of a sequence's type"
        if node.op in ops.OWN_TYPE:
            return "it creates values of a type that its attributes name"
        return None


def scopes(graph: gs.Graph) -> Iterator[gs.Graph]:
    """Yield a graph and all its bodies."""
    yield graph
    for node in graph.nodes:
        yield from bodies(node)


def _narrow(wanted: str) -> str:
    # Ports of an FP32 node are never switched; any narrow type answers which ports it has.
    return wanted if wanted != "fp32" else "fp16"


def _all_fixed(node: gs.Node, types: Mapping[str, int]) -> FloatPorts:
    return FloatPorts(
        {index: False for index, tensor in enumerate(node.inputs) if is_float32(tensor, types)},
        {index: False for index, tensor in enumerate(node.outputs) if is_float32(tensor, types)},
    )
