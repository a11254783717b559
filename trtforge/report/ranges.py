"""Calibrated ranges with what was seen of each tensor, as rows with a small chart."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trtforge.report.data import Json
from trtforge.report.figures import count, number, percent, plain
from trtforge.report.marks import percents

_MOST_ROWS = 60
_UNFOLDED = 16
_HEIGHT = 24.0


@dataclass(frozen=True)
class Spark:
    """Magnitudes of one tensor in an area of 100 by 24.

    Attributes:
        inside: SVG path of the bars up to amax.
        beyond: of those behind it, which are clipped.
        amax: where amax is, 0..100.
        title: what is to be seen.
    """

    inside: str
    beyond: str
    amax: float
    title: str


@dataclass(frozen=True)
class RangeRow:
    """One tensor: name, min, max, amax, the share of the observed range that amax covers."""

    name: str
    cells: tuple[str, str, str, str]
    spark: Spark | None


@dataclass(frozen=True)
class RangesView:
    """Calibrated ranges as the page shows them.

    Attributes:
        rows: the tensors with the widest ranges, the widest first.
        folded: the next of them.
        rest: what is said of the others; empty when all are shown.
        tensors: how many there are.
        clipped: how many were clipped.
        sources: names of the data.
        synthetic: whether any of it was made up.
    """

    rows: tuple[RangeRow, ...]
    folded: tuple[RangeRow, ...]
    rest: str
    tensors: int
    clipped: int
    sources: tuple[str, ...]
    synthetic: bool


def widest(ranges: Mapping[str, Json]) -> list[str]:
    """Return the names of the tensors that the page shows: those of the largest amax."""
    order = sorted(ranges, key=lambda name: (-_size(ranges[name].get("amax")), name))
    return order[:_MOST_ROWS]


def ranges_view(calibration: Json | None) -> RangesView | None:
    """Return the view of a calibration cache's JSON; None where there is none.

    A range's `spark`, {"limit": upper end, "counts": equal bins from 0 on}, gives its chart.
    """
    if calibration is None:
        return None
    ranges = calibration.get("ranges") or {}
    rows = tuple(_row(name, ranges[name]) for name in widest(ranges))
    left = len(ranges) - len(rows)
    uses = calibration.get("data") or ()
    return RangesView(
        rows=rows[:_UNFOLDED],
        folded=rows[_UNFOLDED:],
        rest=f"… and {count(left)} more of smaller ranges: the calibration cache has them all"
        if left
        else "",
        tensors=len(ranges),
        clipped=sum(_kept(found) < 1.0 for found in ranges.values()),
        sources=tuple(dict.fromkeys(str(use["source"]) for use in uses if use.get("source"))),
        synthetic=any(use.get("synthetic") for use in uses),
    )


def _row(name: str, found: Json) -> RangeRow:
    kept = _kept(found)
    cells = (
        plain(found.get("min")),
        plain(found.get("max")),
        plain(found.get("amax")),
        "-" if math.isnan(kept) else percent(kept),
    )
    return RangeRow(str(name), cells, _spark(found))


def _kept(found: Json) -> float:
    """Return the share of the observed range that amax covers; NaN where there is no range."""
    low, high, amax = (number(found.get(key)) for key in ("min", "max", "amax"))
    peak = max(abs(low or 0.0), abs(high or 0.0))
    return math.nan if amax is None or peak == 0 else min(1.0, amax / peak)


def _spark(found: Json) -> Spark | None:
    stored = found.get("spark")
    amax = number(found.get("amax"))
    if not isinstance(stored, Mapping) or amax is None:
        return None
    counts = [number(n) or 0.0 for n in stored.get("counts") or ()]
    limit = number(stored.get("limit"))
    if limit is None or not limit > 0 or not any(counts):
        return None
    while not counts[-1]:
        counts.pop()
    bins = len(stored["counts"])
    end = limit * len(counts) / bins
    cut = min(100.0, 100.0 * amax / end)
    first_beyond = math.ceil(cut * len(counts) / 100.0 - 1e-9)
    if _kept(found) == 1.0:
        first_beyond = len(counts)  # the largest value may begin a bin
    lost = sum(counts[first_beyond:]) / sum(counts)
    title = f"magnitudes from 0 to {plain(end)}, counts on a log scale; amax {plain(amax)}"
    return Spark(
        inside=_path(counts, 0, first_beyond),
        beyond=_path(counts, first_beyond, len(counts)),
        amax=percents(cut),
        title=f"{title}, {percent(lost)} of the values beyond it",
    )


def _path(counts: list[float], first: int, last: int) -> str:
    """Return bars on a log scale as one closed line along their tops."""
    if not any(counts[first:last]):
        return ""
    peak = math.log1p(max(counts))
    width = 100.0 / len(counts)
    parts = [f"M{_short(first * width)} 24"]
    for index in range(first, last):
        top = _HEIGHT - 23.0 * math.log1p(counts[index]) / peak
        parts.append(f"V{_short(top)}H{_short((index + 1) * width)}")
    return "".join((*parts, "V24Z"))


def _short(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _size(value: Any) -> float:
    found = number(value)
    return found if found is not None and math.isfinite(found) else 0.0
