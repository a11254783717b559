"""Element types on the page: each has a letter, a pattern and a colour, so that any one will do."""

from collections.abc import Mapping
from typing import Any

from trtforge.report.figures import number

LETTERS = {
    "fp8": "E",
    "int8": "8",
    "int4": "4",
    "fp16": "H",
    "bf16": "B",
    "fp32": "F",
    "fp64": "D",
    "other": "·",
}
"""Letters of the types that have a style of their own, narrow ones first; E is for E4M3, H for
half, B for brain float, F for float, D for double."""

_NAMES = {
    "float32": "fp32",
    "float": "fp32",
    "float16": "fp16",
    "bfloat16": "bf16",
    "float8_e4m3fn": "fp8",
}


def type_name(kind: Any) -> str:
    """Return a type's short name: fp16 for float16."""
    return _NAMES.get(str(kind), str(kind))


def style_of(kind: str) -> str:
    """Return the style of a type: its own name, or "other"."""
    return kind if kind in LETTERS else "other"


def amounts(found: Any) -> dict[str, float]:
    """Return the amounts by type of a JSON mapping, narrow types first; zeros are left out."""
    summed: dict[str, float] = {}
    for kind, value in found.items() if isinstance(found, Mapping) else ():
        if (amount := number(value)) is not None and 0 < amount < float("inf"):
            summed[type_name(kind)] = summed.get(type_name(kind), 0.0) + amount
    rank = {kind: index for index, kind in enumerate(LETTERS)}
    return dict(sorted(summed.items(), key=lambda item: (rank.get(item[0], 99), item[0])))
