"""Latencies of a measurement as a picture: how often each occurred, and the percentiles."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 720, 300, 56, 40
_BINS = 80


def latency_svg(result: Mapping[str, Any], seconds: Sequence[float]) -> str:
    """Draw a histogram with marks at the percentiles.

    Args:
        result: the JSON of a measurement.
        seconds: the single latencies.

    Returns:
        An SVG document of its own, readable without colour.
    """
    values = sorted(one * 1e3 for one in seconds)
    low, high = values[0], values[min(len(values) - 1, int(len(values) * 0.999))]
    width = max(high - low, 1e-9) / _BINS
    counts = [0] * _BINS
    for value in values:
        counts[min(_BINS - 1, max(0, int((value - low) / width)))] += 1
    top = max(counts)
    inner = _WIDTH - _LEFT - 16
    bars = [
        f'<rect x="{_LEFT + index * inner / _BINS:.1f}" '
        f'y="{_y(count / top):.1f}" width="{inner / _BINS - 0.5:.1f}" '
        f'height="{_HEIGHT - _BOTTOM - _y(count / top):.1f}" fill="#4a7ab5"/>'
        for index, count in enumerate(counts)
        if count
    ]
    marks = []
    for row, one in enumerate(result["latencies"]["percentiles"]):
        share = (min(one["ms"], high) - low) / max(high - low, 1e-9)
        x = _LEFT + share * inner
        marks.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="24" y2="{_HEIGHT - _BOTTOM}" stroke="#222" '
            f'stroke-dasharray="3 3"/><text x="{x:.1f}" y="{36 + 14 * row}" '
            f'text-anchor="{"end" if share > 0.8 else "start"}">p{one["percent"]:g} '
            f"{one['ms']:.4g} ms</text>"
        )
    name = escape(str(result["subject"]))
    title = f"{name}, {result['scenario']}: {result['latencies']['count']} queries"
    axis = "".join(
        f'<text x="{_LEFT + share * inner:.1f}" y="{_HEIGHT - _BOTTOM + 18}" '
        f'text-anchor="middle">{low + share * (high - low):.4g}</text>'
        for share in (0, 0.25, 0.5, 0.75, 1)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'font-family="sans-serif" font-size="12"><title>{title}</title>'
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/><text x="{_LEFT}" y="16" '
        f'font-weight="bold">{title}</text>{"".join(bars)}{"".join(marks)}{axis}'
        f'<text x="{_LEFT + inner / 2}" y="{_HEIGHT - 6}" text-anchor="middle">latency, ms</text>'
        "</svg>\n"
    )


def _y(share: float) -> float:
    return 24 + (1 - share) * (_HEIGHT - _BOTTOM - 24)
