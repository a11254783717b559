"""Which range of a foreign calibration cache belongs to which tensor of a model.

Tensors keep their names and their meaning when trtforge cleans a graph up, so names decide. Where
a tensor is not in the cache, one that has the same values is looked for: before or behind operators
that only move values, in the model and in the graph it was made from.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onnx import NodeProto

from trtforge.graph.model import Model
from trtforge.precision.cache import CalibrationCache
from trtforge.precision.ranges import TensorRange

EXACT_MOVERS = frozenset(
    ["Identity", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Dropout", "Cast"]
) | frozenset(["DepthToSpace", "SpaceToDepth", "Expand", "Tile"])
"""Their output has the values of their first input, so both have one range."""

NARROWING = frozenset(["Relu", "MaxPool", "GlobalMaxPool", "Slice", "Gather", "Split"])
"""The magnitudes of their output are at most those of their first input."""

_MOST_STEPS = 8

_UNNAMED_LAYER = re.compile(r"\(Unnamed Layer\*? ?\d+\) \[.*\]_output(_\d+)?")
"""TensorRT's name for the output of a layer that its parser made without a name."""

_SUFFIXES = re.compile(r"(_output_0|:0)$")
"""What PyTorch's exporter and TensorFlow put behind the names of operators' first outputs."""


@dataclass(frozen=True)
class Match:
    """A tensor whose range is known.

    Attributes:
        tensor: its name in the model.
        sources: its name in the cache; several where a Concat joins them.
        how: `name`, `spelling`, `same values` or `upper bound`.
        through: the operators between both.
    """

    tensor: str
    sources: tuple[str, ...]
    how: str = "name"
    through: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the match as plain JSON data."""
        return {
            "tensor": self.tensor,
            "sources": list(self.sources),
            "how": self.how,
            "through": list(self.through),
        }

    def __str__(self) -> str:
        way = f" through {', '.join(self.through)}" if self.through else ""
        sources = ", ".join(f"'{source}'" for source in self.sources)
        return f"'{self.tensor}' from {sources} ({self.how}{way})"


@dataclass(frozen=True)
class Unused:
    """A range that the model does not need.

    Attributes:
        name: in the cache.
        slug: `unnamed-layer`, `fused-away`, `not-needed` or `name-unknown` (`cache_lint.RULES`).
    """

    name: str
    slug: str


@dataclass(frozen=True)
class Matching:
    """What became of a model's tensors and a cache's ranges.

    Attributes:
        ranges: of the tensors that were found, under the model's names.
        matches: how each was found, in the model's order.
        missing: tensors without a range, in the model's order.
        unused: ranges that no tensor takes, in the cache's order.
    """

    ranges: Mapping[str, TensorRange]
    matches: tuple[Match, ...]
    missing: tuple[str, ...]
    unused: tuple[Unused, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the matching as plain JSON data."""
        return {
            "matched": [match.as_json() for match in self.matches],
            "missing": list(self.missing),
            "unused": [{"name": one.name, "rule": one.slug} for one in self.unused],
        }


class Wiring:
    """Who makes and who reads each tensor of a model's outermost graph."""

    def __init__(self, model: Model) -> None:
        """Collect producers and readers."""
        graph = model.proto.graph
        self.producers: dict[str, NodeProto] = {}
        self.readers: dict[str, list[NodeProto]] = {}
        for node in graph.node:
            self.producers.update((name, node) for name in node.output if name)
            for name in set(filter(None, node.input)):
                self.readers.setdefault(name, []).append(node)
        self.tensors = {value.name for value in graph.input} | self.producers.keys()


def match_ranges(
    cache: CalibrationCache, needed: Sequence[str], model: Model, original: Model | None = None
) -> Matching:
    """Find the ranges of a model's tensors.

    Args:
        cache: whoever measured it.
        needed: the tensors that will be quantized (`quantize.candidate_tensors`).
        model: the model that has these tensors.
        original: the model it was made from; its names count, too.
    """
    wirings = [Wiring(one) for one in (model, original) if one is not None]
    finder = _Finder(cache, wirings)
    found = {name: finder.find(name) for name in needed}
    matches = tuple(match for match in found.values() if match is not None)
    taken = {source for match in matches for source in match.sources}
    return Matching(
        {match.tensor: finder.range_of(match) for match in matches},
        matches,
        tuple(name for name, match in found.items() if match is None),
        tuple(_unused(cache, taken, wirings)),
    )


def exact_neighbours(wiring: Wiring, name: str) -> Iterator[tuple[str, str]]:
    """Yield the tensors that have the same values as `name`, one operator away, and operators."""
    producer = wiring.producers.get(name)
    if producer is not None and _moves(producer, EXACT_MOVERS) and producer.output[0] == name:
        yield producer.input[0], producer.op_type
    for node in wiring.readers.get(name, ()):
        if _moves(node, EXACT_MOVERS) and node.input[0] == name:
            yield node.output[0], node.op_type


Neighbours = Callable[[Wiring, str], Iterator[tuple[str, str]]]
"""Gives tensors one operator away from one, with the operator."""


class _Finder:
    def __init__(self, cache: CalibrationCache, wirings: Sequence[Wiring]) -> None:
        self._ranges = cache.ranges
        self._wirings = wirings
        self._spelled: dict[str, list[str]] = {}
        for name in cache.ranges:
            self._spelled.setdefault(_SUFFIXES.sub("", name), []).append(name)
        self._tensors = set().union(*(wiring.tensors for wiring in wirings))

    def find(self, name: str) -> Match | None:
        source = self._known(name)
        if source is not None:
            return Match(name, (source,), "name" if source == name else "spelling")
        return self._same_values(name) or self._upper_bound(name)

    def range_of(self, match: Match) -> TensorRange:
        parts = [self._ranges[source] for source in match.sources]
        if len(parts) == 1:
            return parts[0]
        return TensorRange(
            min=min(part.min for part in parts),
            max=max(part.max for part in parts),
            amax=max(part.amax for part in parts),
        )

    def _known(self, name: str) -> str | None:
        """The name in the cache; another spelling where there is but one that is no tensor's."""
        if name in self._ranges:
            return name
        alike = self._spelled.get(_SUFFIXES.sub("", name), [])
        return alike[0] if len(alike) == 1 and alike[0] not in self._tensors else None

    def _same_values(self, name: str) -> Match | None:
        return self._search(name, exact_neighbours, "same values")

    def _upper_bound(self, name: str) -> Match | None:
        return self._search(name, _larger_neighbours, "upper bound") or self._concat(name)

    def _search(self, name: str, neighbours: Neighbours, how: str) -> Match | None:
        """Breadth first, so that the nearest tensor wins; both graphs are one search."""
        seen = {name}
        border: list[tuple[str, tuple[str, ...]]] = [(name, ())]
        for _ in range(_MOST_STEPS):
            following: list[tuple[str, tuple[str, ...]]] = []
            for at, way in border:
                steps = [step for wiring in self._wirings for step in neighbours(wiring, at)]
                for other, op in steps:
                    if other in seen:
                        continue
                    seen.add(other)
                    source = self._known(other)
                    if source is not None:
                        return Match(name, (source,), how, (*way, op))
                    following.append((other, (*way, op)))
            border = following
        return None

    def _concat(self, name: str) -> Match | None:
        """What a Concat joins has the largest of its parts' ranges."""
        for wiring in self._wirings:
            producer = wiring.producers.get(name)
            if producer is None or producer.op_type != "Concat":
                continue
            sources = [self._known(part) for part in producer.input]
            found = tuple(source for source in sources if source is not None)
            if len(found) == len(sources):
                return Match(name, found, "same values", ("Concat",))
        return None


def _larger_neighbours(wiring: Wiring, name: str) -> Iterator[tuple[str, str]]:
    producer = wiring.producers.get(name)
    if producer is not None and _moves(producer, NARROWING):
        yield producer.input[0], producer.op_type
    yield from exact_neighbours(wiring, name)


def _moves(node: NodeProto, operators: frozenset[str]) -> bool:
    return node.op_type in operators and node.domain in ("", "ai.onnx") and bool(node.input)


def _unused(cache: CalibrationCache, taken: set[str], wirings: list[Wiring]) -> Iterator[Unused]:
    for name in cache.ranges:
        if name in taken:
            continue
        if name in wirings[0].tensors:
            yield Unused(name, "not-needed")
        elif any(name in wiring.tensors for wiring in wirings[1:]):
            yield Unused(name, "fused-away")
        elif _UNNAMED_LAYER.fullmatch(name):
            yield Unused(name, "unnamed-layer")
        else:
            yield Unused(name, "name-unknown")
