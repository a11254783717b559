"""Laws of the metrics: merging, symmetry, scale, bounds, and what NaN and Inf may never do."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pair_metrics import cosine, max_abs, max_rel, sqnr_db, top1_agreement
from verify_runners import FunctionRunner, case, tolerances

from trtforge.verify.metrics import OutputStats
from trtforge.verify.parity import compare

SHAPES = hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=6)
USUAL = {"min_value": -1e6, "max_value": 1e6, "allow_subnormal": False, "width": 32}


@st.composite
def pairs(draw, dtype=np.float32, elements=None):
    shape = draw(SHAPES)
    values = st.floats(**USUAL) if elements is None else elements
    return tuple(draw(hnp.arrays(dtype, shape, elements=values)) for _ in range(2))


def close(left, right):
    """Equal as figures: both missing, both the same infinity or NaN, or equal to 9 digits."""
    if left is None or right is None:
        return left is right
    if math.isnan(left) or math.isnan(right):
        return math.isnan(left) and math.isnan(right)
    return left == right or math.isclose(left, right, rel_tol=1e-9, abs_tol=1e-9)


def same(left, right):
    figures = zip(left.model_dump().values(), right.model_dump().values(), strict=True)
    return all(close(a, b) for a, b in figures)


@settings(max_examples=150, deadline=None)
@given(pairs(elements=st.floats(width=32)), st.floats(0, 1), st.booleans())
def test_merged_halves_are_the_whole(pair, place, swap):
    reference, candidate = (array.reshape(array.shape[0], -1) for array in pair)
    cut = int(place * len(reference))
    halves = [
        OutputStats().update(reference[part], candidate[part])
        for part in (slice(0, cut), slice(cut, None))
    ]
    first, second = reversed(halves) if swap else halves
    whole = OutputStats().update(reference, candidate).metrics()
    assert same(first.merge(second).metrics(), whole)
    streamed = OutputStats()
    for row in range(len(reference)):
        streamed.update(reference[row : row + 1], candidate[row : row + 1])
    assert same(streamed.metrics(), whole)


@settings(max_examples=150, deadline=None)
@given(pairs(np.float64, st.floats(allow_nan=False, allow_infinity=False)))
def test_any_finite_pair_has_sane_figures(pair):
    found = OutputStats().update(*pair).metrics()
    assert not math.isnan(found.sqnr_db)
    assert -1 <= found.cosine <= 1
    assert found.max_abs >= 0
    assert found.nonfinite == 0
    equal = np.array_equal(*pair)
    assert (found.sqnr_db == math.inf) == equal
    assert (found.max_abs == 0) == equal
    assert (found.max_rel == 0) == equal
    assert (found.exact_agreement == 1) == equal


@settings(max_examples=100, deadline=None)
@given(pairs())
def test_error_and_cosine_are_symmetric(pair):
    reference, candidate = pair
    assert max_abs(reference, candidate) == max_abs(candidate, reference)
    assert close(cosine(reference, candidate), cosine(candidate, reference))


@settings(max_examples=100, deadline=None)
@given(pairs(np.float64), st.integers(-60, 60), st.booleans())
def test_scaling_both_changes_only_absolute_errors(pair, exponent, negative):
    scale = math.ldexp(-1.0 if negative else 1.0, exponent)
    reference, candidate = pair
    scaled = reference * scale, candidate * scale
    assert close(sqnr_db(*scaled), sqnr_db(*pair))
    assert close(cosine(*scaled), cosine(*pair))
    assert close(max_rel(*scaled), max_rel(*pair))
    assert max_abs(*scaled) == abs(scale) * max_abs(*pair)


@settings(max_examples=100, deadline=None)
@given(hnp.arrays(np.float64, SHAPES, elements=st.floats(-1e3, 1e3)), st.integers(1, 40))
def test_noise_of_a_known_share_gives_its_decibels(reference, bits):
    assume(np.abs(reference).max() > 1e-3)
    share = 2.0**-bits
    assert sqnr_db(reference, reference * (1 - share)) == pytest.approx(
        20 * bits * math.log10(2), abs=1e-3
    )


@settings(max_examples=100, deadline=None)
@given(pairs())
def test_less_noise_is_more_decibels(pair):
    reference, candidate = (array.astype(np.float64) for array in pair)
    assume(np.abs(reference).max() > 1e-3)
    assume(not np.array_equal(reference, candidate))
    nearer = reference + (candidate - reference) / 2
    gained = sqnr_db(reference, nearer) - sqnr_db(reference, candidate)
    assert gained == pytest.approx(20 * math.log10(2), abs=1e-3)


@settings(max_examples=100, deadline=None)
@given(pairs(), st.data(), st.sampled_from([np.nan, np.inf, -np.inf]))
def test_one_bad_value_anywhere_fails_whatever_is_asked(pair, data, bad):
    reference, _ = pair
    candidate = reference.copy()
    place = data.draw(st.integers(0, reference.size - 1))
    candidate.reshape(-1)[place] = bad
    report = compare(
        FunctionRunner(lambda x: {"y": reference}),
        FunctionRunner(lambda x: {"y": candidate}),
        [case(reference, data.draw(st.sampled_from(["data", "corner", "random"])))],
        tolerances(sqnr_db=-1e9, max_abs=1e300),
    )
    assert report.verdict == "fail"
    assert report.outputs["y"].metrics.candidate_nonfinite == 1


@settings(max_examples=100, deadline=None)
@given(pairs(elements=st.floats(width=32)))
def test_passing_is_possible_only_for_what_meets_the_bound(pair):
    report = compare(
        FunctionRunner(lambda x: {"y": pair[0]}),
        FunctionRunner(lambda x: {"y": pair[1]}),
        [case(pair[0])],
        tolerances(sqnr_db=20),
    )
    metrics = report.outputs["y"].metrics
    if report.verdict == "pass":
        assert metrics.sqnr_db >= 20
        assert metrics.nonfinite == 0
    elif report.verdict == "not_run":
        assert metrics.finite == 0
        assert metrics.nonfinite == 0
    else:
        assert metrics.nonfinite or metrics.sqnr_db < 20


@settings(max_examples=100, deadline=None)
@given(
    hnp.arrays(
        np.float32, st.tuples(st.integers(1, 5), st.integers(2, 6)), elements=st.floats(**USUAL)
    ),
    st.floats(0.125, 8),
    st.floats(-100, 100),
)
def test_top1_does_not_change_under_rising_maps(scores, scale, offset):
    moved = scores.astype(np.float64) * scale + offset
    assert top1_agreement(moved, scores.astype(np.float64)) == 1
    assert top1_agreement(scores, scores[:, ::-1][:, ::-1]) == 1


@settings(max_examples=100, deadline=None)
@given(pairs(np.int64, st.integers(-(2**63), 2**63 - 1)))
def test_integers_are_compared_exactly(pair):
    found = OutputStats().update(*pair).metrics()
    differences = [
        abs(int(a) - int(b)) for a, b in zip(*(x.reshape(-1) for x in pair), strict=True)
    ]
    assert found.max_abs == float(max(differences))
    assert found.exact_agreement == differences.count(0) / len(differences)
