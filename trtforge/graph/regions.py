"""Where two versions of a model differ: regions between tensors that both compute.

A tensor's name means the same in both versions. So each region can be held against its
counterpart by itself, fed with the same values at its borders; if all regions agree, so do the
models. Weights outside the regions are never touched.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from onnx import GraphProto, NodeProto, TensorProto

from trtforge.graph.model import Model
from trtforge.graph.weights import is_external, storage_bytes


@dataclass(frozen=True)
class Side:
    """One version's part of a region.

    Attributes:
        nodes: in topological order.
        inputs: tensors that it reads and does not compute; constants are none.
        constants: names of initializers (and of Constant nodes) that it reads.
    """

    nodes: tuple[NodeProto, ...]
    inputs: tuple[str, ...]
    constants: tuple[str, ...]


@dataclass(frozen=True)
class Region:
    """A place where the versions differ.

    Attributes:
        before: the original's part.
        after: the rewritten model's part.
        outputs: tensors that both compute here.
    """

    before: Side
    after: Side
    outputs: tuple[str, ...]

    @cached_property
    def signature(self) -> tuple[object, ...]:
        """What kind of rewrite this is: the operators of both sides."""
        return tuple(
            tuple(sorted(Counter(node.op_type for node in side.nodes).items()))
            for side in (self.before, self.after)
        )


class Version:
    """A model's outermost graph, looked up by name."""

    def __init__(self, model: Model) -> None:
        graph: GraphProto = model.proto.graph
        self.model = model
        self.constants: dict[str, TensorProto | NodeProto] = {
            tensor.name: tensor for tensor in graph.initializer
        }
        self.aliases: dict[str, str] = {}
        self.nodes: list[NodeProto] = []
        for node in graph.node:
            if node.op_type == "Constant" and not node.domain:
                self.constants[node.output[0]] = node
            else:
                self.nodes.append(node)
                if node.op_type == "Identity" and not node.domain:
                    self.aliases[node.output[0]] = node.input[0]
        self._position = {id(node): index for index, node in enumerate(self.nodes)}
        self.producer = {name: node for node in self.nodes for name in node.output if name}
        self.graph_inputs = {info.name for info in graph.input} - set(self.constants)

    def resolved(self, name: str) -> str:
        """Return the tensor that Identity nodes hand on under this name."""
        seen = set()
        while name in self.aliases and name not in seen:
            seen.add(name)
            name = self.aliases[name]
        return name

    def constant_bytes(self, name: str) -> int:
        """Return the size of a constant's values."""
        constant = self.constants[name]
        return storage_bytes(constant) if isinstance(constant, TensorProto) else 0

    def side(self, nodes: Iterable[NodeProto]) -> Side:
        """Return some nodes, each once and in order, with what they read from outside."""
        positions = {self._position[id(node)] for node in nodes}
        ordered = tuple(self.nodes[position] for position in sorted(positions))
        made = {name for node in ordered for name in node.output}
        read = dict.fromkeys(n for node in ordered for n in reads_of(node) if n not in made)
        constants = tuple(name for name in read if name in self.constants)
        return Side(ordered, tuple(n for n in read if n not in self.constants), constants)

    def key(self, node: NodeProto) -> tuple[object, ...]:
        """Return what a node computes from what: equal keys in two versions, equal nodes."""
        reads = tuple(self._input_key(name) for name in node.input)
        attributes = tuple(sorted(a.SerializeToString(deterministic=True) for a in node.attribute))
        return (node.op_type, node.domain, reads, tuple(node.output), attributes)

    def _input_key(self, name: str) -> object:
        name = self.resolved(name)
        constant = self.constants.get(name)
        return name if constant is None else _content(constant)


def _content(constant: TensorProto | NodeProto) -> object:
    """A constant by its content: bytes, or where they lie."""
    if isinstance(constant, NodeProto):
        attribute = constant.attribute[0] if constant.attribute else None
        if attribute is None or not attribute.HasField("t"):
            return constant.SerializeToString(deterministic=True)
        constant = attribute.t
    if is_external(constant):
        where: object = tuple((entry.key, entry.value) for entry in constant.external_data)
    elif constant.HasField("raw_data"):
        where = constant.raw_data
    else:
        where = constant.SerializeToString(deterministic=True)
    return (constant.data_type, tuple(constant.dims), where)


def reads_of(node: NodeProto) -> Iterator[str]:
    """Yield the tensors that a node reads, those that its bodies take from outside included."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for body in (*((attribute.g,) if attribute.HasField("g") else ()), *attribute.graphs):
            yield from _captured(body)


def _captured(body: GraphProto) -> Iterator[str]:
    own = {info.name for info in body.input}
    own.update(tensor.name for tensor in body.initializer)
    own.update(name for node in body.node for name in node.output)
    for node in body.node:
        yield from (name for name in reads_of(node) if name not in own)
    yield from (info.name for info in body.output if info.name not in own)


def find_regions(before: Version, after: Version) -> list[Region]:
    """Find where two versions differ, in the order of the original's nodes.

    One region for each tensor that both versions compute, and that one of them computes by nodes
    that the other does not have: on each side these nodes, back to tensors that both have. Nodes
    that lead to nothing that both have are in no region.
    """
    shared = Counter(before.key(node) for node in before.nodes)
    kept = Counter(after.key(node) for node in after.nodes)
    old = {id(node) for node in before.nodes if kept[before.key(node)] < 1}
    new = {id(node) for node in after.nodes if shared[after.key(node)] < 1}
    common = set(before.producer) & set(after.producer)
    outputs: dict[tuple[tuple[int, ...], tuple[int, ...]], list[str]] = {}
    cones: dict[tuple[tuple[int, ...], tuple[int, ...]], tuple[_Cone, _Cone]] = {}
    for name, node in before.producer.items():
        if name not in common or (id(node) not in old and id(after.producer[name]) not in new):
            continue
        pair = (_cone(before, name, common, old), _cone(after, name, common, new))
        key = (tuple(map(id, pair[0])), tuple(map(id, pair[1])))
        outputs.setdefault(key, []).append(name)  # two results of one node are one region
        cones.setdefault(key, pair)
    return [
        Region(before.side(one), after.side(two), tuple(outputs[key]))
        for key, (one, two) in cones.items()
    ]


_Cone = list[NodeProto]

_MOST_NODES = 4096
"""A longer way back to common tensors is not followed: the cost would grow with its square."""


def _cone(version: Version, name: str, common: set[str], changed: set[int]) -> _Cone:
    """Return the changed nodes behind a tensor, as far as tensors that both versions have."""
    found: dict[int, NodeProto] = {}
    queue = [version.producer[name]]
    while queue and len(found) < _MOST_NODES:
        node = queue.pop()
        if id(node) in found:
            continue
        found[id(node)] = node
        for read in reads_of(node):
            source = version.producer.get(read)
            if source is not None and read not in common and id(source) in changed:
                queue.append(source)
    return list(found.values())


def weights_bytes(regions: Iterable[Region], before: Version, after: Version) -> int:
    """Return the bytes of all constants that the regions read, on both sides."""
    old = {name for region in regions for name in region.before.constants}
    new = {name for region in regions for name in region.after.constants}
    return sum(map(before.constant_bytes, old)) + sum(map(after.constant_bytes, new))
