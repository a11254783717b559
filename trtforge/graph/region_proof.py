"""The proof by regions: rewritten places are compared one by one, without running the model.

For models too big to be run as a whole at every optimization. Of each kind of rewrite a few
places are taken; both versions of them run in ONNX Runtime on the same values at their borders.
Memory is bounded by the weights of the places taken.
"""

import math
import random
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, ValueInfoProto, helper

from trtforge.errors import GraphError
from trtforge.graph.execute import Feeds, Session
from trtforge.graph.facts import Dims, size_name
from trtforge.graph.inputs import Shapes, random_feeds
from trtforge.graph.model import Model
from trtforge.graph.regions import Region, Side, Version, find_regions, reads_of, weights_bytes
from trtforge.graph.report import Proof
from trtforge.graph.skeleton import merge_fields
from trtforge.graph.symbols import Size
from trtforge.graph.workshop import Known

_PER_KIND = 2
"""Places of one kind differ in their weights and names alone: two of them stand for all."""

_BYTES_AT_ONCE = 192 << 20
"""Weights of the places that run together."""

_MOST_DRAWN_BYTES = 64 << 20
"""Bigger borders are weights in another layout rather than activations; the constants that
borders are computed from are bounded likewise."""

_MOST_FED_NODES = 128
_MOST_RELATED_NODES = 24
"""How many nodes of the original may be computed to get the value of one border."""

_MOST_RELATED_BYTES = 4 << 20
"""So many bytes of constants beyond the region's own may be read to compute one border from
others; it is drawn, otherwise."""

_SEEDS = 2
"""Sets of inputs at each shape."""

Judge = Callable[[Feeds, Feeds], Proof]
"""Compares expected with found outputs."""


@dataclass(frozen=True)
class _Place:
    """A region that can be compared.

    Attributes:
        region: it.
        computed: borders whose values the original computes.
        feeder: all tensors that it computes to get there.
    """

    region: Region
    computed: frozenset[str]
    feeder: frozenset[str]


def seeded_feeds(model: Model, shapes: Sequence[Shapes], seed: int, seeds: int) -> list[Feeds]:
    """Make some sets of inputs at each shape; where there are no values to draw, one set.

    Raises:
        GraphError: see `random_feeds`.
    """
    times = range(seed, seed + seeds if model.contract.inputs else seed + 1)
    return [random_feeds(model, case, number) for case in shapes for number in times]


class RegionReference:
    """The original, to be compared region by region.

    Args:
        model: the original.
        shapes: where to compare; one entry without inputs for a static model.
        seed: of the values and of the choice of places.
        judge: compares outputs.

    Raises:
        GraphError: TF0412, TF0413, there are no inputs for the original.
    """

    def __init__(self, model: Model, shapes: Sequence[Shapes], seed: int, judge: Judge) -> None:
        self._original = Version(model)
        self._seed, self._judge = seed, judge
        self._feeds = seeded_feeds(model, shapes, seed, _SEEDS)
        self._sizes = [_sizes(model, feeds) for feeds in self._feeds]

    def compare(self, candidate: Model, known: Known) -> Proof:
        """Compare the places in which a model differs from the original.

        Args:
            candidate: the rewritten model.
            known: what is known about its tensors.

        Returns:
            pass, fail, or not_run when not one place could be compared.

        Raises:
            GraphError: TF0408, ONNX Runtime cannot run a part.
        """
        after = Version(candidate)
        regions = find_regions(self._original, after)
        if not regions:
            return Proof("pass", scope="no tensor is computed otherwise than before")
        borders = _Borders(self._original, known, self._sizes)
        places = [place for region in regions if (place := borders.place(region)) is not None]
        chosen = self._chosen(places, after)
        proofs: list[Proof] = []
        for batch in _batches(chosen, self._original, after):
            proofs.extend(self._compared(batch, after, borders))
        scope = f"{len(chosen)} of {len(regions)} rewritten places"
        kinds = {region.signature for region in regions}
        left = len(kinds - {place.region.signature for place in chosen})
        scope += f", {left} of {len(kinds)} kinds left out" if left else ", each kind among them"
        return replace(Proof.of_all(proofs, scope, len(self._feeds)), left_out=left)

    def _chosen(self, places: list[_Place], after: Version) -> list[_Place]:
        """Two places of each kind: the one with the smallest weights, and one by chance."""
        kinds: dict[object, list[_Place]] = defaultdict(list)
        for place in places:
            kinds[place.region.signature].append(place)
        generator = random.Random(self._seed)
        chosen: list[_Place] = []
        for alike in kinds.values():
            alike.sort(key=lambda place: weights_bytes([place.region], self._original, after))
            chosen.append(alike.pop(0))
            chosen.extend(generator.sample(alike, min(len(alike), _PER_KIND - 1)))
        return chosen

    def _compared(
        self, places: list[_Place], after: Version, borders: "_Borders"
    ) -> Iterator[Proof]:
        computed = frozenset().union(*(place.computed for place in places))
        cone = frozenset().union(*(place.feeder for place in places))
        feeder = self._original.side(_once(self._original.producer[name] for name in cone))
        before = self._original.side(n for p in places for n in p.region.before.nodes)
        changed = after.side(n for p in places for n in p.region.after.nodes)
        outputs = sorted({name for place in places for name in place.region.outputs})
        inputs = {*before.inputs, *changed.inputs, *feeder.inputs}
        parts: list[_Part] = []
        for index, feeds in enumerate(self._feeds):
            values = dict(feeds)
            for name in sorted(inputs - set(values) - computed):
                values[name] = self._drawn(name, borders, index)
            if not parts:
                parts = [
                    _Part(self._original, before, outputs),
                    _Part(after, changed, outputs),
                    _Part(self._original, feeder, sorted(computed)),
                ]
            if computed:
                values.update(parts[2].run(values))
            yield self._judge(parts[0].run(values), parts[1].run(values))

    def _drawn(self, name: str, borders: "_Borders", index: int) -> np.ndarray:
        generator = np.random.default_rng([self._seed, index, zlib.crc32(name.encode())])
        dtype, shape = borders.free[name]
        return np.asarray(generator.standard_normal(shape[index]).astype(dtype))


class _Borders:
    """Where the values at the borders of regions can come from."""

    def __init__(self, original: Version, known: Known, sizes: Sequence[Mapping[str, int]]) -> None:
        self._original = original
        self.free: dict[str, tuple[np.dtype[Any], list[tuple[int, ...]]]] = {}
        for name, (dtype, dims) in known.items():
            # Any float values will do; integers are indices, shapes and masks.
            if dtype is None or dims is None or dtype.kind not in "fV":
                continue
            shapes = [_numbers(dims, case) for case in sizes]
            known_shapes = [shape for shape in shapes if shape is not None]
            biggest = max(map(math.prod, known_shapes), default=0) * int(dtype.itemsize)
            if len(known_shapes) == len(shapes) and biggest <= _MOST_DRAWN_BYTES:
                self.free[name] = (dtype, known_shapes)

    def place(self, region: Region) -> _Place | None:
        """Find out how a region's borders get their values; None when they cannot.

        A border may follow from others, as where two nodes did the same and one is left: it must
        be computed from them, or the two sides would be asked different questions.
        """
        given = set(region.before.inputs)
        computed: set[str] = set()
        feeder: set[str] = set()
        for name in dict.fromkeys((*region.before.inputs, *region.after.inputs)):
            if name in self._original.graph_inputs:
                continue
            cone = self._behind(name, given.__contains__, _MOST_RELATED_NODES)
            if name in self.free and (cone is None or not self._is_cheap(cone, region)):
                continue
            if cone is None:
                cone = self._behind(name, self.free.__contains__, _MOST_FED_NODES)
            if cone is None:
                return None
            computed.add(name)
            feeder |= cone
        if not self._is_feedable(feeder):
            return None
        return _Place(region, frozenset(computed), frozenset(feeder))

    def _behind(self, name: str, is_leaf: Callable[[str], bool], at_most: int) -> set[str] | None:
        """Return the tensors that must be computed to get `name` from leaves and inputs."""
        original = self._original
        found: set[str] = set()
        queue = [name]
        while queue:
            current = queue.pop()
            if current in found or current in original.constants:
                continue
            if current != name and (is_leaf(current) or current in original.graph_inputs):
                continue
            producer = original.producer.get(current)
            if producer is None or len(found) >= at_most:
                return None
            found.add(current)
            queue.extend(reads_of(producer))
        return found

    def _is_cheap(self, cone: set[str], region: Region) -> bool:
        """Whether computing these tensors reads little beyond what the region reads anyway."""
        original = self._original
        read = {name for result in cone for name in reads_of(original.producer[result])}
        more = (read & set(original.constants)) - set(region.before.constants)
        return sum(map(original.constant_bytes, more)) <= _MOST_RELATED_BYTES

    def _is_feedable(self, cone: set[str]) -> bool:
        """Whether all that these tensors are computed from can be had, and is not too big."""
        original = self._original
        nodes = [original.producer[name] for name in cone]
        read = {name for node in nodes for name in reads_of(node)} - cone
        constants = read & set(original.constants)
        # Of a table that is looked up in, a few rows are read.
        whole = {n for node in nodes if node.op_type != "Gather" for n in reads_of(node)}
        if sum(map(original.constant_bytes, constants & whole)) > _MOST_DRAWN_BYTES:
            return False
        return all(name in self.free or name in original.graph_inputs for name in read - constants)


class _Part:
    """Some nodes of a version, as a model of their own that takes any shapes."""

    def __init__(self, version: Version, side: Side, outputs: list[str]) -> None:
        self._version, self._side, self._outputs = version, side, outputs
        self._session: Session | None = None

    def run(self, values: Feeds) -> Feeds:
        """Compute the outputs from values at the borders."""
        if self._session is None:
            self._session = self._loaded(values)
        return self._session.run({name: values[name] for name in self._side.inputs})

    def _loaded(self, values: Feeds) -> Session:
        source = self._version.model.proto
        proto = ModelProto()
        merge_fields(source, proto, skip={"graph", "metadata_props"})
        proto.graph.name = "part"
        for name in self._side.inputs:
            proto.graph.input.append(_any_shape(name, values[name]))
        for name in self._side.constants:
            constant = self._version.constants[name]
            if isinstance(constant, TensorProto):
                proto.graph.initializer.append(constant)
            else:
                proto.graph.node.append(constant)
        proto.graph.node.extend(self._side.nodes)
        proto.graph.output.extend(ValueInfoProto(name=name) for name in self._outputs)
        return Session(Model(proto, files=self._version.model.files))


def _any_shape(name: str, value: Any) -> ValueInfoProto:
    """Describe an input by a value of it: its type, or that of a sequence's members."""
    array = value[0] if isinstance(value, list) and value else value
    if not isinstance(array, np.ndarray):
        raise GraphError("TF0408", f"'{name}' is empty: its type is not known")
    data_type = helper.np_dtype_to_tensor_dtype(array.dtype)
    if isinstance(value, list):
        return helper.make_tensor_sequence_value_info(name, data_type, None)
    return helper.make_tensor_value_info(name, data_type, [None] * array.ndim)


def _sizes(model: Model, feeds: Feeds) -> dict[str, int]:
    """What the names of dynamic dimensions stand for in these inputs."""
    return {
        size_name(dim): feeds[spec.name].shape[axis]
        for spec in model.contract.inputs
        for axis, dim in enumerate(spec.dims)
        if isinstance(dim, str)
    }


def _numbers(dims: Dims, sizes: Mapping[str, int]) -> tuple[int, ...] | None:
    found = [None if dim is None else Size.of(dim).at(sizes) for dim in dims]
    return tuple(size for size in found if size is not None) if None not in found else None


def _once(nodes: Iterable[Any]) -> list[Any]:
    return list({id(node): node for node in nodes}.values())


def _batches(places: list[_Place], before: Version, after: Version) -> Iterator[list[_Place]]:
    """Divide the places so that the weights that are used at a time are bounded."""
    batch: list[_Place] = []
    size = 0
    for place in places:
        more = weights_bytes([place.region], before, after)
        if batch and size + more > _BYTES_AT_ONCE:
            yield batch
            batch, size = [], 0
        batch.append(place)
        size += more
    if batch:
        yield batch
