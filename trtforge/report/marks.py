"""What a chart of the page is made of: marks at percentages of its area, so that it fits any width.

Text and patterns keep their size, since nothing is scaled; the templates draw the marks.
"""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Rect:
    """A rectangle.

    Attributes:
        x: left end, percent of the chart's width.
        y: upper end, percent of its height.
        width: percent.
        height: percent.
        style: CSS class.
    """

    x: float
    y: float
    width: float
    height: float
    style: str


@dataclass(frozen=True)
class Line:
    """A straight line between two points, in percent."""

    x1: float
    y1: float
    x2: float
    y2: float
    style: str


@dataclass(frozen=True)
class Dot:
    """A round mark: filled, hollow, or ringed, by style; `note` is shown when it is pointed at."""

    x: float
    y: float
    style: str
    note: str


@dataclass(frozen=True)
class Text:
    """Words at a point; `anchor` is start, middle or end; `style` says on which side of it."""

    x: float
    y: float
    words: str
    anchor: str = "start"
    style: str = "grid"


@dataclass(frozen=True)
class Chart:
    """A chart.

    Attributes:
        title: its accessible name: what is shown, and what is to be seen in it.
        height: pixels.
        rects: drawn first.
        lines: drawn over them.
        dots: drawn over these.
        texts: drawn last.
    """

    title: str
    height: int
    rects: tuple[Rect, ...] = ()
    lines: tuple[Line, ...] = ()
    dots: tuple[Dot, ...] = ()
    texts: tuple[Text, ...] = ()


def percents(value: float) -> float:
    """Return a coordinate with as many digits as the eye can use."""
    return round(value, 3)


def bar(x: float, width: float, share: float, style: str) -> Rect:
    """Return a bar that stands on the chart's lower edge; `share` of its height, 0..1."""
    height = percents(100.0 * min(max(share, 0.0), 1.0))
    return Rect(percents(x), percents(100.0 - height), percents(width), height, style)


def anchor(x: float, room: float = 3.0) -> str:
    """Return how words at a place stay inside the chart; they need `room` percent on each side."""
    return "start" if x < room else "end" if x > 100 - room else "middle"


def level(y: float, words: str) -> tuple[Line, Text]:
    """Return a line across the chart, and the words to its left."""
    y = percents(y)
    return Line(0.0, y, 100.0, y, "grid"), Text(0.0, y, words, "end", "grid")


def levels(found: Iterable[tuple[Line, Text]]) -> tuple[tuple[Line, ...], tuple[Text, ...]]:
    """Return the lines and the words of several levels."""
    pairs = tuple(found)
    return tuple(line for line, _ in pairs), tuple(text for _, text in pairs)
