"""Keep and force rules of a recipe, applied to nodes.

A node without a name goes by the name of its first output. Its path is the labels of the nodes
that it stands in, outermost first, and its own, with `/` between them.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TypeVar

import onnx_graphsurgeon as gs
from onnx import GraphProto, NodeProto

from trtforge.graph.nodes import node_label
from trtforge.recipe.precision import ForceRule, KeepRule, NodeRule

Rule = TypeVar("Rule", bound=NodeRule)


@dataclass(frozen=True)
class Spot:
    """What rules select a node by.

    Attributes:
        op: the operator.
        label: the node's name, or that of its first output.
        path: see above.
    """

    op: str
    label: str
    path: str

    @classmethod
    def of(cls, node: gs.Node, within: str = "") -> "Spot":
        """The spot of a node; `within` is the path of the node that it stands in."""
        label = node_label(node)
        return cls(node.op, label, f"{within}/{label}" if within else label)


def selected(spot: Spot, rules: Sequence[Rule]) -> Rule | None:
    """The first rule that selects a node; all that a rule names must fit."""
    for rule in rules:
        globs = ((spot.label, rule.name), (spot.path, rule.path))
        if (rule.op is None or rule.op == spot.op) and all(
            glob is None or fnmatchcase(text, glob) for text, glob in globs
        ):
            return rule
    return None


def kept_by(node: gs.Node, rules: Sequence[KeepRule]) -> KeepRule | None:
    """The first keep rule that selects a node of the main graph."""
    return selected(Spot.of(node), rules) if rules else None


def unmatched(spots: Iterable[Spot], rules: Sequence[Rule]) -> tuple[Rule, ...]:
    """Rules that select no node, which is most often a slip of the pen."""
    if not rules:
        return ()
    known = list(spots)
    return tuple(rule for rule in rules if not any(selected(spot, [rule]) for spot in known))


def spots_of(graph: GraphProto, within: str = "") -> Iterator[Spot]:
    """Every node of an ONNX graph and its bodies."""
    for node in graph.node:
        label = _label(node)
        path = f"{within}/{label}" if within else label
        yield Spot(node.op_type, label, path)
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from spots_of(attribute.g, path)


def _label(node: NodeProto) -> str:
    return str(node.name or next(iter(node.output), node.op_type))


def describe(rule: KeepRule | ForceRule) -> str:
    """The rule as a user wrote it, for reasons in reports."""
    parts = [(key, getattr(rule, key)) for key in ("op", "name", "path")]
    written = [f"{key}: {value}" for key, value in parts if value is not None]
    kind = "force" if isinstance(rule, ForceRule) else "keep"
    return f"{kind} rule {{{', '.join([*written, f'type: {rule.type}'])}}}"
