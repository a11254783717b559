"""Calibration methods against plain computations on the values themselves."""

import math
import time
from collections.abc import Callable

import ml_dtypes
import numpy as np
import pytest

from trtforge.precision.observers import METHODS, method
from trtforge.precision.observers.entropy import (
    LEVELS,
    best_threshold_bin,
    divergences,
    level_edges,
)
from trtforge.precision.observers.histogram import BINS, Histogram
from trtforge.precision.observers.levels import positive_levels
from trtforge.precision.scales import LARGEST, quantize_values
from trtforge.precision.state import TensorState

RANDOM = np.random.default_rng
SPREADS: dict[str, Callable[[], np.ndarray]] = {
    "normal": lambda: RANDOM(0).standard_normal(50_000),
    "relu": lambda: np.maximum(RANDOM(1).standard_normal(50_000), 0),
    "laplace": lambda: RANDOM(2).laplace(size=50_000),
    "heavy tail": lambda: RANDOM(3).standard_t(3, 50_000),
    "one far outlier": lambda: np.r_[RANDOM(4).standard_normal(50_000), 300.0],
    "even": lambda: RANDOM(5).uniform(-1.99, 1.99, 50_000),
    "pixels": lambda: RANDOM(6).integers(0, 256, 50_000) / 255,
    "few": lambda: RANDOM(7).standard_normal(40),
}


def seen(*parts: np.ndarray) -> TensorState:
    state = TensorState(histogram=Histogram())
    for values in parts:
        assert state.update(np.asarray(values, np.float32))
    state.settle()
    return state


def amax(values: np.ndarray, name: str, grid: str = "int8", **options: float) -> float:
    return method(name, grid, options).amax(seen(values))


# --- the histogram


def test_a_histogram_counts_every_value_where_it_belongs() -> None:
    values = SPREADS["laplace"]().astype(np.float32)
    histogram = seen(values).histogram
    assert histogram is not None
    assert histogram.limit == 2.0 ** math.frexp(float(np.abs(values).max()))[1]
    expected = np.histogram(np.abs(values), BINS, (0, histogram.limit))[0]
    assert (histogram.counts == expected).all()


def test_bins_join_without_loss_when_larger_values_come() -> None:
    parts = [np.float32([0.1, -0.4]), np.float32([3.0]), np.zeros(3), np.float32([-1000.0])]
    whole = seen(np.concatenate(parts)).histogram
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]):
        state = TensorState(histogram=Histogram())
        for index in order:
            state.update(np.asarray(parts[index], np.float32))
            state.settle()
        assert state.histogram is not None
        assert whole is not None
        assert state.histogram.exponent == whole.exponent == 10
        assert (state.histogram.counts == whole.counts).all()
        assert state.histogram.zeros == whole.zeros == 3


def test_zeros_do_not_widen_the_bins() -> None:
    state = seen(np.full(10, 1e-20), np.zeros(10))
    assert state.histogram is not None
    assert state.histogram.limit < 1e-19


def test_many_small_updates_are_one_large_one() -> None:
    values = SPREADS["relu"]().astype(np.float32)
    one, many = seen(values), seen(*np.split(values, np.arange(7, 50_000, 613)))
    assert one.histogram is not None
    assert many.histogram is not None
    assert (one.histogram.counts == many.histogram.counts).all()
    assert one.histogram.zeros == many.histogram.zeros == int((values == 0).sum())


# --- the state


def test_a_state_without_values_is_neutral() -> None:
    state, other = TensorState(), seen(np.float32([-3.0, 2.0]))
    assert state.observed_amax == 0.0
    assert state.mean_amax == 0.0
    assert state.update(np.zeros((0, 4), np.float32))
    assert state.runs == 0
    state.merge(other)
    assert (state.low, state.high, state.runs, state.observed_amax) == (-3.0, 2.0, 1, 3.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_not_taken_in(bad: float) -> None:
    state = seen(np.float32([1.0]))
    assert not state.update(np.float32([5.0, bad]))
    assert (state.high, state.runs) == (1.0, 1)


def test_negative_zero_is_zero_in_any_order() -> None:
    for order in ([0.0, -0.0], [-0.0, 0.0]):
        state = seen(*(np.float32([value]) for value in order))
        assert [math.copysign(1, x) for x in (state.low, state.high, state.observed_amax)] == [
            1
        ] * 3


# --- what holds for every method


@pytest.mark.parametrize("grid", ["int8", "fp8"])
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("spread", SPREADS)
def test_methods_stay_within_what_was_seen(name: str, spread: str, grid: str) -> None:
    values = SPREADS[spread]().astype(np.float32)
    assert 0 < amax(values, name, grid) <= float(np.abs(values).max())


@pytest.mark.parametrize("grid", ["int8", "fp8"])
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("power", [-93, 0, 97])
def test_methods_scale_with_their_values(name: str, grid: str, power: int) -> None:
    values = SPREADS["heavy tail"]().astype(np.float32)
    tiny_or_huge = values * np.float32(2.0**power)
    assert amax(tiny_or_huge, name, grid) == amax(values, name, grid) * 2.0**power


@pytest.mark.parametrize("grid", ["int8", "fp8"])
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("values", [[0.7], [-1e-35, 1e-35], [3e38, -3e38], [0.0, 0.0, 5.0]])
def test_one_magnitude_is_kept_whole(name: str, grid: str, values: list[float]) -> None:
    wide = np.repeat(np.float32(values), 999)
    assert amax(wide, name, grid) == np.abs(wide).max()


@pytest.mark.parametrize("name", METHODS)
def test_zeros_alone_have_no_magnitude(name: str) -> None:
    assert amax(np.zeros(10), name) == 0.0


@pytest.mark.parametrize("grid", ["int8", "fp8"])
@pytest.mark.parametrize("name", ["percentile", "entropy", "mse"])
def test_zeros_behind_a_relu_do_not_decide(name: str, grid: str) -> None:
    values = SPREADS["relu"]()
    assert amax(np.r_[values, np.zeros(2_000_000)], name, grid) == amax(values, name, grid)


@pytest.mark.parametrize("name", ["percentile", "entropy", "mse"])
def test_half_zeros_and_half_ones_are_not_clipped(name: str) -> None:
    assert amax(np.repeat([0.0, 1.0], 5000), name) == 1.0


@pytest.mark.parametrize("name", ["percentile", "entropy"])
def test_a_far_outlier_is_clipped_although_bins_between_are_empty(name: str) -> None:
    assert 3.0 < amax(SPREADS["one far outlier"](), name) < 20.0


@pytest.mark.parametrize("name", METHODS)
def test_a_method_takes_milliseconds(name: str) -> None:
    state = seen(SPREADS["heavy tail"]())
    chosen = method(name)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        chosen.amax(state)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.02


def test_the_table_and_its_refusals() -> None:
    with pytest.raises(ValueError, match="unknown calibration method 'max'"):
        method("max")
    with pytest.raises(ValueError, match="method minmax has no option 'percentile'"):
        method("minmax", options={"percentile": 99.0})
    with pytest.raises(ValueError, match="needs a histogram"):
        method("mse").amax(TensorState(-1.0, 1.0, 1))
    assert method("percentile").options == {"percentile": 99.99}


# --- minmax and average


def test_minmax_is_the_largest_and_average_the_mean_of_each_runs_largest() -> None:
    parts = [np.float32([-2.0, 1.0]), np.float32([0.5]), np.float32([7.0, -1.0])]
    state = seen(*parts)
    assert method("minmax").amax(state) == 7.0
    assert method("average").amax(state) == (2.0 + 0.5 + 7.0) / 3


# --- percentile


@pytest.mark.parametrize("share", [50.0, 99.0, 99.9, 99.99, 100.0])
@pytest.mark.parametrize("spread", SPREADS)
def test_percentiles_are_those_of_the_values(spread: str, share: float) -> None:
    values = np.abs(SPREADS[spread]().astype(np.float32))
    state = seen(values)
    assert state.histogram is not None
    expected = np.percentile(values[values > 0], share, method="inverted_cdf")
    got = method("percentile", options={"percentile": share}).amax(state)
    assert got == pytest.approx(float(expected), abs=state.histogram.width)
    assert share < 100 or got == values.max()


# --- entropy


def plain_divergence(histogram: np.ndarray, size: int, edges: np.ndarray) -> float:
    """One candidate, step by step as in the talk."""
    reference = histogram[:size].copy()
    reference[-1] += histogram[size:].sum()
    level = np.searchsorted(np.ceil(edges[1:-1] * size - 1e-9), np.arange(size), side="right")
    filled = reference > 0
    candidate = np.zeros(size)
    for index in range(len(edges) - 1):
        members = level == index
        bins = int((members & filled).sum())
        if bins:
            candidate[members & filled] = histogram[:size][members].sum() / bins
    if filled[-1] and not candidate[-1]:
        candidate[level == level[-1]] = 1e-9 * candidate.sum() * filled[level == level[-1]]
    p, q = reference / reference.sum(), candidate / histogram[:size].sum()
    return float((p[filled] * np.log(p[filled] / q[filled])).sum())


@pytest.mark.parametrize("grid", ["int8", "fp8"])
@pytest.mark.parametrize("bins", [2049, 3001, 4096])
def test_divergences_equal_the_pseudocode(grid: str, bins: int) -> None:
    spread = np.abs(RANDOM(bins).laplace(size=40_000))
    histogram = np.histogram(spread, bins, (0, spread.max()))[0].astype(np.float64)
    histogram[300:380] = 0
    edges = level_edges(grid)
    got = divergences(histogram, edges)
    assert len(got) == bins - LEVELS + 1
    for size in (LEVELS, LEVELS + 1, 200, 320, 360, 777, 1024, 2000, bins - 1, bins):
        expected = plain_divergence(histogram, size, edges)
        assert got[size - LEVELS] == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_levels_of_int8_are_equal_and_those_of_fp8_are_its_cells() -> None:
    assert (np.diff(level_edges("int8")) == 1 / 128).all()
    edges = level_edges("fp8") * 448
    assert len(edges) == 128
    assert edges[1] == 2.0**-10  # half of the smallest subnormal
    assert edges[-2:].tolist() == [432.0, 448.0]


def test_a_long_tail_is_clipped_and_an_even_spread_is_not() -> None:
    assert amax(SPREADS["heavy tail"](), "entropy") < 0.8 * np.abs(SPREADS["heavy tail"]()).max()
    assert amax(SPREADS["even"](), "entropy") > 0.97 * 1.99


def test_nearly_zeros_do_not_decide() -> None:
    """As behind a SiLU: many values that round to zero at any scale."""
    values = SPREADS["relu"]()
    assert amax(np.r_[values, np.full(500_000, 1e-6)], "entropy") == amax(values, "entropy")


def test_too_few_bins_or_nothing_beyond_the_first_are_not_clipped() -> None:
    edges = level_edges("int8")
    assert best_threshold_bin(np.ones(LEVELS, np.int64), edges) == LEVELS
    lonely = np.zeros(3000, np.int64)
    lonely[[0, -1]] = 1000, 1
    assert best_threshold_bin(lonely, edges) == 3000


# --- mse


def squared_error(values: np.ndarray, magnitude: float, grid: str) -> float:
    scale = np.float32(magnitude / LARGEST[grid])
    back = quantize_values(values, np.asarray(scale), grid).astype(np.float64) * scale
    return float(((back - values) ** 2).sum())


@pytest.mark.parametrize("grid", ["int8", "fp8"])
@pytest.mark.parametrize("spread", [name for name in SPREADS if name != "few"])
def test_no_other_magnitude_has_a_much_smaller_error(spread: str, grid: str) -> None:
    """Beside 600 magnitudes, each tried on the values themselves."""
    values = SPREADS[spread]().astype(np.float32)
    top = float(np.abs(values).max())
    least = min(squared_error(values, top * 2.0 ** (-k / 60), grid) for k in range(600))
    assert squared_error(values, amax(values, "mse", grid), grid) <= 1.02 * least


def test_mse_gains_over_minmax_where_there_is_a_tail() -> None:
    values = SPREADS["heavy tail"]().astype(np.float32)
    best, top = amax(values, "mse"), float(np.abs(values).max())
    assert squared_error(values, best, "int8") < 0.9 * squared_error(values, top, "int8")


def test_levels_are_those_of_the_types() -> None:
    assert positive_levels("int8").tolist() == list(range(128))
    levels = positive_levels("fp8")
    assert (len(levels), levels[1], levels[-1]) == (127, 2.0**-9, 448.0)
    assert (levels == levels.astype(ml_dtypes.float8_e4m3fn).astype(np.float64)).all()
    assert (np.diff(levels) > 0).all()
