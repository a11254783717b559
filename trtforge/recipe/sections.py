"""Which keys the schema has at which location: for "did you mean" and for missing keys."""

import difflib
import types
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import Tag

from trtforge.recipe.fields import Section
from trtforge.recipe.nodes import Key, Loc
from trtforge.recipe.schema import Recipe


def section_at(loc: Loc) -> type[Section] | None:
    """Return the section that stands at a location, None where there is none."""
    kind: Any = Recipe
    for key in loc:
        kind = _step(kind, key)
    return kind if isinstance(kind, type) and issubclass(kind, Section) else None


def keys_of(section: type[Section]) -> list[str]:
    """Return the keys of a section in the order of the schema."""
    return list(section.model_fields)


@cache
def places_of(key: str) -> tuple[str, ...]:
    """Return where else in a recipe a key of this name belongs, as dotted paths."""
    found = []
    for path, section in _all_sections():
        if path and key in section.model_fields:
            found.append(f"{path}.{key}")
    return tuple(found)


def closest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word most like a mistyped one, None when none is like it."""
    words = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word[:100].lower(), words, n=1, cutoff=0.6)
    return words[close[0]] if close else None


def dotted(loc: Iterable[Key]) -> str:
    """Write a location as in `targets[0].name`."""
    text = ""
    for key in loc:
        text += f"[{key}]" if isinstance(key, int) else f".{key}" if text else str(key)
    return text


def _all_sections() -> Iterator[tuple[str, type[Section]]]:
    waiting: list[tuple[str, Any]] = [("", Recipe)]
    while waiting:
        path, section = waiting.pop(0)
        yield path, section
        for name, field in section.model_fields.items():
            below = _unwrap(field.annotation)
            if isinstance(below, type) and issubclass(below, Section):
                waiting.append((f"{path}.{name}" if path else name, below))


def _step(kind: Any, key: Key) -> Any:
    if isinstance(kind, type) and issubclass(kind, Section):
        field = kind.model_fields.get(str(key))
        return _unwrap(field.annotation) if field is not None else None
    arguments = get_args(kind)
    if get_origin(kind) in (Union, types.UnionType):
        named = (form for form in arguments if Tag(str(key)) in getattr(form, "__metadata__", ()))
        return _unwrap(next(named, None))
    if get_origin(kind) is tuple:
        return _unwrap(arguments[0])
    if get_origin(kind) is dict:
        return _unwrap(arguments[1])
    return None


def _unwrap(annotation: Any) -> Any:
    """Strip Annotated and `| None`; a union of several real types is kept."""
    while True:
        if get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
            continue
        if get_origin(annotation) in (Union, types.UnionType):
            kinds = [kind for kind in get_args(annotation) if kind is not types.NoneType]
            if len(kinds) == 1:
                annotation = kinds[0]
                continue
        return annotation
