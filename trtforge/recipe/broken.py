"""A broken law of a recipe, and how laws look into data that may be malformed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trtforge.recipe.nodes import Loc


@dataclass(frozen=True)
class Broken:
    """One broken law, at a location of the recipe."""

    loc: Loc
    code: str
    message: str
    hint: str


def get(data: Any, *keys: Any) -> Any:
    """Return what lies under keys, None where there is nothing."""
    for key in keys:
        if not isinstance(data, Mapping):
            return None
        data = data.get(key)
    return data


def is_list(value: Any) -> bool:
    """Whether it is a list."""
    return isinstance(value, list | tuple)


def items(value: Any) -> Sequence[Any]:
    """Return a list, empty where it is none."""
    return value if isinstance(value, list | tuple) else ()


def is_number(value: Any) -> bool:
    """Whether it is a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)
