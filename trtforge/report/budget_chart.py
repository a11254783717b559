"""The mixes of types that a budget tried: what each costs and what it gives."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trtforge.report.data import Json
from trtforge.report.figures import decibel, number, percent, plain, points
from trtforge.report.marks import Chart, Dot, Line, Text, anchor, level, levels, percents
from trtforge.report.tables import Table, cut
from trtforge.report.types import type_name

_MOST_POINTS = 200

_MEASURES = {
    "sqnr_db": ("SQNR", decibel),
    "top1_drop": ("loss of top-1 accuracy", points),
}


@dataclass(frozen=True)
class BudgetView:
    """A budget as the page shows it."""

    summary: str
    chart: Chart | None
    table: Table


def budget_view(report: Json | None) -> BudgetView | None:
    """Return the view of a `pareto.json`; None where it has no point."""
    tried = [point for point in (report or {}).get("points") or () if isinstance(point, Mapping)]
    if report is None or not tried:
        return None
    name, say = _MEASURES.get(str(report.get("measure")), (str(report.get("measure")), plain))
    chosen = next((point for point in tried if point.get("chosen")), None)
    met = sum(bool(point.get("meets")) for point in tried)
    text = (
        f"{len(tried)} mixes tried, {met} within the bound of {say(report.get('bound'))} ({name})"
    )
    if chosen is not None:
        text += f"; chosen: {say(chosen.get('value'))} at {_cost(chosen)} of the cost of FP32"
    return BudgetView(text + ".", _chart(tried, report, name, say), _table(tried, name, say))


def _table(tried: Sequence[Json], name: str, say: Any) -> Table:
    rows = tuple(
        (_mark(point), _cost(point), say(point.get("value")), _mix(point)) for point in tried
    )
    table = Table(("", "cost", name, "layers"), rows, frozenset({1, 2}))
    return cut(table, 60, len(rows), "pareto.json")


def _mark(point: Json) -> str:
    if point.get("chosen"):
        return "◉ chosen"
    return "● meets" if point.get("meets") else "○ misses"


def _cost(point: Json) -> str:
    return percent(point.get("cost"))


def _mix(point: Json) -> str:
    layers = point.get("layers")
    if not isinstance(layers, Mapping):
        return "-"
    return ", ".join(f"{count} {type_name(kind)}" for kind, count in layers.items())


def _chart(tried: Sequence[Json], report: Json, name: str, say: Any) -> Chart | None:
    """Cost from left to right, the measure upwards; the bound is a line."""
    placed = [
        (cost, value, point)
        for point in tried[:_MOST_POINTS]
        if (cost := _finite(point.get("cost"))) is not None
        and (value := _finite(point.get("value"))) is not None
    ]
    if not placed:
        return None
    bound = _finite(report.get("bound"))
    values = [value for _, value, _ in placed] + ([] if bound is None else [bound])
    across = _Axis.over([cost for cost, _, _ in placed])
    up = _Axis.over(values)
    lines, texts = levels(
        level(100.0 - up.place(tick), say(tick)) for tick in up.ticks() if tick != bound
    )
    if bound is not None:
        y = percents(100.0 - up.place(bound))
        lines = (*lines, Line(0.0, y, 100.0, y, "bound"))
        texts = (*texts, Text(100.0, y, f"bound: {say(bound)}", "end", "bound"))
    axis = tuple(
        Text(percents(x := across.place(tick)), 100.0, percent(tick), anchor(x), "below")
        for tick in across.ticks()
    )
    return Chart(
        title=f"{name} over cost of {len(placed)} mixes: filled marks meet the bound, the ringed "
        "one was chosen",
        height=240,
        lines=(*lines, Line(0.0, 100.0, 100.0, 100.0, "axis")),
        dots=tuple(
            Dot(
                percents(across.place(cost)),
                percents(100.0 - up.place(value)),
                "chosen" if point.get("chosen") else "meets" if point.get("meets") else "misses",
                f"{say(value)} at {percent(cost)}: {_mix(point)}",
            )
            for cost, value, point in placed
        ),
        texts=(*texts, *axis),
    )


def _finite(value: Any) -> float | None:
    found = number(value)
    return found if found is not None and math.isfinite(found) else None


@dataclass(frozen=True)
class _Axis:
    low: float
    high: float

    @classmethod
    def over(cls, values: Sequence[float]) -> "_Axis":
        """Return an axis that holds the values, with a little room on both sides."""
        low, high = min(values), max(values)
        room = 0.08 * (high - low) or 0.1 * abs(high) or 1.0
        return cls(low - room, high + room)

    def place(self, value: float) -> float:
        """Return where a value is, 0..100."""
        return 100.0 * (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Return up to seven round numbers on the axis."""
        span = self.high - self.low
        step = 10.0 ** math.floor(math.log10(span))
        step *= next(part for part in (0.2, 0.25, 0.5, 1.0, 2.0) if span / (step * part) <= 7)
        first = math.ceil(self.low / step)
        return [step * i for i in range(first, math.floor(self.high / step) + 1)]
