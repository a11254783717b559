"""Observers: the entropy threshold against a plain transcription of the published pseudocode."""

import time
from importlib import import_module

import numpy as np
import pytest

from trtforge.precision.observers import OBSERVERS
from trtforge.precision.observers.entropy import (
    BINS,
    LEVELS,
    EntropyObserver,
    best_threshold_bin,
    divergences,
)
from trtforge.precision.observers.minmax import MinMaxObserver


def plain_divergence(histogram: np.ndarray, size: int) -> float:
    """One candidate, step by step as in the talk."""
    reference = histogram[:size].copy()
    reference[-1] += histogram[size:].sum()
    level = np.arange(size) * LEVELS // size
    filled = reference > 0
    candidate = np.zeros(size)
    for index in range(LEVELS):
        members = level == index
        bins = int((members & filled).sum())
        if bins:
            candidate[members & filled] = histogram[:size][members].sum() / bins
    p, q = reference / reference.sum(), candidate / candidate.sum()
    if (q[filled] == 0).any():
        return float("inf")
    return float((p[filled] * np.log(p[filled] / q[filled])).sum())


@pytest.mark.parametrize("seed", [0, 1])
def test_divergences_equal_the_pseudocode(seed: int) -> None:
    random = np.random.default_rng(seed)
    spread = np.abs(random.laplace(size=40_000))
    histogram = np.histogram(spread, BINS, (0, spread.max()))[0].astype(np.float64)
    histogram[300:340] = 0
    got = divergences(histogram)
    for size in (LEVELS, LEVELS + 1, 200, 320, 777, 1024, BINS - 1, BINS):
        expected = plain_divergence(histogram, size)
        assert got[size - LEVELS] == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_a_long_tail_is_clipped_and_an_even_spread_is_not() -> None:
    random = np.random.default_rng(0)
    tail = EntropyObserver(20.0)
    tail.update(np.r_[random.standard_normal(200_000), [20.0]].astype(np.float32))
    assert 3.0 < tail.amax() < 8.0
    even = EntropyObserver(1.0)
    even.update(random.uniform(-1, 1, 400_000).astype(np.float32))
    assert even.amax() > 0.97


def test_zeros_behind_a_relu_do_not_decide() -> None:
    random = np.random.default_rng(0)
    values = random.standard_normal(100_000).astype(np.float32)
    limit = float(np.abs(values).max())
    with_zeros, without = EntropyObserver(limit), EntropyObserver(limit)
    without.update(values)
    with_zeros.update(values)
    with_zeros.update(np.zeros(1_000_000, np.float32))
    assert with_zeros.amax() == without.amax()


def test_a_histogram_without_mass_is_not_clipped() -> None:
    counts = np.zeros(BINS, np.int64)
    counts[0] = 10
    assert best_threshold_bin(counts) == BINS


def test_histograms_count_every_value_and_saturate_in_the_last_bin() -> None:
    observer = EntropyObserver(1.0)
    observer.update(np.array([[0.0, -1.0], [1.0, 5.0]], np.float32))
    assert observer.counts.sum() == 4
    assert observer.counts[0] == 1
    assert observer.counts[-1] == 3


def test_histograms_over_different_ranges_are_not_merged() -> None:
    with pytest.raises(ValueError, match="cannot be merged"):
        EntropyObserver(1.0).merge(EntropyObserver(2.0))


def test_a_hundred_tensors_take_seconds() -> None:
    random = np.random.default_rng(0)
    counts = np.histogram(np.abs(random.standard_normal(50_000)), BINS)[0]
    start = time.perf_counter()
    for _ in range(10):
        best_threshold_bin(counts)
    assert (time.perf_counter() - start) / 10 < 0.2


def test_minmax_of_nothing_is_zero_and_constants_are_seen() -> None:
    observer = MinMaxObserver()
    assert observer.amax() == 0.0
    observer.update(-2.0, -2.0)
    assert observer.is_constant
    assert observer.amax() == 2.0


def test_the_table_names_real_classes() -> None:
    for target in OBSERVERS.values():
        module, name = target.split(":")
        assert hasattr(getattr(import_module(module), name), "merge")
