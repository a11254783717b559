"""The range of one tensor as the smallest and largest value seen."""

import math
from dataclasses import dataclass


@dataclass
class MinMaxObserver:
    """Running minimum and maximum; the answer is the largest magnitude, so nothing ever clips.

    Attributes:
        low: smallest value seen; +inf before the first.
        high: largest value seen; -inf before the first.
    """

    low: float = math.inf
    high: float = -math.inf

    def update(self, low: float, high: float) -> None:
        """Take in the minimum and maximum of one batch, as the graph itself computed them."""
        self.low = min(self.low, low)
        self.high = max(self.high, high)

    def merge(self, other: "MinMaxObserver") -> None:
        """Take in everything that `other` has seen; order does not matter."""
        self.update(other.low, other.high)

    @property
    def is_constant(self) -> bool:
        """Whether every value seen was the same."""
        return self.low >= self.high

    def amax(self) -> float:
        """Largest magnitude seen; 0 when nothing was."""
        return max(abs(self.low), abs(self.high)) if self.low <= self.high else 0.0
