"""What a value should have been, in plain words: message and hint for each kind of mistake."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from trtforge.recipe import codes
from trtforge.recipe.sections import closest

Wording = tuple[str, str, str]
"""Code, what is wrong (to be put after the path), and the hint."""

_PATTERNS = {
    "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$": (
        "becomes a folder's name: letters, digits, '.', '_' and '-' only, at most 63, "
        "a letter or digit first",
        "",
    ),
    r"^[^/\\\x00]+\.json$": (
        "must be a file name that ends in .json, without a folder",
        "the cache is put into the bundle's calibration/ folder; write cache.json",
    ),
    r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$": (
        "must be a module and a name in it",
        "write it like mypackage.data:samples; a file goes under `script`",
    ),
    r"^[A-Za-z_]\w*$": ("must be the name of a function", "write it like load_data"),
}
_WORDS = {
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}
_BOUNDS = {
    "greater_than_equal": ("ge", "at least"),
    "less_than_equal": ("le", "at most"),
    "greater_than": ("gt", "more than"),
    "less_than": ("lt", "less than"),
}


def describe(value: Any) -> str:
    """Say what a value is, shortened."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"the number {_short(str(value))}"
    if isinstance(value, str):
        return f"the text '{_short(value)}'" if value else "an empty text"
    return "a mapping" if isinstance(value, dict) else "a list"


def word(kind: str, context: Mapping[str, Any], value: Any, text: str | None) -> Wording:
    """Put one validation error into words.

    Args:
        kind: pydantic's error type, or one of the schema's own.
        context: the error's context: bounds, pattern, expected values.
        value: what was given.
        text: how a plain scalar is written in the file, None for lists and mappings.
    """
    if kind in _WORDS:
        return _wrong_type(kind, value, text)
    if kind in _BOUNDS:
        key, phrase = _BOUNDS[kind]
        bound = f"{context[key]:g}" if isinstance(context[key], float) else str(context[key])
        percent = bound == "1" and isinstance(value, int | float) and 1 < value <= 100
        hint = f"this is a share; did you mean {value / 100:g}?" if percent else ""
        return codes.WRONG_VALUE, f"must be {phrase} {bound}, not {_short(str(value))}", hint
    special = _SPECIAL.get(kind)
    if special is not None:
        return special(context, value, text)
    return codes.WRONG_VALUE, f"cannot be {describe(value)}", ""


def _wrong_type(kind: str, value: Any, text: str | None) -> Wording:
    wanted = _WORDS[kind]
    if value is None:
        return codes.WRONG_TYPE, f"has no value; it must be {wanted}", ""
    return codes.WRONG_TYPE, f"must be {wanted}, not {describe(value)}", _repair(kind, value, text)


def _repair(kind: str, value: Any, text: str | None) -> str:
    if kind == "bool_type":
        lowered = str(value).lower()
        if lowered in ("yes", "on", "y", "true", "1"):
            return "write true"
        return "write false" if lowered in ("no", "off", "n", "false", "0") else ""
    if kind in ("int_type", "float_type"):
        return _number_repair(kind, value)
    if kind == "string_type" and text is not None:
        return f'put it in quotes: "{_short(text)}"'
    if kind == "tuple_type" and text is not None:
        shown = f'"{_short(text)}"' if isinstance(value, float) else _short(text)
        return f"write [{shown}]"
    if kind == "tuple_type":
        return "start each item with '- ', or write [{...}]"
    return ""


def _number_repair(kind: str, value: Any) -> str:
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return f"write {int(value)}"
    if not isinstance(value, str):
        return ""
    digits = value.replace("_", "").strip()
    pattern = r"[-+]?[0-9]{1,30}" if kind == "int_type" else r"[-+]?[0-9.]{1,30}(e[-+]?[0-9]+)?"
    return f"write {digits}, without quotes or underscores" if re.fullmatch(pattern, digits) else ""


def _literal(context: Mapping[str, Any], value: Any, _: str | None) -> Wording:
    choices = re.findall(r"'([^']*)'", str(context.get("expected", "")))
    if not choices:
        wanted = context.get("expected")
        return (
            codes.WRONG_VALUE,
            f"must be {wanted}, not {describe(value)}",
            f"this release reads version {wanted} of the recipe format",
        )
    hint = f"choose one of: {', '.join(choices)}"
    close = closest(value, choices) if isinstance(value, str) else None
    if close is not None:
        hint = f"did you mean '{close}'? {hint[0].upper()}{hint[1:]}"
    code = codes.WRONG_VALUE if isinstance(value, str) else codes.WRONG_TYPE
    return code, f"cannot be {describe(value)}", hint


def _pattern(context: Mapping[str, Any], value: Any, _: str | None) -> Wording:
    phrase, hint = _PATTERNS.get(str(context.get("pattern")), ("is malformed", ""))
    if not hint:
        fixed = re.sub(r"[^A-Za-z0-9._-]+", "-", str(value)).lstrip("._-")[:63].rstrip("-")
        hint = f"did you mean '{fixed}'?" if fixed else "choose a name such as my-model"
    return codes.WRONG_VALUE, f"{phrase}; this is {describe(value)}", hint


def _too_long(context: Mapping[str, Any], value: Any, _: str | None) -> Wording:
    count = len(value) if isinstance(value, list | tuple | dict | str) else "more"
    return (
        codes.WRONG_VALUE,
        f"has {count} entries, at most {context.get('max_length')} are possible",
        "no operator reads so many",
    )


def _too_short(context: Mapping[str, Any], value: Any, _: str | None) -> Wording:
    if isinstance(value, str):
        return codes.WRONG_VALUE, "must not be empty", "give a name, or remove the key"
    return codes.WRONG_VALUE, "needs at least one entry", "add an entry, or remove the key"


def _capability_text(_: Mapping[str, Any], value: Any, text: str | None) -> Wording:
    hint = 'write it like "8.9"'
    if isinstance(value, int | float) and text is not None:
        capability = _capability(text)
        hint = f'put it in quotes: "{capability or text}"'
    return codes.WRONG_TYPE, f"must be text, not {describe(value)}", hint


def _capability_form(_: Mapping[str, Any], value: Any, text: str | None) -> Wording:
    capability = _capability(str(value))
    hint = f'did you mean "{capability}"?' if capability else 'write it like "8.9"'
    return codes.WRONG_VALUE, f"is no compute capability: {describe(value)}", hint


def _capability(text: str) -> str | None:
    """Read 89, sm_89, SM120 or 8.9 as a compute capability."""
    match = re.fullmatch(r"(?:sm_?|compute_?)?([0-9]{1,2})\.?([0-9])", text.strip(), re.IGNORECASE)
    return f"{match[1]}.{match[2]}" if match else None


_SPECIAL: dict[str, Callable[[Mapping[str, Any], Any, str | None], Wording]] = {
    "literal_error": _literal,
    "string_pattern_mismatch": _pattern,
    "too_long": _too_long,
    "too_short": _too_short,
    "string_too_short": _too_short,
    "capability_text": _capability_text,
    "capability_form": _capability_form,
    "finite_number": lambda _, value, text: (
        codes.WRONG_VALUE,
        f"must be a finite number, not {_short(text or str(value))}",
        "remove the key where there is to be no bound",
    ),
    "pair": lambda _, value, __: (
        codes.WRONG_VALUE,
        f"has {len(value)} numbers",
        "write [height, width]",
    ),
    "union_tag_not_found": lambda *_: (
        codes.MISSING_KEY,
        "needs one of the keys 'images', 'python' and 'script'",
        "write a path, {images: folder}, {python: module:function} or {script: file}",
    ),
    "path_text": lambda *_: (
        codes.WRONG_VALUE,
        "must not be empty",
        "give a path relative to the recipe",
    ),
}


def _short(text: str, longest: int = 60) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
