"""What no output depends on is taken out."""

import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor, bodies
from trtforge.graph.report import Note
from trtforge.graph.weights import storage_bytes


class RemoveDeadCode:
    """Remove nodes and initializers that no output depends on.

    Matches: nodes from which no path leads to an output of their graph (reads inside the
    subgraphs of other nodes count), and initializers that nothing reads.
    Rewrites to: nothing. Inputs of the graph stay, used or not: they are its contract.
    """

    name = "dead-code"

    def apply(self, editor: Editor) -> None:
        """Rewrite one graph in place."""
        alive = _alive(editor.graph)
        for node in editor.nodes():
            if id(node) not in alive:
                editor.match(node, "no output depends on it")
                editor.remove(node)
        origin = getattr(editor.graph, "origin", None)
        if origin is not None and origin.unused:
            for tensor in origin.unused:
                reason = f"nothing reads this initializer ({storage_bytes(tensor)} bytes)"
                editor.notes.append(Note("matched", tensor.name, reason))
            editor.rewrites += len(origin.unused)
            origin.unused = []


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
