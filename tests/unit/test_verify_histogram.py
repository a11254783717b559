"""Error histograms: what each bin holds, by a model in Fractions; merging; NaN, Inf, integers."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trtforge.verify.histogram import HIGHEST, LOWEST
from trtforge.verify.metrics import OutputStats
from trtforge.verify.types import ErrorHistogram

FINITE = st.floats(allow_nan=False, allow_infinity=False, width=32)


def seen(reference, candidate, dtype=np.float32):
    return OutputStats().update(np.array(reference, dtype), np.array(candidate, dtype))


def modelled(reference, candidate):
    """Count as the documentation says, in exact fractions."""
    amax = max(abs(Fraction(value)) for value in reference)
    unit = Fraction(1)
    if amax:
        while unit > amax:
            unit /= 2
        while unit <= amax:
            unit *= 2
    bins = {}
    for left, right in zip(reference, candidate, strict=True):
        if (error := abs(Fraction(left) - Fraction(right)) / unit) == 0:
            continue
        place = LOWEST
        while place < HIGHEST and error >= Fraction(2) ** (place + 1):
            place += 1
        bins[place] = bins.get(place, 0) + 1
    return float(unit), bins


def as_bins(found):
    return {found.lowest + i: count for i, count in enumerate(found.counts) if count}


def test_bins_known_by_hand():
    found = seen([8, 1, 1, 1, 1], [8, 1.5, 1.25, 1.25, 0]).histogram()
    assert found == ErrorHistogram(unit=16.0, exact=1, lowest=-6, counts=(2, 1, 1))


def test_equal_outputs_have_no_bin():
    found = seen([1, 2], [1, 2]).histogram()
    assert found == ErrorHistogram(unit=4.0, exact=2, lowest=0, counts=())


def test_a_reference_of_zeros_has_the_unit_one():
    assert seen([0, 0], [0, 0.25]).histogram() == ErrorHistogram(
        unit=1.0, exact=1, lowest=-2, counts=(1,)
    )


@given(st.lists(st.tuples(FINITE, FINITE), min_size=1, max_size=30))
def test_counts_are_those_of_exact_arithmetic(pairs):
    reference = [left for left, _ in pairs]
    candidate = [right for _, right in pairs]
    found = seen(reference, candidate).histogram()
    unit, bins = modelled(reference, candidate)
    assert (found.unit, as_bins(found)) == (unit, bins)
    assert found.exact + sum(found.counts) == len(pairs)


@given(st.lists(st.tuples(FINITE, FINITE), min_size=2, max_size=30), st.integers(1, 29))
def test_halves_merge_into_the_whole(pairs, cut):
    values = np.array(pairs, np.float32).T
    whole = OutputStats().update(values[0], values[1])
    halves = OutputStats().update(values[0][:cut], values[1][:cut])
    halves.merge(OutputStats().update(values[0][cut:], values[1][cut:]))
    assert halves.histogram() == whole.histogram()


def test_the_ends_hold_what_is_beyond():
    found = seen([1.0, 1.0, 1.0], [1e30, 1 + 2.0**-50, 1.0], np.float64).histogram()
    assert as_bins(found) == {LOWEST: 1, HIGHEST: 1}
    # The difference of two finite float64 values can be infinite.
    assert as_bins(seen([1.7e308], [-1.7e308], np.float64).histogram()) == {1: 1}


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_values_that_are_not_finite_are_in_no_bin(bad):
    stats = seen([4, 4, bad], [4.5, bad, bad])
    assert stats.histogram() == ErrorHistogram(unit=8.0, exact=1, lowest=-4, counts=(1,))
    assert stats.metrics().nonfinite == 1


def test_integers_count_their_differences_and_text_has_none():
    assert seen([100, 7, 7], [101, 7, 5], np.int64).histogram() == ErrorHistogram(
        unit=128.0, exact=1, lowest=-7, counts=(1, 1)
    )
    assert seen(["a"], ["b"], np.str_).histogram() is None
    assert OutputStats().histogram() is None


def test_the_smallest_numbers_are_counted():
    tiny = 5e-324
    found = seen([0, 0], [tiny, 0], np.float64).histogram()
    assert (found.exact, as_bins(found)) == (1, {LOWEST: 1})
