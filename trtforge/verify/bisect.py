"""A smallest set of changes that makes a failing comparison pass.

The search is delta debugging (A. Zeller, R. Hildebrandt, "Simplifying and Isolating
Failure-Inducing Input", IEEE Transactions on Software Engineering 28(2), 2002), guided: what a
failed comparison shows to be suspicious is tried first. Where nothing is suspicious any more, each
culprit is found by halving the ordered candidates (F. Hemery, C. Lecoutre, L. Sais, F. Boussemart,
"Extracting MUCs from Constraint Networks", ECAI 2006), which takes about log2(n) tests for each.
"""

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

Item = TypeVar("Item", bound=Hashable)

Outcome = Literal["nothing_to_do", "found", "not_minimal", "not_found", "gave_up"]

BUDGET = 40
"""Tests that a search may take."""

_AT_ONCE = 4
"""Sets up to this size are tested member by member; larger ones in halves first."""


@dataclass(frozen=True)
class Minimal(Generic[Item]):
    """What a search found.

    Attributes:
        outcome: `nothing_to_do`: the test passes as it is. `found`: with `items` it passes, and
            taking any one of them back makes it fail again. `not_minimal`: it passes with them, but
            the budget ended before each was shown to be needed. `not_found`: it fails even with
            all candidates. `gave_up`: the budget ended before any set that passes was found.
        items: the set, in the order of the candidates.
        tests: how often the test was run.
    """

    outcome: Outcome
    items: tuple[Item, ...]
    tests: int


def minimal_set(
    candidates: Sequence[Item],
    test: Callable[[frozenset[Item]], bool],
    *,
    suspects: Callable[[frozenset[Item]], Sequence[Item]] | None = None,
    budget: int = BUDGET,
) -> Minimal[Item]:
    """Find a set of changes that is needed and is enough.

    Args:
        candidates: all changes, the most suspicious first.
        test: whether the comparison passes with these changes. It should not fail where a subset
            passes; where it does all the same, the result is still what `Minimal` says.
        suspects: given changes with which the test failed, further ones that its failure points
            at; empty when it points at none. Called right after that test.
        budget: tests at most, 1 or more; the same set is tested once.
    """
    search = _Search(candidates, test, budget)
    try:
        return search.run(suspects)
    except _BudgetSpentError:
        outcome: Outcome = "gave_up" if search.passing is None else "not_minimal"
        # Passing sets are held for the whole search; that of all candidates says nothing.
        if search.passing is not None and len(search.passing) == len(candidates) > 1:
            outcome = "gave_up"
        items = () if outcome == "gave_up" else search.ordered(search.passing or ())
        return Minimal(outcome, items, search.tests)


class _BudgetSpentError(Exception):
    pass


class _Search(Generic[Item]):
    def __init__(
        self, candidates: Sequence[Item], test: Callable[[frozenset[Item]], bool], budget: int
    ) -> None:
        self._candidates = tuple(dict.fromkeys(candidates))
        self._test = test
        self._budget = budget
        self._known: dict[frozenset[Item], bool] = {}
        self.tests = 0
        self.passing: frozenset[Item] | None = None

    def run(self, suspects: Callable[[frozenset[Item]], Sequence[Item]] | None) -> Minimal[Item]:
        if self._passes(frozenset()):
            return Minimal("nothing_to_do", (), self.tests)
        pointed_at = self._follow(suspects) if suspects is not None else ()
        if self.passing is None and not self._passes(frozenset(self._candidates)):
            return Minimal("not_found", (), self.tests)
        if self.passing is None or len(self.passing) == len(self._candidates):
            rest = [item for item in self._candidates if item not in set(pointed_at)]
            found = self._halve([*pointed_at, *rest])
        else:
            found = self.passing
        found = self._reduce(found)
        return Minimal("found", self.ordered(found), self.tests)

    def ordered(self, items: Sequence[Item] | frozenset[Item]) -> tuple[Item, ...]:
        return tuple(item for item in self._candidates if item in items)

    def _passes(self, items: frozenset[Item]) -> bool:
        if items not in self._known:
            if self.tests >= self._budget:
                raise _BudgetSpentError
            self.tests += 1
            self._known[items] = self._test(items)
        passes = self._known[items]
        if passes and (self.passing is None or len(items) < len(self.passing)):
            self.passing = items
        return passes

    def _follow(self, suspects: Callable[[frozenset[Item]], Sequence[Item]]) -> tuple[Item, ...]:
        """Change what failures point at, until the test passes or nothing more is pointed at.

        At most half of the budget goes into it. All that was tried, in its order.
        """
        tried: dict[Item, None] = {}
        known = set(self._candidates)
        while self.tests <= self._budget // 2:
            more = [item for item in suspects(frozenset(tried)) if item in known]
            if all(item in tried for item in more):
                break
            tried.update(dict.fromkeys(more))
            if self._passes(frozenset(tried)):
                break
        return tuple(tried)

    def _halve(self, ordered: Sequence[Item]) -> frozenset[Item]:
        """Find the shortest passing prefix; its last item is needed. Then the same before it."""
        needed: frozenset[Item] = frozenset()
        rest = list(ordered)
        while rest and not self._passes(needed):
            count = self._shortest(needed, rest)
            needed |= {rest[count - 1]}
            rest = rest[: count - 1]
        return needed if self._passes(needed) else frozenset(ordered)

    def _shortest(self, needed: frozenset[Item], rest: Sequence[Item]) -> int:
        """The length of the shortest prefix that passes; the whole is known to pass.

        The square root of the length comes first: suspicious items, which stand in front, are then
        found in half of the tests, and all others with one test more.
        """
        low, high = 0, len(rest)
        start = math.isqrt(high)
        if 1 < start < high:
            if self._passes(needed | frozenset(rest[:start])):
                high = start
            else:
                low = start
        while high - low > 1:
            middle = (low + high) // 2
            if self._passes(needed | frozenset(rest[:middle])):
                high = middle
            else:
                low = middle
        return high

    def _reduce(self, items: frozenset[Item]) -> frozenset[Item]:
        """Take back parts, ever smaller, until no single item can be taken back (ddmin)."""
        kept = list(self.ordered(items))
        size = 1 if len(kept) <= _AT_ONCE else len(kept) // 2
        while True:
            shorter = self._without_parts(kept, size)
            if size == 1 and len(shorter) == len(kept):
                return frozenset(kept)  # each was tested since the last was taken back
            kept = shorter
            size = max(min(size, len(kept)) // 2, 1)

    def _without_parts(self, kept: list[Item], size: int) -> list[Item]:
        """The list without those of its parts that are not needed, tried from its end."""
        for start in range((len(kept) - 1) // size * size, -1, -size):
            shorter = kept[:start] + kept[start + size :]
            if self._passes(frozenset(shorter)):
                kept = shorter
        return kept
