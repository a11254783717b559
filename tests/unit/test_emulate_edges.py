"""Emulation of what seldom occurs: sparse weights, sequences as outputs, names that are taken."""

import numpy as np
import onnx
from emulation_samples import differing, nodes, values, written
from onnx import TensorProto, helper, numpy_helper

from trtforge.graph.execute import Session
from trtforge.graph.model import Model
from trtforge.precision.emulate import emulate
from trtforge.precision.emulation.types import is_narrow_collection, scope_types, widen_type


def test_sparse_weights_are_widened() -> None:
    model = written("(float16[4] x) => (float16[4] y) { y = Mul(x, w) }", "float16")
    held = numpy_helper.from_array(np.array([0.1, -7], np.float16), "w")
    places = numpy_helper.from_array(np.array([1, 3]), "w_places")
    model.proto.graph.sparse_initializer.append(helper.make_sparse_tensor(held, places, [4]))
    x = values(4).astype(np.float16)
    got = Session(emulate(model)).run({"x": x})["y"]
    dense = np.array([0, 0.1, 0, -7], np.float16)
    assert got.tolist() == (x.astype(np.float32) * dense).astype(np.float16).tolist()
    assert len(model.proto.graph.sparse_initializer) == 1


def test_a_sequence_as_output_holds_rounded_fp32_tensors() -> None:
    text = """(float16[4] x) => (seq(float16[4]) s) {
      a = Mul(x, x)
      s = SequenceConstruct(a, x)
    }"""
    model = written(text, "float16")
    x = values(4).astype(np.float16)
    first, second = Session(emulate(model)).run({"x": x})["s"]
    assert first.dtype == np.float32
    assert first.tolist() == (x.astype(np.float32) ** 2).astype(np.float16).tolist()
    assert second.tolist() == x.tolist()


def test_names_of_casts_avoid_those_of_the_graph() -> None:
    text = """(float16[4] x) => (float16[4] y) {
      x_fp32 = Mul(x, x)
      a_exact = Add(x_fp32, x)
      a = Exp(a_exact)
      a_rounded = Mul(a, x)
      y = Add(a_rounded, a)
    }"""
    model = written(text, "float16")
    twin = emulate(model)
    onnx.checker.check_model(twin.proto, full_check=True)
    made = [name for node in twin.proto.graph.node for name in node.output]
    assert len(made) == len(set(made))
    assert differing(model, {"x": values(4, size=0.5).astype(np.float16)}, twin) == []


def test_descriptions_of_tensors_are_kept_and_say_what_the_twin_holds() -> None:
    """Also of inputs and outputs, which ONNX allows to be described twice."""
    model = written("(float16[4] x) => (float16[4] y) { a = Exp(x) y = Neg(a) }", "float16")
    for name in ("x", "a", "y"):
        info = helper.make_tensor_value_info(name, TensorProto.FLOAT16, [4])
        model.proto.graph.value_info.append(info)
    twin = emulate(model)
    onnx.checker.check_model(twin.proto, full_check=True)
    found = {v.name: v.type.tensor_type.elem_type for v in twin.proto.graph.value_info}
    half = TensorProto.FLOAT16
    assert found == {"x": half, "a": TensorProto.FLOAT, "y": half}


def test_the_model_is_not_changed() -> None:
    text = "(float16[4] x) => (float16[4] y) { a = Cast<to = 16>(x) y = CastLike(a, w) }"
    model = written(text, "float16", w=values(4))
    before = model.proto.SerializeToString(deterministic=True)
    emulate(model, wide_ends=["x"])
    assert model.proto.SerializeToString(deterministic=True) == before


def test_random_numbers_are_rounded() -> None:
    text = """(float16[64] x) => (float16[64] y) {
      a = RandomNormalLike(x)
      b = RandomUniform<dtype = 10, shape = [64]>()
      y = Add(a, b)
    }"""
    got = Session(emulate(written(text, "float16", 21)), outputs=["a", "b"]).run(
        {"x": values(64).astype(np.float16)}
    )
    for name in "ab":
        assert got[name].dtype == np.float32
        assert (got[name].astype(np.float16) == got[name]).all()
    assert np.ptp(got["a"]) > 0


def test_types_within_types() -> None:
    half = helper.make_tensor_type_proto(TensorProto.FLOAT16, [4])
    nested = helper.make_optional_type_proto(helper.make_sequence_type_proto(half))
    assert is_narrow_collection(nested)
    assert not is_narrow_collection(half)
    widen_type(nested)
    element = nested.optional_type.elem_type.sequence_type.elem_type
    assert element.tensor_type.elem_type == TensorProto.FLOAT
    assert not is_narrow_collection(nested)


def test_a_types_scope_prefers_what_is_inferred_and_fills_the_gaps() -> None:
    """An operator that nobody knows: its result has the type of what goes in, and so on."""
    model: Model = written(
        "(float16[4] x, float[4] z) => (float16[4] y) { a = own.Thing(z, x) y = Mul(a, x) }",
        "float16",
    )
    graph = model.proto.graph
    types = scope_types(graph, graph, {"a": TensorProto.INT8, "outer": TensorProto.BOOL}, 22)
    half = TensorProto.FLOAT16
    assert types == {"x": half, "z": 1, "a": half, "y": half, "outer": TensorProto.BOOL}


def test_casts_stand_only_where_something_is_rounded() -> None:
    text = """(float16[4] x) => (float16[4] y) {
      a = Relu(x)
      b = Neg(a)
      c = Transpose<perm = [0]>(b)
      d = Mul(c, x)
      e = Concat<axis = 0>(d, a)
      f = Max(e, e)
      g, h = Split<num_outputs = 2>(f)
      y = Add(g, h)
    }"""
    casts = nodes(emulate(written(text, "float16")), "Cast")
    found = [(node.input[0], node.output[0]) for node in casts]
    assert found == [
        ("x", "x_fp32"),
        ("d_exact", "d_rounded"),
        ("d_rounded", "d"),
        ("y_exact", "y"),
    ]
