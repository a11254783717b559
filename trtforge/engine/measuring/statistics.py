"""Percentiles of latencies with confidence intervals, and whether two runs really differ.

Nothing is assumed of the distribution: latencies have long tails and several humps.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

CONFIDENCE = 0.95

LEAST_DIFFERENCE = 0.02
"""A smaller difference is never called one: what is loaded once may lie better in memory than the
other by chance. See T. Mytkowicz et al., "Producing wrong data without doing anything obviously
wrong", 2009.
"""

PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9)

FEWEST_ROUNDS = 6
"""Of fewer rounds no interval of a median holds it 95 times of 100: the widest of 5 does 93.75."""


@dataclass(frozen=True)
class Percentile:
    """One percentile of latencies, milliseconds.

    Attributes:
        percent: 0..100.
        value: by the nearest rank.
        low: lower end of the 95 % confidence interval; None where too few queries were timed.
        high: upper end, likewise.
    """

    percent: float
    value: float
    low: float | None
    high: float | None

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {"percent": self.percent, "ms": self.value, "low_ms": self.low, "high_ms": self.high}


@dataclass(frozen=True)
class Latencies:
    """What many latencies have in common, milliseconds.

    Attributes:
        count: how many were timed.
        mean: arithmetic.
        smallest: the best.
        largest: the worst.
        percentiles: in rising order.
        drift: median of the last quarter relative to that of the first; 1 is steady.
    """

    count: int
    mean: float
    smallest: float
    largest: float
    percentiles: tuple[Percentile, ...]
    drift: float

    def at(self, percent: float) -> Percentile:
        """Return one percentile.

        Raises:
            KeyError: it was not computed.
        """
        for one in self.percentiles:
            if one.percent == percent:
                return one
        raise KeyError(percent)

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {
            "count": self.count,
            "mean_ms": self.mean,
            "min_ms": self.smallest,
            "max_ms": self.largest,
            "percentiles": [one.as_json() for one in self.percentiles],
            "drift": self.drift,
        }


def latencies(seconds: Sequence[float] | npt.NDArray[np.float64]) -> Latencies:
    """Summarize latencies, in the order in which they were timed.

    Raises:
        ValueError: there are none.
    """
    values = np.asarray(seconds, dtype=np.float64) * 1e3
    if not values.size:
        raise ValueError("no latencies")
    ordered = np.sort(values)
    quarter = max(1, len(values) // 4)
    first, last = np.median(values[:quarter]), np.median(values[-quarter:])
    return Latencies(
        count=len(values),
        mean=float(values.mean()),
        smallest=float(ordered[0]),
        largest=float(ordered[-1]),
        percentiles=tuple(_percentile(ordered, percent) for percent in PERCENTILES),
        drift=float(last / first) if first > 0 else 1.0,
    )


def _percentile(ordered: npt.NDArray[np.float64], percent: float) -> Percentile:
    """The nearest rank, and the ranks between which the true percentile lies.

    How many of n latencies lie below it is binomial (n, p); its normal approximation gives the
    ranks. Source: W. J. Conover, "Practical Nonparametric Statistics", confidence intervals for
    quantiles.
    """
    count, share = len(ordered), percent / 100
    rank = max(1, math.ceil(share * count))
    spread = NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * math.sqrt(count * share * (1 - share))
    low, high = math.floor(share * count - spread), math.ceil(share * count + spread) + 1
    is_known = low >= 1 and high <= count
    return Percentile(
        percent,
        float(ordered[rank - 1]),
        float(ordered[low - 1]) if is_known else None,
        float(ordered[high - 1]) if is_known else None,
    )


@dataclass(frozen=True)
class Comparison:
    """How two things that were timed in turns compare.

    Attributes:
        ratio: time of the second / time of the first, the median over rounds.
        low: lower end of the 95 % confidence interval of that median.
        high: upper end.
        rounds: how many pairs there were.
    """

    ratio: float
    low: float
    high: float
    rounds: int

    @property
    def is_above_noise(self) -> bool:
        """Whether the interval leaves 1 out, and all within LEAST_DIFFERENCE of it."""
        return self.low > 1 + LEAST_DIFFERENCE or self.high < 1 / (1 + LEAST_DIFFERENCE)

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {
            "ratio": self.ratio,
            "low": self.low,
            "high": self.high,
            "rounds": self.rounds,
            "above_noise": self.is_above_noise,
        }


def compare(first: Sequence[float], second: Sequence[float]) -> Comparison:
    """Compare times of rounds in which both ran one after the other.

    The interval is that of the sign test: how many of n ratios lie below their true median is
    binomial (n, 1/2), whatever their distribution. Source: W. J. Conover, "Practical
    Nonparametric Statistics", confidence intervals for quantiles.

    Raises:
        ValueError: there are fewer than FEWEST_ROUNDS rounds, or not equally many.
    """
    if len(first) < FEWEST_ROUNDS or len(first) != len(second):
        raise ValueError(f"rounds must come in pairs, at least {FEWEST_ROUNDS}")
    ratios = np.sort(np.asarray(second, np.float64) / np.asarray(first, np.float64))
    rank = _lower_rank(len(ratios))
    low, high = (float(ratios[rank - 1]), float(ratios[-rank]))
    return Comparison(float(np.median(ratios)), low, high, len(ratios))


def _lower_rank(count: int) -> int:
    """The highest rank below which the true median lies with a chance of 2.5 % at most."""
    chance, rank = 0.0, 0
    while (chance := chance + math.comb(count, rank) / 2**count) <= (1 - CONFIDENCE) / 2:
        rank += 1
    return rank
