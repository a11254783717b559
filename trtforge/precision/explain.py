"""Why each operator has or has not a Q/DQ pair: `--explain`."""

from collections.abc import Iterator, Mapping

import onnx_graphsurgeon as gs

from trtforge.graph.dialect import all_nodes
from trtforge.precision.placement_rules import EXPLAINED, FLOAT_ONLY, RESIDUAL, WEIGHTED
from trtforge.precision.ports import is_float32
from trtforge.precision.quantize_report import Action, Decision
from trtforge.precision.sharing import Sharing


def explain(
    graph: gs.Graph,
    types: Mapping[str, int],
    sharing: Sharing,
    decisions: Mapping[int, Decision],
) -> tuple[Decision, ...]:
    """Say of every candidate what became of it, in graph order.

    Args:
        graph: before anything is inserted.
        types: element type of each tensor.
        sharing: where pairs stand.
        decisions: id(node) -> what was decided on the places that were judged.
    """
    found: list[Decision] = []
    for node in graph.nodes:
        if id(node) in decisions:
            found.append(decisions[id(node)])
        elif id(node) in sharing.movers:
            action: Action = "passes" if id(node) in sharing.passed else "kept"
            reason = sharing.movers[id(node)]
            found.append(Decision(node.name, node.op, "", action, reason))
        elif node.domain in (None, "", "ai.onnx"):
            left = _left(node) if is_float32(node.outputs[0], types) else None
            if left is not None:
                found.append(Decision(node.name, node.op, "", "kept", left))
        found.extend(_within(node))
    return tuple(found)


def _left(node: gs.Node) -> str | None:
    """Why an operator that nobody judged computes in floats; None for one that is no candidate."""
    if node.op in RESIDUAL and not any(isinstance(t, gs.Constant) for t in node.inputs):
        return "it adds in floats: no quantized convolution in front that it could fuse into"
    if node.op == "Resize" and node.attrs.get("mode", "nearest") != "nearest":
        return FLOAT_ONLY["Resize"]
    if node.op in EXPLAINED:
        return "nothing quantized reads its result"
    return FLOAT_ONLY.get(node.op)


def _within(node: gs.Node) -> Iterator[Decision]:
    for body in node.subgraphs():
        for inner in all_nodes(body):
            if inner.op in WEIGHTED:
                reason = f"it is in a body of {node.op}, which stays in floats"
                yield Decision(inner.name, inner.op, "", "kept", reason)
