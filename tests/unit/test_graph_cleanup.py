"""Nodes that do nothing, or what is done already: taken out where that is certain, else left."""

from collections.abc import Sequence

import models_graph as mg
import numpy as np
import onnx
import onnx.parser
import pytest
from hostile_text import hostile
from onnx import ModelProto, helper

from trtforge.graph.model import Model
from trtforge.graph.passes import PassRequest, run_passes
from trtforge.graph.report import PassOutcome

SIZES = {"N": 3, "M": 2}


def shapes_of(model: Model) -> dict[str, tuple[int, ...]]:
    return {
        spec.name: tuple(SIZES[dim] if isinstance(dim, str) else dim or 2 for dim in spec.dims)
        for spec in model.contract.inputs
    }


def applied(proto: ModelProto, name: str, *more: str) -> tuple[Model, PassOutcome]:
    """Run one pass (and more behind it); what comes out is valid and computes the same."""
    onnx.checker.check_model(proto)
    model = Model(proto)
    result = run_passes(model, PassRequest(use=(name, *more), prove=False))
    onnx.checker.check_model(result.model.proto, full_check=True)
    assert result.model.contract == model.contract
    for seed in (0, 1):
        assert mg.largest_difference(model, result.model, shapes_of(model), seed) == 0
    return result.model, result.report.passes[0]


def text(source: str, opset: int = 18) -> ModelProto:
    return hostile(source, opset=opset)().proto


def reasons(outcome: PassOutcome) -> list[str]:
    return [note.reason for note in outcome.notes if note.kind == "refused"]


# No-op

_PREFIX = "(float[N,2,4] x) => (float[N,2,4] y)"
_IMAGE = "(float[N,2,4,4] x) => (float[N,2,4,4] y)"

NOTHING = [
    (18, _PREFIX, "", "Cast<to = 1>(x)"),
    (18, _PREFIX, "<int64[3] s = {0, 2, 4}>", "Reshape(x, s)"),
    (18, _PREFIX, "<int64[1] s = {1}>", "Expand(x, s)"),
    (18, _PREFIX, "<int64[3] s = {1, 1, 1}>", "Tile(x, s)"),
    (18, "(float[N,4] x) => (float[N,4] y)", "", "Flatten<axis = 1>(x)"),
    (18, _PREFIX, "<int64[1] b = {0}, int64[1] e = {9}, int64[1] i = {2}>", "Slice(x, b, e, i)"),
    (9, _PREFIX, "", "Slice<starts = [0], ends = [4], axes = [2]>(x)"),
    (18, _PREFIX, "", "Transpose<perm = [0, 1, 2]>(x)"),
    (18, "(float[N] x) => (float[N] y)", "", "Transpose(x)"),
    (18, _PREFIX, "<int64[0] i = {}>", "Unsqueeze(x, i)"),
    (18, "(float[2,4] x) => (float[2,4] y)", "<int64[0] i = {}>", "Unsqueeze(x, i)"),
    (18, _PREFIX, "<int64[6] p = {0, 0, 0, 0, 0, 0}>", "Pad(x, p)"),
    (10, _PREFIX, "", "Pad<pads = [0, 0, 0, 0, 0, 0]>(x)"),
    (18, _PREFIX, "", "Concat<axis = 1>(x)"),
    (18, _PREFIX, "", "Sum(x)"),
    (18, _PREFIX, "", "Mean(x)"),
    (18, _PREFIX, "", "Max(x)"),
    (18, _PREFIX, "", "Min(x)"),
    (18, _PREFIX, "", "Split<axis = 1, num_outputs = 1>(x)"),
    (11, _PREFIX, "", "Split<axis = 1>(x)"),
    (18, _IMAGE, "<float[4] f = {1, 1, 1, 1}>", "Resize(x, , f)"),
    (10, _IMAGE, "<float[4] f = {1, 1, 1, 1}>", "Resize(x, f)"),
    (
        11,
        "(float[2,2,4,4] x) => (float[2,2,4,4] y)",
        "<float[0] f = {}, int64[4] s = {2, 2, 4, 4}>",
        "Resize(x, f, f, s)",
    ),
    (9, _IMAGE, "<float[4] f = {1, 1, 1, 1}>", "Upsample(x, f)"),
    (7, _IMAGE, "", "Upsample<scales = [1.0, 1.0, 1.0, 1.0]>(x)"),
    (18, _IMAGE, "", "MaxPool<kernel_shape = [1, 1]>(x)"),
    (18, _IMAGE, "", "AveragePool<kernel_shape = [1, 1], strides = [1, 1]>(x)"),
    (18, "(float[N,2,1,1] x) => (float[N,2,1,1] y)", "", "GlobalAveragePool(x)"),
    (18, "(float[N,2,1,1] x) => (float[N,2,1,1] y)", "", "GlobalMaxPool(x)"),
    (18, "(float[N,1,4] x) => (float[N,1,4] y)", "<int64[1] i = {1}>", "ReduceMean(x, i)"),
    (13, "(float[N,4,1] x) => (float[N,4,1] y)", "", "ReduceMax<axes = [-1]>(x)"),
    (18, _PREFIX, "", "ReduceSum<noop_with_empty_axes = 1>(x)"),
    (18, _PREFIX, "<int64[0] i = {}>", "ReduceMin<noop_with_empty_axes = 1>(x, i)"),
    (18, _PREFIX, "<float c = {0}>", "Add(x, c)"),
    (18, _PREFIX, "<float[1, 2, 1] c = {0, 0}>", "Add(c, x)"),
    (18, _PREFIX, "<float c = {0}>", "Sub(x, c)"),
    (18, _PREFIX, "<float[4] c = {1, 1, 1, 1}>", "Mul(x, c)"),
    (18, _PREFIX, "<float[1] c = {1}>", "Mul(c, x)"),
    (18, _PREFIX, "<float c = {1}>", "Div(x, c)"),
    (18, _PREFIX, "<float c = {1}>", "Pow(x, c)"),
    (18, _PREFIX, "<int64[1] c = {1}>", "Pow(x, c)"),
    (18, _PREFIX, "<bool[1] c = {1}, float d = {9}>", "Where(c, x, d)"),
    (18, _PREFIX, "<bool[4] c = {0, 0, 0, 0}, float d = {9}>", "Where(c, d, x)"),
    (18, _PREFIX, "", "Clip(x)"),
    (18, "(float[N,4,2,2] x) => (float[N,4,2,2] y)", "", "DepthToSpace<blocksize = 1>(x)"),
    (18, "(float[N,4,2,2] x) => (float[N,4,2,2] y)", "", "SpaceToDepth<blocksize = 1>(x)"),
]


@pytest.mark.parametrize(
    ("opset", "signature", "constants", "call"), NOTHING, ids=[f"{c[3]}-{c[0]}" for c in NOTHING]
)
def test_nodes_that_do_nothing(opset: int, signature: str, constants: str, call: str) -> None:
    proto = text(f"{signature} {constants} {{ a = {call} y = Neg(a) }}", opset)
    model, outcome = applied(proto, "no-op")
    assert mg.ops(model) == ["Neg"]
    assert outcome.rewrites == 1


SOMETHING = [
    (18, "(float[N,1,4] x) => (float[N,2,4] y)", "<float[2, 1] c = {0, 0}>", "Add(x, c)"),
    (18, "(float[N,4] x) => (float[1,N,4] y)", "<float[1, 1, 1] c = {1}>", "Mul(x, c)"),
    (18, "(float[N,M] x) => (float[N,M] y)", "<float[1, 2] c = {0, 0}>", "Add(x, c)"),
    (18, _PREFIX, "<float[2, 1] c = {0, 1}>", "Add(x, c)"),
    (18, _PREFIX, "<float c = {0}>", "Sub(c, x)"),
    (18, _PREFIX, "<float c = {1}>", "Div(c, x)"),
    (18, _PREFIX, "<float c = {1}>", "Pow(c, x)"),
    (18, _PREFIX, "<float c = {0.99999994}>", "Mul(x, c)"),
    (
        18,
        _PREFIX,
        "<int64[1] b = {-1}, int64[1] e = {-9}, int64[1] i = {2}, int64[1] st = {-1}>",
        "Slice(x, b, e, i, st)",
    ),
    (18, _PREFIX, "<int64[1] b = {0}, int64[1] e = {9}, int64[1] i = {0}>", "Slice(x, b, e, i)"),
    (18, "(float[2,2] x) => (float[2,2] y)", "", "Transpose(x)"),
    (18, "(float[N,N] x) => (float[N,N] y)", "", "Transpose<perm = [1, 0]>(x)"),
    (
        18,
        _IMAGE,
        "<float[8] r = {0, 0, 0, 0, 1, 1, 0.5, 0.5}, float[4] f = {1, 1, 1, 1}>",
        "Resize<coordinate_transformation_mode = \"tf_crop_and_resize\">(x, r, f)",
    ),
    (18, _IMAGE, "<float[4] f = {1, 1, 1.2, 1.2}>", "Resize<mode = \"linear\">(x, , f)"),
    (10, _IMAGE, "<float[4] f = {1, 1, 1.2, 1.2}>", "Resize<mode = \"linear\">(x, f)"),
    (9, _IMAGE, "<float[4] f = {1, 1, 1.2, 1.2}>", "Upsample<mode = \"linear\">(x, f)"),
    (7, _IMAGE, "", "Upsample<scales = [1.0, 1.0, 1.2, 1.2]>(x)"),
    (18, _PREFIX, "<int64[6] p = {0, 0, 1, 0, 0, -1}>", "Pad(x, p)"),
    (18, _IMAGE, "", "AveragePool<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(x)"),
    (11, "(float[2,2,4,4] x) => (float[2,2,6,6] y)", "<float[0] f = {}, int64[4] s = {2, 2, 6, 6}>",
     "Resize(x, f, f, s)"),
    (18, _IMAGE, "", "MaxPool<kernel_shape = [1, 2], pads = [0, 1, 0, 0]>(x)"),
    (18, "(float[N,2] x) => (float[N,2] y)", "<int64[1] i = {0}>", "ReduceSum<keepdims=1>(x, i)"),
    (18, "(float[N,1,4] x) => (float[N,4] y)", "<int64[1] i = {1}>", "ReduceMax<keepdims=0>(x, i)"),
    (18, "(float[N,1,4] x) => (float[N,1,4] y)", "<int64[1] i = {1}>", "ReduceSumSquare(x, i)"),
    (18, "(float[N,1,4] x) => (float[N,1,4] y)", "<int64[1] i = {1}>", "ReduceLogSumExp(x, i)"),
    (18, _PREFIX, "<bool[4] c = {1, 1, 0, 1}, float d = {9}>", "Where(c, x, d)"),
    (18, "(float x) => (float[4] y)", "<bool[4] c = {1, 1, 1, 1}>", "Where(c, x, x)"),
    (18, _PREFIX, "<float lo = {-1}>", "Clip(x, lo)"),
    (6, _PREFIX, "", "Clip<max = 0.5>(x)"),
    (18, "(float[N,4,2,2] x) => (float[N,1,4,4] y)", "", "DepthToSpace<blocksize = 2>(x)"),
    (18, _PREFIX, "<int64[3] s = {0, 4, 2}>", "Reshape(x, s)"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("opset", "signature", "constants", "call"), SOMETHING, ids=[c[3] for c in SOMETHING]
)
def test_nodes_that_only_look_as_if(opset: int, signature: str, constants: str, call: str) -> None:
    proto = text(f"{signature} {constants} {{ a = {call} y = Neg(a) }}", opset)
    if "[N,N]" in signature or call.startswith("Slice(x, b, e, i)"):
        proto.graph.output[0].type.tensor_type.ClearField("shape")
    model = Model(proto)
    result = run_passes(model, PassRequest(use=("no-op",), prove=False))
    assert mg.ops(result.model) == mg.ops(proto)


def test_resize_without_scale_to_other_coordinates() -> None:
    call = 'Resize<coordinate_transformation_mode = "tf_half_pixel_for_nn">(x, r, f)'
    constants = "<float[0] r = {}, float[4] f = {1, 1, 1, 1}>"
    proto = text(f"{_IMAGE} {constants} {{ a = {call} y = Neg(a) }}", 11)
    assert applied(proto, "no-op")[1].rewrites == 0


def test_squeeze_of_no_axes_is_read_in_two_ways() -> None:
    constant = "<int64[0] i = {}>"
    wide = text(f"(float[2,4] x) => (float[2,4] y) {constant} {{ a = Squeeze(x, i) y = Neg(a) }}")
    assert applied(wide, "no-op")[1].rewrites == 1
    for dims in ("[1,4]", "[N,4]"):
        thin = text(f"(float{dims} x) => (float y) {constant} {{ a = Squeeze(x, i) y = Neg(a) }}")
        thin.graph.output[0].type.tensor_type.ClearField("shape")
        assert run_passes(Model(thin), PassRequest(use=("no-op",), prove=False)).model.proto is thin


@pytest.mark.parametrize(("op", "value"), [("And", 1), ("Or", 0)])
def test_neutral_truth(op: str, value: int) -> None:
    source = "(bool[N,2] x) => (bool[N,2] y) <bool[1] c = {%d}> { a = %s(c, x) y = Not(a) }"
    assert mg.ops(applied(text(source % (value, op)), "no-op")[0]) == ["Not"]
    assert applied(text(source % (1 - value, op)), "no-op")[1].rewrites == 0


def test_casts_there_and_back_lose_values() -> None:
    source = "(double[N,2] x) => (float[N,2] y) { a = Cast<to = 1>(x) y = Neg(a) }"
    assert applied(text(source), "no-op")[1].rewrites == 0


def test_a_second_result_that_is_read() -> None:
    call = "a, i = MaxPool<kernel_shape = [1, 1]>(x) y = Neg(a)"
    source = f"(float[N,2,4,4] x) => (float[N,2,4,4] y, int64[N,2,4,4] j) {{ {call} j = Neg(i) }}"
    assert applied(text(source), "no-op")[1].rewrites == 0
    source = f"(float[N,2,4,4] x) => (float[N,2,4,4] y) {{ {call} }}"
    assert mg.ops(applied(text(source), "no-op")[0]) == ["Neg"]


@pytest.mark.parametrize(
    ("body", "left", "why"),
    [
        ("a = Neg(x) y = Concat<axis = 0>(a)", ["Neg"], None),
        ("y = Concat<axis = 0>(x)", ["Concat"], "is not computed by this graph"),
        ("a = Neg(x) y = Sum(a) z = Abs(a)", ["Neg", "Abs"], None),
        ("z = Neg(x) y = Sum(z)", ["Neg", "Sum"], "are both outputs"),
    ],
)
def test_outputs_keep_their_names(body: str, left: list[str], why: str | None) -> None:
    outputs = "float[N,2] y" + (", float[N,2] z" if "z =" in body else "")
    model, outcome = applied(text(f"(float[N,2] x) => ({outputs}) {{ {body} }}"), "no-op")
    assert mg.ops(model) == left
    assert any(why in reason for reason in reasons(outcome)) if why else not reasons(outcome)


def test_in_bodies_too() -> None:
    source = """(float[N,2] x, bool f) => (float[N,2] y) { a = Relu(x) y = If(f) <
        then_branch = t () => (float[N,2] u) { b = Concat<axis = 0>(a) u = Neg(b) },
        else_branch = e () => (float[N,2] v) { v = Concat<axis = 0>(a) }> }"""
    model, outcome = applied(text(source), "no-op")
    branches = {a.name: [n.op_type for n in a.g.node] for a in model.proto.graph.node[1].attribute}
    # The else branch gives back a tensor from outside: it needs a node to name it.
    assert branches == {"then_branch": ["Neg"], "else_branch": ["Concat"]}
    assert outcome.rewrites == 1


# Common subexpressions


def merged(body: str, opset: int = 18, more: str = "", outputs: str = "float[N,4] y") -> list[str]:
    """Merge, take out what is dead; return the operators that are left."""
    source = f"(float[N,4] x, float[N,4] z) => ({outputs}) {more} {{ {body} }}"
    return mg.ops(applied(text(source, opset), "common-subexpressions", "dead-code")[0])


@pytest.mark.parametrize("op", ["Add", "Mul", "Max", "Min", "Sum", "Mean"])
def test_equal_operands_in_another_order(op: str) -> None:
    assert merged(f"a = {op}(x, z) b = {op}(z, x) y = Sub(a, b)") == [op, "Sub"]


@pytest.mark.parametrize("op", ["Sub", "Div", "Pow", "PRelu"])
def test_order_matters(op: str) -> None:
    body = f"p = Abs(x) q = Abs(z) a = {op}(p, q) b = {op}(q, p) y = Add(a, b)"
    assert merged(body).count(op) == 2
    assert merged(body.replace("(q, p)", "(p, q)")).count(op) == 1


def test_chains_are_merged_in_one_go() -> None:
    body = "a = Exp(x) b = Exp(x) c = Neg(a) d = Neg(b) e = Add(c, z) f = Add(z, d) y = Mul(e, f)"
    assert merged(body) == ["Exp", "Neg", "Add", "Mul"]


def test_attributes_count() -> None:
    assert merged("a = Elu<alpha = 1.0>(x) b = Elu<alpha = 2.0>(x) y = Add(a, b)").count("Elu") == 2
    assert merged("a = Elu<alpha = 2.0>(x) b = Elu<alpha = 2.0>(x) y = Add(a, b)").count("Elu") == 1
    body = "a = ReduceSum<axes = [{}], keepdims = 1>(x) b = ReduceSum<axes = [0]>(x) c = Add(a, b)"
    for axis, count in ((0, 2), (1, 2)):
        left = merged(body.format(axis) + " y = Add(c, z)", opset=11)
        assert left.count("ReduceSum") == count  # a default that is written out is not seen through


def test_values_of_small_constants_count() -> None:
    constants = "<float[1] a = {0.5}, float[1] b = {0.5}, float[1] c = {0.25}, double[1] d = {0.5}>"
    body = "p = Mul(x, a) q = Mul(b, x) r = Mul(x, c) s = Add(p, q) y = Add(s, r)"
    assert merged(body, more=constants).count("Mul") == 2
    zeros = "<float[1] a = {0.0}, float[1] b = {-0.0}>"
    body = "p = Div(x, a) q = Div(x, b) r = Add(p, z) s = Add(q, z) y = Where(c, r, s)"
    more = zeros.replace(">", ", bool[4] c = {0, 1, 0, 1}>")
    source = f"(float[N,4] x, float[N,4] z) => (float[N,4] y) {more} {{ {body} }}"
    model = Model(text(source))
    left = run_passes(model, PassRequest(use=("common-subexpressions",), prove=False)).model
    assert mg.ops(left).count("Div") == 2


def test_big_constants_are_not_compared_here() -> None:
    nodes = [
        mg.node("MatMul", ["x", "V"], ["a"]),
        mg.node("MatMul", ["x", "W"], ["b"]),
        mg.node("MatMul", ["x", "W"], ["c"]),
        mg.node("Sum", ["a", "b", "c"], ["y"]),
    ]
    values = mg.weights(16, 16)
    proto = mg.model(
        nodes,
        [mg.info("x", ["N", 16])],
        [mg.info("y", ["N", 16])],
        [mg.tensor("V", values), mg.tensor("W", values)],
    )
    model, outcome = applied(proto, "common-subexpressions")
    assert mg.ops(model) == ["MatMul", "MatMul", "Sum"]
    assert outcome.rewrites == 1
    model, _ = applied(proto, "duplicate-initializers", "common-subexpressions")
    assert mg.ops(model) == ["MatMul", "Sum"]


def test_results_that_are_outputs() -> None:
    two = "float[N,4] y, float[N,4] w"
    assert merged("y = Exp(x) w = Exp(x)", outputs=two) == ["Exp", "Exp"]
    assert merged("a = Exp(x) y = Exp(x) w = Neg(a)", outputs=two) == ["Exp", "Neg"]
    assert merged("y = Exp(x) a = Exp(x) w = Neg(a)", outputs=two) == ["Exp", "Neg"]


def test_operators_of_several_results() -> None:
    split = "{} = Split<axis = 1, num_outputs = 2>(x) "
    body = split.format("a, b") + split.format("c, d") + "e = Mul(a, d) y = Concat<axis=1>(e, e)"
    assert merged(body) == ["Split", "Mul", "Concat"]
    body = split.format("y, b") + split.format("c, w")
    assert merged(body, outputs="float[N,2] y, float[N,2] w") == ["Split", "Split"]


@pytest.mark.parametrize(
    "call",
    ["RandomUniformLike(x)", "RandomNormalLike(x)", "Bernoulli(p)", "Dropout(x, half, yes)"],
)
def test_random_numbers_stay_different(call: str) -> None:
    body = f"p = Sigmoid(x) a = {call} b = {call} y = Sub(a, b)"
    more = "<float half = {0.5}, bool yes = {1}>"
    source = f"(float[N,4] x, float[N,4] z) => (float[N,4] y) {more} {{ {body} }}"
    proto = text(source)
    result = run_passes(Model(proto), PassRequest(use=("common-subexpressions",), prove=False))
    assert mg.ops(result.model) == mg.ops(proto)


def test_quantization_stays_where_it_is() -> None:
    pair = "{0} = QuantizeLinear(x, s, o) {1} = DequantizeLinear({0}, s, o) "
    body = pair.format("a", "b") + pair.format("c", "d") + "y = Add(b, d)"
    assert len(merged(body, more="<float s = {0.1}, int8 o = {0}>")) == 5


def test_custom_operators_stay() -> None:
    nodes = [helper.make_node("Custom", ["x"], [name], domain="custom") for name in ("a", "b")]
    proto = mg.model(
        [*nodes, mg.node("Add", ["a", "b"], ["y"])], [mg.info("x", [2])], [mg.info("y", [2])]
    )
    proto.opset_import.append(helper.make_opsetid("custom", 1))
    result = run_passes(Model(proto), PassRequest(use=("common-subexpressions",), prove=False))
    assert mg.ops(result.model) == ["Custom", "Custom", "Add"]


def test_other_graphs_are_not_searched() -> None:
    source = """(float[N,2] x, bool f) => (float[N,2] y) { a = Exp(x) b = If(f) <
        then_branch = t () => (float[N,2] u) { c = Exp(x) d = Exp(x) u = Add(c, d) },
        else_branch = e () => (float[N,2] v) { v = Exp(x) }> y = Add(a, b) }"""
    model, outcome = applied(text(source), "common-subexpressions")
    assert outcome.rewrites == 1
    assert mg.ops(model) == ["Exp", "If", "Add"]


# Imports and duplicates


def imports(proto: ModelProto) -> list[str]:
    return [one.domain for one in proto.opset_import]


def test_unused_imports_go() -> None:
    proto = mg.conv_bn()
    for domain in ("com.microsoft", "ai.onnx.ml", "unknown"):
        proto.opset_import.append(helper.make_opsetid(domain, 1))
    model, outcome = applied(proto, "unused-imports")
    assert imports(model.proto) == [""]
    assert [note.node for note in outcome.notes] == ["com.microsoft", "ai.onnx.ml", "unknown"]
    assert applied(mg.conv_bn(), "unused-imports")[1].rewrites == 0


def test_imports_of_nodes_in_bodies_stay() -> None:
    source = """(float[N,2] x, bool f) => (float[N,2] y) { y = If(f) <
        then_branch = t () => (float[N,2] u) { u = com.microsoft.Gelu(x) },
        else_branch = e () => (float[N,2] v) { v = Neg(x) }> }"""
    proto = text(source)
    for domain in ("com.microsoft", "ai.onnx.ml"):
        proto.opset_import.append(helper.make_opsetid(domain, 1))
    assert imports(applied(proto, "unused-imports")[0].proto) == ["", "com.microsoft"]


def test_imports_stay_where_functions_may_need_them() -> None:
    proto = mg.conv_bn()
    for domain in ("f", "com.microsoft"):
        proto.opset_import.append(helper.make_opsetid(domain, 1))
    body = [mg.node("Identity", ["a"], ["b"])]
    proto.functions.append(
        helper.make_function("f", "Same", ["a"], ["b"], body, [helper.make_opsetid("", mg.OPSET)])
    )
    proto.graph.node[-1].output[0] = "r"
    proto.graph.node.append(helper.make_node("Same", ["r"], ["y"], domain="f"))
    assert imports(applied(proto, "unused-imports")[0].proto) == ["", "f", "com.microsoft"]


def with_weights(*weights: np.ndarray) -> ModelProto:
    """x @ W0 + x @ W1 + ..."""
    nodes = [mg.node("MatMul", ["x", f"W{i}"], [f"m{i}"]) for i in range(len(weights))]
    nodes.append(mg.node("Sum", [f"m{i}" for i in range(len(weights))], ["y"]))
    rows, columns = weights[0].shape
    return mg.model(
        nodes,
        [mg.info("x", ["N", rows])],
        [mg.info("y", ["N", columns])],
        [mg.tensor(f"W{i}", values) for i, values in enumerate(weights)],
    )


def initializers(model: Model) -> Sequence[str]:
    return [tensor.name for tensor in model.proto.graph.initializer]


def test_big_equal_weights_become_one() -> None:
    values = mg.weights(512, 1024)
    model, outcome = applied(with_weights(values, values + 1, values), "duplicate-initializers")
    assert initializers(model) == ["W0", "W1"]
    assert outcome.rewrites == 1
    assert outcome.bytes == -values.nbytes


@pytest.mark.parametrize("where", [0, 1, 300_001, -1])
def test_one_byte_makes_a_difference(where: int) -> None:
    values = mg.weights(512, 1024)
    other = values.copy()
    other.reshape(-1).view(np.uint8)[where] ^= 1
    model, outcome = applied(with_weights(values, other), "duplicate-initializers")
    assert initializers(model) == ["W0", "W1"]
    assert outcome.rewrites == 0


def test_weights_that_a_body_reads_are_not_merged() -> None:
    source = """(float[N,2] x, bool f) => (float[N,2] y)
        <float[2] p = {1.0, 2.0}, float[2] q = {1.0, 2.0}> { a = Mul(x, p) y = If(f) <
        then_branch = t () => (float[N,2] u) <float[2] r = {1.0, 2.0}, float[2] s = {1.0, 2.0}>
            { b = Mul(a, q) c = Mul(b, r) u = Add(c, s) },
        else_branch = e () => (float[N,2] v) { v = Neg(a) }> }"""
    model, outcome = applied(text(source), "duplicate-initializers")
    assert initializers(model) == ["p", "q"]
    assert outcome.rewrites == 2  # to "q", which nothing but the branch reads
    (then,) = (a.g for a in model.proto.graph.node[1].attribute if a.name == "then_branch")
    assert not then.initializer
