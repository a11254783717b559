"""Sections of aligned lines of text: what a comparison shows on a terminal."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_MOST_NOTES = 6
"""Lines below one row, where not all are asked for."""

Row = tuple[str, ...]


@dataclass(frozen=True)
class Item:
    """One thing that changed: the cells of its row, and lines of text below it."""

    row: Row
    notes: tuple[str, ...] = ()


Group = tuple[str, tuple[Item, ...]]
"""What happened to these things ("removed", "added"), and the things."""


@dataclass(frozen=True)
class Section:
    """One part of a comparison.

    Attributes:
        title: what it is about and how much changed.
        groups: the things that changed; none is empty.
    """

    title: str
    groups: tuple[Group, ...]

    def lines(self, most: int | None) -> Iterator[str]:
        """Yield the title and indented, aligned rows.

        Args:
            most: how many rows are shown, of every group some; None for all rows and notes.
        """
        yield self.title
        quotas = _quotas([len(items) for _, items in self.groups], most)
        shown = [items[:quota] for (_, items), quota in zip(self.groups, quotas, strict=True)]
        widths = _widths([item.row for items in shown for item in items])
        for (word, items), part in zip(self.groups, shown, strict=True):
            for item in part:
                *cells, last = item.row
                aligned = (cell.ljust(width) for cell, width in zip(cells, widths, strict=False))
                yield f"  {' '.join((*aligned, last))}".rstrip()
                notes = item.notes if most is None else item.notes[:_MOST_NOTES]
                yield from (f"      {note}" for note in notes)
                if len(notes) < len(item.notes):
                    yield f"      ... and {len(item.notes) - len(notes)} more"
            if len(part) < len(items):
                yield f"  ... and {len(items) - len(part)} more {word}".rstrip()


def _quotas(sizes: Sequence[int], most: int | None) -> list[int]:
    """Share rows out: what a small group does not need is left to the others."""
    if most is None:
        return list(sizes)
    quotas = [0] * len(sizes)
    left = most
    for done, index in enumerate(sorted(range(len(sizes)), key=lambda index: sizes[index])):
        quotas[index] = min(sizes[index], left // (len(sizes) - done))
        left -= quotas[index]
    return quotas


def _widths(rows: Sequence[Row]) -> list[int]:
    """The widths of all columns but each row's last cell, which ends its line."""
    columns = max(map(len, rows), default=0)
    return [
        max((len(row[index]) for row in rows if index + 1 < len(row)), default=0)
        for index in range(columns)
    ]
