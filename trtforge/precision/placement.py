"""Which float type each node computes in, and why when it is not the wanted one. Decides only."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import onnx_graphsurgeon as gs

from trtforge.precision import opgroups as ops
from trtforge.precision.hazards import RangeHazards, index_arithmetic
from trtforge.precision.ports import FloatPorts, float_ports, is_float32
from trtforge.precision.rules import describe, kept_by
from trtforge.recipe.schema import Precision

_NO_PORTS = FloatPorts({}, {})


@dataclass(frozen=True)
class Placed:
    """The decision for one node.

    Attributes:
        type: fp32, fp16 or bf16; None where the node has no float type of its own.
        ports: its FP32 ports and whether each takes the type.
        reason: why it is not the wanted type, else None.
        is_forced: a keep rule said so.
    """

    type: str | None
    ports: FloatPorts = _NO_PORTS
    reason: str | None = None
    is_forced: bool = False


Placement = dict[int, Placed]


def place(
    graph: gs.Graph,
    types: Mapping[str, int],
    precision: Precision,
    observed: Mapping[str, float] | None = None,
) -> Placement:
    """Choose the type of every node of the main graph.

    Args:
        graph: topologically sorted.
        types: element type of each tensor as the graph came.
        precision: the wanted type and the keep rules.
        observed: largest magnitude that calibration saw, per tensor.

    Returns:
        id(node) -> Placed.
    """
    chooser = _Chooser(graph, types, precision, observed or {})
    placement = {id(node): chooser.choose(node) for node in graph.nodes}
    if precision.type != "fp32":
        _relax(graph, types, precision.type, placement)
    return placement


class _Chooser:
    def __init__(
        self,
        graph: gs.Graph,
        types: Mapping[str, int],
        precision: Precision,
        observed: Mapping[str, float],
    ) -> None:
        self._opset = int(graph.opset)
        self._types = types
        self._precision = precision
        wanted = precision.type
        is_narrow = wanted != "fp32"
        self._range = RangeHazards(wanted, observed) if is_narrow else None
        self._indices = index_arithmetic(graph, types) if is_narrow else {}

    def choose(self, node: gs.Node) -> Placed:
        hazard = self._range.visit(node) if self._range is not None else None
        if node.op in ops.CONVERTERS | ops.TYPE_BLIND and not node.domain:
            return Placed(None)
        blocked = self._blocked(node)
        if blocked is not None:
            return Placed("fp32", _all_fixed(node, self._types), blocked)
        rule = kept_by(node.op, node.name, self._precision.keep)
        wanted = rule.type if rule is not None else self._precision.type
        ports = float_ports(node, self._types, self._opset, _narrow(wanted))
        if ports is None:
            reason = f"'{node.domain}.{node.op}' is no standard operator, its types are unknown"
            return Placed("fp32", _all_fixed(node, self._types), reason)
        if not ports.any:
            return Placed(None)
        if rule is not None and wanted == "fp32":
            return Placed("fp32", ports, describe(rule), is_forced=True)
        if wanted != "fp32" and not ports.can_switch:
            reason = f"{node.op} has no {wanted.upper()} form at opset {self._opset}"
            return Placed("fp32", ports, reason)
        if node.op in ops.REFUSED_BY_TARGET.get(wanted, ()):
            return Placed(
                "fp32", ports, f"TensorRT-RTX does not build {node.op} in {wanted.upper()}"
            )
        if rule is not None:
            return Placed(wanted, ports, describe(rule), is_forced=True)
        wider = self._indices.get(id(node)) or hazard
        return Placed("fp32" if wider else wanted, ports, wider)

    @staticmethod
    def _blocked(node: gs.Node) -> str | None:
        if node.op in ops.CONTROL_FLOW:
            return "control flow: the node and its bodies stay FP32"
        if node.op in ops.SEQUENCES:
            return "the element type is part of a sequence's type"
        if node.op in ops.OWN_TYPE:
            return "it creates values of a type that its attributes name"
        return None


def _narrow(wanted: str) -> str:
    # Ports of an FP32 node are never switched; any narrow type answers which ports it has.
    return wanted if wanted != "fp32" else "fp16"


def _all_fixed(node: gs.Node, types: Mapping[str, int]) -> FloatPorts:
    return FloatPorts(
        {index: False for index, tensor in enumerate(node.inputs) if is_float32(tensor, types)},
        {index: False for index, tensor in enumerate(node.outputs) if is_float32(tensor, types)},
    )


def _relax(graph: gs.Graph, types: Mapping[str, int], wanted: str, placement: Placement) -> None:
    """Turn groups of cheap nodes FP32 that would only be cast down and up again.

    A group is a connected set of movers and pointwise nodes. It becomes FP32 when it touches no
    node of the wanted type, and some FP32 node (or, for pure movers, nothing but graph inputs and
    outputs).
    """
    cheap = ops.MOVERS | ops.POINTWISE
    seen: set[int] = set()

    def is_cheap(node: gs.Node) -> bool:
        placed = placement.get(id(node))  # None: a node inside a body
        return (
            placed is not None
            and node.op in cheap
            and placed.type == wanted
            and not placed.is_forced
        )

    for start in graph.nodes:
        if id(start) in seen or not is_cheap(start):
            continue
        group, neighbours = _group(start, types, is_cheap, seen)
        kinds = {placement[id(n)].type if id(n) in placement else "fp32" for n in neighbours}
        only_movers = all(node.op in ops.MOVERS for node in group)
        if wanted in kinds or not ("fp32" in kinds or only_movers):
            continue
        for node in group:
            ports = placement[id(node)].ports
            reason = "between FP32 nodes: two casts would cost more than they save"
            placement[id(node)] = Placed("fp32", ports, reason)


def _group(
    start: gs.Node, types: Mapping[str, int], is_cheap: Callable[[gs.Node], bool], seen: set[int]
) -> tuple[list[gs.Node], list[gs.Node]]:
    group: list[gs.Node] = []
    outside: list[gs.Node] = []
    pending = [start]
    while pending:
        node = pending.pop()
        if id(node) in seen:
            continue
        if not is_cheap(node):
            outside.append(node)
            continue
        seen.add(id(node))
        group.append(node)
        pending.extend(_float_neighbours(node, types))
    return group, outside


def _float_neighbours(node: gs.Node, types: Mapping[str, int]) -> Iterator[gs.Node]:
    for tensor in node.inputs:
        if is_float32(tensor, types):
            yield from tensor.inputs
    for tensor in node.outputs:
        if is_float32(tensor, types):
            yield from tensor.outputs
