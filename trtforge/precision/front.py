"""The best of all combinations of options: for each cost the least noise, as far as noises add."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

STATES = 2048
"""Combinations that are carried on from one unit to the next. Up to 11 units of two options each
nothing is left out; beyond, neighbours on the front are, each step by less than 1/2048 of it."""

_MOST_NOISE = 1e30
"""In place of infinity, so that sums of noises can still be told apart."""


def front(options: Sequence[Sequence[tuple[float, float]]]) -> list[tuple[int, ...]]:
    """Return the combinations that no other one beats in both cost and noise, cheapest first.

    Units are added one by one, and what is beaten is dropped after each: G. L. Nemhauser and
    Z. Ullmann, "Discrete Dynamic Programming and Capital Allocation" (1969). Where more than
    STATES are left, they are thinned out evenly.

    Args:
        options: for each unit (cost, noise) of each of its options; at least one.

    Returns:
        For each combination the index of the option of each unit.
    """
    costs, noises = np.zeros(1), np.zeros(1)
    chosen: npt.NDArray[np.int8] = np.zeros((1, len(options)), np.int8)
    for unit, pairs in enumerate(options):
        added = np.array([(cost, min(noise, _MOST_NOISE)) for cost, noise in pairs], np.float64)
        all_costs = (costs + added[:, :1]).ravel()
        all_noises = (noises + added[:, 1:]).ravel()
        kept = _unbeaten(all_costs, all_noises)
        option, state = np.divmod(kept, len(costs))
        costs, noises, chosen = all_costs[kept], all_noises[kept], chosen[state]
        chosen[:, unit] = option
    return [tuple(int(index) for index in row) for row in chosen]


def _unbeaten(
    costs: npt.NDArray[np.float64], noises: npt.NDArray[np.float64]
) -> npt.NDArray[np.int64]:
    order = np.lexsort((noises, costs))
    ordered = noises[order]
    before = np.concatenate(([np.inf], np.minimum.accumulate(ordered)[:-1]))
    kept = order[ordered < before]
    if len(kept) > STATES:
        kept = kept[np.linspace(0, len(kept) - 1, STATES).round().astype(np.int64)]
    return kept
