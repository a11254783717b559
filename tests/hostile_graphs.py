"""Graphs made to break an optimizer, by name; each is built when it is called."""

from hostile_bodies import BODY_GRAPHS
from hostile_forms import FORM_GRAPHS
from hostile_lookalikes import LOOKALIKE_GRAPHS
from hostile_numbers import LAYER_GRAPHS
from hostile_shapes import SHAPE_GRAPHS
from hostile_text import Builder, Hostile

__all__ = ["HOSTILE", "Hostile"]

_THEMES = (BODY_GRAPHS, FORM_GRAPHS, SHAPE_GRAPHS, LAYER_GRAPHS, LOOKALIKE_GRAPHS)

HOSTILE: dict[str, Builder] = {name: made for theme in _THEMES for name, made in theme.items()}

if len(HOSTILE) != sum(map(len, _THEMES)):
    raise AssertionError("two hostile graphs have the same name")
