"""Latencies of a measurement as a picture: how often each occurred, and the percentiles."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import PurePath
from typing import Any

_WIDTH, _HEIGHT, _LEFT, _RIGHT = 720, 340, 24, 24
_TOP, _BOTTOM = 116, 40
"""Above the bars stand the title and one row per percentile, so that no text lies on a bar."""

_BINS = 80
_STYLE = """\
text { fill: #222; paint-order: stroke; stroke: #fff; stroke-width: 3px }
.paper { fill: #fff } .bar { fill: #4a7ab5 } .mark { stroke: #222 }
.other { fill: none; stroke: #b5622a; stroke-width: 2 } .named { fill: #b5622a }
@media (prefers-color-scheme: dark) {
text { fill: #ddd; stroke: #1b1b1b }
.paper { fill: #1b1b1b } .bar { fill: #5b8fd0 } .mark { stroke: #ddd }
.other { stroke: #e09a60 } .named { fill: #e09a60 } }"""


@dataclass(frozen=True)
class _Axis:
    """A logarithmic axis, as latencies have long tails; milliseconds."""

    low: float
    high: float

    @classmethod
    def over(cls, values: Sequence[float]) -> "_Axis":
        low, high = max(min(values), 1e-9), max(max(values), 1e-9)
        return cls(low, high) if high > low * 1.2 else cls(low / 1.1, high * 1.1)

    def share(self, value: float) -> float:
        """Where a value lies, 0..1."""
        place = math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        return min(1.0, max(0.0, place))

    def x(self, value: float) -> float:
        """Where a value is drawn."""
        return _LEFT + self.share(value) * (_WIDTH - _LEFT - _RIGHT)

    def counts(self, values: Sequence[float]) -> list[float]:
        """Share of the values in each bin."""
        counts = [0] * _BINS
        for value in values:
            counts[min(_BINS - 1, int(self.share(value) * _BINS))] += 1
        return [count / len(values) for count in counts]

    def ticks(self) -> list[float]:
        """Round values between the ends: 1, 2 and 5 of each power of ten, or the ends."""
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        steps = (1, 2, 5) if self.high / self.low < 1e4 else (1,)
        found = [step * 10.0**power for power in powers for step in steps]
        inside = [one for one in found if self.low <= one <= self.high]
        return inside if len(inside) > 1 else [self.low, self.high]


def latency_svg(
    result: Mapping[str, Any], seconds: Sequence[float], other: Sequence[float] = ()
) -> str:
    """Draw a histogram with marks at the percentiles.

    Args:
        result: the JSON of a measurement.
        seconds: the single latencies.
        other: of a comparison: those of the other, drawn as a line.

    Returns:
        An SVG document of its own, readable without colour, on light and on dark.
    """
    values, others = [[one * 1e3 for one in side] for side in (seconds, other)]
    axis = _Axis.over([*values, *others])
    shares = axis.counts(values)
    beside = axis.counts(others) if others else []
    top = max(*shares, *beside)
    name = escape(PurePath(str(result["subject"])).name)
    title = f"{name}, {result['scenario']}: {result['latencies']['count']} queries"
    drawn = [
        f'<rect class="paper" width="{_WIDTH}" height="{_HEIGHT}"/>',
        f'<text x="{_LEFT}" y="20" font-weight="bold">{title}</text>',
        *_bars([share / top for share in shares]),
        *_line([share / top for share in beside]),
        *_marks(result["latencies"]["percentiles"], axis),
        *_ticks(axis),
    ]
    if others:
        text = f"line: against, {len(others)} queries"
        drawn.append(
            f'<text class="named" x="{_WIDTH - _RIGHT}" y="20" text-anchor="end">{text}</text>'
        )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'font-family="sans-serif" font-size="12"><title>{title}</title>'
        f"<style>{_STYLE}</style>{''.join(drawn)}</svg>\n"
    )


def _bars(heights: Sequence[float]) -> list[str]:
    width = (_WIDTH - _LEFT - _RIGHT) / _BINS
    return [
        f'<rect class="bar" x="{_LEFT + index * width:.1f}" y="{_y(height):.1f}" '
        f'width="{width - 0.5:.1f}" height="{_HEIGHT - _BOTTOM - _y(height):.1f}"/>'
        for index, height in enumerate(heights)
        if height
    ]


def _line(heights: Sequence[float]) -> list[str]:
    if not heights:
        return []
    width = (_WIDTH - _LEFT - _RIGHT) / _BINS
    points = [
        f"{_LEFT + end * width:.1f},{_y(height):.1f}"
        for index, height in enumerate(heights)
        for end in (index, index + 1)
    ]
    return [f'<polyline class="other" points="{" ".join(points)}"/>']


def _marks(percentiles: Sequence[Mapping[str, Any]], axis: _Axis) -> list[str]:
    """A dashed line per percentile, with its text in a row of its own."""
    marks = []
    for row, one in enumerate(percentiles):
        x, y = axis.x(one["ms"]), 40 + 15 * row
        is_right = axis.share(one["ms"]) > 0.75
        marks.append(
            f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{y - 9}" y2="{_HEIGHT - _BOTTOM}" '
            f'stroke-dasharray="3 3"/><text x="{x + (-4 if is_right else 4):.1f}" y="{y}" '
            f'text-anchor="{"end" if is_right else "start"}">p{one["percent"]:g} '
            f"{one['ms']:.4g} ms</text>"
        )
    return marks


def _ticks(axis: _Axis) -> list[str]:
    floor = _HEIGHT - _BOTTOM
    drawn = [
        f'<line class="mark" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{floor}" y2="{floor}"/>',
        f'<text x="{_WIDTH / 2}" y="{_HEIGHT - 6}" text-anchor="middle">'
        "latency, ms (logarithmic)</text>",
    ]
    return drawn + [
        f'<line class="mark" x1="{axis.x(one):.1f}" x2="{axis.x(one):.1f}" y1="{floor}" '
        f'y2="{floor + 4}"/><text x="{axis.x(one):.1f}" y="{floor + 17}" '
        f'text-anchor="middle">{one:.3g}</text>'
        for one in axis.ticks()
    ]


def _y(share: float) -> float:
    return _TOP + (1 - share) * (_HEIGHT - _BOTTOM - _TOP)
