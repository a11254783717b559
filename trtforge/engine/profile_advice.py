"""Optimization profiles for shapes that were seen: which to build, and how well some fit.

A kernel is tuned for a profile's `opt` and used for all shapes between `min` and `max`. So the cost
of a request is how far its shape is from `opt`: the sum over dynamic dimensions of |log2(dim /
opt)|. For one profile the weighted median of each dimension minimizes that sum; profiles are
groups of requests (k-medians).
"""

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from trtforge.engine.backend import Dims, ProfileShapes, ShapeTriple, ValueTriple
from trtforge.engine.profiles import covering_profile, covers

MOST_PROFILES = 8
MOST_KINDS = 2000
"""Distinct shapes that are told apart; grouping takes time in the square of them."""

_WORTH = 0.8
"""One profile more is worth its kernels when it leaves at most this share of the cost ..."""

_NEAR = 0.25
"""... and requests are further than this from `opt` in the mean; 0.25 is 19 % in one dimension."""

_PASSES = 20
_SHORT = 64
_NOTHING = 1e-9

Shapes = tuple[tuple[str, Dims], ...]
"""One request: input name and dimensions, or the values that decide shapes, in model order."""


@dataclass(frozen=True)
class ProfileUse:
    """How requests use one profile.

    Attributes:
        requests: how many it is the first to cover.
        distance: mean of the sum of |log2(dim / opt)| over them; 1 means twice or half the size.
        gaps: stretches of a dimension's range, at least a doubling long, that no request uses:
            input, axis, from, to.
    """

    requests: int
    distance: float
    gaps: tuple[tuple[str, int, int, int], ...]

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        gaps = [
            {"input": name, "axis": axis, "from": low, "to": high}
            for name, axis, low, high in self.gaps
        ]
        return {"requests": self.requests, "distance": round(self.distance, 4), "gaps": gaps}


@dataclass(frozen=True)
class Assessment:
    """How well profiles fit requests.

    Attributes:
        profiles: one entry per profile.
        requests: how many there are.
        covered: share of requests that some profile covers, 0..1.
        uncovered: examples of requests that none covers, the most frequent first.
        overlaps: pairs of profiles of which both cover a shape.
    """

    profiles: tuple[ProfileUse, ...]
    requests: int
    covered: float
    uncovered: tuple[Shapes, ...]
    overlaps: tuple[tuple[int, int], ...]

    @property
    def distance(self) -> float:
        """Mean distance of the covered requests from the `opt` of their profile."""
        total = sum(use.requests for use in self.profiles)
        return sum(use.requests * use.distance for use in self.profiles) / total if total else 0.0

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {
            "profiles": [use.as_json() for use in self.profiles],
            "requests": self.requests,
            "covered": self.covered,
            "distance": round(self.distance, 4),
            "uncovered": [{name: list(dims) for name, dims in shapes} for shapes in self.uncovered],
            "overlaps": [list(pair) for pair in self.overlaps],
        }


def suggest(
    requests: Mapping[Shapes, int], count: int | None = None, deciding: Collection[str] = ()
) -> ProfileShapes:
    """Propose profiles that cover every request.

    Args:
        requests: how often each combination of shapes was seen; the same inputs and ranks in all.
        count: how many profiles at most; None adds one while it is worth it.
        deciding: inputs of which the requests hold values, and no shapes. With any, `opt` is a
            request that was seen: values and shapes, each in its own middle, need not fit.

    Returns:
        Profiles in rising order of size; all their inputs, dynamic or not.

    Raises:
        ValueError: there are no requests.
    """
    if not requests:
        raise ValueError("no requests")
    kinds = _kinds(requests)
    best = [np.arange(len(kinds.times))]
    cost = _cost(kinds, best)
    total = sum(requests.values())
    for wanted in range(2, (count or MOST_PROFILES) + 1):
        if count is None and cost <= _NEAR * total:
            break
        groups = _grouped(kinds, wanted)
        found = _cost(kinds, groups)
        if len(groups) < wanted or found >= cost * (1.0 if count else _WORTH):
            break
        best, cost = groups, found
    return tuple(_profile(kinds, group, deciding) for group in best)


def assess(profiles: ProfileShapes, requests: Mapping[Shapes, int]) -> Assessment:
    """Say how profiles fit the shapes that were seen."""
    mine: list[Counter[Shapes]] = [Counter() for _ in profiles]
    outside: Counter[Shapes] = Counter()
    for shapes, times in requests.items():
        index = covering_profile(profiles, dict(shapes))
        (outside if index is None else mine[index])[shapes] += times
    total = sum(requests.values())
    return Assessment(
        tuple(_use(profile, seen) for profile, seen in zip(profiles, mine, strict=True)),
        total,
        1 - outside.total() / total if total else 0.0,
        tuple(shapes for shapes, _ in outside.most_common(5)),
        tuple(
            (first, second)
            for first in range(len(profiles))
            for second in range(first + 1, len(profiles))
            if _overlap(profiles[first], profiles[second])
        ),
    )


@dataclass(frozen=True)
class _Kinds:
    """Distinct shapes by rising size; neighbours are joined where there are too many.

    Attributes:
        bounds: smallest and largest shapes of each, (kinds, 2) of request shapes.
        logs: log2 of the largest dims, (kinds, dims).
        times: how often each was seen, (kinds,).
    """

    bounds: tuple[tuple[Shapes, Shapes], ...]
    logs: npt.NDArray[np.float64]
    times: npt.NDArray[np.int64]


_Group = npt.NDArray[np.int64]
"""Numbers of kinds."""


def _kinds(requests: Mapping[Shapes, int]) -> _Kinds:
    ordered = sorted(requests.items(), key=lambda item: (sum(_logs(item[0])), item[0]))
    step = math.ceil(len(ordered) / MOST_KINDS)
    parts = [ordered[start : start + step] for start in range(0, len(ordered), step)]
    bounds = tuple(
        (_bound([one for one, _ in part], min), _bound([one for one, _ in part], max))
        for part in parts
    )
    times = np.array([sum(times for _, times in part) for part in parts])
    return _Kinds(bounds, np.array([_logs(high) for _, high in bounds]), times)


def _logs(shapes: Shapes) -> list[float]:
    return [math.log2(max(dim, 1)) for _, dims in shapes for dim in dims]


def _bound(shapes: Sequence[Shapes], choose: Callable[[Iterable[int]], int]) -> Shapes:
    names = [name for name, _ in shapes[0]]
    columns = zip(*([dims for _, dims in one] for one in shapes), strict=True)
    return tuple(
        (name, tuple(choose(column) for column in zip(*dims, strict=True)))
        for name, dims in zip(names, columns, strict=True)
    )


def _grouped(kinds: _Kinds, count: int) -> list[_Group]:
    """Split at the best places of several orders, then let each kind go to its nearest group."""
    orders = [np.arange(len(kinds.times))]
    for axis in range(kinds.logs.shape[1]):
        order = np.argsort(kinds.logs[:, axis], kind="stable")
        if not any(np.array_equal(order, known) for known in orders):
            orders.append(order)
    candidates = [_settled(kinds, _split(kinds, order, count)) for order in orders]
    best = min(candidates, key=lambda groups: _cost(kinds, groups))
    return sorted(best, key=lambda group: int(group.max()))


def _split(kinds: _Kinds, order: _Group, count: int) -> list[_Group]:
    """Cut an order into groups, each time where it lowers the cost most."""
    groups = [order]
    best = [_best_cut(kinds, order)]
    while len(groups) < count:
        at = max(range(len(groups)), key=lambda index: best[index][0])
        gain, cut = best[at]
        if gain <= _NOTHING:
            break
        groups[at : at + 1] = [groups[at][:cut], groups[at][cut:]]
        best[at : at + 1] = [_best_cut(kinds, groups[at]), _best_cut(kinds, groups[at + 1])]
    return groups


def _best_cut(kinds: _Kinds, group: _Group) -> tuple[float, int]:
    whole = _cost(kinds, [group])
    gains = [
        (whole - _cost(kinds, [group[:cut], group[cut:]]), -cut) for cut in _cuts(kinds, group)
    ]
    gain, cut = max(gains, default=(0.0, 0))
    return gain, -cut


def _cuts(kinds: _Kinds, group: _Group) -> Iterable[int]:
    """Places to cut: all of a short group, else quantiles of the requests and the widest steps."""
    if len(group) <= _SHORT:
        return range(1, len(group))
    shares = np.cumsum(kinds.times[group])[:-1] / kinds.times[group].sum()
    quantiles = np.flatnonzero(np.diff(np.floor(shares * 32), prepend=0)) + 1
    steps = np.abs(np.diff(kinds.logs[group], axis=0)).sum(axis=1)
    widest = np.argsort(-steps, kind="stable")[:16] + 1
    return sorted({*map(int, quantiles), *map(int, widest)})


def _settled(kinds: _Kinds, groups: list[_Group]) -> list[_Group]:
    """Move kinds to the group whose medians are nearest, while that lowers the cost."""
    cost = _cost(kinds, groups)
    for _ in range(_PASSES):
        medians = [_medians(kinds, group) for group in groups]
        distances = np.array([np.abs(kinds.logs - one).sum(axis=1) for one in medians])
        nearest = distances.argmin(axis=0)
        moved = [np.flatnonzero(nearest == index) for index in range(len(groups))]
        if any(len(group) == 0 for group in moved):
            break
        found = _cost(kinds, moved)
        if found >= cost - _NOTHING:
            break
        groups, cost = moved, found
    return groups


def _cost(kinds: _Kinds, groups: Sequence[_Group]) -> float:
    total = 0.0
    for group in groups:
        far = np.abs(kinds.logs[group] - _medians(kinds, group)).sum(axis=1)
        total += float(far @ kinds.times[group])
    return total


def _medians(kinds: _Kinds, group: _Group) -> npt.NDArray[np.float64]:
    """Weighted median of each dimension, (dims,)."""
    logs, times = kinds.logs[group], kinds.times[group]
    order = np.argsort(logs, axis=0, kind="stable")
    seen = np.cumsum(times[order], axis=0)
    middle = (seen >= times.sum() / 2).argmax(axis=0)
    columns = np.arange(logs.shape[1])
    return np.asarray(logs[order[middle, columns], columns])


def _profile(kinds: _Kinds, group: _Group, deciding: Collection[str]) -> dict[str, ShapeTriple]:
    low = _bound([kinds.bounds[index][0] for index in group], min)
    high = _bound([kinds.bounds[index][1] for index in group], max)
    medians = _medians(kinds, group)
    if deciding:
        nearest = group[np.abs(kinds.logs[group] - medians).sum(axis=1).argmin()]
        middle = [dim for _, dims in kinds.bounds[nearest][1] for dim in dims]
    else:
        middle = [round(2**one) for one in medians]
    wanted = iter(middle)
    profile: dict[str, ShapeTriple] = {}
    for (name, least), (_, most) in zip(low, high, strict=True):
        mid = tuple(min(max(next(wanted), a), b) for a, b in zip(least, most, strict=True))
        triple = (least, mid, most)
        profile[name] = ValueTriple(triple) if name in deciding else triple
    return profile


def _use(profile: Mapping[str, ShapeTriple], seen: Mapping[Shapes, int]) -> ProfileUse:
    total = sum(seen.values())
    far = sum(
        times
        * sum(
            abs(math.log2(max(dim, 1) / max(opt, 1)))
            for name, dims in shapes
            if name in profile
            for dim, opt in zip(dims, profile[name][1], strict=True)
        )
        for shapes, times in seen.items()
    )
    return ProfileUse(total, far / total if total else 0.0, tuple(_gaps(profile, seen)))


def _gaps(
    profile: Mapping[str, ShapeTriple], seen: Mapping[Shapes, int]
) -> Iterable[tuple[str, int, int, int]]:
    for name, (low, _, high) in profile.items():
        for axis, (least, most) in enumerate(zip(low, high, strict=True)):
            used = {dict(shapes)[name][axis] for shapes in seen if name in dict(shapes)}
            values = sorted({least, most, *used})
            for a, b in pairwise(values):
                if b >= 2 * max(a, 1) and b - a > 1:
                    yield name, axis, a, b


def _overlap(first: Mapping[str, ShapeTriple], second: Mapping[str, ShapeTriple]) -> bool:
    for name in first.keys() & second.keys():
        low = tuple(map(max, zip(first[name][0], second[name][0], strict=True)))
        if not (covers(first[name], low) and covers(second[name], low)):
            return False
    return True
