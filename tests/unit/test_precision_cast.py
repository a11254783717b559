"""Casts: where they stand, what stays wider and why."""

import numpy as np
import pytest
from models_precision import BOOL, FLOAT, INT64, Net, transformer
from onnx import TensorProto, helper, numpy_helper
from precision_samples import check_typed, fidelity, initializer_types, net, ops

from trtforge.errors import GraphError
from trtforge.graph.execute import Session
from trtforge.graph.model import Model
from trtforge.precision.cast import CastReport, cast
from trtforge.precision.emulate import emulate
from trtforge.recipe.schema import Precision

FP16 = Precision(type="fp16")


def fp16(model: Model, **changes: object) -> tuple[Model, CastReport]:
    result, report = cast(model, Precision.model_validate({"type": "fp16"} | changes))
    check_typed(model, result)
    return result, report


def wider(report: CastReport) -> dict[str, str]:
    return {decision.node: decision.reason for decision in report.decisions}


def test_one_cast_in_one_cast_out_and_half_the_weights() -> None:
    result, report = fp16(net("cnn"))
    assert report.casts_added == ops(result)["Cast"] == 2
    types = initializer_types(result)
    assert types.pop("scales") == TensorProto.FLOAT
    assert set(types.values()) == {TensorProto.FLOAT16}
    assert report.nodes == {"fp16": 18}


def test_tensors_with_several_readers_are_cast_once() -> None:
    net = Net()
    x = net.input("x", [4, 4])
    parts = [net.op("Relu", [x], "a"), net.op("Sigmoid", [x], "b"), net.op("Tanh", [x], "c")]
    net.op("Sum", parts, "y")
    net.output("y", [4, 4])
    result, report = fp16(net.model())
    assert report.casts_added == 2
    assert ops(result)["Cast"] == 2


def test_an_output_that_is_read_inside_keeps_its_name_and_type() -> None:
    net = Net()
    x = net.input("x", [4, 4])
    middle = net.op("MatMul", [x, net.weight("w", 4, 4)], "middle")
    net.op("Relu", [middle], "y")
    net.op("Shape", [middle], "shape")
    for name, shape, kind in (
        ("middle", [4, 4], FLOAT),
        ("y", [4, 4], FLOAT),
        ("shape", [2], INT64),
    ):
        net.output(name, shape, kind)
    _, report = fp16(net.model())
    assert report.casts_added == 2, "the Relu reads the output, which is FP32 anyway"
    assert list(wider(report)) == ["n_y"]


@pytest.mark.parametrize("value", [-1e9, -3.4e38, float("-inf")])
def test_additive_masks_do_not_overflow(value: float) -> None:
    if value == float("-inf"):
        model = _where_mask(value)
        feeds = {"x": np.random.default_rng(0).standard_normal((2, 8)).astype(np.float32)}
        feeds["mask"] = np.arange(16).reshape(2, 8) % 3 > 0
    else:
        model = transformer(value)
        random = np.random.default_rng(0)
        mask = random.integers(0, 2, (4, 12))
        mask[0] = 0  # a row that is masked as a whole
        feeds = {"ids": random.integers(0, 50, (4, 12)), "mask": mask}
    result, report = fp16(model)
    assert fidelity(model, result, feeds) > 55
    reasons = wider(report)
    assert ("n_attention" in reasons) == np.isfinite(value)


def _where_mask(value: float) -> Model:
    net = Net()
    x, mask = net.input("x", [2, 8]), net.input("mask", [2, 8], BOOL)
    masked = net.op("Where", [mask, x, net.const("off", value)], "masked")
    net.op("Softmax", [masked], "y")
    net.output("y", [2, 8])
    return net.model()


def test_a_where_mask_beyond_the_range_stays_fp32_up_to_the_softmax() -> None:
    _, report = fp16(_where_mask(-3.4e38))
    assert set(wider(report)) == {"n_masked", "n_y"}
    assert "'off' reaches 3.4e+38, beyond FP16's 65504" in wider(report)["n_masked"]


def test_weights_beyond_the_range_keep_their_node_wider_and_bf16_holds_them() -> None:
    net = Net()
    x = net.input("x", [4, 8])
    big = net.const("big", np.full((8, 8), 1e5))
    y = net.op("MatMul", [x, big], "y")
    net.op("Tanh", [net.op("MatMul", [y, net.weight("w", 8, 8)], "z")], "t")
    net.output("t", [4, 8])
    model = net.model()
    result, report = fp16(model)
    assert list(wider(report)) == ["n_y"]
    assert initializer_types(result)["big"] == TensorProto.FLOAT
    assert initializer_types(result)["w"] == TensorProto.FLOAT16
    _, other = cast(model, Precision(type="bf16"))
    assert other.decisions == ()


def test_calibrated_ranges_beyond_fp16_keep_nodes_wider() -> None:
    net = Net()
    x = net.input("x", [4, 8])
    y = net.op("MatMul", [x, net.weight("w1", 8, 8)], "y")
    net.op("MatMul", [y, net.weight("w2", 8, 8)], "z")
    net.output("z", [4, 8])
    _, report = cast(net.model(), FP16, {"y": 70_000.0})
    assert set(wider(report)) == {"n_y", "n_z"}
    assert "calibration saw 'y' at 70000" in wider(report)["n_y"]


def test_an_epsilon_that_would_vanish_stays() -> None:
    net = Net()
    x = net.input("x", [4, 8])
    net.const("axes", [1], np.int64)
    squares = net.op("ReduceSumSquare", [x, "axes"], "squares")
    safe = net.op("Add", [squares, net.const("epsilon", 1e-12)], "safe")
    net.op("Div", [x, net.op("Sqrt", [safe], "norm")], "y")
    net.output("y", [4, 8])
    model = net.model()
    result, report = fp16(model)
    assert {"n_safe", "n_norm"} <= set(wider(report))
    feeds = {"x": np.zeros((4, 8), np.float32)}
    assert np.isfinite(Session(emulate(result)).run(feeds)["y"]).all()


def test_bounds_of_clip_beyond_the_range_mean_no_bound() -> None:
    net = Net()
    x = net.input("x", [4, 8])
    y = net.op("MatMul", [x, net.weight("w", 8, 8)], "y")
    net.op("Clip", [y, net.const("low", 0.0), net.const("high", 3.4e38)], "z")
    net.output("z", [4, 8])
    result, report = fp16(net.model())
    assert report.decisions == ()
    assert result.initializer("high") == np.float16(65504)


def test_casts_of_the_graph_give_the_wanted_type_themselves() -> None:
    net = Net()
    ids = net.input("ids", [4, 8], INT64)
    x = net.op("Cast", [ids], "x", to=FLOAT)
    net.op("MatMul", [x, net.weight("w", 8, 8)], "y")
    net.output("y", [4, 8])
    result, report = fp16(net.model())
    assert report.casts_added == 1
    kinds = {n.name: n.attribute[0].i for n in result.proto.graph.node if n.op_type == "Cast"}
    assert kinds["n_x"] == TensorProto.FLOAT16


def test_readers_of_two_types_get_two_casts_from_the_source() -> None:
    net = Net()
    ids = net.input("ids", [4, 8], INT64)
    x = net.op("Cast", [ids], "x", to=FLOAT)
    y = net.op("MatMul", [x, net.weight("w", 8, 8)], "y")
    net.op("Add", [net.op("Softmax", [x], "kept"), y], "z")
    net.output("z", [4, 8])
    result, _ = fp16(net.model(), keep=[{"op": "Softmax"}])
    sources = [n.input[0] for n in result.proto.graph.node if n.op_type == "Cast"]
    assert sources.count("ids") == 2


def test_casts_down_and_up_in_the_original_disappear() -> None:
    net = Net()
    x = net.input("x", [4, 8])
    y = net.op("MatMul", [x, net.weight("w", 8, 8)], "y")
    half = net.op("Cast", [y], "half", to=TensorProto.FLOAT16)
    back = net.op("Cast", [half], "back", to=FLOAT)
    net.op("MatMul", [back, net.weight("w2", 8, 8)], "z")
    net.output("z", [4, 8])
    result, _ = fp16(net.model())
    assert ops(result)["Cast"] == 2


def test_sizes_computed_in_floats_stay_exact() -> None:
    """4099 is no FP16 number; half of it, rounded down, must stay 2049."""
    net = Net()
    x = net.input("x", [1, 1, 1, "W"])
    shape = net.op("Cast", [net.op("Shape", [x], "shape")], "shape_f", to=FLOAT)
    half = net.op("Mul", [shape, net.const("factors", [1, 1, 1, 0.5])], "scaled")
    sizes = net.op("Cast", [net.op("Floor", [half], "floor")], "sizes", to=INT64)
    net.op("Max", [net.op("Resize", [x, "", "", sizes], "y"), net.const("zero", 0.0)], "z")
    net.output("z", [1, 1, "H", "V"])
    net.opset = 19
    net.nodes.append(helper.make_node("Identity", ["sizes"], ["sizes_out"], "n_sizes_out"))
    net.output("sizes_out", [4], INT64)
    model = net.model()
    result, report = fp16(model)
    assert {"n_scaled", "n_floor"} <= set(wider(report))
    feeds = {"x": np.ones((1, 1, 1, 4099), np.float32)}
    out = Session(emulate(result)).run(feeds)
    assert out["sizes_out"].tolist() == [1, 1, 1, 2049]
    assert out["z"].shape == (1, 1, 1, 2049)


def test_rotary_positions_keep_their_phase() -> None:
    net = Net()
    x = net.input("x", ["S", 8])
    net.const("zero", 0, np.int64)
    net.const("one", 1, np.int64)
    net.const("axis0", [0], np.int64)
    net.const("axis1", [1], np.int64)
    length = net.op("Gather", [net.op("Shape", [x], "shape"), "zero"], "length")
    steps = net.op("Range", ["zero", length, "one"], "steps")
    places = net.op("Unsqueeze", [net.op("Cast", [steps], "places", to=FLOAT), "axis1"], "column")
    angle = net.op("Mul", [places, net.const("speed", 10.0 ** -np.arange(8) / 2)], "angle")
    rotated = net.op("Mul", [x, net.op("Cos", [angle], "cosine")], "rotated")
    net.op("MatMul", [rotated, net.weight("w", 8, 8)], "y")
    net.output("y", ["S", 8])
    model = net.model()
    result, report = fp16(model)
    assert {"n_angle", "n_cosine"} <= set(wider(report))
    assert "beside FP32 nodes" in wider(report)["n_rotated"], "x is FP32 as well: one cast, not two"
    assert report.casts_added == 2
    feeds = {"x": np.random.default_rng(0).standard_normal((3000, 8)).astype(np.float32)}
    assert fidelity(model, result, feeds) > 58


def test_a_time_step_fed_as_float_keeps_its_phase() -> None:
    net = Net()
    t = net.input("t", [4, 1])
    angle = net.op("Mul", [t, net.const("speed", np.geomspace(1, 1e-3, 16))], "angle")
    waves = net.op("Concat", [net.op("Sin", [angle], "s"), net.op("Cos", [angle], "c")], "waves",
                   axis=1)  # fmt: skip
    net.op("MatMul", [waves, net.weight("w", 32, 8)], "y")
    net.output("y", [4, 8])
    model = net.model()
    result, _ = fp16(model)
    feeds = {"t": np.array([[999.3], [501.7], [3.1], [0.0]], np.float32)}
    assert fidelity(model, result, feeds) > 58


def test_keep_rules_by_operator_by_name_and_to_another_type() -> None:
    keep = [{"op": "Softmax"}, {"name": "n_g_*", "type": "bf16"}]
    result, report = fp16(net("transformer"), keep=keep)
    reasons = wider(report)
    assert reasons["n_attention"] == "keep rule {op: Softmax, type: fp32}"
    assert reasons["n_g_erf"] == "keep rule {name: n_g_*, type: bf16}"
    kinds = {d.node: d.type for d in report.decisions}
    assert kinds["n_g_erf"] == "bf16"
    assert report.nodes["bf16"] == 4
    assert ops(result)["Cast"] > 0


def test_cheap_nodes_between_kept_ones_are_not_cast_back_and_forth() -> None:
    net = Net()
    x = net.input("x", [4, 8])
    a = net.op("MatMul", [x, net.weight("w1", 8, 8)], "a")
    b = net.op("Relu", [net.op("Softmax", [a], "s1")], "b")
    c = net.op("Transpose", [b], "c", perm=[1, 0])
    d = net.op("Softmax", [c], "s2")
    net.op("MatMul", [d, net.weight("w2", 4, 4)], "y")
    net.output("y", [8, 4])
    _, report = fp16(net.model(), keep=[{"op": "Softmax"}])
    assert {"n_b", "n_c"} <= set(wider(report))
    assert report.casts_added == 4


def test_operators_without_a_narrow_form_and_foreign_ones_stay_fp32() -> None:
    net = Net()
    x = net.input("x", [4, 8])
    y = net.op("Celu", [net.op("MatMul", [x, net.weight("w", 8, 8)], "m")], "y")
    net.op("MatMul", [y, net.weight("w2", 8, 8)], "z")
    net.output("z", [4, 8])
    model = net.model()
    model.proto.graph.node.append(
        helper.make_node("Gelu", ["z"], ["g"], "n_g", domain="com.microsoft")
    )
    model.proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    model.proto.graph.output[0].name = "g"
    result, report = cast(Model(model.proto), FP16)
    assert "no FP16 form" in wider(report)["n_y"]
    assert "no standard operator" in wider(report)["n_g"]
    feeds = {"x": np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32)}
    assert fidelity(model, result, feeds) > 50


def test_bf16_raises_the_opset_and_keeps_what_the_target_refuses() -> None:
    result, report = cast(net("cnn"), Precision(type="bf16"))
    assert result.opset >= 22
    assert wider(report) == {"n_up": "TensorRT-RTX does not build ConvTranspose in BF16"}


def test_constant_nodes_and_constant_of_shape_take_the_type() -> None:
    net = Net()
    x = net.input("x", ["N", 8])
    value = helper.make_tensor("v", FLOAT, [8], [0.5] * 8)
    bias = net.op("Constant", [], "bias", value=value)
    y = net.op("Add", [net.op("MatMul", [x, net.weight("w", 8, 8)], "m"), bias], "y")
    fill = helper.make_tensor("f", FLOAT, [1], [2.0])
    net.op("Mul", [y, net.op("ConstantOfShape", [net.op("Shape", [y], "s")], "f", value=fill)], "z")
    net.output("z", ["N", 8])
    model = net.model()
    result, report = fp16(model)
    assert report.decisions == ()
    assert report.casts_added == 2
    feeds = {"x": np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32)}
    assert fidelity(model, result, feeds) > 55


def test_a_small_loop_that_would_only_gain_casts_stays_fp32() -> None:
    net = Net()
    x = net.input("x", [4, 8])
    start = net.op("MatMul", [x, net.weight("w", 8, 8)], "start")
    bias = net.const("bias", np.full(8, 0.25))
    net.const("count", 3, np.int64)
    net.const("go", True, np.bool_)
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Add", ["state", bias], ["with_bias"], "b1"),
            helper.make_node("Add", ["with_bias", start], ["next"], "b2"),
            helper.make_node("Identity", ["go_in"], ["go_out"], "b3"),
        ],
        "body",
        [info("i", INT64, []), info("go_in", BOOL, []), info("state", FLOAT, [4, 8])],
        [info("go_out", BOOL, []), info("next", FLOAT, [4, 8])],
    )
    looped = net.op("Loop", ["count", "go", start], "looped", body=body)
    biased = net.op("Add", [looped, bias], "biased")
    net.op("MatMul", [biased, net.weight("w2", 8, 8)], "y")
    net.output("y", [4, 8])
    model = net.model()
    result, report = fp16(model)
    assert "from one iteration to the next" in wider(report)["n_looped"]
    assert {"b1", "b2"} <= set(wider(report))
    types = initializer_types(result)
    assert {types["bias"], types["bias_fp16"]} == {TensorProto.FLOAT, TensorProto.FLOAT16}
    feeds = {"x": np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32)}
    assert fidelity(model, result, feeds) > 55


def test_states_of_zeros_need_no_cast() -> None:
    net = Net()
    x = net.input("x", [5, 2, 4])
    zeros = net.op("ConstantOfShape", [net.const("size", [2, 2, 8], np.int64)], "zeros")
    for name, start, end in (("h", 0, 1), ("c", 1, 2)):
        net.const(f"{name}0", [start], np.int64)
        net.const(f"{name}1", [end], np.int64)
        net.op("Slice", [zeros, f"{name}0", f"{name}1"], name)
    weights = [net.weight("w", 1, 32, 4), net.weight("r", 1, 32, 8)]
    net.op("LSTM", [x, *weights, "", "", "h", "c"], "y", hidden_size=8)
    net.output("y", [5, 1, 2, 8])
    model = net.model()
    result, report = fp16(model)
    assert report.casts_added == 2
    assert report.decisions == ()
    feeds = {"x": np.random.default_rng(0).standard_normal((5, 2, 4)).astype(np.float32)}
    assert fidelity(model, result, feeds) > 50


def test_sparse_weights_are_refused_rather_than_misread() -> None:
    net = Net()
    x = net.input("x", [4, 8])
    net.op("MatMul", [x, net.weight("w", 8, 8)], "y")
    net.output("y", [4, 8])
    proto = net.model().proto
    del proto.graph.initializer[:]
    values = numpy_helper.from_array(np.array([2, 5], np.float32), "w")
    places = numpy_helper.from_array(np.array([1, 28], np.int64))
    proto.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [8, 8]))
    with pytest.raises(GraphError) as caught:
        cast(Model(proto), FP16)
    assert caught.value.code == "TF0534"
