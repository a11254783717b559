"""Which cheap nodes should be FP32 so that the fewest bytes are moved by casts: a minimum cut.

A tensor whose producer and readers are not all of one type costs one cast. Nodes whose type is
settled are the two ends; cheap nodes lie between, and each costs a little when it is FP32. A tensor
with many members is one edge of a hypergraph, since one cast serves all its readers.
Source of the construction: E. Lawler, "Cutsets and partitions of hypergraphs", Networks 3 (1973).
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

WIDE, NARROW, EDGE = -1, -2, -3
"""Members whose type is settled: FP32, the wanted type, FP32 because it is the model's border."""

_LAUNCH = 1024
"""What a cast costs beside its bytes, in units of 4 KiB of memory traffic: about 4 us of a GPU."""

_UNKNOWN_SIZE = 16
_UNKNOWN_ELEMENTS = 1 << 16
_ENDLESS = 1 << 60


@dataclass
class Net:
    """One tensor: the vertices that make or read it, or the ends above; and what a cast costs."""

    cost: int
    members: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Vertex:
    """A node that may be either type.

    Attributes:
        cost: of being FP32.
        is_mover: it only moves values.
    """

    cost: int
    is_mover: bool


def cast_cost(dims: Sequence[int | None] | None) -> int:
    """Cost of a cast: four bytes read and two written for each element, or the other way round."""
    return _LAUNCH + (6 * _elements(dims) >> 12)


def wide_cost(dims: Sequence[int | None] | None) -> int:
    """Cost of a node in FP32: two bytes more for each element, read and written."""
    return 8 + (4 * _elements(dims) >> 12)


def _elements(dims: Sequence[int | None] | None) -> int:
    if dims is None:
        return _UNKNOWN_ELEMENTS
    count = 1
    for size in dims:
        count *= _UNKNOWN_SIZE if size is None else size
    return count


def better_wide(vertices: Sequence[Vertex], nets: Sequence[Net]) -> set[int]:
    """Return the vertices that are FP32 in the cheapest choice, the fewest where choices tie.

    A group of them that touches nothing but inputs and outputs of the model stays as it is, unless
    all of it only moves values: a network of arithmetic alone was asked to compute in the type.
    """
    wide: set[int] = set()
    for group, within in _groups(len(vertices), nets):
        kinds = {member for net in within for member in net.members if member < 0}
        is_moving = all(vertices[index].is_mover for index in group)
        if WIDE in kinds or (EDGE in kinds and (NARROW in kinds or is_moving)):
            wide |= _cut(vertices, group, within)
    return wide


def _groups(count: int, nets: Sequence[Net]) -> list[tuple[list[int], list[Net]]]:
    """Vertices that share tensors, directly or through others, with their nets."""
    parent = list(range(count))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    for net in nets:
        free = [member for member in net.members if member >= 0]
        for other in free[1:]:
            parent[root(other)] = root(free[0])
    groups: dict[int, tuple[list[int], list[Net]]] = defaultdict(lambda: ([], []))
    for index in range(count):
        groups[root(index)][0].append(index)
    for net in nets:
        first = next((member for member in net.members if member >= 0), None)
        if first is not None:
            groups[root(first)][1].append(net)
    return list(groups.values())


def _cut(vertices: Sequence[Vertex], group: Sequence[int], nets: Sequence[Net]) -> set[int]:
    places = {index: place for place, index in enumerate(group, start=2)}
    flow = _Flow(len(group) + 2)
    for index in group:
        flow.arc(places[index], _Flow.SINK, vertices[index].cost)
    for net in nets:
        members = {member if member >= 0 or member == NARROW else WIDE for member in net.members}
        if len(members) < 2 or members >= {WIDE, NARROW}:
            continue  # never cast, or cast whatever is chosen
        free = [places[member] for member in members if member >= 0]
        sources = [*free, *([_Flow.SOURCE] if WIDE in members else [])]
        sinks = [*free, *([_Flow.SINK] if NARROW in members else [])]
        if len(members) == 2:  # an ordinary edge
            pair = sources[-1], sinks[-1] if NARROW in members else free[0]
            flow.arc(*pair, net.cost, net.cost if len(free) == 2 else 0)
            continue
        start, end = flow.vertex(), flow.vertex()
        flow.arc(start, end, net.cost)
        for place in sources:
            flow.arc(place, start, _ENDLESS)
        for place in sinks:
            flow.arc(end, place, _ENDLESS)
    reached = flow.reached()
    return {index for index in group if reached[places[index]]}


class _Flow:
    """A network of arcs, and its greatest flow by Dinic's method.

    Source: E. Dinic, Soviet Math. Doklady 11 (1970).
    """

    SOURCE, SINK = 0, 1

    def __init__(self, size: int) -> None:
        self._arcs: list[list[int]] = [[] for _ in range(size)]
        self._ends: list[int] = []
        self._room: list[int] = []

    def vertex(self) -> int:
        self._arcs.append([])
        return len(self._arcs) - 1

    def arc(self, start: int, end: int, room: int, back: int = 0) -> None:
        for source, target, capacity in ((start, end, room), (end, start, back)):
            self._arcs[source].append(len(self._ends))
            self._ends.append(target)
            self._room.append(capacity)

    def reached(self) -> list[bool]:
        """Whether the source still reaches each vertex once the flow is the greatest."""
        while (levels := self._levels())[self.SINK] >= 0:
            self._push(levels)
        return [level >= 0 for level in levels]

    def _levels(self) -> list[int]:
        levels = [-1] * len(self._arcs)
        levels[self.SOURCE], rank = 0, [self.SOURCE]
        while rank:
            following = []
            for vertex in rank:
                for arc in self._arcs[vertex]:
                    end = self._ends[arc]
                    if self._room[arc] and levels[end] < 0:
                        levels[end] = levels[vertex] + 1
                        following.append(end)
            if levels[self.SINK] >= 0:
                break
            rank = following
        return levels

    def _push(self, levels: Sequence[int]) -> None:
        """Send as much as goes through along shortest paths."""
        following = [0] * len(self._arcs)
        path: list[int] = []
        vertex = self.SOURCE
        while True:
            if vertex == self.SINK:
                vertex = self._send(path)
                continue
            arcs = self._arcs[vertex]
            while following[vertex] < len(arcs):
                arc = arcs[following[vertex]]
                if self._room[arc] and levels[self._ends[arc]] == levels[vertex] + 1:
                    break
                following[vertex] += 1
            if following[vertex] < len(arcs):
                path.append(arcs[following[vertex]])
                vertex = self._ends[path[-1]]
            elif path:
                vertex = self._ends[path.pop() ^ 1]
                following[vertex] += 1
            else:
                return

    def _send(self, path: list[int]) -> int:
        """Send along a path; cut it off before the first arc that is full, and return its end."""
        amount = min(self._room[arc] for arc in path)
        full = 0
        for place in reversed(range(len(path))):
            self._room[path[place]] -= amount
            self._room[path[place] ^ 1] += amount
            if not self._room[path[place]]:
                full = place
        vertex = self._ends[path[full] ^ 1]
        del path[full:]
        return vertex
