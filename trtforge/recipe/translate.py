"""Validation errors -> problems at their place in the text, one per mistake."""

import copy
from collections.abc import Iterable
from typing import Any

from pydantic_core import ErrorDetails

from trtforge.errors import Place, Problem
from trtforge.recipe import codes
from trtforge.recipe.broken import Broken
from trtforge.recipe.nodes import Key, Loc, Mapping, Node, Scalar, find, is_form, steps
from trtforge.recipe.sections import closest, dotted, keys_of, places_of, section_at
from trtforge.recipe.wording import word

_ENTRY_CODES = (codes.SHAPES, codes.CONTRADICTION)
"""Problems of a key with its value: both are underlined."""


def place_at(root: Node, loc: Loc, code: str = "") -> Place:
    """Return the place of the value at a location, or of the nearest thing that exists.

    The key is underlined where the value is a mapping, key and value where the code says that
    the two together are wrong, and the value alone otherwise.
    """
    key, node = find(root, loc)
    if key is None:
        return node.span.place()
    if code in _ENTRY_CODES and not isinstance(node, Mapping):
        return key.span.to(node.span).place()
    unmarked = isinstance(node, Mapping) or node.span.is_empty
    return key.span.place() if unmarked else node.span.place()


def law_problems(root: Node, broken: Iterable[Broken]) -> list[Problem]:
    """Turn broken laws into problems."""
    return [
        Problem(one.code, one.message, one.hint, place_at(root, one.loc, one.code))
        for one in broken
    ]


def validation_problems(root: Node, errors: Iterable[ErrorDetails]) -> list[Problem]:
    """Turn pydantic's errors into problems.

    Broken laws among them are left out (they are reported from the raw data, all of them), and
    so is a missing key whose mistyped form stands beside it.
    """
    errors = [error for error in errors if error["type"] != "law" and not is_echo(error)]
    meant = {(*error["loc"][:-1], _meant(error["loc"])) for error in errors if _is_unknown(error)}
    problems = []
    unnamed: set[Loc] = set()
    for error in errors:
        loc = error["loc"]
        if _is_unknown(error):
            problems.append(_unknown_key(root, loc))
        elif error["type"] == "missing":
            if loc not in meant:
                problems.append(_missing_key(root, loc))
        elif _is_unnamed_range(loc, error):
            if loc[:2] not in unnamed:
                problems.append(_unnamed_range(root, loc))
            unnamed.add(loc[:2])
        else:
            problems.append(_wrong_value(root, error))
    return problems


def corrected(data: Any, errors: Iterable[ErrorDetails]) -> Any:
    """Return the data with mistyped keys put right, so that they break no law on top of that."""
    data = copy.deepcopy(data)
    for error in errors:
        meant = _meant(error["loc"]) if _is_unknown(error) else None
        section = data
        for key in error["loc"][:-1] if meant is not None else ():
            section = section if is_form(key) else _below(section, key)
        if meant is not None and isinstance(section, dict) and meant not in section:
            section[meant] = section.get(str(error["loc"][-1]))
    return data


def _below(data: Any, key: Key) -> Any:
    if isinstance(data, dict):
        return data.get(key)
    inside = isinstance(data, list) and isinstance(key, int) and key < len(data)
    return data[key] if inside else None


def is_echo(error: ErrorDetails) -> bool:
    """Tell whether a list is called too short only because its items are wrong themselves."""
    given = error["input"]
    shortest = error.get("ctx", {}).get("min_length", 0)
    return error["type"] == "too_short" and hasattr(given, "__len__") and len(given) >= shortest


def _is_unknown(error: ErrorDetails) -> bool:
    return error["type"] == "extra_forbidden"


def _meant(loc: Loc) -> str | None:
    section = section_at(loc[:-1])
    return None if section is None else closest(str(loc[-1]), keys_of(section))


def _unknown_key(root: Node, loc: Loc) -> Problem:
    name = str(loc[-1])
    section = section_at(loc[:-1])
    known = keys_of(section) if section is not None else []
    close, elsewhere = _meant(loc), places_of(name)
    if close is not None:
        hint = f"did you mean '{close}'?"
    elif elsewhere:
        hint = f"did you mean '{elsewhere[0]}'?"
    else:
        hint = f"keys here are: {', '.join(known)}"
    within = f" in {dotted(_real(root, loc[:-1]))}" if loc[:-1] else ""
    return Problem(
        codes.UNKNOWN_KEY, f"unknown key '{_clip(name)}'{within}", hint, _key_place(root, loc)
    )


def _missing_key(root: Node, loc: Loc) -> Problem:
    name, parent = str(loc[-1]), loc[:-1]
    section = section_at(parent)
    field = section.model_fields.get(name) if section is not None else None
    about = f": {field.description}" if field is not None and field.description else ""
    within = f" in {dotted(_real(root, parent))}" if parent else ""
    return Problem(
        codes.MISSING_KEY,
        f"'{name}' is missing{within}",
        f"add '{name}'{about}",
        _top(root, parent),
    )


def _top(root: Node, loc: Loc) -> Place:
    """Return the key of a section; for the recipe itself and for list items, their first key."""
    key, node = find(root, loc)
    if key is not None:
        return key.span.place()
    if isinstance(node, Mapping) and node.entries:
        return node.entries[0].key.span.place()
    return node.span.place()


def _is_unnamed_range(loc: Loc, error: ErrorDetails) -> bool:
    """Tell whether min, opt or max stands where the input's name should."""
    wrong = error["type"] in ("model_type", "model_attributes_type")
    return wrong and len(loc) == 3 and loc[0] == "shapes" and loc[2] in ("min", "opt", "max")


def _unnamed_range(root: Node, loc: Loc) -> Problem:
    return Problem(
        codes.WRONG_TYPE,
        f"'{loc[2]}' stands where the name of an input should",
        "write shapes: {image: {min: ..., opt: ..., max: ...}} with the input's own name, or "
        "[[{min: ..., opt: ..., max: ...}]] in the order of the inputs",
        _key_place(root, loc),
    )


def _wrong_value(root: Node, error: ErrorDetails) -> Problem:
    loc, value = error["loc"], error["input"]
    _, node = find(root, loc)
    text = node.text if isinstance(node, Scalar) else None
    code, message, hint = word(error["type"], error.get("ctx", {}), value, text)
    hint = hint or _section_hint(loc, value) or _field_hint(loc)
    path = dotted(_real(root, loc)) or "the recipe"
    return Problem(code, f"{_clip(path)} {message}", hint, place_at(root, loc))


def _section_hint(loc: Loc, value: Any) -> str:
    section = section_at(loc)
    if section is None:
        return ""
    required = [name for name, field in section.model_fields.items() if field.is_required()]
    if isinstance(value, str) and value and len(required) == 1:
        return f"write {{{required[0]}: {_clip(value)}}}"
    return f"keys here are: {', '.join(keys_of(section))}"


def _field_hint(loc: Loc) -> str:
    """Return what the schema says about the nearest key above."""
    for end in range(len(loc) - 1, -1, -1):
        section = section_at(loc[:end])
        field = section.model_fields.get(str(loc[end])) if section is not None else None
        if field is not None and field.description:
            return f"{loc[end]}: {field.description}"
    return "see `trtforge schema`"


def _real(root: Node, loc: Loc) -> list[Key]:
    return [key for key, _, _ in steps(root, loc)]


def _key_place(root: Node, loc: Loc) -> Place:
    key, _ = find(root, loc)
    return key.span.place() if key is not None else place_at(root, loc)


def _clip(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:79]}…"
