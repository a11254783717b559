"""Tensor names that are unique in the whole model: bodies beside each other may repeat them.

With them, one table by name describes the tensors of all scopes.
"""

from collections.abc import Iterator, Mapping

from onnx import GraphProto, ModelProto, NodeProto

from trtforge.graph.model import Model


def with_unique_names(model: Model) -> Model:
    """Rename tensors of bodies whose names another scope has as well.

    Returns:
        The model itself where no name is repeated. Inputs, outputs and all other tensors of the
        main graph keep their names.
    """
    scopes = list(_scopes(model.proto.graph))
    if len(scopes) == 1:
        return model
    defined = [_defined(scope) for scope in scopes]
    everything = frozenset[str]().union(*defined)
    if len(everything) == sum(map(len, defined)):
        return model
    proto = ModelProto()
    proto.CopyFrom(model.proto)
    _Renamer(set(everything)).rename(proto.graph, {})
    return Model(proto, files=model.files)


def _scopes(graph: GraphProto) -> Iterator[GraphProto]:
    yield graph
    for node in graph.node:
        for body in _bodies(node):
            yield from _scopes(body)


def _bodies(node: NodeProto) -> Iterator[GraphProto]:
    return (attribute.g for attribute in node.attribute if attribute.HasField("g"))


def _defined(graph: GraphProto) -> set[str]:
    names = {value.name for value in graph.input}
    names.update(weight.name for weight in graph.initializer)
    names.update(weight.values.name for weight in graph.sparse_initializer)
    names.update(name for node in graph.node for name in node.output if name)
    return names


class _Renamer:
    def __init__(self, taken: set[str]) -> None:
        self._taken = taken
        self._seen: set[str] = set()
        self._numbers: dict[str, int] = {}

    def rename(self, graph: GraphProto, outer: Mapping[str, str]) -> None:
        """Rename in one graph and its bodies; `outer` is what outer names have become."""
        own = _defined(graph)
        names = {old: new for old, new in outer.items() if old not in own}
        names |= {name: self._fresh(name) for name in sorted(own & self._seen)}
        self._seen |= own
        if names:
            self._apply(graph, names)
        for node in graph.node:
            for body in _bodies(node):
                self.rename(body, names)

    @staticmethod
    def _apply(graph: GraphProto, names: Mapping[str, str]) -> None:
        weights = (*graph.initializer, *(sparse.values for sparse in graph.sparse_initializer))
        for described in (*graph.input, *graph.output, *graph.value_info, *weights):
            described.name = names.get(described.name, described.name)
        for node in graph.node:
            for index, name in enumerate(node.input):
                node.input[index] = names.get(name, name)
            for index, name in enumerate(node.output):
                node.output[index] = names.get(name, name)

    def _fresh(self, name: str) -> str:
        number = self._numbers.get(name, 1)
        fresh = name
        while fresh in self._taken:
            number += 1
            fresh = f"{name}_{number}"
        self._numbers[name] = number
        self._taken.add(fresh)
        return fresh
