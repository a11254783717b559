"""Ranges of float tensors: measured, judged for a type, feared without data, and checked."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, parser

from trtforge.errors import DataError
from trtforge.graph.model import Model
from trtforge.graph.sources import open_source
from trtforge.graph.sources.source import DataSource
from trtforge.precision.cast import typed
from trtforge.precision.float_ranges import FloatRange, FloatRanges, measure
from trtforge.precision.masks import SMALL_MASK
from trtforge.precision.range_check import ENOUGH_DB, ranges_for_types, sqnr_db
from trtforge.precision.range_judgement import MARGIN, judge
from trtforge.precision.typeinfo import element_types
from trtforge.recipe.calibration import Calibration
from trtforge.recipe.schema import Precision

FP16 = Precision(type="fp16")


def model_of(body: str, *, inputs: str = "float[1,4] x") -> Model:
    """A graph `g` from ONNX text whose output is y."""
    text = f'<ir_version: 9, opset_import: ["" : 18]> g ({inputs}) => (float[N,M] y) {{ {body} }}'
    return Model(parser.parse_model(text))


def data_of(model: Model, folder: Path, **arrays: np.ndarray) -> DataSource:
    path = folder / "data.npz"
    np.savez(path, allow_pickle=False, **arrays)
    return open_source(Calibration(data=str(path)), model.contract, Path, model=model, profiles=())


def rows(*values: float, width: int = 4) -> np.ndarray:
    return np.repeat(np.array(values, np.float32)[:, None], width, 1)


def wide(model: Model, ranges: FloatRanges | None, kind: str = "fp16") -> dict[str, str]:
    """Operators that stay wide for a reason of their own, and the reason."""
    result = typed(model, None, Precision(type=kind), ranges)
    return {d.op: d.reason for d in result.cast.decisions if "beside" not in d.reason}


# -- measuring ---------------------------------------------------------------------------------


def test_extremes_of_inputs_results_and_what_movers_pass_on(tmp_path: Path) -> None:
    model = model_of("a = Neg(x) b = Transpose(a) c = Sigmoid(b) y = Transpose(c)")
    found = measure(model, data_of(model, tmp_path, x=rows(1, -3)))
    assert found.samples == 2
    assert found.tensors["x"] == FloatRange(-3, 1)
    assert found.tensors["a"] == found.tensors["b"] == FloatRange(-1, 3)
    assert found.tensors["c"] == FloatRange(-1, 1)
    assert found["a"] == 3
    assert set(found) == {"x", "a", "b", "c", "y"}


def test_the_smallest_magnitude_of_divisors_alone(tmp_path: Path) -> None:
    model = model_of("two = Constant<value = float {2}>() a = Mul(x, two) y = Div(two, a)")
    found = measure(model, data_of(model, tmp_path, x=rows(0.5, -0.25, 0, 8)))
    assert found.tensors["a"].smallest == 0.5
    assert found.tensors["x"].smallest == 0


def test_operators_of_other_domains_are_nothing_known() -> None:
    text = """<ir_version: 9, opset_import: ["" : 18, "own" : 1]>
        g (float[1,4] x) => (float[1,4] y) { a = own.Div(x) b = own.Mul(a) y = own.Exp(b) }"""
    model = Model(parser.parse_model(text))
    ranges = FloatRanges({name: FloatRange(-20.0, 20.0, 1e-9) for name in ("x", "a", "b")})
    judged = judge(model, ranges, "fp16")
    assert judged.wide_values == {}
    assert judged.wide_results == {}


def test_infinities_and_nan_do_not_count(tmp_path: Path) -> None:
    model = model_of("a = Log(x) y = Exp(a)")
    found = measure(model, data_of(model, tmp_path, x=rows(0, 1, -1)))
    assert found.tensors["a"] == FloatRange(0, 0)


def test_as_many_samples_as_asked_for_or_an_error(tmp_path: Path) -> None:
    model = model_of("y = Neg(x)")
    source = data_of(model, tmp_path, x=rows(*range(20)))
    assert measure(model, source).samples == 4
    assert measure(model, source, 20)["x"] == 19
    with pytest.raises(DataError) as caught:
        measure(model, source, 21)
    assert caught.value.code == "TF0523"


floats = st.floats(allow_nan=False, allow_infinity=False, width=32)


@given(
    st.dictionaries(st.text(), st.tuples(floats, floats, floats).map(lambda t: FloatRange(*t))),
    st.dictionaries(st.text(), st.text()),
    st.none() | st.floats(allow_nan=False),
)
def test_ranges_survive_json(
    tensors: dict[str, FloatRange], reasons: dict[str, str], db: float | None
) -> None:
    ranges = FloatRanges(tensors, 3, reasons, reasons, ("m",), db)
    text = json.dumps(ranges.as_json(), allow_nan=False)
    assert FloatRanges.from_json(json.loads(text)) == ranges


# -- judging -----------------------------------------------------------------------------------


@given(st.floats(2**-10, 2**20, width=32))
def test_values_near_the_end_of_the_range_do_not_fit(amax: float) -> None:
    ranges = FloatRanges({"x": FloatRange(-amax, 0.0)})
    judged = judge(model_of("y = Neg(x)"), ranges, "fp16")
    assert ("x" in judged.wide_values) == (amax * MARGIN > 65504)
    assert not judge(model_of("y = Neg(x)"), ranges, "bf16").wide_values


CHAIN = "a = Neg(x) b = Relu(a) c = Add(a, b) d = Softmax(c) e = Mul(c, d) y = Transpose(e)"


@given(
    st.fixed_dictionaries({n: st.floats(0, 2**17, width=32) for n in ("x", *"abcde", "y")}),
    st.sampled_from(["fp16", "bf16"]),
)
def test_no_tensor_that_does_not_fit_has_the_narrow_type(seen: dict[str, float], kind: str) -> None:
    model = model_of(CHAIN)
    ranges = judge(model, FloatRanges({n: FloatRange(0.0, v) for n, v in seen.items()}), kind)
    result = typed(model, None, Precision(type=kind), ranges)
    types = element_types(result.model.proto)
    limit = 65504 if kind == "fp16" else 3e38
    for name, amax in seen.items():
        if amax * MARGIN > limit or name in ("x", "y"):
            assert types[name] == TensorProto.FLOAT
    for decision in result.cast.decisions:
        assert decision.reason


def test_small_values_matter_where_something_divides() -> None:
    ranges = FloatRanges({name: FloatRange(0.0, 1.0, 1e-7) for name in "xay"})
    divided = judge(model_of("a = Relu(x) y = Reciprocal(a)"), ranges, "fp16")
    assert "divides" in divided.wide_values["a"]
    assert not judge(model_of("a = Relu(x) y = Neg(a)"), ranges, "fp16").wide_values
    assert not judge(model_of("a = Relu(x) y = Reciprocal(a)"), ranges, "bf16").wide_values


def test_the_chain_behind_a_small_variance_is_wide_back_to_the_square() -> None:
    body = """two = Constant<value = float {2}>() e = Constant<value = float {1e-12}>()
        axes = Constant<value = int64[1] {1}>()
        b = Neg(x) s = Pow(b, two) m = ReduceMean(s, axes) v = Add(m, e) y = Sqrt(v)"""
    tensors = {name: FloatRange(0.0, 1.0, 1e-8) for name in ("x", "b", "s", "m", "v", "y")}
    judged = judge(model_of(body), FloatRanges(tensors), "fp16")
    assert {"v", "m", "s"} <= judged.wide_values.keys() | judged.wide_results.keys()
    assert "b" not in judged.wide_results


@pytest.mark.parametrize("op", ["Sin", "Cos", "Exp"])
def test_steep_functions_get_their_argument_exactly(op: str) -> None:
    model = model_of(f"a = Neg(x) b = Neg(a) y = {op}(b)")

    def judged(reach: float) -> set[str]:
        ranges = FloatRanges({name: FloatRange(-reach, reach) for name in ("x", "a", "b")})
        return set(judge(model, ranges, "bf16").wide_results)

    assert judged(7.9) == set()
    assert judged(8.1) == {"a", "b", "y"}


# -- without data ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("s = Mul(x, x) y = ReduceMean(s)", {"Mul", "ReduceMean"}),
        ("s = ReduceSumSquare(x) y = Sqrt(s)", {"ReduceSumSquare", "Sqrt"}),
        ("s = Mul(x, x) y = Add(s, x)", set()),
        ("e = Exp(x) s = ReduceSum(e) y = Log(s)", {"Exp", "ReduceSum", "Log"}),
        ("m = ReduceMax(x) d = Sub(x, m) y = Exp(d)", set()),
        ("s = Softplus(x) n = Neg(s) y = Exp(n)", set()),
        ("y = Softmax(x)", set()),
    ],
)
def test_what_is_feared_of_a_graph(body: str, expected: set[str]) -> None:
    model = model_of(body)
    assert set(wide(model, None)) == expected
    assert wide(model, None, "bf16") == {}
    harmless = FloatRanges({n: FloatRange(-1.0, 1.0) for n in ("x", "s", "e", "m", "d", "n", "y")})
    assert wide(model, harmless) == {}


def test_a_sum_over_a_long_axis() -> None:
    for length, expected in ((70_000, {"ReduceSum", "Neg"}), (1000, set())):
        model = model_of("s = ReduceSum(x) y = Neg(s)", inputs=f"float[1,{length}] x")
        assert set(wide(model, None)) == expected


def test_a_factor_too_small_for_fp16() -> None:
    model = model_of("c = Constant<value = float {1e-6}>() y = Mul(x, c)")
    assert "few bits" in wide(model, None)["Mul"]
    added = model_of("c = Constant<value = float {1e-6}>() y = Add(x, c)")
    assert wide(added, None) == {}


# -- masks -------------------------------------------------------------------------------------

MASKED = """low = Constant<value = float {-1e9}>() zero = Constant<value = float {0}>()
    m = Where(keep, zero, low) s = Add(x, m) y = Softmax(s)"""
WITH_MASK = "float[1,4] x, bool[1,4] keep"


def mask_data(model: Model, folder: Path, keep: list[list[bool]]) -> DataSource:
    count = len(keep)
    x = np.arange(4 * count, dtype=np.float32).reshape(count, 4) / 4
    return data_of(model, folder, x=x, keep=np.array(keep))


def test_a_mask_becomes_small_and_the_result_stays(tmp_path: Path) -> None:
    model = model_of(MASKED, inputs=WITH_MASK)
    source = mask_data(model, tmp_path, [[True, True, False, False], [True] * 4])
    ranges = ranges_for_types(model, source, FP16)
    assert ranges.small_masks == ("low",)
    assert wide(model, ranges) == {}
    result = typed(model, None, FP16, ranges).model
    values = {w.name: w for w in result.proto.graph.initializer}
    assert any(
        np.frombuffer(w.raw_data, np.float16).tolist() == [SMALL_MASK]
        for w in values.values()
        if w.data_type == TensorProto.FLOAT16
    )


@pytest.mark.parametrize(
    "body",
    [
        MASKED.replace("Softmax(s)", "Relu(s)"),
        MASKED.replace("Softmax(s)", "Softmax(s) z = Relu(m)"),
        MASKED.replace("-1e9", "-9000"),
        MASKED.replace("-1e9", "1e9"),
    ],
)
def test_other_large_constants_stay(body: str, tmp_path: Path) -> None:
    model = model_of(body, inputs=WITH_MASK)
    source = mask_data(model, tmp_path, [[True, True, False, False]])
    assert ranges_for_types(model, source, FP16).small_masks == ()


def test_a_row_masked_as_a_whole_keeps_the_mask(tmp_path: Path) -> None:
    model = model_of(MASKED, inputs=WITH_MASK)
    x = np.array([[0, 8, 16, 24], [1, 2, 3, 4]], np.float32)  # -1e9 swallows them, -3e4 does not
    keep = np.array([[False] * 4, [True] * 4])
    ranges = ranges_for_types(model, data_of(model, tmp_path, x=x, keep=keep), FP16)
    assert ranges.small_masks == ()
    assert ranges.sqnr_db is not None
    assert ranges.sqnr_db > ENOUGH_DB["fp16"]


# -- checking ----------------------------------------------------------------------------------


def test_sqnr() -> None:
    ones = np.ones(100, np.float32)
    assert sqnr_db(ones, ones * 1.01) == pytest.approx(40, abs=0.01)
    assert sqnr_db(ones, ones) == math.inf
    assert sqnr_db(ones, ones * np.inf) == -math.inf
    assert sqnr_db(np.append(ones, -np.inf), np.append(ones, 5)) == math.inf


def test_a_difference_of_nearly_equal_tensors_is_repaired_where_it_begins(tmp_path: Path) -> None:
    model = model_of("""c = Constant<value = float {1000}>() a = Add(x, c) b = Neg(a)
        r = Relu(x) d = Add(a, c) y = Sub(a, c)""")
    source = data_of(model, tmp_path, x=np.random.default_rng(0).random((4, 4), np.float32))
    ranges = ranges_for_types(model, source, FP16)
    assert ranges.sqnr_db is not None
    assert ranges.sqnr_db > 60
    assert ranges.wide_results.keys() >= {"a", "y"}
    assert "r" not in ranges.wide_results
    assert all("emulation on samples" in reason for reason in ranges.wide_results.values())


def test_a_model_without_float_outputs_is_only_measured(tmp_path: Path) -> None:
    node = helper.make_node("ArgMax", ["x"], ["y"], axis=1)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.INT64, [1, 1])],
    )
    proto: ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model = Model(proto)
    ranges = ranges_for_types(model, data_of(model, tmp_path, x=rows(1, 2)), FP16)
    assert ranges.sqnr_db is None
    assert ranges["x"] == 2
