"""Names for new tensors."""

from collections import Counter

import onnx_graphsurgeon as gs

from trtforge.graph.nodes import bodies


class Names:
    """The names of a model's tensors, in all its graphs: a new one is in use nowhere."""

    def __init__(self, root: gs.Graph) -> None:
        self._used: set[str] = set()
        self._last: dict[str, int] = {}
        self._defined: Counter[str] = Counter()
        self._add(root)
        for node in root.nodes:
            for body in bodies(node):
                self._add(body)

    def _add(self, graph: gs.Graph) -> None:
        defined = {tensor.name for tensor in graph.inputs}
        self._used.update(tensor.name for tensor in graph.outputs)
        for node in graph.nodes:
            self._used.update(tensor.name for tensor in node.inputs)
            defined.update(tensor.name for tensor in node.outputs)
        origin = getattr(graph, "origin", None)
        if origin is not None:
            defined.update(tensor.name for tensor in origin.proto.initializer)
        self._used |= defined
        self._defined.update(defined)

    def is_shared(self, name: str) -> bool:
        """Return whether two graphs, such as the branches of two Ifs, defined this name."""
        return self._defined[name] > 1

    def fresh(self, base: str) -> str:
        """Return a name that begins with `base`, is new, and from now on is in use."""
        name, number = base, self._last.get(base, 0)
        while name in self._used:
            number += 1
            name = f"{base}_{number}"
        self._last[base] = number  # a weight that thousands share has thousands of new names
        self._used.add(name)
        return name
