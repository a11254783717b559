"""Names that a user may have mistyped: the nearest known one, as a sentence for a hint."""

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a hint that names the nearest known name, or all of them when none is near.

    Args:
        name: what was asked for.
        known: what exists; at most ten are listed.
    """
    choices = list(known)
    near = get_close_matches(name, choices, n=1, cutoff=0.6)
    if near:
        return f"did you mean '{near[0]}'?"
    if not choices:
        return "there is none to choose from"
    listed = ", ".join(f"'{choice}'" for choice in choices[:10])
    return f"known: {listed}{', ...' if len(choices) > 10 else ''}"
