"""Where Q/DQ pairs stand: one per tensor, for all its quantized readers, and as few as can be.

Operators of `PASSING` commute with Q and DQ, so a pair may stand before or behind them. It stands
behind, directly in front of what it is for, unless the tensor before is quantized for another
reader anyway, or two pairs become one; and never where a reader that wants floats would get rounded
ones. A Concat is quantized before it where one of its inputs is quantized for another reader: all
its inputs then have a pair, with one common scale, and INT8 values are copied.

One walk against the direction of data, linear in the size of the graph.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import onnx_graphsurgeon as gs

from trtforge.precision.placement_rules import JOINING, PASSING, TARGETS, UNITE_WITHIN, holds_for
from trtforge.precision.rules import describe, kept_by
from trtforge.precision.scale_groups import ScaleGroups
from trtforge.precision.sites import Product, Site, Skip
from trtforge.recipe.schema import KeepRule


@dataclass(frozen=True)
class Pair:
    """One Q/DQ pair.

    Attributes:
        tensor: what is quantized.
        readers: who reads the dequantized tensor instead: (node, index of its input).
        group: the names of all tensors whose ranges decide the scale, itself included.
    """

    tensor: gs.Tensor
    readers: tuple[tuple[gs.Node, int], ...]
    group: tuple[str, ...]


@dataclass(frozen=True)
class Sharing:
    """The pairs of a graph.

    Attributes:
        pairs: in graph order.
        needed: names of all tensors whose ranges may be asked for, in graph order.
        movers: id(node) -> what a mover or Concat does: pass a scale on, or why not. Those that
            lead to no pair are left out.
        passed: id of those that pass a scale on.
    """

    pairs: tuple[Pair, ...]
    needed: tuple[str, ...]
    movers: Mapping[int, str]
    passed: frozenset[int]


def share_pairs(
    graph: gs.Graph,
    wanted: Iterable[Site | Product | Skip],
    amax: Mapping[str, float] | None = None,
    keep: Sequence[KeepRule] = (),
    targets: tuple[str, ...] = TARGETS,
) -> Sharing:
    """Decide where pairs stand.

    Args:
        graph: topologically sorted.
        wanted: what is to be quantized.
        amax: the ranges' magnitudes; None before calibration, and then `needed` covers whatever
            ranges will turn up.
        keep: movers that a rule names pass nothing on.
        targets: as in `find_sites`.
    """
    walk = _Walk(graph, ScaleGroups(amax, UNITE_WITHIN), keep, targets)
    for found in wanted:
        for index in found.reads:
            walk.demand(found.node, index)
    return walk.run()


def _is_nearest(node: gs.Node) -> bool:
    crops = node.attrs.get("coordinate_transformation_mode") == "tf_crop_and_resize"
    return node.attrs.get("mode", "nearest") == "nearest" and not crops


def _pads_zeros(node: gs.Node) -> bool:
    if len(node.inputs) < 3 or not node.inputs[2].name:
        return True
    value = node.inputs[2]
    return isinstance(value, gs.Constant) and not value.values.any()


CONDITIONS: dict[str, Callable[[gs.Node], bool]] = {
    "": lambda node: True,
    "nearest": _is_nearest,
    "zeros are padded": _pads_zeros,
}
"""What `Passing.only` may say: zero and copied values are exact at every scale."""


@dataclass(eq=False)
class _Tensor:
    """What the walk knows of a tensor.

    Attributes:
        demands: (id(node), index) -> the reader that wants it quantized.
        is_fixed: a pair stands here.
        movers: movers that read the pair here.
        through: the mover by which its only quantized readers are reached; the pair may rise.
        ends: the tensors at which the pairs stand that it leads to, itself if it has one.
        is_whole: it has the range of its one end.
        is_wanted: nothing but quantized readers reads it, so it may as well come out of a DQ.
    """

    demands: dict[tuple[int, int], tuple[gs.Node, int]] = field(default_factory=dict)
    is_fixed: bool = False
    movers: list[gs.Node] = field(default_factory=list)
    through: gs.Node | None = None
    ends: list[str] = field(default_factory=list)
    is_whole: bool = True
    is_wanted: bool = False


class _Walk:
    def __init__(
        self,
        graph: gs.Graph,
        groups: ScaleGroups,
        keep: Sequence[KeepRule],
        targets: tuple[str, ...],
    ) -> None:
        self._graph = graph
        self._groups = groups
        self._keep = keep
        self._targets = targets
        self._outputs = {tensor.name for tensor in graph.outputs}
        self._known: dict[str, _Tensor] = defaultdict(_Tensor)
        self._needed: set[str] = set()
        self._read: dict[int, dict[int, list[int]]] = {}
        self._passed: set[int] = set()
        self._objections: dict[int, str] = {}

    def demand(self, node: gs.Node, index: int) -> None:
        name = node.inputs[index].name
        self._known[name].demands[id(node), index] = (node, index)
        self._needed.add(name)

    def run(self) -> Sharing:
        for node in reversed(self._graph.nodes):
            for tensor in node.outputs:
                self._visit(tensor)
            if node.op in JOINING and node.outputs[0].name in self._known:
                self._join(node)
        for tensor in self._graph.inputs:
            self._visit(tensor)
        tensors = [*self._graph.inputs, *(t for node in self._graph.nodes for t in node.outputs)]
        pairs = tuple(self._pair(tensor) for tensor in tensors if self._is_fixed(tensor.name))
        needed = tuple(tensor.name for tensor in tensors if tensor.name in self._needed)
        return Sharing(pairs, needed, dict(self._explained()), frozenset(self._passed))

    def _is_fixed(self, name: str) -> bool:
        return name in self._known and self._known[name].is_fixed

    def _pair(self, tensor: gs.Tensor) -> Pair:
        known = self._known[tensor.name]
        readers = (*known.demands.values(), *((mover, 0) for mover in known.movers))
        return Pair(tensor, readers, self._groups.members(tensor.name))

    def _visit(self, tensor: gs.Tensor) -> None:
        """Decide on one tensor; all that read it have been decided on."""
        if not tensor.name:
            return
        movers, is_float = self._readers(tensor)
        if not movers and tensor.name not in self._known:
            return
        known = self._known[tensor.name]
        if known.demands or self._saves(tensor.name, movers):
            for mover in movers:
                is_free = bool(known.demands) or self._is_free(mover)
                is_float |= not (is_free and self._lift(mover, tensor.name))
            if known.demands or known.movers:
                known.is_fixed, known.ends = True, [tensor.name]
                self._needed.add(tensor.name)
        elif len(movers) == 1 and not is_float:
            known.through = movers[0]
            known.ends = self._ends(movers[0])
            known.is_whole = self._is_whole(movers[0])
        known.is_wanted = bool(known.ends) and not is_float

    def _readers(self, tensor: gs.Tensor) -> tuple[list[gs.Node], bool]:
        """Movers of which only quantized values are wanted, and whether anything wants floats."""
        demands = self._known[tensor.name].demands if tensor.name in self._known else {}
        movers: dict[int, gs.Node] = {}
        is_float = tensor.name in self._outputs
        for reader in tensor.outputs:
            indices = self._places(reader).get(id(tensor), [])
            if indices and all((id(reader), index) in demands for index in indices):
                continue
            if indices == [0] and self._is_wanted_behind(reader) and not self._refused(reader):
                movers[id(reader)] = reader
            else:
                is_float = True
        return list(movers.values()), is_float

    def _places(self, node: gs.Node) -> dict[int, list[int]]:
        """Where a node reads each tensor: id(tensor) -> indices; looked up once a node."""
        if id(node) not in self._read:
            places: dict[int, list[int]] = defaultdict(list)
            for index, tensor in enumerate(node.inputs):
                places[id(tensor)].append(index)
            self._read[id(node)] = places
        return self._read[id(node)]

    def _is_wanted_behind(self, node: gs.Node) -> bool:
        """Whether quantized readers, and nobody else, read each output that is used."""
        used = [t for t in node.outputs if t.outputs or t.name in self._outputs]
        known = [self._known.get(tensor.name) for tensor in used]
        return (
            node.op in PASSING and bool(used) and all(k is not None and k.is_wanted for k in known)
        )

    def _refused(self, node: gs.Node) -> str | None:
        """Why a node of `PASSING` or `JOINING` passes nothing on, or None."""
        kept = kept_by(node, self._keep)
        if kept is not None:
            return describe(kept)
        rule = PASSING.get(node.op) or JOINING[node.op]
        if node.domain not in (None, "", "ai.onnx") or not holds_for(rule.sources, self._targets):
            return "not every target lets it pass a scale on"
        return None if CONDITIONS[rule.only](node) else f"it passes a scale on only if {rule.only}"

    def _ends(self, mover: gs.Node) -> list[str]:
        """The tensors behind a mover at which pairs stand."""
        found = [self._known[t.name].ends for t in mover.outputs if t.name in self._known]
        return found[0] if len(found) == 1 else [name for names in found for name in names]

    def _is_whole(self, mover: gs.Node) -> bool:
        return PASSING[mover.op].whole and self._known[mover.outputs[0].name].is_whole

    def _is_free(self, mover: gs.Node) -> bool:
        """Whether a pair before the mover costs no accuracy: one range, or one scale already."""
        ends = self._ends(mover)
        return self._is_whole(mover) if len(ends) == 1 else self._groups.are_one(ends)

    def _saves(self, name: str, movers: Sequence[gs.Node]) -> bool:
        """Whether a pair of `name` takes the place of two or more behind the movers."""
        ends = sum(len(self._ends(mover)) for mover in movers if self._is_free(mover))
        return ends > 1 and self._groups.knows(name)

    def _lift(self, mover: gs.Node, name: str) -> bool:
        """Let a mover read the pair of `name`; those behind it go. False: ranges are too far."""
        objection = self._groups.unite([name, *self._ends(mover)])
        if objection is not None:
            self._objections[id(mover)] = objection
            return False
        self._known[name].movers.append(mover)
        self._release(mover)
        return True

    def _release(self, node: gs.Node) -> None:
        """Take the pairs behind a node away: quantized values come through it."""
        pending = [node]
        while pending:
            current = pending.pop()
            self._passed.add(id(current))
            for tensor in current.outputs:
                known = self._known.get(tensor.name)
                if known is not None and known.is_fixed:
                    known.is_fixed = False
                elif known is not None and known.through is not None:
                    pending.append(known.through)

    def _join(self, node: gs.Node) -> None:
        """Quantize a Concat's inputs rather than its output, where one is quantized anyway."""
        result = self._known[node.outputs[0].name]
        if not result.ends:
            return
        objection = self._refused(node) or self._apart(node, result)
        if objection is None:
            names = list(dict.fromkeys(tensor.name for tensor in node.inputs))
            self._needed.update(names)
            objection = self._groups.unite([*result.ends, *names])
        if objection is not None:
            self._objections[id(node)] = objection
            return
        self._release(node)
        for index in range(len(node.inputs)):
            self.demand(node, index)

    def _apart(self, node: gs.Node, result: _Tensor) -> str | None:
        """Why a Concat is not quantized before it, ranges apart; None when it is."""
        for tensor in node.inputs:
            if isinstance(tensor, gs.Constant):
                return f"its input '{tensor.name}' is a constant"
        if not result.is_wanted:
            return f"'{node.outputs[0].name}' is read in floats too"
        known = (self._known.get(tensor.name) for tensor in node.inputs)
        if not any(one is not None and one.demands for one in known):
            return "none of its inputs is quantized for another reader"
        return None

    def _explained(self) -> Iterator[tuple[int, str]]:
        """What each mover and Concat does whose output leads to a pair or comes out of one."""
        source: dict[str, str] = {}
        for node in self._graph.nodes:
            if node.op not in PASSING and node.op not in JOINING:
                continue
            name = node.inputs[0].name
            if id(node) in self._passed:
                origin = name if self._is_fixed(name) else source.get(name, name)
                source.update((tensor.name, origin) for tensor in node.outputs)
                if node.op in JOINING:
                    yield id(node), "quantized before it: its inputs have pairs of one scale"
                else:
                    yield id(node), f"it passes on the scale of '{origin}', where the pair stands"
            elif any(self._is_fixed(tensor.name) for tensor in node.outputs):
                yield id(node), f"the pair stands behind it: {self._why_behind(node)}"

    def _why_behind(self, node: gs.Node) -> str:
        reason = self._objections.get(id(node)) or self._refused(node)
        if reason is None and not self._is_wanted_behind(node):
            reason = "its result is read in floats too"
        return reason or f"nothing else quantizes '{node.inputs[0].name}'"
