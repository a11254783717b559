"""Which operators are quantized, by which operands, with which scales; and why others are not."""

from pathlib import Path

import numpy as np
import pytest
from models_precision import Net, cnn
from onnx import TensorProto, helper
from precision_samples import initializer_types, net, ops, sqnr_db
from quantize_samples import (
    INT8,
    action,
    built,
    calibrated,
    feeds_of,
    int8,
    pairs,
    producers,
    quantized,
    reads,
    reason,
)

from trtforge.errors import DataError
from trtforge.graph.execute import Session
from trtforge.graph.model import Model
from trtforge.precision.constants import editable_graph
from trtforge.precision.quantize import candidate_tensors, quantize
from trtforge.precision.sites import Refusal, Site, find_sites
from trtforge.precision.typeinfo import tensors_of
from trtforge.recipe.schema import Precision


def product(op: str, left: tuple[int, ...], right: tuple[int, ...], **attributes: int) -> Model:
    """One matrix product; the operand whose name is 'w' is the weight, by its shape first."""
    model = Net(11)
    weight_left = attributes.pop("weight_left", 0)
    x_shape, w_shape = (right, left) if weight_left else (left, right)
    x, w = model.input("x", x_shape), model.weight("w", *w_shape)
    model.op(op, [w, x] if weight_left else [x, w], "y", **attributes)
    rank = max(len(left), len(right)) if min(len(left), len(right)) > 1 else 1
    model.output("y", [None] * rank)  # type: ignore[list-item]
    return model.model()


PRODUCTS = {
    "MatMul": (product("MatMul", (3, 8), (8, 5)), 1, (5,)),
    "MatMul of a batch of weights": (product("MatMul", (4, 3, 8), (4, 8, 5)), 2, (5,)),
    "MatMul, weight on the left": (product("MatMul", (6, 8), (8, 3), weight_left=1), 0, (6,)),
    "MatMul, batch of weights on the left": (
        product("MatMul", (2, 6, 8), (2, 8, 3), weight_left=1),
        1,
        (6,),
    ),
    "Gemm": (product("Gemm", (3, 8), (8, 5)), 1, (5,)),
    "Gemm, turned": (product("Gemm", (3, 8), (5, 8), transB=1), 0, (5,)),
    "Gemm, weight on the left": (product("Gemm", (6, 8), (8, 3), weight_left=1), 0, (6,)),
    "Gemm, turned weight on the left": (
        product("Gemm", (8, 6), (8, 3), weight_left=1, transA=1),
        1,
        (6,),
    ),
}


@pytest.mark.parametrize("name", sorted(PRODUCTS))
def test_weights_of_products_have_a_scale_per_output_channel(name: str) -> None:
    source, axis, shape = PRODUCTS[name]
    result, report = quantized(source)
    assert action(report, "n_y") == "quantized"
    assert f"axis {axis}" in reason(report, "n_y")
    scale = result.initializer("w_scale")
    assert scale.shape == shape
    weight = source.initializer("w")
    spread = scale.reshape([-1 if i == axis else 1 for i in range(weight.ndim)])
    error = np.abs(result.initializer("w_quantized") * spread - weight)
    assert (error <= spread * 0.5001).all()
    feeds = feeds_of(source)
    expected, got = Session(source).run(feeds)["y"], Session(result).run(feeds)["y"]
    assert sqnr_db(expected, got) > 33


def convolutions() -> Model:
    model = Net(12)
    image = model.input("image", [1, 8, 6, 6])
    for name, op, shape, group in (
        ("plain", "Conv", (6, 8, 3, 3), 1),
        ("grouped", "Conv", (8, 2, 3, 3), 4),
        ("deep", "Conv", (8, 1, 3, 3), 8),
        ("up", "ConvTranspose", (8, 6, 2, 2), 1),
        ("up_grouped", "ConvTranspose", (8, 3, 2, 2), 4),
    ):
        weight = model.weight(f"w_{name}", *shape)
        model.op(op, [image, weight, model.weight(f"b_{name}", channels(op, shape, group))], name,
                 group=group)  # fmt: skip
        model.output(name, [1, None, None, None])  # type: ignore[list-item]
    return model.model()


def channels(op: str, shape: tuple[int, ...], group: int) -> int:
    return shape[0] if op == "Conv" else shape[1] * group


def test_weights_of_convolutions_have_a_scale_per_output_channel_where_there_is_an_axis() -> None:
    result, report = quantized(convolutions())
    shapes = {name: result.initializer(f"w_{name}_scale").shape for name in
              ("plain", "grouped", "deep", "up", "up_grouped")}  # fmt: skip
    assert shapes == {
        "plain": (6,), "grouped": (8,), "deep": (8,), "up": (6,), "up_grouped": ()
    }  # fmt: skip
    assert "no channel axis" in reason(report, "n_up_grouped")
    assert list(pairs(result)) == ["image"]
    for name in shapes:
        assert reads(result, f"n_{name}")[2] == f"b_{name}"


def test_every_form_of_weight_is_built_by_tensorrt_rtx(tmp_path: Path) -> None:
    models = {str(number): quantized(case[0])[0] for number, case in enumerate(PRODUCTS.values())}
    models["convolutions"] = quantized(convolutions())[0]
    models["vector"] = quantized(product("MatMul", (3, 8), (8,)))[0]
    models["hidden"] = quantized(hidden_weights())[0]
    for kind in ("int8", "fp8"):
        models[f"attention.{kind}"] = quantized(net("transformer"), attention(kind))[0]
    models["ends"] = quantized(cnn(), int8(unquantized=["first", "last"]))[0]
    assert {name: found for name, found in built(tmp_path, models).items() if found} == {}


def test_a_vector_has_one_scale() -> None:
    result, report = quantized(product("MatMul", (3, 8), (8,)))
    assert result.initializer("w_scale").shape == ()
    assert reason(report, "n_y") == "per tensor: the weight is a vector"


def hidden_weights() -> Model:
    """Weights behind Identity, Transpose, Reshape, and two of them in a row."""
    model = Net(13)
    x = model.input("x", [4, 8])
    table = model.weight("table", 6, 8)
    turned = model.op("Transpose", [table], "turned", perm=[1, 0])
    same = model.op("Identity", [turned], "same")
    flat = model.weight("flat", 64)
    shaped = model.op("Reshape", [flat, model.const("to", [8, 8], np.int64)], "shaped")
    twice = model.op("Transpose", [shaped], "twice", perm=[1, 0])
    for name, weight, size in (("a", turned, 6), ("b", same, 6), ("c", twice, 8), ("d", shaped, 8)):
        model.op("MatMul", [x, weight], name)
        model.output(name, [4, size])
    return model.model()


def test_weights_behind_constant_moves_are_seen() -> None:
    source = hidden_weights()
    result, report = quantized(source)
    assert {action(report, f"n_{name}") for name in "abcd"} == {"quantized"}
    assert ops(result).keys() == {"QuantizeLinear", "DequantizeLinear", "MatMul"}
    stored = [name for name in initializer_types(result) if name.endswith("_quantized")]
    assert sorted(stored) == ["shaped_quantized", "turned_quantized", "twice_quantized"]
    feeds = feeds_of(source)
    expected, got = Session(source).run(feeds), Session(result).run(feeds)
    assert min(sqnr_db(expected[name], got[name]) for name in "abcd") > 33


def test_a_moved_weight_that_is_an_output_stays() -> None:
    model = Net()
    x, table = model.input("x", [4, 8]), model.weight("table", 6, 8)
    turned = model.op("Transpose", [table], "turned", perm=[1, 0])
    model.op("MatMul", [x, turned], "y")
    model.output("turned", [8, 6])
    model.output("y", [4, 6])
    assert candidate_tensors(model.model(), INT8) == ()


def attention(kind: str = "int8") -> Precision:
    return Precision.model_validate({"quantize": kind, "attention": True})


@pytest.mark.parametrize(("kind", "least"), [("int8", 25), ("fp8", 20)])
def test_attention_products_have_pairs_on_both_operands(kind: str, least: float) -> None:
    source = net("transformer")
    feeds = {
        "ids": np.arange(48).reshape(4, 12) % 50,
        "mask": np.ones((4, 12), np.int64),
    }
    result, report = quantized(source, attention(kind), feeds)
    made = producers(result)
    for name in ("scores", "context"):
        assert action(report, f"n_{name}") == "quantized"
        assert {made[read].op_type for read in reads(result, f"n_{name}")} == {"DequantizeLinear"}
    assert {d.action for d in report.decisions} == {"quantized"}
    # Probabilities lie in 0..1: the whole grid is used for them.
    limit = {"int8": 127, "fp8": 448}[kind]
    assert pairs(result)["attention"] <= 1.01 / limit
    expected, got = Session(source).run(feeds), Session(result).run(feeds)
    assert sqnr_db(expected["encoded"], got["encoded"]) > least


def test_a_product_of_a_tensor_with_itself_has_one_pair() -> None:
    model = Net()
    x = model.input("x", [2, 4, 4])
    model.op("MatMul", [x, x], "y")
    model.output("y", [2, 4, 4])
    result, _ = quantized(model.model(), attention())
    assert len(set(reads(result, "n_y"))) == 1
    assert list(pairs(result)) == ["x"]


def refused() -> Model:
    model = Net(14)
    x = model.input("x", [2, 4, 6, 6])
    kernel = model.op("Relu", [model.input("kernel", [4, 4, 3, 3])], "kernel_relu")
    model.op("Conv", [x, kernel], "computed")
    one, two = model.weight("one", 4, 4), model.weight("two", 4, 4)
    model.op("MatMul", [one, two], "constants")
    model.op("Conv", [model.weight("picture", 1, 4, 6, 6), model.weight("w", 4, 4, 3, 3)], "fixed")
    numbers = model.input("numbers", [4, 1], TensorProto.INT64)
    floats = model.op("Cast", [numbers], "floats", to=TensorProto.FLOAT)
    angles = model.op("MatMul", [floats, model.weight("frequencies", 1, 8)], "angles")
    model.op("Sin", [angles], "rotary")
    wide = model.op("Cast", [x], "wide", to=TensorProto.DOUBLE)
    model.op("MatMul", [wide, model.const("w64", np.eye(6), np.float64)], "double")
    model.op("Conv", [x, model.const("bad", np.full((4, 4, 1, 1), np.nan))], "nan")
    model.op("Conv", [x, model.weight("good", 4, 4, 1, 1)], "good_one")
    model.output("computed", [2, 4, 4, 4])
    model.output("constants", [4, 4])
    model.output("fixed", [1, 4, 4, 4])
    model.output("rotary", [4, 8])
    model.output("double", [2, 4, 6, 6], TensorProto.DOUBLE)
    model.output("nan", [2, 4, 6, 6])
    model.output("good_one", [2, 4, 6, 6])
    return model.model()


def test_every_refusal_has_its_reason() -> None:
    source = refused()
    feeds = feeds_of(source) | {"numbers": np.arange(4).reshape(4, 1)}
    result, report = quantized(source, feeds=feeds)
    assert action(report, "n_good_one") == "quantized"
    assert "'kernel_relu' is computed" in reason(report, "n_computed")
    assert reason(report, "n_constants") == "both operands are constants: fold it"
    assert reason(report, "n_fixed") == "both operands are constants: fold it"
    assert "computed from integers" in reason(report, "n_angles")
    assert reason(report, "n_double") == "its operands are not FP32"
    assert reason(report, "n_nan") == "its weight 'bad' is not finite"
    assert ops(result)["QuantizeLinear"] == 1


def test_scales_that_a_technique_fixed_are_used() -> None:
    source = convolutions()
    plain = tuple(np.linspace(0.01, 0.02, 6))
    fixed = {"w_plain": plain, "w_deep": (0.03,), "w_up_grouped": (0.04,)}
    cache = calibrated(source).model_copy(update={"weight_scales": fixed})
    result, _ = quantize(source, cache, int8(type="fp16"))
    got = result.initializer("w_plain_scale")
    assert got.shape == (6,)
    assert (got >= np.float32(plain)).all()
    assert np.allclose(got, plain, rtol=2**-10)
    assert result.initializer("w_deep_scale").shape == ()
    assert result.initializer("w_up_grouped_scale") == pytest.approx(0.04, rel=2**-10)
    stored = result.initializer("w_plain_quantized")
    exact = np.clip(np.rint(source.initializer("w_plain") / got[:, None, None, None]), -127, 127)
    assert (stored == exact).all()


def test_fixed_scales_of_another_weight_are_refused() -> None:
    source = convolutions()
    cache = calibrated(source).model_copy(update={"weight_scales": {"w_plain": (0.1, 0.2)}})
    with pytest.raises(DataError) as caught:
        quantize(source, cache, INT8)
    assert caught.value.code == "TF0535"
    assert "2 scales for the weight 'w_plain', which has 6 output channels" in str(caught.value)


def test_first_and_last_layers_are_left_by_what_lies_on_the_paths() -> None:
    model = Net(15)
    a, b = model.input("a", [2, 4, 6, 6]), model.input("b", [2, 4, 6, 6])
    first = model.op("Conv", [a, model.weight("w1", 4, 4, 1, 1)], "first")
    second = model.op("Conv", [b, model.weight("w2", 4, 4, 1, 1)], "second")
    both = model.op("Mul", [first, second], "both")
    middle = model.op("Conv", [both, model.weight("w3", 4, 4, 1, 1)], "middle")
    model.op("Conv", [middle, model.weight("w4", 4, 4, 1, 1)], "head")
    model.op("Conv", [first, model.weight("w5", 4, 4, 1, 1)], "side")
    # A shape on the way is no path: it carries no values.
    shape = model.op("Shape", [middle], "shape")
    flat = model.op("Reshape", [model.input("c", [2, 144]), shape], "reshaped")
    model.op("Conv", [flat, model.weight("w6", 4, 4, 1, 1)], "lonely")
    for name in ("head", "side", "lonely"):
        model.output(name, [2, 4, 6, 6])
    source = model.model()

    def left(*ends: str) -> set[str]:
        report = quantized(source, int8(unquantized=ends))[1]
        kept = {d.node: d.reason for d in report.decisions if d.action == "kept"}
        assert all("layers, which `unquantized" in why for why in kept.values())
        return {name.removeprefix("n_") for name in kept}

    assert left() == set()
    assert left("first") == {"first", "second", "lonely"}
    assert left("last") == {"head", "side", "lonely"}
    assert left("first", "last") == {"first", "second", "head", "side", "lonely"}


def test_weights_only_leave_out_the_ends_and_what_their_writer_does_not_take() -> None:
    source = PRODUCTS["MatMul, weight on the left"][0]
    precision = int8(quantize="int8_weight_only")
    report = quantize(source, calibrated(source), precision)[1]
    assert "left operand 'w'" in report.decisions[0].reason
    vector = product("MatMul", (3, 8), (8,))
    graph = editable_graph(vector)
    (found,) = find_sites(graph, tensors_of(vector.proto), precision)
    assert isinstance(found, Refusal)
    report = quantize(cnn(), calibrated(cnn()), int8(quantize="int8_weight_only",
                                                     unquantized=["first"]))[1]  # fmt: skip
    assert {d.node for d in report.decisions if d.action == "kept"} == {"n_stem"}


def test_rules_hold_for_every_target_that_is_asked_for() -> None:
    model = net("cnn")
    graph = editable_graph(model)
    tensors = tensors_of(model.proto)
    known = find_sites(graph, tensors, INT8, ("onnxruntime", "tensorrt"))
    assert all(not isinstance(one, Refusal) for one in known)
    unknown = find_sites(graph, tensors, INT8, ("abacus",))
    assert not [one for one in unknown if isinstance(one, Site)]
    assert all("not every target" in one.reason for one in unknown if isinstance(one, Refusal))


# ---------------------------------------------------------------------------
# Explaining


def test_every_candidate_is_explained_in_graph_order() -> None:
    source = net("cnn")
    _, report = quantized(source)
    nodes = [node.name for node in source.proto.graph.node]
    explained = [one.node for one in report.explained]
    assert explained == [name for name in nodes if name in set(explained)]
    assert {one.op for one in report.explained} == {
        *("Conv", "ConvTranspose", "Gemm", "Add", "Resize", "GlobalAveragePool", "Flatten"),
    }
    assert reason(report, "n_big") == "nothing quantized reads its result"
    assert "it averages" in reason(report, "n_pooled")
    data = report.as_json()
    assert len(data["others"]) + len(data["decisions"]) == len(report.explained)


def test_what_stands_in_a_body_is_explained() -> None:
    model = Net()
    x = model.input("x", [2, 4, 6, 6])
    zero = model.op("Constant", [], "zero", value_float=0.0)
    flag = model.op("Greater", [model.op("ReduceMax", [x], "top", keepdims=0), zero], "flag")
    weight = model.weight("w", 4, 4, 1, 1)

    def branch(name: str) -> object:
        node = helper.make_node("Conv", [x, weight], [f"out_{name}"], f"inner_{name}")
        value = helper.make_tensor_value_info(f"out_{name}", TensorProto.FLOAT, [2, 4, 6, 6])
        return helper.make_graph([node], name, [], [value])

    model.op("If", [flag], "y", then_branch=branch("a"), else_branch=branch("b"))
    model.op("Conv", [x, weight], "outer")
    model.output("y", [2, 4, 6, 6])
    model.output("outer", [2, 4, 6, 6])
    result, report = quantized(model.model())
    assert "a body of If" in reason(report, "inner_a")
    assert action(report, "n_outer") == "quantized"
    assert initializer_types(result)["w"] == TensorProto.FLOAT


@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_quantizing_twice_changes_nothing(kind: str) -> None:
    precision = Precision.model_validate({"quantize": kind, "attention": True})
    once, first = quantized(net("transformer"), precision)
    assert candidate_tensors(once, precision) == ()
    again, report = quantize(once, calibrated(net("transformer"), precision), precision)
    assert again.proto.graph.node == once.proto.graph.node
    assert {d.reason for d in report.decisions} == {"it is quantized already"}
    assert len(report.decisions) == len(first.decisions)
