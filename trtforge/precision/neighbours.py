"""Mixes that may well be cheaper than the best one: on the front, or a unit or two away from it."""

from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt

from trtforge.precision.mixes import Mix, Mixes

SLACK_DB = 3.0
"""How much more noise a neighbour may promise than the noisiest mix that met the bound. On the
digits network 2 to 4 find the same; harms measured on 4 samples in place of 8 miss much more."""

LEAST_SAVING = 0.001
"""Share of the cost of the best mix below which a cheaper one is not worth a run."""

LIKE = 0.02
"""Share of the work in which two mixes differ so little that one that missed tells of the other,"""

LESS_NOISE = 0.8
"""unless the other promises less than this share of its noise, that is 1 dB."""

_MOST_LOOKED_AT = 2000
"""Exchanges, the most promising ones."""

_NO_NOISE = 1e-30
"""In place of no noise at all, of which there is no logarithm."""

Doubles = npt.NDArray[np.float64]
Move = tuple[int, str]
"""A unit and the type that it gets."""


class Neighbours:
    """What to try next.

    Args:
        mixes: the model and its mixes.
        ranked: those that promise the least noise for their cost.
    """

    def __init__(self, mixes: Mixes, ranked: Sequence[Mix]) -> None:
        self.mixes = mixes
        self._ranked = list(ranked)
        self._costs = np.array([mixes.cost(mix) for mix in ranked])
        self._noises = np.array([mixes.noise(mix) for mix in ranked])
        self.work = np.array([unit.work for unit in mixes.units], np.float64)

    def most_promising(self, best: Mix, met: Sequence[Mix], missed: Sequence[Mix]) -> Mix | None:
        """Return the mix of most promise that was not tried; None where nothing promises anything.

        A mix promises what it would save against the best, times how far its noise is below
        SLACK_DB above the most that met the bound.

        Args:
            best: the cheapest mix that met the bound.
            met: all that did.
            missed: all that did not.
        """
        allowed = max(map(self.mixes.noise, met))
        told = _Told(self, {*met, *missed}, missed)
        found = [self._on_front(best, allowed, told), self._exchanged(best, allowed, told)]
        return max(
            (one for one in found if one is not None), key=lambda one: one[0], default=(0.0, None)
        )[1]

    def _on_front(self, best: Mix, allowed: float, told: "_Told") -> tuple[float, Mix] | None:
        best_cost = self.mixes.cost(best)
        promise = _promise(best_cost - self._costs, self._noises, allowed)
        promise[self._costs > best_cost * (1 - LEAST_SAVING)] = 0.0
        for index in np.argsort(-promise, kind="stable"):
            if promise[index] <= 0:
                return None
            if not told.of(self._ranked[index]):
                return float(promise[index]), self._ranked[index]
        return None

    def _exchanged(self, best: Mix, allowed: float, told: "_Told") -> tuple[float, Mix] | None:
        """A unit cheaper, alone or with another one dearer."""
        down, up = self._moves(best, is_down=True), self._moves(best, is_down=False)
        if not down:
            return None
        first = np.array([self._change(best, one) for one in down])
        second = np.array([(0.0, 0.0), *(self._change(best, one) for one in up)])
        saved = -(first[:, None, 0] + second[None, :, 0])
        noise = self.mixes.noise(best) + first[:, None, 1] + second[None, :, 1]
        promise = _promise(saved, noise, allowed)
        promise[saved < self.mixes.cost(best) * LEAST_SAVING] = 0.0
        promise[np.equal.outer([unit for unit, _ in down], [-1, *(unit for unit, _ in up)])] = 0.0
        for index in np.argsort(-promise, axis=None, kind="stable")[:_MOST_LOOKED_AT]:
            one, other = divmod(int(index), len(second))
            if promise[one, other] <= 0:
                return None
            mix = list(best)
            for unit, kind in (down[one], *up[other - 1 : other]):
                mix[unit] = kind
            if not told.of(tuple(mix)):
                return float(promise[one, other]), tuple(mix)
        return None

    def code(self, mix: Mix) -> list[int]:
        """The place of each unit's type among its types."""
        pairs = zip(self.mixes.units, mix, strict=True)
        return [unit.types.index(kind) for unit, kind in pairs]

    def _moves(self, mix: Mix, *, is_down: bool) -> list[Move]:
        found = []
        for index, (unit, kind) in enumerate(zip(self.mixes.units, mix, strict=True)):
            at = unit.types.index(kind)
            others = unit.types[:at] if is_down else unit.types[at + 1 :]
            found += [(index, other) for other in others]
        return found

    def _change(self, mix: Mix, move: Move) -> tuple[float, float]:
        """What a move changes: share of FP32's cost, and noise."""
        unit, before = self.mixes.units[move[0]], mix[move[0]]
        cost = (unit.cost(move[1]) - unit.cost(before)) / self.mixes.reference
        return cost, unit.noises[move[1]] - unit.noises[before]


class _Told:
    """What need not be run: mixes that were, and those that one that missed tells of.

    It does where both differ in next to nothing and the other one has hardly less noise.
    """

    def __init__(
        self, neighbours: Neighbours, tried: Collection[Mix], missed: Sequence[Mix]
    ) -> None:
        self._neighbours = neighbours
        self._tried = tried
        self._codes = np.array([neighbours.code(mix) for mix in missed])
        self._noises = np.array([neighbours.mixes.noise(mix) for mix in missed])

    def of(self, mix: Mix) -> bool:
        """Whether a mix need not be run."""
        if mix in self._tried:
            return True
        if not len(self._codes):
            return False
        apart = (self._codes != self._neighbours.code(mix)) @ self._neighbours.work
        is_like = apart < LIKE * self._neighbours.work.sum()
        is_noisy = self._neighbours.mixes.noise(mix) > LESS_NOISE * self._noises
        return bool((is_like & is_noisy).any())


def _promise(saved: Doubles, noise: Doubles, allowed: float) -> Doubles:
    ratio = np.maximum(noise, _NO_NOISE) / max(allowed, _NO_NOISE)
    excess_db = np.maximum(10 * np.log10(ratio), 0.0)
    promise: Doubles = np.maximum(saved, 0.0) * np.maximum(SLACK_DB - excess_db, 0.0)
    return promise
