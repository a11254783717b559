"""Optimization profiles, gathered from flags that give one bound each."""

from dataclasses import dataclass, field
from typing import Any

from trtforge.recipe.migration.result import Draft

_BOUNDS = ("min", "opt", "max")


@dataclass
class Profiles:
    """Shapes by profile, input and bound."""

    draft: Draft
    found: list[dict[str, dict[str, list[int]]]] = field(default_factory=list)

    def put(self, index: int, name: str, bound: str, dims: list[int]) -> None:
        """Take one shape: `bound` is min, opt, max, or all for the three of them."""
        while len(self.found) <= index:
            self.found.append({})
        ranges = self.found[index].setdefault(name, {})
        for one in _BOUNDS if bound == "all" else (bound,):
            ranges[one] = dims

    def close(self) -> None:
        """Put the profiles into the draft; a missing bound is taken from its neighbours.

        That is what trtexec does: "if not all of min, opt and max are given, the ones that are
        stand for the others" (its --help on shapes).
        """
        profiles = [
            {name: _filled(ranges) for name, ranges in profile.items()}
            for profile in self.found
            if profile
        ]
        if profiles:
            self.draft.values["shapes"] = profiles[0] if len(profiles) == 1 else profiles


def _filled(ranges: dict[str, list[int]]) -> dict[str, Any]:
    known = [ranges[bound] for bound in ("opt", "max", "min") if bound in ranges]
    low = ranges.get("min", known[0])
    high = ranges.get("max", known[0])
    return {"min": low, "opt": ranges.get("opt", high), "max": high}
