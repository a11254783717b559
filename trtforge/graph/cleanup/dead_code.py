"""What no output depends on is taken out: nodes, initializers, optional results."""

import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor
from trtforge.graph.nodes import bodies
from trtforge.graph.weights import storage_bytes

_OPTIONAL_RESULTS = {
    "Attention": 1,
    "GRU": 1,
    "LSTM": 1,
    "LayerNormalization": 1,
    "MaxPool": 1,
    "RNN": 1,
}
"""Operator -> how many results it has at least; the last of the others may be left out.

Source: the "Outputs (1 - n)" of https://onnx.ai/onnx/operators/
"""


class RemoveDeadCode:
    """Remove nodes, results and initializers that no output depends on.

    Matches: nodes from which no path leads to an output of their graph (reads inside the
    subgraphs of other nodes count), initializers that nothing reads, and the last results of
    operators that need not give them (the indices of MaxPool, the states of LSTM).
    Rewrites to: nothing. Inputs of the graph stay, used or not: they are its contract.

    Any operator, at any opset.
    """

    name = "dead-code"

    def apply(self, editor: Editor) -> None:
        """Rewrite one graph in place."""
        alive = _alive(editor.graph)
        for node in editor.nodes():
            if id(node) not in alive:
                editor.match(node, "no output depends on it")
                editor.remove(node)
        for node in editor.nodes(*_OPTIONAL_RESULTS):
            _trim(editor, node)
        origin = getattr(editor.graph, "origin", None)
        if origin is not None and origin.unused:
            for tensor in origin.unused:
                reason = f"nothing reads this initializer ({storage_bytes(tensor)} bytes)"
                editor.match(tensor.name, reason)
            origin.unused = []


def _trim(editor: Editor, node: gs.Node) -> None:
    first = len(node.outputs)
    while first > _OPTIONAL_RESULTS[node.op]:
        last = node.outputs[first - 1]
        if last.name and (editor.is_kept(last) or editor.users(last, 1)):
            break
        first -= 1
    unused = [tensor.name for tensor in node.outputs[first:] if tensor.name]
    if unused:
        editor.match(node, f"nothing reads its result '{unused[0]}'")
        editor.drop_outputs(node, first)


def _alive(graph: gs.Graph) -> set[int]:
    producers = {tensor.name: node for node in graph.nodes for tensor in node.outputs}
    alive: set[int] = set()
    wanted = [tensor.name for tensor in graph.outputs]
    while wanted:
        node = producers.get(wanted.pop())
        if node is None or id(node) in alive:
            continue
        alive.add(id(node))
        wanted.extend(tensor.name for tensor in node.inputs if tensor.name)
        for body in bodies(node):
            wanted.extend(tensor.name for tensor in body.outputs)
            wanted.extend(tensor.name for inner in body.nodes for tensor in inner.inputs)
    return alive
