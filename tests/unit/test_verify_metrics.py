"""Metrics: values known by hand, and what NaN, Inf, zero, integer and empty outputs mean."""

import math

import ml_dtypes
import numpy as np
import pytest
from pair_metrics import cosine, max_abs, max_rel, sqnr_db, top1_agreement, top5_agreement

from trtforge.errors import DataError, ParityError
from trtforge.verify.classes import accuracy, class_rows
from trtforge.verify.metrics import BLOCK_ELEMENTS, OutputStats


def f32(*values):
    return np.array(values, dtype=np.float32)


def test_values_known_by_hand():
    reference, candidate = f32(3, 4), f32(3, 3.5)
    assert sqnr_db(reference, candidate) == pytest.approx(20.0, abs=1e-12)
    assert max_abs(reference, candidate) == 0.5
    assert max_rel(reference, candidate) == 0.125
    expected = (9 + 14) / (5 * math.sqrt(9 + 12.25))
    assert cosine(reference, candidate) == pytest.approx(expected, rel=1e-12)


def test_identical_outputs_have_infinite_sqnr():
    values = f32(1, -2, 0)
    assert sqnr_db(values, values) == math.inf
    assert max_abs(values, values) == 0
    assert max_rel(values, values) == 0
    assert cosine(values, values) == 1


def test_a_zero_reference_allows_no_error():
    zero = f32(0, 0)
    assert sqnr_db(zero, zero) == math.inf
    assert cosine(zero, zero) == 1
    assert sqnr_db(zero, f32(0, 1e-30)) == -math.inf
    assert cosine(zero, f32(0, 1e-30)) == 0
    assert max_rel(zero, f32(0, 1e-30)) == math.inf


def test_a_zero_candidate_has_no_noise_margin():
    assert sqnr_db(f32(1, 2), f32(0, 0)) == 0
    assert cosine(f32(1, 2), f32(0, 0)) == 0


def test_opposite_signs():
    assert cosine(f32(1, 2), f32(-1, -2)) == pytest.approx(-1, abs=1e-12)
    assert cosine(f32(1, 0), f32(0, 1)) == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_nonfinite_candidate_is_never_close(bad):
    found = OutputStats().update(f32(1, 2, 3), f32(1, bad, 3)).metrics()
    assert found.sqnr_db == -math.inf
    assert found.max_abs == math.inf
    assert found.max_rel == math.inf
    assert math.isnan(found.cosine)
    assert (found.nonfinite, found.candidate_nonfinite) == (1, 1)
    assert found.exact_agreement == pytest.approx(2 / 3)


def test_equal_infinities_and_nans_are_equal():
    values = f32(-np.inf, np.inf, np.nan, 1)
    found = OutputStats().update(values, values.copy()).metrics()
    assert found.nonfinite == 0
    assert found.sqnr_db == math.inf
    assert found.exact_agreement == 1
    assert found.reference_amax == 1


@pytest.mark.parametrize(
    "pair", [(np.inf, -np.inf), (np.nan, np.inf), (np.inf, 3.0), (np.nan, 0.0)]
)
def test_different_nonfinite_values_are_a_mismatch(pair):
    found = OutputStats().update(f32(pair[0], 1), f32(pair[1], 1)).metrics()
    assert found.nonfinite == 1
    assert found.candidate_nonfinite == 0
    assert found.sqnr_db == -math.inf


def test_squares_beyond_float64_do_not_overflow():
    reference = np.array([3e200, 4e200])
    assert sqnr_db(reference, reference * [1, 0.875]) == pytest.approx(20.0, abs=1e-9)
    tiny = np.array([3e-200, 4e-200])
    assert sqnr_db(tiny, tiny * [1, 0.875]) == pytest.approx(20.0, abs=1e-9)
    assert cosine(tiny, -tiny) == pytest.approx(-1, abs=1e-12)


def test_differences_beyond_float64_do_not_overflow():
    largest = np.array([np.finfo(np.float64).max])
    assert sqnr_db(largest, -largest) == pytest.approx(-20 * math.log10(2), abs=1e-9)
    assert max_abs(largest, -largest) == math.inf


@pytest.mark.parametrize("name", ["bfloat16", "float8_e4m3fn", "float16"])
def test_narrow_floats_are_widened(name):
    dtype = np.dtype(getattr(ml_dtypes, name, name))
    found = OutputStats().update(f32(1, 2).astype(dtype), f32(1, 4).astype(dtype)).metrics()
    assert found.max_abs == 2
    assert found.sqnr_db == pytest.approx(10 * math.log10(5 / 4))


def test_float_types_may_differ_in_width():
    assert max_abs(f32(1, 2), np.array([1, 2], np.float16)) == 0


def test_integers_report_exact_agreement():
    found = OutputStats().update(np.array([1, 2, 3, 4]), np.array([1, 2, 3, 9])).metrics()
    assert found.exact_agreement == 0.75
    assert found.max_abs == 5
    assert found.sqnr_db is None
    assert found.cosine is None
    assert found.top1_agreement is None


def test_large_integers_are_not_rounded_to_equality():
    reference = np.array([2**62, -(2**63)])
    found = OutputStats().update(reference, np.array([2**62 + 1, 2**63 - 1])).metrics()
    assert found.exact_agreement == 0
    assert found.max_abs == float(2**64 - 1)
    one = OutputStats().update(reference[:1], reference[:1] + 1).metrics()
    assert one.max_abs == 1


def test_booleans_and_text():
    truth = np.array([True, False, True, True])
    assert OutputStats().update(truth, ~truth).metrics().exact_agreement == 0
    words = np.array(["a", "b"], dtype=object)
    found = OutputStats().update(words, np.array(["a", "c"], dtype=object)).metrics()
    assert found.exact_agreement == 0.5
    assert found.max_abs is None


def test_empty_outputs_have_no_metrics():
    empty = np.zeros((0, 4), np.float32)
    assert OutputStats().update(empty, empty).metrics() is None


def test_a_scalar_output_is_one_element():
    assert (
        OutputStats().update(np.float32(2)[()].reshape(()), np.array(2.5)).metrics().elements == 1
    )


def test_different_shapes_are_an_error():
    with pytest.raises(ParityError, match=r"\(2,\).*\(1, 2\)"):
        sqnr_db(f32(1, 2), np.ones((1, 2), np.float32))


def test_different_kinds_are_an_error():
    with pytest.raises(ParityError, match="float values cannot be compared with integer"):
        max_abs(f32(1), np.array([1]))
    with pytest.raises(ParityError, match="cannot be compared"):
        OutputStats().update(f32(1), f32(1)).merge(
            OutputStats().update(np.array([1]), np.array([1]))
        )


def test_integers_have_no_sqnr():
    assert sqnr_db(np.array([1]), np.array([1])) is None


def test_blocks_cover_every_element():
    size = BLOCK_ELEMENTS * 2 + 7
    reference = np.ones(size, np.float32)
    candidate = reference.copy()
    candidate[[0, BLOCK_ELEMENTS, size - 1]] = 2
    found = OutputStats().update(reference, candidate).metrics()
    assert found.elements == size
    assert found.exact_agreement == pytest.approx(1 - 3 / size, abs=1e-15)
    assert found.sqnr_db == pytest.approx(10 * math.log10(size / 3))


def test_top1_counts_rows_of_the_last_axis():
    reference = np.array([[[1, 2], [2, 1]], [[5, 0], [0, 5]]], np.float32)
    candidate = reference.copy()
    candidate[1, 1] = [9, 5]
    assert top1_agreement(reference, candidate) == 0.75


def test_top1_ties_of_the_reference_agree():
    reference = np.array([[1, 1, 0]], np.float32)
    assert top1_agreement(reference, np.array([[0, 1, 0.5]], np.float32)) == 1
    assert top1_agreement(reference, np.array([[0, 0, 1]], np.float32)) == 0


@pytest.mark.parametrize("shape", [(4,), (4, 1), (4, 3, 1), (0, 3, 0)])
def test_shapes_without_classes_have_no_top1(shape):
    assert class_rows(np.zeros(shape, np.float32)) is None


def test_a_pooled_network_output_has_classes():
    assert class_rows(np.zeros((4, 3, 1, 1), np.float32)).shape == (4, 3)
    assert class_rows(np.zeros((2, 4, 3), np.float32)).shape == (8, 3)


def test_accuracy_of_scores_and_of_class_ids():
    scores = np.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]], np.float32)
    labels = np.array([1, 0, 0])
    assert accuracy(scores, labels) == pytest.approx(2 / 3)
    assert accuracy(scores.reshape(3, 2, 1, 1), labels) == pytest.approx(2 / 3)
    assert accuracy(np.array([1, 0, 0]), labels) == 1


def test_a_nan_row_is_never_right():
    scores = np.array([[np.nan, 0.9], [0.8, 0.2]], np.float32)
    assert accuracy(scores, np.array([0, 0])) == 0.5


@pytest.mark.parametrize("label", [-1, 2])
def test_labels_out_of_range_are_refused(label):
    with pytest.raises(DataError, match=f"label {label} is no class"):
        accuracy(np.zeros((2, 2), np.float32), np.array([0, label]))


def test_accuracy_without_classes_is_an_error():
    with pytest.raises(ParityError, match="predicts no class"):
        accuracy(np.zeros((2, 1), np.float32), np.array([0, 0]))
    with pytest.raises(ParityError):
        accuracy(np.zeros((0, 3), np.float32), np.array([], np.int64))


def brute_top5(reference: np.ndarray, candidate: np.ndarray) -> float:
    hits = 0
    for left, right in zip(reference, candidate, strict=True):
        five = np.argsort(-right, kind="stable")[:5]
        hits += int(np.argmax(left) in five)
    return hits / len(reference)


def test_top5_is_the_share_of_rows_whose_class_is_among_the_five_best():
    generator = np.random.default_rng(5)
    reference = generator.standard_normal((400, 20)).astype(np.float32)
    candidate = (reference + 1.5 * generator.standard_normal((400, 20))).astype(np.float32)
    found = top5_agreement(reference, candidate)
    assert found == brute_top5(reference, candidate)
    assert top1_agreement(reference, candidate) < found < 1
    parts = OutputStats().update(reference[:7], candidate[:7])
    parts.merge(OutputStats().update(reference[7:], candidate[7:]))
    whole = parts.metrics()
    assert whole is not None
    assert whole.top5_agreement == found


def test_top5_wants_more_than_five_classes_and_counts_no_row_with_nan():
    assert top5_agreement(np.ones((3, 5), np.float32), np.ones((3, 5), np.float32)) is None
    scores = np.eye(6, dtype=np.float32)
    broken = scores.copy()
    broken[2, 4] = np.nan
    assert top5_agreement(scores, scores) == 1
    assert top5_agreement(scores, -scores) == 0
    assert top5_agreement(scores, broken) == pytest.approx(5 / 6)
