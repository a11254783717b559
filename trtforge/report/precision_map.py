"""What the graph computes in: shares by type, and every node in graph order."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from trtforge.report.data import Json
from trtforge.report.figures import count, number, percent, short, size
from trtforge.report.marks import Chart, Rect, percents
from trtforge.report.types import LETTERS, amounts, style_of, type_name

_MOST_CELLS = 4000
"""A cell is some 20 bytes of the page; beyond so many, several nodes share one."""

_MOST_NOTES = 1500
"""Up to so many cells have a note with the node's name, some 100 bytes each."""

_SLOTS = 500
"""Steps of the strip; one is 2 pixels wide on a desktop."""

_HEAVY = 0.01
"""Share of all MACs from which on a node is marked as one of those that matter."""


@dataclass(frozen=True)
class Share:
    """One part of a precision bar.

    Attributes:
        type: "int8", "fp16", ...
        start: where it begins, percent of the bar.
        width: its length, percent of the bar.
        text: its share, "87.5 %".
        amount: MACs, bytes or nodes as text.
        style: which of the page's fills it has.
    """

    type: str
    start: float
    width: float
    text: str
    amount: str
    style: str


@dataclass(frozen=True)
class Bar:
    """How something is divided between types."""

    title: str
    shares: tuple[Share, ...]


@dataclass(frozen=True)
class Cell:
    """One node of the map, or a few.

    Attributes:
        style: CSS classes: its type, and `m` or `l` by its multiply-accumulates.
        letter: of its type.
        note: name, operator, type and multiply-accumulates; empty on maps of many nodes.
    """

    style: str
    letter: str
    note: str


@dataclass(frozen=True)
class PrecisionMap:
    """The nodes of a typed graph in graph order.

    Attributes:
        title: what is to be seen, in words.
        nodes: how many there are.
        per_cell: how many of them are in one cell.
        cells: row by row.
        legend: (style, letter, type, nodes) of each type that is there.
        strip: the same order with widths by multiply-accumulates; None where there are none.
    """

    title: str
    nodes: int
    per_cell: int
    cells: tuple[Cell, ...]
    legend: tuple[tuple[str, str, str, str], ...]
    strip: Chart | None


def share_bars(attested: Json | None) -> Iterator[Bar]:
    """Yield a bar for each amount that is divided between types."""
    parts = (
        ("macs", "Multiply-accumulates", count),
        ("weights_bytes", "Weight bytes", size),
        ("activations_bytes", "Activation bytes", size),
        ("nodes", "Nodes", count),
    )
    for key, title, say in parts:
        found = amounts((attested or {}).get(key))
        total = sum(found.values())
        start, shares = 0.0, []
        for kind, amount in found.items():
            width = 100.0 * amount / total
            text = percent(amount / total)
            style = style_of(kind)
            shares.append(Share(kind, round(start, 4), round(width, 4), text, say(amount), style))
            start += width
        if shares:
            yield Bar(f"{title} by type", tuple(shares))


def precision_map(attested: Json | None) -> PrecisionMap | None:
    """Return the map of a typed graph's nodes; None where they are not told."""
    nodes = [_Node.of(entry) for entry in (attested or {}).get("per_node") or ()]
    if not nodes:
        return None
    total = sum(node.macs for node in nodes)
    per_cell = -(-len(nodes) // _MOST_CELLS)
    groups = [nodes[start : start + per_cell] for start in range(0, len(nodes), per_cell)]
    noted = len(groups) <= _MOST_NOTES
    kinds = amounts(Counter(node.type for node in nodes))
    legend = tuple(
        (style_of(kind), LETTERS[style_of(kind)], kind, count(amount))
        for kind, amount in kinds.items()
    )
    told = ", ".join(f"{amount} in {kind}" for _, _, kind, amount in legend)
    return PrecisionMap(
        title=f"{count(len(nodes))} nodes in graph order: {told}",
        nodes=len(nodes),
        per_cell=per_cell,
        cells=tuple(_cell(group, total, noted) for group in groups),
        legend=legend,
        strip=_strip(nodes, total),
    )


@dataclass(frozen=True)
class _Node:
    name: str
    op: str
    type: str
    macs: float

    @classmethod
    def of(cls, entry: Json) -> "_Node":
        macs = number(entry.get("macs")) or 0.0
        kind = type_name(entry.get("type"))
        finite = macs if 0 < macs < float("inf") else 0.0
        return cls(str(entry.get("name") or ""), str(entry.get("op") or ""), kind, finite)


def _cell(nodes: Sequence[_Node], total: float, noted: bool) -> Cell:
    """A cell has the type of its heaviest node, of equals the first."""
    node = max(nodes, key=lambda one: one.macs)
    macs = sum(one.macs for one in nodes)
    weight = "" if not macs else " m" if macs < _HEAVY * total else " l"
    note = ""
    if noted:
        amount = f", {count(macs)} MACs ({percent(macs / total)})" if macs else ""
        note = f"{short(node.name or 'no name')}: {node.op}, {node.type}{amount}"
    style = style_of(node.type)
    return Cell(f"{style}{weight}", LETTERS[style], note)


def _strip(nodes: Sequence[_Node], total: float) -> Chart | None:
    """Return the nodes side by side, as wide as their multiply-accumulates."""
    if not total:
        return None
    slots: list[dict[str, float]] = [{} for _ in range(_SLOTS)]
    done = 0.0
    for node in nodes:
        first, last = (int(_SLOTS * end / total) for end in (done, done + node.macs))
        done += node.macs
        if not node.macs:
            continue
        for slot in range(first, min(last, _SLOTS - 1) + 1):
            low, high = slot * total / _SLOTS, (slot + 1) * total / _SLOTS
            part = max(0.0, min(high, done) - max(low, done - node.macs))
            slots[slot][node.type] = slots[slot].get(node.type, 0.0) + part
    kinds = [max(slot, key=lambda kind: slot[kind]) if slot else "" for slot in slots]
    rects, at = [], 0
    for kind, run in groupby(kinds):
        width = len(list(run))
        x, w = percents(100.0 * at / _SLOTS), percents(100.0 * width / _SLOTS)
        if kind:
            rects.append(Rect(x, 0.0, w, 100.0, f"f-{style_of(kind)}"))
        at += width
    title = "Multiply-accumulates in graph order, each part in the pattern of its type"
    return Chart(title, 26, tuple(rects))
