"""Bounds on figures that `trtforge bench` measures, as `p99_ms<=5` writes them."""

import math
import re
from dataclasses import dataclass

FIGURES = ("mean_ms", "p50_ms", "p90_ms", "p95_ms", "p99_ms", "p99.9_ms", "samples_per_second")
"""What limits may be set on."""

HINT = f"write p99_ms<=5; figures are: {', '.join(FIGURES)}"

_FORM = re.compile(r"\s*(\w[\w.]*)\s*(<=|>=)\s*([0-9.eE+-]+)\s*")


@dataclass(frozen=True)
class Limit:
    """A bound on a figure: at most or at least."""

    figure: str
    is_most: bool
    bound: float

    def __str__(self) -> str:
        return f"{self.figure} {'<=' if self.is_most else '>='} {self.bound:g}"

    def holds(self, found: float) -> bool:
        """Whether a figure meets it."""
        return found <= self.bound if self.is_most else found >= self.bound


def read_limit(text: str) -> Limit:
    """Read `p99_ms<=5`.

    Raises:
        ValueError: it is not of that form, or there is no such figure; says which.
    """
    found = _FORM.fullmatch(text)
    if found is None or found[1] not in FIGURES:
        raise ValueError(f"'{text}' is no limit")
    try:
        bound = float(found[3])
    except ValueError:
        raise ValueError(f"'{found[3]}' is no number") from None
    if not math.isfinite(bound):
        raise ValueError(f"'{found[3]}' is no number")
    return Limit(found[1], found[2] == "<=", bound)
