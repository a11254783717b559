"""The search for the cheapest mix of types that still meets a bound.

The noises of units are taken to add up, which gives a front of mixes: for each cost the least
noise. Which mixes of the front really meet the bound is found by bisection, each step of which
makes the typed graph and runs it; from the cheapest that does, single exchanges are tried.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from trtforge.precision.front import front
from trtforge.precision.mixes import Mix, Mixes, options_of
from trtforge.precision.neighbours import LEAST_SAVING, Neighbours

PATIENCE = 8
"""Neighbours in a row that may miss the bound before the search rests."""


@dataclass(frozen=True)
class Tried:
    """A mix that was made and run.

    Attributes:
        mix: the type of each unit.
        cost: share of the cost of FP32 everywhere.
        value: what was measured.
        meets: whether that is within the bound.
    """

    mix: Mix
    cost: float
    value: float
    meets: bool


@dataclass
class Search:
    """A search, and what it has tried.

    Attributes:
        evaluate: makes a mix, runs it, and gives the value and whether that is within the bound.
        limit: how many mixes may be tried.
        tried: all that were.
        seen: mixes that were asked for, and what each came to: several may come to one.
    """

    evaluate: Callable[[Mixes, Mix], tuple[float, bool]]
    limit: int
    tried: dict[Mix, Tried] = field(default_factory=dict)
    seen: dict[Mix, Mix] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.seen |= {mix: mix for mix in self.tried}

    @property
    def left(self) -> int:
        """How many mixes may still be tried."""
        return self.limit - len(self.tried)

    def best(self) -> Tried | None:
        """The cheapest mix that met the bound, the first of those that cost the same."""
        met = [one for one in self.tried.values() if one.meets]
        return min(met, key=lambda one: one.cost, default=None)

    def run(self, mixes: Mixes) -> Tried | None:
        """Search among the mixes of a model; `left` is spent in part or as a whole.

        Returns:
            The cheapest mix that was found to meet the bound; None where not even the mix of least
            noise does, or there was no evaluation left to see it.
        """
        ranked = _on_front(mixes)
        for mix in (ranked[0], ranked[-1]):
            if not self.meets(mixes, mix):
                continue
            if mix == ranked[-1]:
                self._bisect(mixes, ranked)
                self._improve(mixes, ranked)
            break
        return self.best()

    def meets(self, mixes: Mixes, mix: Mix) -> bool:
        """Try a mix, unless it was tried or no evaluation is left: then it counts as a miss."""
        own = mixes.effective(mix)
        if own not in self.tried:
            if self.left <= 0:
                return False
            value, meets = self.evaluate(mixes, own)
            self.tried[own] = Tried(own, mixes.cost(own), value, meets)
        self.seen |= {mix: own, own: own}
        return self.tried[own].meets

    def _bisect(self, mixes: Mixes, ranked: list[Mix]) -> None:
        """Narrow down where the front crosses the bound: it misses at `low`, it meets at `high`."""
        low, high = 0, len(ranked) - 1
        while high - low > 1 and self.left > 0:
            if mixes.cost(ranked[high]) - mixes.cost(ranked[low]) < (
                LEAST_SAVING * mixes.cost(ranked[high])
            ):
                return
            middle = (low + high) // 2
            if self.meets(mixes, ranked[middle]):
                high = middle
            else:
                low = middle

    def _improve(self, mixes: Mixes, ranked: list[Mix]) -> None:
        """Try what is cheaper than the best mix and promises hardly more noise than others had."""
        neighbours = Neighbours(mixes, ranked)
        misses = 0
        while misses < PATIENCE and self.left > 0 and (best := self.best()) is not None:
            met = [mix for mix, own in self.seen.items() if self.tried[own].meets]
            missed = [mix for mix, own in self.seen.items() if not self.tried[own].meets]
            mix = neighbours.most_promising(best.mix, met, missed)
            if mix is None:
                return
            misses = 0 if self.meets(mixes, mix) else misses + 1


def with_rounding(mixes: Mixes, noises: dict[str, float]) -> Mixes:
    """Return the mixes in which units of a narrow float type may be FP32 as well.

    Args:
        mixes: those without.
        noises: output of a unit -> the noise that rounding it to its base type brings; 0 where
            that was not measured.
    """
    units = []
    for unit in mixes.units:
        if unit.base == "fp32" or unit.is_forced:
            units.append(unit)
            continue
        own = {**unit.noises, unit.base: noises.get(unit.output, 0.0), "fp32": 0.0}
        units.append(replace(unit, noises=own))
    return replace(mixes, units=tuple(units))


def _on_front(mixes: Mixes) -> list[Mix]:
    """The mixes that promise the least noise for their cost, the cheapest first.

    The first is always the one in which everything has its cheapest type, the last the one in
    which everything has its widest, whatever noises say.
    """
    ranked = [
        tuple(unit.types[index] for unit, index in zip(mixes.units, row, strict=True))
        for row in front(options_of(mixes.units))
    ]
    first = [mixes.narrowest()] if ranked[0] != mixes.narrowest() else []
    last = [mixes.widest()] if ranked[-1] != mixes.widest() else []
    return [*first, *ranked, *last]
