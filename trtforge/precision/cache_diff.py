"""What changed from one calibration cache to another, whatever formats they are in."""

import math
from dataclasses import dataclass
from typing import Any

from trtforge.precision.cache import CalibrationCache
from trtforge.precision.trt_text import ALGORITHMS, algorithm_of

_COMPARED = ("grid", "options", "samples", "graph_digest", "origin")
"""Facts of a cache as a whole, in the order of its schema; the method is compared apart."""


@dataclass(frozen=True)
class Change:
    """A tensor that both have.

    Attributes:
        name: of the tensor.
        before: amax in the first cache.
        after: amax in the second.
    """

    name: str
    before: float
    after: float

    @property
    def ratio(self) -> float:
        """By what factor amax grew; inf when it was 0."""
        return self.after / self.before if self.before else math.inf

    @property
    def size(self) -> float:
        """|log2 of the ratio|: doubling and halving are changes of the same size."""
        if not (self.before and self.after):
            return math.inf
        return abs(math.log2(self.after) - math.log2(self.before))


@dataclass(frozen=True)
class CacheDifference:
    """What changed.

    Attributes:
        facts: what is said of the caches as a whole: name -> (before, after).
        removed: tensors of the first one alone, in its order.
        added: tensors of the second one alone, in its order.
        changed: the tensors of both whose amax differs, the largest change first.
        same: how many tensors have the same amax in both.
    """

    facts: dict[str, tuple[Any, Any]]
    removed: tuple[str, ...]
    added: tuple[str, ...]
    changed: tuple[Change, ...]
    same: int

    @property
    def identical(self) -> bool:
        """Whether nothing changed."""
        return not (self.facts or self.removed or self.added or self.changed)

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON data; a ratio from 0 is null."""
        return {
            "facts": [
                {"what": what, "before": before, "after": after}
                for what, (before, after) in self.facts.items()
            ],
            "removed": list(self.removed),
            "added": list(self.added),
            "changed": [
                {
                    "tensor": change.name,
                    "before": change.before,
                    "after": change.after,
                    "ratio": change.ratio if math.isfinite(change.ratio) else None,
                }
                for change in self.changed
            ],
            "same": self.same,
        }


def diff_caches(
    before: CalibrationCache, after: CalibrationCache, tolerance: float = 0.0
) -> CacheDifference:
    """Compare two caches.

    Args:
        before: the first one.
        after: the second one.
        tolerance: ranges whose ratio is within 1 +- this are the same; TensorRT's text holds
            float32, so that 1e-6 is for comparing with one.
    """
    both = [name for name in before.ranges if name in after.ranges]
    changes = [
        Change(name, before.ranges[name].amax, after.ranges[name].amax)
        for name in both
        if not _alike(before.ranges[name].amax, after.ranges[name].amax, tolerance)
    ]
    return CacheDifference(
        _facts(before, after),
        tuple(name for name in before.ranges if name not in after.ranges),
        tuple(name for name in after.ranges if name not in before.ranges),
        tuple(sorted(changes, key=lambda change: (-change.size, change.name))),
        len(both) - len(changes),
    )


def _facts(before: CalibrationCache, after: CalibrationCache) -> dict[str, tuple[Any, Any]]:
    """What is known of both and differs; a converted cache knows little of itself."""
    pairs = {what: (getattr(before, what), getattr(after, what)) for what in _COMPARED}
    if not all(origin.startswith("TRT-") for origin in pairs["origin"]):
        del pairs["origin"]  # other tools' files have no header to compare
    found = {what: pair for what, pair in pairs.items() if all(pair) and pair[0] != pair[1]}
    methods = (before.method, after.method)
    algorithms = tuple(map(algorithm_of, methods)) if set(methods) & set(ALGORITHMS) else methods
    if algorithms[0] != algorithms[1] and "unknown" not in methods:
        return {"method": methods, **found}
    return found


def _alike(one: float, two: float, tolerance: float) -> bool:
    return one == two or abs(one - two) <= tolerance * max(abs(one), abs(two))
