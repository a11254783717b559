"""What a plain (unquoted) scalar means: the YAML 1.2 core schema, and its traps refused.

Source: YAML 1.2.2, section 10.3.2, https://yaml.org/spec/1.2.2/#1032-tag-resolution.
"""

import re

_NULL = {"", "~", "null", "Null", "NULL"}
_BOOL = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INT = re.compile(r"[-+]?[0-9]+")
_BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NAMED = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_LONGEST = 100
"""No number in a recipe has more characters; Python's own limit for int() is 4300 digits."""


def resolve(text: str) -> str | int | float | bool | None:
    """Return the value of a plain scalar."""
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if len(text) > _LONGEST:
        return text
    if _BASED.fullmatch(text):
        return int(text[2:], 8 if text[1] == "o" else 16)
    if _INT.fullmatch(text):
        return int(text)
    if _NAMED.fullmatch(text):
        return float(text.replace(".", "", 1))
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


def has_leading_zero(text: str) -> bool:
    """Tell whether a plain number is octal to YAML 1.1 and decimal to YAML 1.2."""
    return re.fullmatch(r"[-+]?0[0-9]+", text) is not None
