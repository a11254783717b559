"""YAML text -> nodes, within fixed bounds, with every problem that does not stop the parser."""

from collections.abc import Iterator
from io import StringIO
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from trtforge.errors import Problem, RecipeError
from trtforge.recipe import codes, scalars
from trtforge.recipe.nodes import Entry, Mapping, Node, Scalar, Sequence, Source, Span
from trtforge.recipe.syntax import syntax_problem

MAX_NODES = 20_000
"""Values in one recipe, aliases expanded; far above real ones, far below what hurts."""
MAX_DEPTH = 32
"""Nesting; also keeps the scanner, quadratic in open brackets, away from hostile input."""


def compose(source: Source) -> tuple[Node | None, list[Problem]]:
    """Read one YAML document.

    Args:
        source: the text.

    Returns:
        The root node (None for an empty document) and the problems that did not stop the
        reading: duplicate keys, merge keys, tags, numbers with a leading zero.

    Raises:
        RecipeError: malformed YAML, more than one document, or too many or too deep values.
    """
    return _Composer(source).document()


class _Composer:
    def __init__(self, source: Source) -> None:
        self._source = source
        self._events = self._read_events()
        self._anchors: dict[str, tuple[Node, int] | None] = {}
        self._count = 0
        self.problems: list[Problem] = []

    def _read_events(self) -> Iterator[Any]:
        try:
            yield from YAML(typ="safe", pure=True).parse(StringIO(self._source.text, newline=""))
        except (YAMLError, ArithmeticError, ValueError, LookupError, AttributeError) as error:
            # The parser lets bare exceptions through: OverflowError for "\UFFFFFFFF", and others.
            problem = syntax_problem(self._source, error)
            raise RecipeError.of([*self.problems, problem]) from error

    def document(self) -> tuple[Node | None, list[Problem]]:
        root: Node | None = None
        seen = 0
        for event in self._events:
            kind = type(event).__name__
            if kind == "DocumentStartEvent":
                seen += 1
                if seen > 1:
                    raise self._stop(
                        codes.FEATURE,
                        "the file holds more than one YAML document",
                        "a recipe is one document; put the other one in a file of its own",
                        event,
                    )
                self._check_directives(event)
            elif kind not in ("StreamStartEvent", "StreamEndEvent", "DocumentEndEvent"):
                root = self._node(event, 1)
        if isinstance(root, Scalar) and root.value is None:
            root = None
        return root, self.problems

    def _node(self, event: Any, depth: int) -> Node:
        self._grow(1, event)
        if depth > MAX_DEPTH:
            raise self._stop(
                codes.TOO_BIG,
                f"values are nested more than {MAX_DEPTH} deep",
                "a recipe needs no more than six levels",
                event,
            )
        kind = type(event).__name__
        if kind == "AliasEvent":
            return self._alias(event)
        if event.tag is not None:
            self._problem(
                codes.FEATURE,
                f"the YAML tag '{event.tag}' is not used in recipes",
                "remove the tag; put a value in quotes to make it text",
                event,
            )
        before = self._count
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        if kind == "ScalarEvent":
            node: Node = self._scalar(event)
        elif kind == "SequenceStartEvent":
            node = self._sequence(event, depth)
        else:
            node = self._mapping(event, depth)
        if event.anchor is not None:
            self._anchors[event.anchor] = (node, self._count - before + 1)
        return node

    def _alias(self, event: Any) -> Node:
        known = self._anchors.get(event.anchor)
        if known is None:
            within = event.anchor in self._anchors
            raise self._stop(
                codes.FEATURE if within else codes.SYNTAX,
                f"the alias *{event.anchor} "
                + ("stands within its own anchor" if within else "has no anchor"),
                f"put &{event.anchor} before a complete value further up, or quote the text",
                event,
            )
        node, size = known
        self._grow(size, event)
        return node

    def _scalar(self, event: Any) -> Scalar:
        if event.style is not None:
            return Scalar(self._span(event), str(event.value), str(event.value))
        if scalars.has_leading_zero(event.value):
            self._problem(
                codes.WRONG_VALUE,
                f"{event.value} has a leading zero: decimal to YAML 1.2, octal to YAML 1.1",
                f"write {event.value.lstrip('+-0') or '0'}, or put it in quotes if it is text",
                event,
            )
        return Scalar(self._span(event), scalars.resolve(event.value), event.value)

    def _sequence(self, start: Any, depth: int) -> Sequence:
        items: list[Node] = []
        event = next(self._events)
        while type(event).__name__ != "SequenceEndEvent":
            items.append(self._node(event, depth + 1))
            event = next(self._events)
        return Sequence(self._collection_span(start, event, items), tuple(items))

    def _mapping(self, start: Any, depth: int) -> Mapping:
        entries: dict[str, Entry] = {}
        values: list[Node] = []
        event = next(self._events)
        while type(event).__name__ != "MappingEndEvent":
            key = self._key(event, depth)
            value = self._node(next(self._events), depth + 1)
            values.append(value)
            if key is not None and key.text in entries:
                self._duplicate(entries[key.text].key, key)
            elif key is not None:
                entries[key.text] = Entry(key, value)
            event = next(self._events)
        return Mapping(self._collection_span(start, event, values), tuple(entries.values()))

    def _key(self, event: Any, depth: int) -> Scalar | None:
        node = self._node(event, depth + 1)
        if not isinstance(node, Scalar):
            self._problem(codes.FEATURE, "a key is a list or a mapping", "keys are text", event)
            return None
        if node.text == "<<" and getattr(event, "style", '"') is None:
            self._problem(
                codes.FEATURE,
                "merge keys ('<<') are not used in recipes",
                "write the keys out; an alias may stand for one whole value",
                event,
            )
            return None
        return node

    def _duplicate(self, first: Scalar, second: Scalar) -> None:
        where = f"on line {first.span.line}" if self._source.has_lines else "before"
        self.problems.append(
            Problem(
                codes.DUPLICATE,
                f"the key '{second.text}' is given twice",
                f"it stands {where} already; keep one of them",
                second.span.place(),
            )
        )

    def _check_directives(self, event: Any) -> None:
        version = event.version
        if version is not None and tuple(version) != (1, 2):
            self._problem(
                codes.FEATURE,
                f"recipes are YAML 1.2, this file says {'.'.join(map(str, version))}",
                "remove the %YAML line",
                event,
            )

    def _grow(self, count: int, event: Any) -> None:
        self._count += count
        if self._count > MAX_NODES:
            raise self._stop(
                codes.TOO_BIG,
                f"the recipe has more than {MAX_NODES} values, counted with aliases expanded",
                "real recipes have a few hundred; is this the right file?",
                event,
            )

    def _problem(self, code: str, message: str, hint: str, event: Any) -> None:
        self.problems.append(Problem(code, message, hint, self._span(event).place()))

    def _stop(self, code: str, message: str, hint: str, event: Any) -> RecipeError:
        problem = Problem(code, message, hint, self._span(event).place())
        return RecipeError.of([*self.problems, problem])

    def _span(self, event: Any) -> Span:
        start, end = event.start_mark, event.end_mark
        return Span(self._source, start.line + 1, start.column + 1, end.line + 1, end.column + 1)

    def _collection_span(self, start: Any, end: Any, values: list[Node]) -> Span:
        """A block collection ends with its last value, not where the next line is indented less."""
        span = self._span(start)
        if start.flow_style or not values:
            return span.to(self._span(end))
        return span.to(values[-1].span)
