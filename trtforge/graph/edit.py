"""Edits of a GraphSurgeon graph, each in constant time per place.

GraphSurgeon's own lists compare whole nodes to find one; with a tensor that ten thousand nodes
share that is quadratic. Here nodes are found by identity or by operator, and the lists are put in
order once, when a pass is done.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from onnx import NodeProto

from trtforge.graph.facts import Dims, Facts
from trtforge.graph.fresh_names import Names
from trtforge.graph.nodes import inner_nodes, node_label
from trtforge.graph.report import Note, PassResult
from trtforge.graph.skeleton import merge_fields
from trtforge.graph.view import GraphView


class Editor(GraphView):
    """One graph of a model (the outermost or a body) under the hands of pass after pass.

    A tensor's name keeps its meaning through all edits: whatever computes it, it holds the
    values that it held in the original. So facts about tensors stay true, and so does whatever
    the user knows them by.

    Args:
        graph: the graph; edited in place.
        facts: what is known about its tensors.
        names: the names in use in the whole model.
        opset_limit: the newest operator set that a pass may ask for.
    """

    def __init__(
        self,
        graph: gs.Graph,
        facts: Facts | None = None,
        names: Names | None = None,
        opset_limit: int | None = None,
    ) -> None:
        super().__init__(graph, facts if facts is not None else Facts())
        self.opset_limit = opset_limit if opset_limit is not None else graph.opset
        self.wanted_opsets: dict[int, list[tuple[str, str]]] = {}
        self.bodies_changed = False
        self.current_pass = ""
        self.is_outermost = True
        self.names = names if names is not None else Names(graph)
        self._node_names: set[str] | None = None
        self._added: list[gs.Node] = []
        self._removed: list[gs.Node] = []
        self.begin()

    def begin(self) -> None:
        """Forget what the pass before did; the graph stays as it left it."""
        self.notes: list[Note] = []
        self.rewrites = 0
        self.touched = False

    def allows(self, node: gs.Node, opset: int) -> bool:
        """Return whether operators of `opset` may be written now; if not, ask for them.

        When the limit permits, the model is raised after the round and the pass sees the place
        again. Call it as the last condition, when the rewrite is otherwise certain.
        """
        if self.opset >= opset:
            return True
        self.wanted_opsets.setdefault(opset, []).append((self.current_pass, node_label(node)))
        return False

    @property
    def is_to_be_raised(self) -> bool:
        """Whether a pass of this round asked for an operator set that the limit allows.

        A pass that would spell a fusion's pattern otherwise waits until the model is raised.
        """
        return any(version <= self.opset_limit for version in self.wanted_opsets)

    # Saying

    def match(self, what: gs.Node | str, reason: str) -> None:
        """Count a rewrite of a node, or of something else that has a name, and say why."""
        self.rewrites += 1
        label = what if isinstance(what, str) else node_label(what)
        self.notes.append(Note("matched", label, reason))

    def refuse(self, node: gs.Node, reason: str) -> None:
        """Say why a place was left alone."""
        self.notes.append(Note("refused", node_label(node), reason))

    # Changing

    def replace_uses(self, old: gs.Tensor, new: gs.Tensor) -> None:
        """Let every node that reads `old` read `new`."""
        self.touched = True
        seen: set[int] = set()
        for node in old.outputs:
            if id(node) in seen:
                continue
            seen.add(id(node))
            inputs = node.inputs
            for index, tensor in enumerate(inputs):
                if tensor is old:
                    list.__setitem__(inputs, index, new)
                    list.append(new.outputs, node)
        list.clear(old.outputs)

    def set_input(self, node: gs.Node, index: int, new: gs.Tensor) -> None:
        """Let one input of a node read another tensor, appending the input if need be."""
        self.touched = True
        if index == len(node.inputs):
            list.append(node.inputs, new)
        else:
            _unlink(node.inputs[index].outputs, node)
            list.__setitem__(node.inputs, index, new)
        list.append(new.outputs, node)

    def drop_inputs(self, node: gs.Node, first: int) -> None:
        """Cut a node's inputs off from index `first` on."""
        self.touched = True
        for tensor in node.inputs[first:]:
            _unlink(tensor.outputs, node)
        list.__delitem__(node.inputs, slice(first, None))

    def drop_outputs(self, node: gs.Node, first: int) -> None:
        """Cut a node's outputs, which nothing reads, off from index `first` on."""
        self.touched = True
        for tensor in node.outputs[first:]:
            list.clear(tensor.inputs)
        list.__delitem__(node.outputs, slice(first, None))

    def set_attribute(self, node: gs.Node, name: str, value: Any) -> None:
        """Set an attribute of a node; None removes it."""
        self.touched = True
        if value is None:
            node.attrs.pop(name, None)
        else:
            node.attrs[name] = value

    def set_output(self, node: gs.Node, index: int, new: gs.Tensor) -> None:
        """Let one output of a node be another tensor, which must lose its producer."""
        self.touched = True
        list.clear(node.outputs[index].inputs)
        list.clear(new.inputs)
        list.__setitem__(node.outputs, index, new)
        list.append(new.inputs, node)

    def remove(self, node: gs.Node) -> None:
        """Take a node and its bodies out; its outputs have no readers, or another producer."""
        self.touched = True
        node.dead = True
        for inner in inner_nodes(node):
            inner.dead = True
            self.bodies_changed = True
        self._removed.append(node)

    def add(
        self,
        op: str,
        inputs: Iterable[gs.Tensor],
        outputs: Iterable[gs.Tensor],
        at: gs.Node,
        attrs: Mapping[str, Any] | None = None,
        name: str = "",
    ) -> gs.Node:
        """Add a node just before the node `at`, whose documentation and metadata it shares.

        Args:
            op: a standard operator.
            inputs: all must be computed before `at`.
            outputs: new tensors, or tensors that lose their producer by this.
            at: where; a live node of this graph, which may be removed afterwards.
            attrs: attributes; None values are left out.
            name: of the node.
        """
        self.touched = True
        given = {key: value for key, value in (attrs or {}).items() if value is not None}
        results = list(outputs)
        for tensor in results:
            list.clear(tensor.inputs)
        node = gs.Node(op, name, given, list(inputs), results)
        node.dead, node.owner, node.position = False, self, at.position
        node.source = _remembered(at)
        self._added.append(node)
        return node

    def adopt(self, node: gs.Node, at: gs.Node) -> None:
        """Take a node of a body of `at` into this graph, just before `at`.

        Two nodes of one graph have two names (onnx.proto, NodeProto.name): the later one gets a
        suffix.
        """
        self.touched = True
        self.bodies_changed = True
        if self._node_names is None:
            self._node_names = {other.name for other in self.graph.nodes}
        base, number = node.name, 0
        while node.name and node.name in self._node_names:
            number += 1
            node.name = f"{base}_{number}"
        self._node_names.add(node.name)
        node.dead, node.owner, node.position = False, self, at.position
        self._added.append(node)

    def replace(
        self,
        root: gs.Node,
        op: str,
        inputs: Iterable[gs.Tensor],
        attrs: Mapping[str, Any] | None = None,
    ) -> gs.Node:
        """Let a new node compute the first output of `root`, which goes; it keeps root's name.

        What fed `root` and now has no readers is left for the pass dead-code.
        """
        node = self.add(op, inputs, [root.outputs[0]], root, attrs, root.name)
        self.remove(root)
        return node

    def bypass(self, node: gs.Node, source: gs.Tensor, index: int = 0) -> str | None:
        """Let readers of an output of `node` read `source`, which holds the same values.

        An output of the graph keeps its name: the node that computes `source` takes it over.

        Returns:
            None when done (the node is removed); otherwise why not, and nothing has changed.
        """
        result = node.outputs[index]
        if not self.is_kept(result):
            self.replace_uses(result, source)
            self.remove(node)
            return None
        producer = self.producer(source)
        if producer is None:
            return f"'{result.name}' is an output and '{source.name}' is not computed by this graph"
        if self.is_kept(source):
            return f"'{result.name}' and '{source.name}' are both outputs"
        position = next(i for i, tensor in enumerate(producer.outputs) if tensor is source)
        self.remove(node)
        self.set_output(producer, position, result)
        self.replace_uses(source, result)
        return None

    def bypass_or_refuse(
        self, node: gs.Node, source: gs.Tensor, reason: str, index: int = 0
    ) -> None:
        """Bypass a node and say why it is not needed; where that cannot be, say why not."""
        why = self.bypass(node, source, index)
        if why is None:
            self.match(node, reason)
        else:
            self.refuse(node, why)

    def rename(self, tensors: Iterable[gs.Tensor]) -> None:
        """Give tensors that hold other values from now on other names, which are new."""
        self.touched = True
        for tensor in tensors:
            tensor.name = self.names.fresh(tensor.name)

    def constant(self, base: str, values: np.ndarray) -> gs.Constant:
        """Make a constant whose name begins with `base` and is new in the model."""
        return gs.Constant(self.names.fresh(base), values)

    def renewed(self, old: gs.Tensor, values: np.ndarray) -> gs.Constant:
        """Make a constant with new values: under the old name where only one node reads that."""
        if self.is_private(old):
            return gs.Constant(old.name, values)
        return self.constant(old.name, values)

    def variable(self, base: str, dtype: Any = None, dims: Dims | None = None) -> gs.Variable:
        """Make a tensor whose name begins with `base` and is new in the model."""
        tensor = gs.Variable(self.names.fresh(base))
        self.facts.learn(tensor, dtype, dims)
        return tensor

    def finish(self) -> PassResult:
        """Put the graph in order and return what was done since `begin`."""
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
            alive = [user for user in tensor.outputs if not getattr(user, "dead", False)]
            list.clear(tensor.outputs)
            list.extend(tensor.outputs, alive)
        if self._removed or self._added:
            self._reorder()
        return PassResult(self.rewrites, tuple(self.notes))

    def _reorder(self) -> None:
        nodes: list[gs.Node] = self.graph.nodes
        before: dict[int, list[gs.Node]] = {}
        for node in self._added:
            before.setdefault(node.position, []).append(node)
            self._index(node)
        merged: list[gs.Node] = []
        for position, node in enumerate(nodes):
            merged.extend(new for new in before.get(position, ()) if not new.dead)
            if not node.dead:
                merged.append(node)
        for position, node in enumerate(merged):
            node.position = position
        self.graph.nodes = merged
        had_bodies = len(self._with_bodies)
        self._by_op = {}
        self._with_bodies = []
        for node in merged:
            self._index(node)
        if len(self._with_bodies) != had_bodies:
            self.bodies_changed = True
            self._kept = {tensor.name for tensor in self.graph.outputs}
            self._mark_kept()
        self._added, self._removed, self._node_names = [], [], None


def _unlink(users: list[gs.Node], node: gs.Node) -> None:
    for position, user in enumerate(users):
        if user is node:
            list.__delitem__(users, position)
            return


def _remembered(node: gs.Node) -> NodeProto | None:
    """What a new node inherits from the one whose place it takes: everything but its meaning."""
    source = getattr(node, "source", None)
    if source is None:
        return None
    kept = NodeProto()
    merge_fields(source, kept, skip=_MEANING)
    return kept


_MEANING = frozenset(
    {
        "name",
        "op_type",
        "domain",
        "overload",
        "input",
        "output",
        "attribute",
        "device_configurations",
    }
)
