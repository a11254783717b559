"""Every rule of the linter: found where it should be, and nowhere else."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models_precision import Net

from trtforge.graph.model import Model
from trtforge.precision.cache import CalibrationCache, DataUse, TensorRange
from trtforge.precision.cache_diff import diff_caches
from trtforge.precision.cache_lint import (
    RULES,
    Finding,
    clipped_share,
    lint_cache,
    lint_text,
    worst,
)
from trtforge.precision.cache_match import match_ranges
from trtforge.precision.foreign.content import Content
from trtforge.precision.foreign.tensorrt import read_sound_lines
from trtforge.precision.model_lint import lint_model
from trtforge.precision.observers.histogram import Histogram
from trtforge.precision.quantize import candidate_tensors
from trtforge.precision.ranges import TensorRange as Range
from trtforge.precision.state import TensorState
from trtforge.recipe.schema import Precision

HEAD = "TRT-8601-EntropyCalibration2\n"
GOOD = "a: 3c010a14\nb: 3d010a14\n"


def slugs(findings: tuple[Finding, ...]) -> list[str]:
    return [finding.slug for finding in findings]


def text_findings(text: str) -> tuple[Finding, ...]:
    return lint_text(Content(Path("file"), text.encode()))


def cache(amax: dict[str, float], **more: object) -> CalibrationCache:
    ranges = {name: TensorRange(min=-top, max=top, amax=top) for name, top in amax.items()}
    facts: dict[str, object] = {"method": "x", "samples": 0, "graph_digest": "", "ranges": ranges}
    return CalibrationCache.model_validate(facts | more)


SOUND = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 40.0}

TEXTS = [
    (HEAD + GOOD, []),
    ("TRT-100300-MinMaxCalibration\n" + GOOD, []),
    ("TRT-10300-EntropyCalibration2\n" + GOOD, ["header-formula"]),
    ("TRT-8XXX-EntropyCalibration2\n" + GOOD, ["header-version"]),
    ("TRT-301-EntropyCalibration2\n" + GOOD, ["header-version"]),
    ("TRT-8601-Magic\n" + GOOD, ["header-algorithm"]),
    ("TRT 8601\n" + GOOD, ["header-malformed"]),
    (HEAD + GOOD + "c 3c010a14\n", ["malformed-line"]),
    (HEAD + GOOD + "a: 3c010a14\n", ["duplicate-name"]),
    (HEAD + GOOD + "c: 7f800000\n", ["not-finite"]),
    (HEAD + GOOD + "c: bc010a14\n", ["negative-scale"]),
    (HEAD + GOOD + "c: 1234\n", ["unpadded-hex"]),
    (HEAD + GOOD + "c: 3c01", ["truncated", "unpadded-hex"]),
    (HEAD + GOOD + "c: ", ["truncated", "malformed-line"]),
    (HEAD + GOOD.rstrip("\n"), []),
]

CACHES = [
    (cache(SOUND), []),
    (cache({}), ["no-tensors"]),
    (cache(SOUND | {"e": 0.0}), ["zero-scale"]),
    (cache(SOUND | {"/head/Softmax_output_0": 127.0}), ["scale-is-amax"]),
    (cache(SOUND | {"/head/Sigmoid_output_0": 3.0}), ["beyond-bound"]),
    (cache(SOUND | {"sigmoid_3:0": 127.0}), ["scale-is-amax"]),
    (cache(SOUND | {"/softmax/MatMul_output_0": 127.0, "sigmoid_logits": 20.0}), []),
    (cache(SOUND | {"e": 1e6}), ["outlier"]),
    (cache(dict.fromkeys("abcd", 127.0)), ["ranges-alike"]),
    (cache(SOUND, samples=8), ["few-samples"]),
    (
        cache(SOUND, data=(DataUse(digest="d", spans=((0, 64),), synthetic=True),), samples=64),
        ["synthetic-data"],
    ),
    (
        cache({}, samples=64, ranges={"a": TensorRange(min=2, max=2, amax=2)}),
        ["constant-tensor"],
    ),
    (
        cache({}, samples=64, ranges={"a": TensorRange(min=-1, max=2, amax=3)}),
        ["beyond-observed"],
    ),
    (cache(SOUND, warnings=("tensors with few values: 1",)), ["said-by-cache"]),
]


@pytest.mark.parametrize(("text", "expected"), TEXTS)
def test_rules_of_text(text: str, expected: list[str]) -> None:
    assert slugs(text_findings(text)) == expected


@pytest.mark.parametrize(("found", "expected"), CACHES)
def test_rules_of_ranges(found: CalibrationCache, expected: list[str]) -> None:
    assert slugs(lint_cache(found)) == expected


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=80), st.sampled_from(["", HEAD, HEAD + "x: "]))
def test_no_text_crashes_the_linter(text: str, head: str) -> None:
    content = Content(Path("file"), (head + text).encode("utf-8", "replace"))
    assert all(one.slug in RULES for one in lint_text(content))
    assert all(one.slug in RULES for one in lint_cache(read_sound_lines(content)))


def test_taos_header_is_corrected() -> None:
    (finding,) = text_findings("TRT-10300-EntropyCalibration2\n" + GOOD)
    assert "TensorRT 10.3.0, which writes TRT-100300" in finding.message
    assert (finding.severity, finding.line) == ("error", 1)


def test_lines_are_named() -> None:
    findings = text_findings(HEAD + GOOD + "a: 1\n")
    assert [(one.slug, one.line) for one in findings] == [
        ("unpadded-hex", 4),
        ("duplicate-name", 4),
    ]


def clipped(amax: float) -> TensorRange:
    """1000 values 0.001 .. 1, of which those above amax are clipped."""
    state = TensorState(histogram=Histogram())
    state.update(np.linspace(0.001, 1, 1000, dtype=np.float32))
    state.settle()
    return Range.of(state, amax)


@pytest.mark.parametrize(("amax", "share"), [(1.0, 0.0), (0.9, 0.1), (0.5, 0.5)])
def test_the_clipped_share_is_counted(amax: float, share: float) -> None:
    assert clipped_share(clipped(amax)) == pytest.approx(share, abs=0.002)
    rules = slugs(lint_cache(cache({}, samples=64, ranges={"a": clipped(amax)})))
    assert rules == (["heavy-clipping"] if share else [])


def test_without_a_histogram_the_clipped_share_is_not_known() -> None:
    assert clipped_share(TensorRange(min=-1, max=1, amax=0.5, runs=3)) is None
    assert clipped_share(TensorRange(min=-1, max=1, amax=1)) is None


def branches() -> Model:
    """Conv, Sigmoid, Reshape, Clip and MatMul; nothing that the clean-up would touch."""
    net = Net(3)
    x = net.input("x", ["N", 4, 4, 4])
    gate = net.op("Sigmoid", [net.op("Conv", [x, net.weight("w", 4, 4, 1, 1)], "conv")], "gate")
    low, high = net.const("low", 0.0), net.const("high", 6.0)
    six = net.op("Clip", [net.op("Mul", [x, gate], "mul"), low, high], "six")
    flat = net.op("Reshape", [six, net.const("shape", [0, -1], np.int64)], "flat")
    net.op("MatMul", [flat, net.weight("v", 64, 5)], "y")
    net.output("y", ["N", 5])
    return net.model()


def model_findings(amax: dict[str, float], **more: object) -> tuple[Finding, ...]:
    model = branches()
    needed = candidate_tensors(model, Precision(quantize="int8"))
    found = cache(amax, **more)
    return lint_model(found, match_ranges(found, needed, model, model), model, model)


MODELS = [
    ({"x": 1.0, "flat": 5.0}, []),
    ({"x": 1.0, "six": 5.0}, ["derived-range"]),
    ({"x": 1.0}, ["no-range"]),
    ({"y": 1.0}, ["another-model", "no-range", "no-range", "not-needed"]),
    ({"x": 1.0, "flat": 5.0, "gate": 127.0}, ["not-needed", "scale-is-amax"]),
    ({"x": 1.0, "flat": 5.0, "gate": 2.0}, ["not-needed", "beyond-bound"]),
    ({"x": 1.0, "flat": 5.0, "six": 500.0}, ["not-needed", "scale-is-amax"]),
    ({"x": 1.0, "six": 0.04, "flat": 5.08}, ["not-needed", "scale-is-amax"]),
    ({"x": 1.0, "flat": 5.0, "elsewhere": 1.0}, ["name-unknown"]),
    ({"x": 1.0, "flat": 5.0, "(Unnamed Layer* 22) [Constant]_output": 1.0}, ["unnamed-layer"]),
]


@pytest.mark.parametrize(("amax", "expected"), MODELS)
def test_rules_with_a_model(amax: dict[str, float], expected: list[str]) -> None:
    assert slugs(model_findings(amax)) == expected


def test_a_stale_cache_and_a_fresh_one() -> None:
    amax = {"x": 1.0, "flat": 5.0}
    assert slugs(model_findings(amax, graph_digest="sha256:other")) == ["stale-graph"]
    assert slugs(model_findings(amax, graph_digest=branches().digest())) == []


def test_every_rule_has_a_case() -> None:
    cases = [slug for table in (TEXTS, CACHES, MODELS) for _, found in table for slug in found]
    elsewhere = {"heavy-clipping", "stale-graph", "fused-away"}  # above, and in test_calib_apply
    assert {*cases, *elsewhere} == set(RULES)


def test_the_worst_severity_decides() -> None:
    note, warning, error = (Finding(slug, "") for slug in ("not-needed", "outlier", "truncated"))
    assert worst([]) is None
    assert worst([note]) == "note"
    assert worst([note, warning]) == "warning"
    assert worst([warning, error, note]) == "error"


def test_differences_are_sorted_by_size_in_either_direction() -> None:
    before = cache({"same": 1.0, "half": 2.0, "triple": 1.0, "gone": 1.0, "dead": 0.0})
    after = cache({"same": 1.0, "half": 1.0, "triple": 3.0, "new": 1.0, "dead": 1.0})
    found = diff_caches(before, after)
    assert [change.name for change in found.changed] == ["dead", "triple", "half"]
    assert (found.removed, found.added, found.same) == (("gone",), ("new",), 1)
    assert found.as_json()["changed"][0]["ratio"] is None
    assert not found.identical
    assert diff_caches(before, before).identical


def test_what_is_not_known_does_not_differ() -> None:
    own = cache({"a": 1.0}, method="entropy", samples=64, graph_digest="sha256:g")
    foreign = cache({"a": 1.0 + 1e-8}, method="EntropyCalibration2", origin="TRT-8601-x")
    assert diff_caches(own, foreign, 1e-6).identical
    assert not diff_caches(own, foreign).identical
    other = own.model_copy(update={"method": "minmax", "samples": 32})
    assert set(diff_caches(own, other).facts) == {"method", "samples"}
