"""Nodes in an order in which every tensor is computed before it is read.

ONNX asks for that order (https://onnx.ai/onnx/repo-docs/IR.html#graphs); scripts that edit models
forget it, and neither ONNX Runtime nor TensorRT takes the result.
"""

from collections.abc import Iterator
from heapq import heappop, heappush

from onnx import GraphProto, ModelProto, NodeProto


def sort_nodes(proto: ModelProto) -> int:
    """Put the nodes of all graphs of a model in order, in place.

    Nodes that could stand where they stand keep their order. A graph with a cycle is left alone:
    onnx.checker says what is wrong with it.

    Returns:
        How many graphs were out of order.
    """
    return _sort(proto.graph)


def _sort(graph: GraphProto) -> int:
    made = {name for node in graph.node for name in node.output}
    changed = sum(_sort(body) for node in graph.node for body in _bodies(node))
    if _is_sorted(graph, made):
        return changed
    order = _ordered(graph, made)
    if order is None:
        return changed
    nodes = [NodeProto.FromString(node.SerializeToString()) for node in order]
    del graph.node[:]
    graph.node.extend(nodes)
    return changed + 1


def _bodies(node: NodeProto) -> Iterator[GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _is_sorted(graph: GraphProto, made: set[str]) -> bool:
    ready: set[str] = set()
    for node in graph.node:
        if any(name in made and name not in ready for name in _reads(node)):
            return False
        ready.update(node.output)
    return True


def _reads(node: NodeProto) -> list[str]:
    """What a node and its bodies read; names of a body's own are among them.

    They do no harm: no tensor outside may have such a name.
    """
    names = list(node.input)
    for body in _bodies(node):
        names.extend(name for inner in body.node for name in _reads(inner))
        names.extend(info.name for info in body.output)
    return names


def _ordered(graph: GraphProto, made: set[str]) -> list[NodeProto] | None:
    """Of the nodes that can come next always the first; None when there is a cycle."""
    producer = {name: i for i, node in enumerate(graph.node) for name in node.output if name}
    waits = [
        {producer[name] for name in _reads(node) if name in made and name in producer}
        for node in graph.node
    ]
    readers: list[list[int]] = [[] for _ in waits]
    for index, sources in enumerate(waits):
        for source in sources:
            readers[source].append(index)
    missing = [len(sources) for sources in waits]
    order: list[NodeProto] = []
    ready = [index for index, count in enumerate(missing) if count == 0]
    while ready:
        index = heappop(ready)
        order.append(graph.node[index])
        for reader in readers[index]:
            missing[reader] -= 1
            if missing[reader] == 0:
                heappush(ready, reader)
    return order if len(order) == len(graph.node) else None
