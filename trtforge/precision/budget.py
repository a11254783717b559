"""The search for the cheapest mix of types that still meets a bound.

The noises of units are taken to add up, which gives a front of mixes: for each cost the least
noise. Which mixes of the front really meet the bound is found by bisection, each step of which
makes the typed graph and runs it; from the cheapest that does, single exchanges are tried.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from trtforge.precision.front import front
from trtforge.precision.mixes import Mix, Mixes, options_of

PATIENCE = 8
"""Exchanges in a row that may miss the bound before the search rests. On the digits networks the
last one that helped was at most the fifth."""

SLACK_DB = 2.0
"""How much more noise an exchange may promise than the noisiest mix that met the bound: noises of
layers add up to about one dB (docs/budgets.md)."""


_FLOOR = 1e-30
"""In place of no noise at all, of which there is no logarithm."""


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
    """

    evaluate: Callable[[Mixes, Mix], tuple[float, bool]]
    limit: int
    tried: dict[Mix, Tried] = field(default_factory=dict)

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
            if not self._meets(mixes, mix):
                continue
            if mix == ranked[-1]:
                self._bisect(mixes, ranked)
                self._exchange(mixes)
            break
        return self.best()

    def _meets(self, mixes: Mixes, mix: Mix) -> bool:
        if mix not in self.tried:
            if self.left <= 0:
                return False
            value, meets = self.evaluate(mixes, mix)
            self.tried[mix] = Tried(mix, mixes.cost(mix), value, meets)
        return self.tried[mix].meets

    def _bisect(self, mixes: Mixes, ranked: list[Mix]) -> None:
        """Narrow down where the front crosses the bound: it misses at `low`, it meets at `high`."""
        low, high = 0, len(ranked) - 1
        while high - low > 1 and self.left > 0:
            middle = (low + high) // 2
            if self._meets(mixes, ranked[middle]):
                high = middle
            else:
                low = middle

    def _exchange(self, mixes: Mixes) -> None:
        """Make one unit of the best mix cheaper, and another one dearer where that helps."""
        misses = 0
        while misses < PATIENCE and self.left > 0 and (best := self.best()) is not None:
            met = (one.mix for one in self.tried.values() if one.meets)
            allowed = max(map(mixes.noise, met))
            mix = next(self._exchanges(mixes, best.mix, allowed), None)
            if mix is None:
                return
            misses = 0 if self._meets(mixes, mix) else misses + 1

    def _exchanges(self, mixes: Mixes, mix: Mix, allowed: float) -> Iterator[Mix]:
        """Mixes not yet tried, the most promising first: by what they save and how likely."""
        down, up = _moves(mixes, mix, is_down=True), _moves(mixes, mix, is_down=False)
        if not down:
            return
        changes = np.array([_change(mixes, mix, one) for one in down])
        others = np.array([(0.0, 0.0), *(_change(mixes, mix, one) for one in up)])
        saved = -(changes[:, None, 0] + others[None, :, 0])
        noise = mixes.noise(mix) + changes[:, None, 1] + others[None, :, 1]
        excess = 10 * np.log10(np.maximum(noise, _FLOOR) / max(allowed, _FLOOR))
        promise = saved * (SLACK_DB - np.maximum(excess, 0.0))
        same = np.equal.outer([unit for unit, _ in down], [-1, *(unit for unit, _ in up)])
        promise[(saved <= 0) | (excess >= SLACK_DB) | same] = -math.inf
        for index in np.argsort(-promise, axis=None, kind="stable"):
            first, second = divmod(int(index), len(others))
            if promise[first, second] == -math.inf:
                return
            candidate = list(mix)
            for unit, kind in (down[first], *up[second - 1 : second]):
                candidate[unit] = kind
            if tuple(candidate) not in self.tried:
                yield tuple(candidate)


def with_rounding(mixes: Mixes, noises: dict[str, float]) -> Mixes:
    """Return the mixes in which units of a narrow float type may be FP32 as well.

    Args:
        mixes: those without.
        noises: output of a unit -> the noise that rounding it to its base type brings.
    """
    units = []
    for unit in mixes.units:
        if unit.base == "fp32":
            units.append(unit)
            continue
        own = {**unit.noises, unit.base: noises[unit.output], "fp32": 0.0}
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


def _moves(mixes: Mixes, mix: Mix, *, is_down: bool) -> list[tuple[int, str]]:
    found = []
    for index, (unit, kind) in enumerate(zip(mixes.units, mix, strict=True)):
        at = unit.types.index(kind)
        others = unit.types[:at] if is_down else unit.types[at + 1 :]
        found += [(index, other) for other in others]
    return found


def _change(mixes: Mixes, mix: Mix, move: tuple[int, str]) -> tuple[float, float]:
    """What a move changes in cost and noise."""
    index, kind = move
    unit, before = mixes.units[index], mix[index]
    return unit.cost(kind) - unit.cost(before), unit.noises[kind] - unit.noises[before]
