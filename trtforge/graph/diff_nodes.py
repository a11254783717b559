"""What changed among the nodes of two models: matched by what they compute, then by name.

Subgraphs of matched nodes are compared with each other and keep their path, as in
`/if_0:then_branch/Add_3`.
"""

from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, pairwise, zip_longest
from typing import Any

from onnx import FunctionProto, GraphProto, NodeProto, helper

from trtforge.graph.diff_attributes import (
    FieldChange,
    attribute_change,
    field_changes,
    subgraphs_of,
)
from trtforge.graph.diff_weights import Weight, weights_of
from trtforge.graph.external import ExternalFiles

Scope = GraphProto | FunctionProto
Key = tuple[str, str]


@dataclass(frozen=True)
class NodeFacts:
    """One node.

    Attributes:
        path: its name, or what stands for it, with the path of its subgraph before it.
        op: its operator, with the domain where that is not ONNX's own.
        name: its name, "" without one.
        outputs: the tensors it makes.
    """

    path: str
    op: str
    name: str
    outputs: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {
            "path": self.path,
            "op": self.op,
            "name": self.name,
            "outputs": list(self.outputs),
        }


@dataclass(frozen=True)
class NodeChange:
    """A node that is in both models and not the same.

    Attributes:
        before: as it was.
        after: as it is.
        changes: what is different; never empty.
    """

    before: NodeFacts
    after: NodeFacts
    changes: tuple[FieldChange, ...]

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {
            "before": self.before.as_json(),
            "after": self.after.as_json(),
            "changes": [change.as_json() for change in self.changes],
        }


@dataclass(frozen=True)
class NodesDiff:
    """What changed among the nodes of two models.

    Attributes:
        count: how many there were, and are, in the graph and its subgraphs.
        added: new nodes.
        removed: nodes that are gone.
        changed: nodes that are the same by their outputs or their name.
        reordered: paths of the graphs whose remaining nodes stand in another order, "" is the
            outermost one.
    """

    count: tuple[int, int]
    added: tuple[NodeFacts, ...] = ()
    removed: tuple[NodeFacts, ...] = ()
    changed: tuple[NodeChange, ...] = ()
    reordered: tuple[str, ...] = ()

    @property
    def identical(self) -> bool:
        """Whether nothing changed."""
        return not (self.added or self.removed or self.changed or self.reordered)

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {
            "count": {"before": self.count[0], "after": self.count[1]},
            "added": [facts.as_json() for facts in self.added],
            "removed": [facts.as_json() for facts in self.removed],
            "changed": [change.as_json() for change in self.changed],
            "reordered": list(self.reordered),
        }


def operator_of(node: NodeProto) -> str:
    """Return a node's operator: "Add", "com.microsoft::Gelu", "local::block:overload"."""
    domain = "" if node.domain == "ai.onnx" else node.domain
    op = f"{domain}::{node.op_type}" if domain else node.op_type
    return f"{op}:{node.overload}" if node.overload else op


class Walk:
    """Goes through two models at once and collects what differs; weights are only gathered.

    Args:
        files: what holds the bytes of either model that are not in it.
    """

    def __init__(self, files: tuple[ExternalFiles, ExternalFiles]) -> None:
        self._files = files
        self._numbers = count()
        self.added: list[NodeFacts] = []
        self.removed: list[NodeFacts] = []
        self.changed: list[NodeChange] = []
        self.reordered: list[str] = []
        self.weights: tuple[dict[tuple[int, str], Weight], ...] = ({}, {})

    def compare(self, path: str, before: Scope | None, after: Scope | None) -> None:
        """Compare two graphs, or gather one that has no counterpart.

        Args:
            path: what names the graph, "" for the outermost.
            before: the graph as it was, None when it is new.
            after: the graph as it is, None when it is gone.

        Raises:
            GraphError: TF0402, TF0404, bytes of an attribute's tensor cannot be had.
        """
        self._gather_weights(path, (before, after))
        old_nodes = before.node if before is not None else ()
        new_nodes = after.node if after is not None else ()
        pairs = match_nodes(old_nodes, new_nodes)
        partners = dict(pairs)
        if any(first > second for (_, first), (_, second) in pairwise(pairs)):
            self.reordered.append(path)
        for index, node in enumerate(old_nodes):
            if index in partners:
                self._compare_nodes(path, node, new_nodes[partners[index]])
            else:
                self._alone(path, node, 0)
        matched = set(partners.values())
        for index, node in enumerate(new_nodes):
            if index not in matched:
                self._alone(path, node, 1)

    def _gather_weights(self, path: str, graphs: tuple[Scope | None, Scope | None]) -> None:
        number = next(self._numbers)
        prefix = f"{path}/" if path else ""
        for graph, found, files in zip(graphs, self.weights, self._files, strict=True):
            if isinstance(graph, GraphProto):
                for weight in weights_of(graph, prefix, files):
                    found[number, weight.name] = weight

    def _compare_nodes(self, path: str, old: NodeProto, new: NodeProto) -> None:
        before, after = _facts(path, old), _facts(path, new)
        changes = list(_plain_changes(old, new))
        first = {attribute.name: attribute for attribute in old.attribute}
        second = {attribute.name: attribute for attribute in new.attribute}
        bodies = []
        for name in (*first, *(name for name in second if name not in first)):
            one, other = first.get(name), second.get(name)
            change = attribute_change(one, other, self._files)
            if change is not None:
                changes.append(change)
            graphs = dict(subgraphs_of(one)), dict(subgraphs_of(other))
            for label in (*graphs[0], *(label for label in graphs[1] if label not in graphs[0])):
                body = (f"{before.path}:{label}", graphs[0].get(label), graphs[1].get(label))
                changes += _signature_changes(label, *body[1:])
                bodies.append(body)
        if changes:
            self.changed.append(NodeChange(before, after, tuple(changes)))
        for body in bodies:
            self.compare(*body)

    def _alone(self, path: str, node: NodeProto, side: int) -> None:
        facts = _facts(path, node)
        (self.removed, self.added)[side].append(facts)
        for attribute in node.attribute:
            for label, graph in subgraphs_of(attribute):
                body = f"{facts.path}:{label}"
                self.compare(body, *((graph, None) if side == 0 else (None, graph)))


def match_nodes(before: Sequence[NodeProto], after: Sequence[NodeProto]) -> list[tuple[int, int]]:
    """Pair the nodes of two graphs.

    Those that make a tensor of one name are the same node, then those of one name. Both are asked
    first of nodes of one operator: a Conv that took in the BatchNormalization behind it makes
    what that made, and is still that Conv.

    Returns:
        Indices into `before` and `after`; each index at most once.
    """
    partners: dict[int, int] = {}
    taken: set[int] = set()
    for keys in (_made_by, _named_as, _made, _named):
        waiting: dict[Key, deque[int]] = defaultdict(deque)
        for index, node in enumerate(after):
            for key in keys(node) if index not in taken else ():
                waiting[key].append(index)
        for index, node in enumerate(before):
            for key in keys(node) if index not in partners else ():
                found = waiting.get(key, deque())
                while found and found[0] in taken:
                    found.popleft()
                if found:
                    partners[index] = found.popleft()
                    taken.add(partners[index])
                    break
    return sorted(partners.items())


def _made_by(node: NodeProto) -> Iterator[Key]:
    return ((operator_of(node), name) for name in node.output if name)


def _named_as(node: NodeProto) -> Iterator[Key]:
    return ((operator_of(node), name) for name in (node.name,) if name)


def _made(node: NodeProto) -> Iterator[Key]:
    return (("", name) for name in node.output if name)


def _named(node: NodeProto) -> Iterator[Key]:
    return (("", name) for name in (node.name,) if name)


def _facts(path: str, node: NodeProto) -> NodeFacts:
    op = operator_of(node)
    label = node.name or f"{op}({next(filter(None, node.output), '')})"
    where = f"{path}/{label.lstrip('/')}" if path else label
    return NodeFacts(where, op, node.name, tuple(node.output))


def _plain_changes(old: NodeProto, new: NodeProto) -> Iterator[FieldChange]:
    """What changed beside the attributes."""
    yield from field_changes(
        ("op", operator_of(old), operator_of(new)),
        ("name", old.name, new.name),
    )
    yield from list_changes("input", old.input, new.input)
    yield from list_changes("output", old.output, new.output)
    yield from field_changes(("doc_string", old.doc_string, new.doc_string))
    yield from metadata_changes("metadata", _entries(old), _entries(new))


def list_changes(what: str, old: Sequence[str], new: Sequence[str]) -> Iterator[FieldChange]:
    """Yield the positions at which two lists of names differ; None stands for no such position."""
    for index, (first, second) in enumerate(zip_longest(old, new)):
        yield from field_changes((f"{what} {index}", first, second))


def metadata_changes(
    what: str, old: Mapping[str, str], new: Mapping[str, str]
) -> Iterator[FieldChange]:
    """Yield the keys whose values differ; None stands for a key that there is not."""
    for key in (*old, *(key for key in new if key not in old)):
        yield from field_changes((f"{what} {key}", old.get(key), new.get(key)))


def _entries(node: NodeProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in node.metadata_props}


def _signature_changes(
    label: str, old: GraphProto | None, new: GraphProto | None
) -> Iterator[FieldChange]:
    """What changed in what a subgraph takes and gives."""
    if old is None or new is None:
        yield FieldChange(label, _sized(old), _sized(new))
        return
    for what in ("input", "output"):
        first, second = ([_declared(info) for info in getattr(side, what)] for side in (old, new))
        if first != second:
            yield FieldChange(f"{label} {what}s", first, second)


def _sized(graph: GraphProto | None) -> str | None:
    return None if graph is None else f"graph of {len(graph.node)} nodes"


def _declared(info: Any) -> str:
    return str(helper.printable_value_info(info)).removeprefix("%")
