"""New names that clash with none of the user's."""

import onnx_graphsurgeon as gs

from trtforge.graph.dialect import all_nodes


class Names:
    """Names taken in a graph and its bodies; new ones are derived from what they belong to."""

    def __init__(self, graph: gs.Graph) -> None:
        """Collect the names of all tensors and nodes."""
        self._tensors: set[str] = {tensor.name for tensor in (*graph.inputs, *graph.outputs)}
        self._nodes: set[str] = set()
        for node in all_nodes(graph):
            self._nodes.add(node.name)
            self._tensors.update(tensor.name for tensor in (*node.inputs, *node.outputs))

    def fresh(self, wanted: str) -> str:
        """A tensor name: `wanted`, or with the first free number behind it."""
        return _free(wanted, self._tensors)

    def fresh_node(self, wanted: str) -> str:
        """A node name: `wanted`, or with the first free number behind it."""
        return _free(wanted, self._nodes)


def _free(wanted: str, taken: set[str]) -> str:
    name, number = wanted, 1
    while name in taken:
        number += 1
        name = f"{wanted}_{number}"
    taken.add(name)
    return name
