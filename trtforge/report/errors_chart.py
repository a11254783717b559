"""How the errors of one output are spread, as a chart and as a sentence."""

import math
from collections.abc import Iterator
from typing import Any

from trtforge.report.data import Json
from trtforge.report.figures import count, number, percent, plain, power
from trtforge.report.marks import Chart, Line, Rect, Text, anchor, bar, percents

_LOWEST, _HIGHEST = -24, -1
"""Bins that are always shown, so that charts can be compared: from float32's rounding to errors as
large as the output itself."""

_TICKS = 4


def errors_chart(name: str, output: Json) -> Chart | None:
    """Return the chart of one output of a parity report; None where nothing was counted."""
    found = _Spread.of(output)
    if found is None:
        return None
    slots = tuple(found.slots())
    width = 100.0 / len(slots)
    tallest = max(amount for _, amount, _ in slots) or 1
    rects = tuple(
        _slot(index * width, width, amount / tallest, style)
        for index, (_, amount, style) in enumerate(slots)
        if amount
    )
    return Chart(
        title=f"Errors of {name}: {found.sentence}",
        height=120,
        rects=rects,
        lines=(Line(0.0, 100.0, 100.0, 100.0, "axis"),),
        texts=tuple(
            Text(percents(x := (index + 0.5) * width), 100.0, said, anchor(x), "below")
            for index, (said, _, _) in enumerate(slots)
            if said
        ),
    )


def errors_text(output: Json) -> str | None:
    """Return what the chart shows in words: "50 % within 0.1 %, 99 % within 0.78 % of ..."."""
    found = _Spread.of(output)
    return None if found is None else found.sentence


def _slot(x: float, width: float, share: float, style: str) -> Rect:
    # The least bar is seen, too: one bad value in a million is what one looks for.
    return bar(x + 0.1 * width, 0.8 * width, max(share, 0.015), style)


class _Spread:
    """One output's histogram."""

    def __init__(self, histogram: Json, metrics: Json) -> None:
        self.unit = number(histogram.get("unit")) or 1.0
        self.exact = _whole(histogram.get("exact"))
        lowest = _whole(histogram.get("lowest"))
        counts = histogram.get("counts") or ()
        self.bins = {lowest + i: _whole(n) for i, n in enumerate(counts) if _whole(n)}
        self.broken = _whole(metrics.get("nonfinite"))
        self.largest = number(metrics.get("max_abs"))
        self.total = self.exact + self.broken + sum(self.bins.values())

    @classmethod
    def of(cls, output: Json) -> "_Spread | None":
        histogram = output.get("errors")
        if not histogram:
            return None
        found = cls(histogram, output.get("metrics") or {})
        return found if found.total else None

    def slots(self) -> Iterator[tuple[str, int, str]]:
        """Yield label, count and style of every bar from left to right."""
        yield "none", self.exact, "b-exact"
        first = min(_LOWEST, *self.bins) if self.bins else _LOWEST
        last = max(_HIGHEST, *self.bins) if self.bins else _HIGHEST
        for place in range(first, last + 1):
            is_marked = place % _TICKS == 0 and first + 4 < place < last
            said = power(place) if is_marked else ""
            yield said, self.bins.get(place, 0), "b-error" if place < 0 else "b-broken"
        if self.broken:
            yield "NaN/Inf", self.broken, "b-broken"

    @property
    def sentence(self) -> str:
        """Where half and nearly all of the values lie, by the upper ends of their bins."""
        if self.exact == self.total:
            return f"all {count(self.total)} values are identical"
        told = [
            f"{percent(share)} within {bound}"
            for share in (0.5, 0.99)
            if (bound := self._within(share)) is not None
        ]
        scope = f"of the range ({plain(self.unit)})"
        parts = [f"{', '.join(told)} {scope}" if told else f"most are beyond all {scope}"]
        if self.largest is not None and math.isfinite(self.largest):
            parts.append(f"the largest error is {percent(self.largest / self.unit)} of it")
        if self.exact:
            parts.append(f"{percent(self.exact / self.total)} are identical")
        if self.broken:
            parts.append(f"{count(self.broken)} differ by NaN or Inf")
        return "; ".join(parts)

    def _within(self, share: float) -> str | None:
        """Return the error that so large a share of the values does not reach."""
        seen = self.exact
        if seen >= share * self.total:
            return "0 %"
        for place in sorted(self.bins):
            seen += self.bins[place]
            if seen >= share * self.total:
                return _part(place + 1)
        return None


def _part(exponent: int) -> str:
    """Return a power of two as percent; of tiny ones the power says more."""
    return f"{plain(100.0 * 2.0**exponent, 2)} %" if exponent > -20 else power(exponent)


def _whole(value: Any) -> int:
    found = number(value)
    return int(found) if found is not None and abs(found) < 1e18 else 0
