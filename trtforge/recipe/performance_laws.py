"""Laws of what is measured: limits that can be read, and options of their own scenario."""

from collections.abc import Iterator
from typing import Any

from trtforge.recipe import codes, limits
from trtforge.recipe.broken import Broken, get, items
from trtforge.recipe.nodes import Loc


def performance_laws(performance: Any, loc: Loc = ()) -> Iterator[Broken]:
    """Yield what is wrong with a performance section by itself."""
    for index, text in enumerate(items(get(performance, "limits"))):
        try:
            limits.read_limit(text) if isinstance(text, str) and text else None
        except ValueError as error:
            yield Broken((*loc, "limits", index), codes.WRONG_VALUE, str(error), limits.HINT)
    scenario, rate = get(performance, "scenario") or "single-stream", get(performance, "rate")
    if scenario == "server" and rate is None:
        yield Broken(
            loc,
            codes.MISSING_KEY,
            "the server scenario needs a rate",
            "add `rate: 100`, queries per second in the mean",
        )
    if scenario != "server" and rate is not None:
        yield Broken(
            (*loc, "rate"),
            codes.CONTRADICTION,
            f"a rate is of the server scenario, not of {scenario}",
            "remove it, or write `scenario: server`",
        )
    streams = get(performance, "streams")
    if scenario in ("single-stream", "multi-stream") and streams not in (None, 1):
        yield Broken(
            (*loc, "streams"),
            codes.CONTRADICTION,
            f"{scenario} runs one query at a time",
            "remove streams, or write `scenario: offline` or `server`",
        )
