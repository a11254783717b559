"""Emulation of control flow, local functions, sequences, and of what a graph can end in."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from emulation_samples import TYPES, differing, nodes, run_twin, values, written
from onnx import TensorProto, helper, numpy_helper

from trtforge.errors import GraphError
from trtforge.graph.execute import Session
from trtforge.graph.model import Model
from trtforge.precision.emulate import emulate

IF = """(T[4] x, bool flag) => (T[4] y) {
  outer = Mul(x, w)
  chosen, second = If(flag) <
    then_branch = then () => (T[4] result, T[4] b) {
      step = Add(outer, w)
      result = Mul(step, x)
      b = Exp(step)
    },
    else_branch = other () => (T[4] result, T[4] b) {
      step = Sub(outer, x)
      inner = If(flag) <
        then_branch = deep_then () => (T[4] d) { step_ = Neg(step) d = Mul(step_, outer) },
        else_branch = deep_else () => (T[4] d) { step_ = Sqrt(step) d = Mul(step_, x) }
      >
      result = Sub(inner, w)
      b = Div(step, w)
    }
  >
  y = Add(chosen, second)
}"""

LOOP = """(T[4] x, bool go) => (T[4] y, T[1, 1] z) {
  n = Constant<value = int64 {3}>()
  start = Mul(x, w)
  last, seen, many = Loop(n, go, start, x) <
    body = step (int64 i, bool on, T[4] state, T[4] same) =>
        (bool still, T[4] next, T[4] same_, T[4] scanned) {
      still = Identity(on)
      f = Cast<to = TYPE>(i)
      grown = Mul(state, w)
      next = Add(grown, f)
      same_ = Add(same, start)
      scanned = Sub(next, x)
    }
  >
  y = Add(last, seen)
  z = ReduceSum(many)
}"""

SCAN = """(T[4] x, T[3, 4] rows) => (T[4] y, T[3, 4] z) {
  y, z = Scan <num_scan_inputs = 1, body = step (T[4] s, T[4] row) => (T[4] t, T[4] o) {
    a = Mul(s, row)
    t = Add(a, x)
    o = Exp(a)
  }> (x, rows)
}"""

SEQUENCE = """(T[4] x) => (T[8] y) {
  a = Mul(x, w)
  s = SequenceConstruct(a, x)
  b = Add(a, a)
  t = SequenceInsert(s, b)
  two = Constant<value = int64 {2}>()
  one = Constant<value = int64 {0}>()
  c = SequenceAt(t, two)
  d = SequenceAt(t, one)
  e = SequenceEmpty<dtype = TYPE>()
  f = SequenceInsert(e, c)
  g = SequenceInsert(f, d)
  y = ConcatFromSequence<axis = 0>(g)
}"""

FUNCTION = """(T[4] x) => (T[4] y) {
  a = own.scale<by = 1.7>(x)
  y = own.scale<by = 0.3>(a)
}
<domain: "own", opset_import: ["": 22]>
scale <by> (p) => (r) {
  k = Constant<value_float: float = @by>()
  f = CastLike(k, p)
  q = Mul(p, f)
  r = Add(q, p)
}"""

NUMBER = {"float16": "10", "bfloat16": "16"}


def typed_text(text: str, kind: str) -> Model:
    return written(text.replace("TYPE", NUMBER[kind]), kind, w=values(4, seed=3))


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("flag", [True, False])
def test_branches_with_the_same_names_inside_and_captures(kind: str, flag: bool) -> None:
    model = typed_text(IF, kind)
    twin = run_twin(model)
    onnx.checker.check_model(twin.proto, full_check=True)
    feeds = {"x": values(4).astype(TYPES[kind]), "flag": np.array(flag)}
    assert differing(model, feeds, twin) == []
    assert not nodes(twin, "If")[0].output[0].endswith("_exact"), "an If rounds nothing"


@pytest.mark.parametrize("kind", TYPES)
def test_loops_carry_rounded_state(kind: str) -> None:
    model = typed_text(LOOP, kind)
    onnx.checker.check_model(emulate(model).proto, full_check=True)
    for go in (True, False):
        feeds = {"x": values(4, size=40).astype(TYPES[kind]), "go": np.array(go)}
        if go:  # without a step there is nothing to stack
            assert differing(model, feeds) == []


@pytest.mark.parametrize("kind", TYPES)
def test_scans_carry_rounded_state(kind: str) -> None:
    feeds = {n: values(*s, seed=4).astype(TYPES[kind]) for n, s in (("x", [4]), ("rows", [3, 4]))}
    assert differing(typed_text(SCAN, kind), feeds) == []


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("text", [SEQUENCE, FUNCTION], ids=["sequence", "function"])
def test_sequences_and_local_functions(text: str, kind: str) -> None:
    assert differing(typed_text(text, kind), {"x": values(4).astype(TYPES[kind])}) == []


def test_a_name_means_another_tensor_in_a_sibling_branch() -> None:
    """FP16 in one branch, FP32 in the other: each by its own scope."""
    text = """(float[4] x, bool flag) => (float[4] y) {
      y = If(flag) <
        then_branch = a () => (float[4] r) {
          t = Cast<to = 10>(x) u = Mul(t, t) r = Cast<to = 1>(u) },
        else_branch = b () => (float[4] r) { t = Mul(x, x) u = Mul(t, t) r = Cast<to = 1>(u) }
      >
    }"""
    model = written(text, "float16")
    x = values(4)
    for flag in (True, False):
        assert differing(model, {"x": x, "flag": np.array(flag)}) == []
    plain = Session(emulate(model)).run({"x": x, "flag": np.array(False)})["y"]
    assert plain.tobytes() == (x * x * (x * x)).tobytes()


def test_a_branch_that_gives_what_lies_outside() -> None:
    """TensorRT takes such a branch; ONNX Runtime wants an Identity, which the twin has."""
    text = """(float16[4] x, bool flag) => (float16[4] y) {
      y = If(flag) <
        then_branch = a () => (float16[4] x) { unused = Neg(x) },
        else_branch = b () => (float16[4] r) { r = Neg(x) }
      >
    }"""
    model = written(text, "float16")
    x = values(4).astype(np.float16)
    got = Session(emulate(model)).run({"x": x, "flag": np.array(True)})["y"]
    assert got.tobytes() == x.tobytes()


@pytest.mark.parametrize("kind", TYPES)
def test_outputs_that_are_read_inputs_and_initializers(kind: str) -> None:
    text = """(T[4] x, bool flag) => (T[4] a, T[4] m, T[4] w, T[4] x, T[4] c, T[4] b, T[4] h) {
      a = Mul(x, w)
      m = Transpose(a)
      b = Add(a, m)
      c = If(flag) <
        then_branch = t () => (T[4] r) { r = Mul(a, w) },
        else_branch = e () => (T[4] r) { r = Mul(b, x) }
      >
      z = Add(c, w)
      h = CastLike(z, x)
    }"""
    model = written(text, kind, w=values(4, seed=5))
    assert emulate(model).contract == model.contract
    names = [spec.name for spec in (*model.contract.inputs, *model.contract.outputs)]
    wide = emulate(model, wide_ends=names)
    assert {spec.dtype for spec in wide.contract.inputs} == {"float32", "bool"}
    assert {spec.dtype for spec in wide.contract.outputs} == {"float32"}
    for flag in (True, False):
        feeds = {"x": values(4, size=30).astype(TYPES[kind]), "flag": np.array(flag)}
        assert differing(model, feeds) == []
        assert differing(model, feeds, wide) == []


def test_inputs_of_a_twin_with_wide_ends_are_rounded_inside() -> None:
    model = written("(T[4] x) => (T[4] y) { y = Mul(x, x) }", "float16")
    x = values(4)
    half = x.astype(np.float16).astype(np.float32)
    got = Session(emulate(model, wide_ends=["x", "y"])).run({"x": x})["y"]
    assert got.tobytes() == (half * half).astype(np.float16).astype(np.float32).tobytes()


def test_an_initializer_that_a_caller_may_override_keeps_its_type() -> None:
    model = written("(T[4] x, T[4] w) => (T[4] y) { y = Mul(x, w) }", "float16", w=values(4))
    twin = emulate(model)
    assert {t.name: t.data_type for t in twin.proto.graph.initializer} == {"w": TensorProto.FLOAT16}
    x = values(4, seed=1).astype(np.float16)
    assert differing(model, {"x": x}, twin) == []


def test_values_of_narrow_initializers_in_every_field(tmp_path: Path) -> None:
    exact = np.array([65504, -6e-8, np.inf, 0.1], np.float16)
    small = numpy_helper.from_array(exact, "raw")
    listed = TensorProto(name="listed", data_type=TensorProto.FLOAT16, dims=[4])
    listed.int32_data.extend(int(bits) for bits in exact.view(np.uint16))
    brain = TensorProto(name="brain", data_type=TensorProto.BFLOAT16, dims=[4])
    brain.int32_data.extend([0x3F81, 0x7F80, 0xFF80, 0x0001])
    outside = numpy_helper.from_array(np.tile(exact, 40000), "outside")
    text = "(T[4] x) => (T y) { a = Mul(x, raw) b = Mul(x, listed) c = Cast<to = 10>(brain) " + (
        "d = Mul(x, c) e = Reshape(outside, shape) y = Sum(a, b, d, e) }"
    )
    proto = written(text, "float16", shape=np.array([40000, 4])).proto
    proto.graph.initializer.extend([small, listed, brain, outside])
    onnx.save(proto, tmp_path / "m.onnx", save_as_external_data=True, size_threshold=1000)
    loaded = Model(onnx.load(tmp_path / "m.onnx", load_external_data=False), tmp_path)
    twin = emulate(loaded)
    values_of = {n: twin.initializer(n) for n in ("raw", "listed", "outside")}
    for name, found in values_of.items():
        assert found.dtype == np.float32
        assert (found.reshape(-1, 4) == exact.astype(np.float32)).all(), name
    assert twin.initializer("brain").tolist() == [1.0078125, np.inf, -np.inf, 2.0**-133]
    x = np.ones(4, np.float16)
    assert differing(loaded, {"x": x}, twin) == []


def test_fp8_and_int4_movers_and_converters_round_once() -> None:
    """QuantizeLinear, DequantizeLinear and Cast between narrow types; movers of FP8 and INT4."""
    text = """(T[4, 4] x) => (T[1, 4, 4] y) {
      q = QuantizeLinear(x, scale, zero8)
      f = Flatten(q)
      t = Transpose<perm = [1, 0]>(f)
      d = DequantizeLinear(t, scale, zero8)
      w = DequantizeLinear<axis = 0, block_size = 2>(w4, scales4)
      wf = Flatten(w4)
      p = DequantizeLinear<axis = 0, block_size = 2>(wf, scales4)
      m = MatMul(d, w)
      n = Add(m, p)
      b = Cast<to = 16>(n)
      h = Cast<to = 10>(b)
      e = Cast<to = 19>(h)
      k = Unsqueeze(e, axis)
      g = Cast<to = 10>(k)
      i = Cast<to = 7>(n)
      j = Cast<to = 16>(i)
      l = Cast<to = 10>(j)
      v8 = CastLike(x, zero8)
      v = CastLike(v8, x)
      u8 = Flatten(v8)
      u = Cast<to = 10>(u8)
      y = Sum(g, l, v, u)
    }"""
    model = written(text, "float16", scale=np.float32(0.37), axis=np.array([0]))
    zero = helper.make_tensor("zero8", TensorProto.FLOAT8E4M3FN, [], [0.0])
    whole = helper.make_tensor("w4", TensorProto.INT4, [4, 4], list(range(-8, 8)))
    scales = numpy_helper.from_array(values(2, 4, seed=9).astype(np.float16), "scales4")
    model.proto.graph.initializer.extend([zero, whole, scales])
    x = values(4, 4, size=90).astype(np.float16)
    x[0, :3] = np.nan, 1e4, -np.inf
    twin = emulate(model)
    onnx.checker.check_model(twin.proto, full_check=True)
    assert differing(model, {"x": x}, twin) == []


def test_what_cannot_be_emulated_is_refused() -> None:
    text = """(seq(float16[4]) s) => (float16[4] y) {
      i = Constant<value = int64 {0}>()
      y = SequenceAt(s, i)
    }"""
    with pytest.raises(GraphError, match="sequence of FP16") as caught:
        emulate(written(text, "float16"))
    assert caught.value.code == "TF0548"
    model = written(FUNCTION, "float16")
    model.proto.functions[0].opset_import[0].version = 13
    with pytest.raises(GraphError, match="cannot be written out") as caught:
        emulate(model)
    assert caught.value.code == "TF0547"


def test_functions_are_no_obstacle_where_nothing_is_narrow() -> None:
    """Exporters leave functions of another operator set, which cannot be written out."""
    plain = FUNCTION.replace("T[4]", "float[4]")
    model = written(plain, "float16", w=np.array([1]))
    model.proto.functions[0].opset_import[0].version = 13
    assert emulate(model) is model
    narrowing = "k = Cast<to = 10>(p) r = Cast<to = 1>(k)"
    text = plain[: plain.index("k = Constant")] + narrowing + " }"
    inside = written(text, "float16")
    assert differing(inside, {"x": values(4)}) == []
    assert not emulate(inside).proto.functions
    inside.proto.functions[0].opset_import[0].version = 13
    with pytest.raises(GraphError, match="cannot be written out"):
        emulate(inside)
