"""YAML text as a tree of nodes that know their place; nothing is expanded or converted twice."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from trtforge.errors import Place

Key = str | int
Loc = tuple[Key, ...]


@dataclass(frozen=True)
class Source:
    """A text and the name it is shown under: a file, or `--set a.b=c`.

    Attributes:
        name: shown in errors.
        text: the whole text.
        has_lines: False where line and column would not help (an override).
    """

    name: str
    text: str
    has_lines: bool = True

    @cached_property
    def lines(self) -> list[str]:
        """The lines as YAML 1.2 counts them; `str.splitlines` would break at many others."""
        return self.text.replace("\r\n", "\n").replace("\r", "\n").split("\n")

    def place(self, line: int, column: int, length: int = 1) -> Place:
        """Return the place of `length` characters at a 1-based line and column.

        The parser's marks can lie past the text's end (and count other line ends under a
        `%YAML 1.1` directive); they are brought back into the text.
        """
        if not self.has_lines:
            return Place(self.name)
        line = min(line, len(self.lines))
        text = self.lines[line - 1]
        return Place(self.name, line, min(column, len(text) + 1), max(1, length), text)

    def whole(self) -> Place:
        """Return the place of the text as a whole."""
        return Place(self.name)


@dataclass(frozen=True)
class Span:
    """Where a node stands: 1-based start, end exclusive."""

    source: Source
    line: int
    column: int
    end_line: int
    end_column: int

    def place(self) -> Place:
        """Return the place; a span of several lines is underlined to the end of its first."""
        if self.end_line == self.line:
            return self.source.place(self.line, self.column, self.end_column - self.column)
        lines = self.source.lines
        first = lines[self.line - 1] if self.line <= len(lines) else ""
        shown = first.split(" #")[0].rstrip()
        return self.source.place(self.line, self.column, len(shown) - self.column + 1)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is written here: the value of `key:` alone."""
        return (self.line, self.column) == (self.end_line, self.end_column)

    def to(self, other: "Span") -> "Span":
        """Return the span from here to the end of another one of the same source."""
        if other.source is not self.source or other.line < self.line:
            return self
        return replace(self, end_line=other.end_line, end_column=other.end_column)


@dataclass(frozen=True)
class Scalar:
    """One value: text, number, true, false or nothing."""

    span: Span
    value: str | int | float | bool | None
    text: str


@dataclass(frozen=True)
class Sequence:
    """A list."""

    span: Span
    items: tuple["Node", ...]


@dataclass(frozen=True)
class Entry:
    """A key and its value."""

    key: Scalar
    value: "Node"


@dataclass(frozen=True)
class Mapping:
    """Keys and values, in the order they stand; keys are unique."""

    span: Span
    entries: tuple[Entry, ...]

    def get(self, key: Key) -> Entry | None:
        """Return the entry with this key, or None."""
        return next((entry for entry in self.entries if entry.key.text == key), None)

    def with_entry(self, new: Entry) -> "Mapping":
        """Return a mapping with this entry put in place of the one of the same key, or added."""
        if self.get(new.key.text) is None:
            return replace(self, entries=(*self.entries, new))
        kept = (new if entry.key.text == new.key.text else entry for entry in self.entries)
        return replace(self, entries=tuple(kept))


Node = Scalar | Sequence | Mapping


def plain(node: Node) -> Any:
    """Return the node as dict, list and scalars."""
    if isinstance(node, Mapping):
        return {entry.key.text: plain(entry.value) for entry in node.entries}
    if isinstance(node, Sequence):
        return [plain(item) for item in node.items]
    return node.value


def child(node: Node, key: Key) -> tuple[Scalar | None, Node] | None:
    """Return the key's own node (for mappings) and the value under a key or index, or None."""
    if isinstance(node, Mapping):
        entry = node.get(key)
        return None if entry is None else (entry.key, entry.value)
    if isinstance(node, Sequence) and (index := _index(key)) is not None:
        return (None, node.items[index]) if index < len(node.items) else None
    return None


def _index(key: Key) -> int | None:
    """A place in a list; the schema has those of a profile by position as text."""
    if isinstance(key, str):
        return int(key) if key.isascii() and key.isdecimal() else None
    return key if key >= 0 else None


def is_form(key: Key) -> bool:
    """Tell whether a part of a location is the schema's name for one form of a value."""
    return isinstance(key, str) and key.startswith("(")


def steps(root: Node, loc: Loc) -> Iterator[tuple[Key, Scalar | None, Node]]:
    """Walk down a location as far as it exists, yielding (key, key's node, value's node).

    Parts that are not in the text are passed over: a single profile is written without its
    list, so its index 0 has no node of its own; nor has the form that a value was taken for.
    """
    node = root
    for key in loc:
        found = child(node, key)
        if found is None and ((key == 0 and isinstance(node, Mapping)) or is_form(key)):
            continue
        if found is None:
            return
        place = _index(key) if isinstance(node, Sequence) else None
        key_node, node = found
        yield (key if place is None else place), key_node, node


def find(root: Node, loc: Loc) -> tuple[Scalar | None, Node]:
    """Return the deepest node on the way to a location that exists, and its key if it has one."""
    key: Scalar | None = None
    node = root
    for _, below_key, below in steps(root, loc):
        key, node = below_key, below
    return key, node
