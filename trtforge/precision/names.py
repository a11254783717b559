"""New names that clash with none of the user's."""

from collections.abc import Iterator

import onnx_graphsurgeon as gs


class Names:
    """Names taken in a graph and its bodies; new ones are derived from what they belong to."""

    def __init__(self, graph: gs.Graph) -> None:
        """Collect the names of all tensors and nodes."""
        self._tensors: set[str] = {tensor.name for tensor in (*graph.inputs, *graph.outputs)}
        self._nodes: set[str] = set()
        for node in _all_nodes(graph):
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


def _all_nodes(graph: gs.Graph) -> Iterator[gs.Node]:
    for node in graph.nodes:
        yield node
        for value in node.attrs.values():
            if isinstance(value, gs.Graph):
                yield from _all_nodes(value)
