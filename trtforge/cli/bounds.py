"""Numbers that options take."""

import math
from typing import Any

import click

LONGEST_S = 86400.0
MOST_MIB = 2.0**24


class FiniteRange(click.FloatRange):
    """A range of numbers; what is no number is not in it."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Read a number, and refuse "nan", which lies within every range by comparison."""
        found: float = super().convert(value, param, ctx)
        if math.isnan(found):
            self.fail(f"{value!r} is not a number.", param, ctx)
        return found


def finite(low: float, high: float = LONGEST_S, *, min_open: bool = False) -> FiniteRange:
    """Return what takes low..high; a day in seconds, where no end is given."""
    return FiniteRange(low, high, min_open=min_open)


class WeightBudget(FiniteRange):
    """How many weights the GPU holds: MiB, or "auto" for what the library thinks fits."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read a number, or "auto"."""
        return value if value == "auto" else super().convert(value, param, ctx)
