"""Verdicts: what passes, what fails, what is never allowed to pass in silence."""

import json
import math

import numpy as np
import pytest
from verify_runners import FunctionRunner, case, identity, plus, tolerances

from trtforge.errors import DataError, UsageError
from trtforge.verify.parity import compare
from trtforge.verify.tolerance import DEFAULTS, fallback_for
from trtforge.verify.types import Bounds, ParityReport, Tolerances

RNG = np.random.default_rng(7)
BATCH = RNG.standard_normal((16, 4)).astype(np.float32)


def judge(candidate, cases, asked=None, reference=identity):
    return compare(
        FunctionRunner(reference, "reference"),
        FunctionRunner(candidate, "candidate"),
        cases,
        asked or tolerances(),
    )


def test_an_equal_candidate_passes():
    report = judge(identity, [case(BATCH)])
    assert report.verdict == "pass"
    assert report.reason is None
    assert (report.reference, report.candidate) == ("reference", "candidate")
    assert report.outputs["y"].metrics.sqnr_db == math.inf
    assert report.judged == ("data",)


def test_noise_beyond_the_bound_fails_with_both_numbers():
    report = judge(plus(0.1), [case(BATCH)], tolerances(sqnr_db=30))
    assert report.verdict == "fail"
    assert "output 'y': SQNR" in report.reason
    assert "below the bound 30 dB" in report.reason
    assert report.outputs["y"].tolerance_source == "recipe"


@pytest.mark.parametrize(
    ("bounds", "error", "verdict"),
    [
        ({"max_abs": 0.11}, 0.1, "pass"),
        ({"max_abs": 0.09}, 0.1, "fail"),
        ({"cosine": 0.99}, 0.01, "pass"),
        ({"cosine": 0.999999}, 0.5, "fail"),
        ({"max_rel": 1e-3}, 0.1, "fail"),
        ({"max_abs": 1.0, "sqnr_db": 60}, 0.1, "fail"),
        ({"exact_agreement": 1.0}, 0.1, "fail"),
    ],
)
def test_every_bound_given_must_hold(bounds, error, verdict):
    assert judge(plus(error), [case(BATCH)], tolerances(**bounds)).verdict == verdict


def test_a_bound_met_exactly_holds():
    report = judge(plus(0.5), [case(np.zeros((2, 2)))], tolerances(max_abs=0.5))
    assert report.verdict == "pass"


def test_without_bounds_the_default_of_the_precision_judges():
    report = judge(plus(0.1), [case(BATCH)])
    assert report.verdict == "fail"
    assert report.outputs["y"].tolerance.sqnr_db == 40
    assert report.outputs["y"].tolerance_source == "default (fp16: for a test)"


def test_without_any_bound_nothing_passes():
    report = judge(identity, [case(BATCH)], tolerances(fallback=Bounds(exact_agreement=1)))
    assert report.verdict == "not_run"
    assert "no bound fits" in report.reason


def test_no_case_is_not_run():
    report = judge(identity, [])
    assert report.verdict == "not_run"
    assert report.reason == "there were no cases to compare on"


def test_no_output_is_not_run():
    nothing = judge(lambda x: {}, [case(BATCH)], reference=lambda x: {})
    assert nothing.verdict == "not_run"


def test_an_output_that_was_always_empty_is_not_run():
    def partly(x):
        return {"y": x, "boxes": np.zeros((0, 4), np.float32)}

    report = judge(partly, [case(BATCH)], reference=partly)
    assert report.verdict == "not_run"
    assert "output 'boxes' could not be judged: it was empty" in report.reason
    assert report.outputs["y"].verdict == "pass"


def test_a_reference_of_nothing_but_nan_proves_nothing():
    def nan(x):
        return {"y": np.full_like(x, np.nan)}

    report = judge(nan, [case(BATCH)], reference=nan)
    assert report.verdict == "not_run"
    assert "no finite value" in report.reason


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("group", ["data", "corner", "random"])
def test_nan_and_inf_fail_in_every_group(bad, group):
    def broken(x):
        return {"y": np.where(x == 5, np.float32(bad), x)}

    spoiled = np.array([[1, 5]], np.float32)
    report = judge(broken, [case(BATCH), case(spoiled, group)], tolerances(sqnr_db=-100))
    assert report.verdict == "fail"
    assert "1 of 2 values are NaN or Inf where the reference is finite" in report.reason
    assert f"'{group}'" in report.reason


def test_a_finite_candidate_fails_where_the_reference_is_not():
    def masked(x):
        return {"y": np.where(x == 5, -np.float32(np.inf), x)}

    spoiled = [case([[1, 5]])]
    assert judge(masked, spoiled, reference=masked).verdict == "pass"
    report = judge(identity, spoiled, reference=masked)
    assert report.verdict == "fail"
    assert "reference is NaN or Inf" in report.reason


@pytest.mark.parametrize(
    ("candidate", "said"),
    [
        (lambda x: {"y": x[:, :2]}, "shape [16, 2] instead of [16, 4]"),
        (lambda x: {"y": x.astype(np.float16)}, "type float16 instead of float32"),
        (lambda x: {}, "the candidate has no output 'y'"),
        (lambda x: {"z": x}, "the candidate has no output 'y'"),
        (lambda x: {"y": x, "z": x}, "an output 'z' that the reference has not"),
    ],
)
def test_other_names_shapes_and_types_fail(candidate, said):
    report = judge(candidate, [case(BATCH)], tolerances(sqnr_db=-100))
    assert report.verdict == "fail"
    assert said in report.reason
    assert judge(candidate, [case(BATCH, "random")]).verdict == "fail"


def test_random_cases_are_judged_only_without_data():
    noise = [case(BATCH * 0 + 1e-3, "random", "random")]
    alone = judge(plus(1.0), noise, tolerances(sqnr_db=20))
    assert alone.verdict == "fail"
    assert alone.judged == ("random",)
    assert "'random'" in alone.outputs["y"].failures[-1]
    big = case(BATCH * 1e4)
    beside = judge(plus(1.0), [big, *noise], tolerances(sqnr_db=20))
    assert beside.verdict == "pass"
    assert beside.judged == ("data",)
    assert beside.outputs["y"].groups["random"].sqnr_db < 0


def test_one_broken_corner_is_not_hidden_by_much_good_data():
    def broken_alone(x):
        return {"y": x * 0.5 if x.shape[0] == 1 else x}

    much = [case(BATCH) for _ in range(100)]
    one = case(BATCH[:1], "corner", "corner min")
    report = judge(broken_alone, [*much, one], tolerances(sqnr_db=20))
    assert report.outputs["y"].metrics.sqnr_db > 20
    assert report.verdict == "fail"
    assert "'corner min'" in report.reason


def test_a_single_corner_has_six_decibel_of_slack():
    def five_decibel_worse_alone(x):
        return {"y": x + np.float32(0.1 * 10 ** (5 / 20)) if x.shape[0] == 1 else x}

    ones = np.ones((100, 4), np.float32)
    corner = case(ones[:1], "corner")
    asked = tolerances(sqnr_db=20)
    assert judge(five_decibel_worse_alone, [case(ones), corner], asked).verdict == "pass"
    stricter = judge(five_decibel_worse_alone, [case(ones), corner], tolerances(sqnr_db=21.5))
    assert stricter.verdict == "fail"


def test_one_flipped_row_of_a_one_row_corner_is_not_a_failure_of_99_percent():
    def flip_alone(x):
        return {"y": -x if x.shape[0] == 1 else x}

    cases = [case(np.tile(BATCH, (20, 1))), case(BATCH[:1], "corner")]
    assert judge(flip_alone, cases, tolerances(top1_agreement=0.99)).verdict == "pass"
    assert judge(lambda x: {"y": -x}, cases, tolerances(top1_agreement=0.99)).verdict == "fail"


def test_integer_outputs_are_judged_by_equality():
    def ids(x):
        return {"ids": np.arange(x.shape[0])}

    def wrong(x):
        return {"ids": np.arange(x.shape[0]) + (x[:, 0] > 100)}

    cases = [case(BATCH)]
    good = judge(ids, cases, tolerances(fallback=Bounds(exact_agreement=0.99)), reference=ids)
    assert good.verdict == "pass"
    assert good.outputs["ids"].tolerance == Bounds(exact_agreement=0.99)
    spoiled = BATCH.copy()
    spoiled[3] = 1000
    bad = judge(wrong, [case(spoiled)], reference=ids)
    assert bad.verdict == "fail"
    assert "share of equal values 0.9375 is below the bound 0.99" in bad.reason


def test_bounds_that_do_not_fit_an_output_leave_it_to_the_default():
    def both(x):
        return {"y": x, "ids": np.arange(x.shape[0])}

    report = judge(both, [case(BATCH)], tolerances(sqnr_db=20), reference=both)
    assert report.verdict == "pass"
    assert report.outputs["y"].tolerance_source == "recipe"
    assert report.outputs["ids"].tolerance_source.startswith("default")


def test_a_tolerance_of_an_unknown_output_is_an_error():
    asked = Tolerances(
        outputs={"logit": Bounds(sqnr_db=1)}, fallback=Bounds(sqnr_db=1), fallback_reason="-"
    )
    runner = FunctionRunner(lambda x: {"logits": x})
    with pytest.raises(UsageError, match="output 'logit'") as caught:
        compare(runner, runner.__class__(runner.function), [case(BATCH)], asked)
    assert caught.value.hint == "did you mean 'logits'?"
    assert caught.value.exit_status == 2


@pytest.mark.parametrize(
    ("bounds", "output", "hint"),
    [
        ({"top1_agreement": 0.9}, np.zeros((3, 1), np.float32), "two classes"),
        ({"top1_agreement": 0.9}, np.zeros((3,), np.float32), "two axes"),
        ({"top5_agreement": 0.9}, np.zeros((3, 5), np.float32), "six classes"),
        ({"accuracy_drop": 0.1}, np.zeros((3, 5), np.float32), "labels"),
        ({"sqnr_db": 20}, np.zeros((3, 5), np.int64), "exact_agreement"),
        ({"cosine": 0.9}, np.zeros((3, 5), np.bool_), "exact_agreement"),
    ],
)
@pytest.mark.parametrize("own", [True, False])
def test_a_bound_that_cannot_be_judged_is_an_error(bounds, output, hint, own):
    asked = Tolerances(
        default=Bounds() if own else Bounds(**bounds),
        outputs={"y": Bounds(**bounds)} if own else {},
        fallback=Bounds(sqnr_db=0, exact_agreement=0),
        fallback_reason="-",
    )
    with pytest.raises(UsageError, match=f"{next(iter(bounds))} cannot be judged") as caught:
        judge(lambda x: {"y": output}, [case(BATCH)], asked, reference=lambda x: {"y": output})
    assert caught.value.code == "TF0705"
    assert hint in caught.value.hint


def test_accuracy_counts_labelled_data_alone():
    labels = np.argmax(BATCH, axis=1)
    labels[:4] = (labels[:4] + 1) % 4
    report = judge(
        identity,
        [case(BATCH, labels=labels), case(BATCH, "corner"), case(BATCH, "random")],
        tolerances(accuracy_drop=0.0),
    )
    assert report.verdict == "pass"
    assert (report.accuracy.reference, report.accuracy.candidate) == (0.75, 0.75)
    assert (report.accuracy.samples, report.accuracy.output) == (16, "y")


def test_lost_accuracy_fails_and_gained_accuracy_does_not():
    labels = np.argmax(BATCH, axis=1)
    lost = judge(lambda x: {"y": -x}, [case(BATCH, labels=labels)], tolerances(accuracy_drop=0.01))
    assert lost.verdict == "fail"
    assert "top-1 accuracy fell from 100.00% to 0.00%, by more than 1 point" in lost.reason
    gained = judge(
        identity,
        [case(BATCH, labels=labels)],
        tolerances(accuracy_drop=0.01),
        reference=lambda x: {"y": -x},
    )
    assert gained.verdict == "pass"


def test_an_accuracy_drop_met_exactly_passes():
    scores = np.eye(2, dtype=np.float32)[np.zeros(100, int)]
    labels = np.zeros(100, np.int64)
    labels[:3] = 1

    def one_lost(x):
        return {"y": np.concatenate([x[:99], 1 - x[99:]])}

    report = judge(one_lost, [case(scores, labels=labels)], tolerances(accuracy_drop=0.01))
    assert report.accuracy.reference == 0.97
    assert report.verdict == "pass"


def test_labels_beyond_every_output_are_an_error():
    labels = np.full(16, 4)
    with pytest.raises(DataError, match="label 4 is no class of output 'y'"):
        judge(identity, [case(BATCH, labels=labels)])


def test_labels_choose_the_output_that_has_their_classes():
    def heads(x):
        return {"coarse": x[:, :2], "fine": x, "ids": np.argmax(x, axis=1)}

    labels = np.argmax(BATCH, axis=1)
    report = judge(heads, [case(BATCH, labels=labels)], reference=heads)
    assert report.accuracy.output == "fine"
    assert report.outputs["coarse"].accuracy is None
    assert report.outputs["ids"].accuracy is None


def test_filled_up_rows_do_not_count():
    labels = np.argmax(BATCH[:3], axis=1)
    report = judge(identity, [case(BATCH, labels=labels, rows=3)])
    assert report.outputs["y"].metrics.rows == 3
    assert report.outputs["y"].metrics.elements == 12
    assert report.accuracy.samples == 3


def test_both_runners_are_closed_after_an_error():
    def fails(x):
        raise DataError("TF0000", "no")

    reference, candidate = FunctionRunner(identity), FunctionRunner(fails)
    with pytest.raises(DataError):
        compare(reference, candidate, [case(BATCH)], tolerances())
    assert (reference.open, candidate.open) == (0, 0)


def test_cases_are_used_one_at_a_time():
    reference, candidate = FunctionRunner(identity), FunctionRunner(identity)

    def stream():
        for number in range(5):
            assert reference.calls == candidate.calls == number
            yield case(BATCH)

    seen = []
    report = compare(reference, candidate, stream(), tolerances(), seen.append)
    assert report.cases == {"data": 5}
    assert len(seen) == 5


def test_the_report_survives_json_with_its_infinities():
    cases = [case(BATCH), case(BATCH, "corner"), case(BATCH * np.float32(2), "random")]
    report = judge(identity, cases, tolerances(sqnr_db=10))
    data = json.loads(json.dumps(report.as_json(), allow_nan=False))
    assert data["schema"] == "trtforge.parity/1"
    assert data["outputs"]["y"]["metrics"]["sqnr_db"] == "inf"
    assert ParityReport.model_validate(data) == report


def test_the_json_of_a_failed_report_has_no_bare_nan():
    def nan(x):
        return {"y": np.full_like(x, np.nan)}

    data = judge(nan, [case(BATCH)]).as_json()
    metrics = json.loads(json.dumps(data, allow_nan=False))["outputs"]["y"]["metrics"]
    assert (metrics["cosine"], metrics["sqnr_db"], metrics["max_abs"]) == ("nan", "-inf", "inf")


def test_not_run_says_why():
    report = ParityReport.not_run("no NVIDIA driver", candidate="engine")
    assert report.as_json()["verdict"] == "not_run"
    assert report.as_json()["reason"] == "no NVIDIA driver"


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8", "fp8"])
def test_every_precision_has_bounds_and_a_reason(precision):
    bounds, reason = fallback_for(precision)
    assert bounds.sqnr_db > 0
    assert bounds.exact_agreement > 0.9
    assert reason.startswith(f"{precision}:")


def test_wider_types_are_asked_more_of():
    order = [DEFAULTS[name][0].sqnr_db for name in ("fp32", "fp16", "bf16", "int8")]
    assert order == sorted(order, reverse=True)
    assert len(set(order)) == 4


def test_an_unknown_precision_is_an_error():
    with pytest.raises(UsageError, match="fp12"):
        fallback_for("fp12")


def test_the_keys_of_the_json_are_those_of_format_1():
    """Programs read these; a change needs a new schema tag."""
    labels = np.argmax(BATCH, axis=1)
    data = judge(identity, [case(BATCH, labels=labels), case(BATCH, "corner")]).as_json()
    assert list(data) == [
        "schema",
        "verdict",
        "reason",
        "reference",
        "candidate",
        "judged",
        "cases",
        "outputs",
        "failures",
        "accuracy",
    ]
    output = data["outputs"]["y"]
    assert list(output) == [
        "verdict",
        "reason",
        "dtype",
        "metrics",
        "tolerance",
        "tolerance_source",
        "failures",
        "groups",
        "cases",
        "accuracy",
        "errors",
    ]
    assert list(output["metrics"]) == [
        "elements",
        "finite",
        "sqnr_db",
        "max_abs",
        "max_rel",
        "cosine",
        "exact_agreement",
        "top1_agreement",
        "top5_agreement",
        "rows",
        "reference_amax",
        "nonfinite",
        "candidate_nonfinite",
    ]
    assert list(output["cases"][0]) == ["name", "group", "metrics"]
    assert list(data["accuracy"]) == ["output", "reference", "candidate", "samples"]


def mixed_cases():
    return [
        case(BATCH, name="data 0..15", labels=np.arange(16) % 4),
        case(BATCH[:3] * 2, name="data 16..18", rows=2),
        case(BATCH[:1], "corner", "corner min"),
        case(BATCH * 5, "random", "random"),
    ]


@pytest.mark.parametrize("turn_bytes", [0, 1, 700, 10**9])
@pytest.mark.parametrize("candidate", [identity, plus(0.02), plus(1.0)])
def test_taking_turns_gives_the_same_report(candidate, turn_bytes):
    asked = tolerances(sqnr_db=30)
    together = judge(candidate, mixed_cases(), asked)
    sides = (FunctionRunner(identity, "reference"), FunctionRunner(candidate, "candidate"))
    in_turns = compare(*sides, iter(mixed_cases()), asked, turn_bytes=turn_bytes)
    assert in_turns.as_json() == together.as_json()
    assert [side.calls for side in sides] == [4, 4]


@pytest.mark.parametrize(("turn_bytes", "turns"), [(0, 4), (1, 4), (600, 2), (10**9, 1)])
def test_in_turns_only_one_side_is_entered_at_a_time(turn_bytes, turns):
    entered = []

    class Exclusive(FunctionRunner):
        def __enter__(self):
            assert sum(side.open for side in sides) == 0
            entered.append(self.name)
            return super().__enter__()

    sides = (Exclusive(identity, "reference"), Exclusive(plus(0.01), "candidate"))
    told = []
    report = compare(
        *sides,
        mixed_cases(),
        tolerances(),
        lambda one: told.append(one.name),
        turn_bytes=turn_bytes,
    )
    assert report.cases == {"data": 2, "corner": 1, "random": 1}
    assert entered == ["reference", "candidate"] * turns
    assert told == [one.name for one in mixed_cases()]
    assert all(side.open == 0 for side in sides)


def test_in_turns_no_case_enters_nothing():
    sides = (FunctionRunner(identity), FunctionRunner(identity))
    report = compare(*sides, [], tolerances(), turn_bytes=10**6)
    assert (report.verdict, [side.calls for side in sides]) == ("not_run", [0, 0])


@pytest.mark.parametrize("turn_bytes", [None, 10**6])
def test_a_tolerance_for_an_unknown_output_is_refused_at_the_first_case(turn_bytes):
    reference, candidate = FunctionRunner(identity), FunctionRunner(identity)
    asked = Tolerances(outputs={"z": Bounds(sqnr_db=1)}, fallback=Bounds(), fallback_reason="none")
    with pytest.raises(UsageError):
        compare(reference, candidate, mixed_cases(), asked, turn_bytes=turn_bytes)
    assert (reference.calls, candidate.calls) == (1, 0)
    assert (reference.open, candidate.open) == (0, 0)
