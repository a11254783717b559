"""Q/DQ placement: what is quantized, with which scale, and what is left alone."""

import ml_dtypes
import numpy as np
import pytest
from models_precision import Net
from onnx import TensorProto
from precision_samples import check_typed, initializer_types, net, ops, ranges, samples_for, sqnr_db

from trtforge.graph.execute import Session
from trtforge.graph.model import Model
from trtforge.precision.cache import CalibrationCache, TensorRange
from trtforge.precision.calibrate import CalibrationRequest, calibrate
from trtforge.precision.quantize import QuantizeReport, candidate_tensors, quantize
from trtforge.recipe.schema import Precision

INT8 = Precision(quantize="int8")


def run(
    model: Model, feeds: dict[str, np.ndarray], **changes: object
) -> tuple[Model, QuantizeReport]:
    precision = Precision.model_validate({"quantize": "int8"} | changes)
    request = CalibrationRequest(candidate_tensors(model, precision), "minmax")
    cache = calibrate(model, samples_for(model, feeds), request)
    result, report = quantize(model, cache, precision)
    check_typed(model, result)
    return result, report


def actions(report: QuantizeReport) -> dict[str, str]:
    return {d.node: d.action for d in report.decisions}


def reason(report: QuantizeReport, node: str) -> str:
    return next(d.reason for d in report.decisions if d.node == node)


def rows(*shape: int) -> np.ndarray:
    return np.random.default_rng(5).standard_normal(shape).astype(np.float32)


def test_the_whole_cnn_one_pair_per_tensor_and_weights_stored_as_int8() -> None:
    model = net("cnn")
    result, report = quantize(model, ranges("cnn"), INT8)
    candidates = candidate_tensors(model, INT8)
    assert len(candidates) == len(set(candidates))
    # One Q per activation; one DQ per activation and per weight.
    weights = [n for n, kind in initializer_types(result).items() if kind == TensorProto.INT8]
    assert ops(result)["QuantizeLinear"] == len(candidates)
    assert ops(result)["DequantizeLinear"] == len(candidates) + 8
    assert len(weights) == 8 + 1  # and the zero point
    assert set(actions(report).values()) == {"quantized"}
    # The skip branch of the first Add is the tensor that feeds the next convolution: one pair.
    readers = [n.name for n in result.proto.graph.node if "stem_relu_DequantizeLinear" in n.input]
    assert readers == ["n_a", "n_sum1"]


def test_names_of_the_user_stay_and_biases_are_untouched() -> None:
    result, _ = quantize(net("cnn"), ranges("cnn"), INT8)
    before = {n.name for n in net("cnn").proto.graph.node}
    assert before <= {n.name for n in result.proto.graph.node}
    for bias in ("b_stem", "b_fc"):
        assert (result.initializer(bias) == net("cnn").initializer(bias)).all()


@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_weights_and_scales_follow_the_formula(kind: str) -> None:
    precision = Precision.model_validate({"quantize": kind, "type": "fp16"})
    result, _ = quantize(net("cnn"), ranges("cnn"), precision)
    weight = net("cnn").initializer("w_a")
    scale = result.initializer("w_a_scale")
    limit = {"int8": 127, "fp8": 448}[kind]
    exact = np.abs(weight).max(axis=(1, 2, 3)) / limit
    assert scale.shape == (16,)
    assert (scale >= exact).all()
    assert (scale <= exact * (1 + 2.0**-10)).all()
    assert (scale.astype(np.float16).astype(np.float32) == scale).all()
    stored = np.asarray(result.initializer("w_a_quantized"))
    kinds = {"int8": np.int8, "fp8": ml_dtypes.float8_e4m3fn}
    assert stored.dtype == kinds[kind]
    error = np.abs(stored.astype(np.float32) * scale[:, None, None, None] - weight)
    if kind == "int8":
        assert (error <= scale[:, None, None, None] * 0.5001).all()
    else:
        assert sqnr_db(weight, weight + error) > 27
    activation = float(result.initializer("stem_relu_scale"))
    assert activation >= ranges("cnn").ranges["stem_relu"].amax / limit


def test_the_later_of_two_convolutions_is_fused_and_the_other_branch_carries_the_pair() -> None:
    _, report = quantize(net("cnn"), ranges("cnn"), INT8)
    skips = {d.node: (d.tensor, d.reason) for d in report.decisions if d.op == "Add"}
    assert skips["n_sum1"][0] == "stem_relu"
    assert skips["n_sum2"][0] == "pw"  # `short` comes later, so the Add fuses into it
    assert "the later of two convolutions" in skips["n_sum2"][1]


def test_activations_times_activations_and_kept_nodes_are_left_alone() -> None:
    keep = [{"name": "n_down"}, {"op": "Gemm"}]
    precision = Precision.model_validate({"quantize": "int8", "keep": keep})
    result, report = quantize(net("transformer"), ranges("transformer"), precision)
    assert actions(report)["n_scores"] == "kept"
    assert "no constant weight" in reason(report, "n_scores")
    assert reason(report, "n_down") == "keep rule {name: n_down, type: fp32}"
    assert "w_down" in initializer_types(result)
    assert "gelu" not in candidate_tensors(net("transformer"), precision)


def test_axes_of_output_channels() -> None:
    model = Net()
    x = model.input("x", [4, 8])
    for name, attributes in (("plain", {}), ("turned", {"transB": 1})):
        model.op("Gemm", [x, model.weight(f"w_{name}", 8, 8)], name, **attributes)
        model.output(name, [4, 8])
    y = model.op("Unsqueeze", [x, model.const("axes", [2, 3], np.int64)], "image")
    model.op("ConvTranspose", [y, model.weight("w_up", 8, 5, 2, 2)], "up")
    model.output("up", [4, 5, 2, 2])
    model.op("ConvTranspose", [y, model.weight("w_grouped", 8, 3, 2, 2)], "grouped", group=2)
    model.output("grouped", [4, 6, 2, 2])
    result, report = run(model.model(), {"x": rows(4, 8)})
    shapes = {
        n: result.initializer(f"w_{n}_scale").shape for n in ("plain", "turned", "up", "grouped")
    }
    assert shapes == {"plain": (8,), "turned": (8,), "up": (5,), "grouped": ()}
    axes = {
        n.input[0]: n.attribute[0].i
        for n in result.proto.graph.node
        if n.op_type == "DequantizeLinear" and n.attribute
    }
    assert axes == {"w_plain_quantized": 1, "w_turned_quantized": 0, "w_up_quantized": 1}
    assert "no channel axis" in reason(report, "n_grouped")


def test_tied_weights_are_stored_once_and_an_embedding_keeps_its_floats() -> None:
    model = Net()
    ids = model.input("ids", [4, 6], TensorProto.INT64)
    table = model.weight("table", 8, 8)
    x = model.op("Gather", [table, ids], "x")
    a = model.op("MatMul", [x, model.weight("shared", 8, 8)], "a")
    b = model.op("MatMul", [a, "shared"], "b")
    model.op("MatMul", [b, table], "y")
    model.output("y", [4, 6, 8])
    result, _ = run(model.model(), {"ids": np.arange(24).reshape(4, 6) % 8})
    types = initializer_types(result)
    assert types["table"] == TensorProto.FLOAT
    assert types["table_quantized"] == TensorProto.INT8
    assert "shared" not in types
    assert [n for n in types if n.startswith("shared_quantized")] == ["shared_quantized"]


def test_dead_channels_and_dead_activations() -> None:
    model = Net()
    x = model.input("x", [4, 8])
    alive = model.weight("alive", 8, 8)
    model.weights["alive"][:, 3] = 0
    y = model.op("MatMul", [x, alive], "y")
    nothing = model.op("Mul", [y, model.const("zero", 0.0)], "nothing")
    model.op("MatMul", [nothing, model.weight("w", 8, 8)], "z")
    model.output("y", [4, 8])
    model.output("z", [4, 8])
    source = model.model()
    result, report = run(source, {"x": rows(4, 8)}, type="fp16")
    assert reason(report, "n_z") == "calibration saw nothing but zeros there"
    scale = result.initializer("alive_scale")
    assert np.isfinite(scale).all()
    assert (scale > 0).all()
    got = Session(result).run({"x": rows(4, 8)})["y"]
    assert not got[:, 3].any()
    assert sqnr_db(Session(source).run({"x": rows(4, 8)})["y"], got) > 35


def test_an_older_opset_is_raised() -> None:
    model = Net(opset=13)
    x = model.input("x", [4, 8])
    model.op("MatMul", [x, model.weight("w", 8, 8)], "y")
    model.output("y", [4, 8])
    result, _ = run(model.model(), {"x": rows(4, 8)})
    assert result.opset == 19


def test_a_quantized_graph_is_not_quantized_again() -> None:
    once, _ = quantize(net("cnn"), ranges("cnn"), INT8)
    assert candidate_tensors(once, INT8) == ()
    again, report = quantize(once, _empty_cache(), INT8)
    assert ops(again) == ops(once)
    assert {d.reason for d in report.decisions} == {"it is quantized already"}


def test_pairs_of_another_tool_declare_no_shapes() -> None:
    once, _ = quantize(net("cnn"), ranges("cnn"), INT8)
    del once.proto.graph.value_info[:]
    _, report = quantize(once, _empty_cache(), INT8)
    assert {d.reason for d in report.decisions} == {"it is quantized already"}


def _empty_cache() -> CalibrationCache:
    return CalibrationCache(method="minmax", samples=1, graph_digest="g", ranges={})


def test_new_names_never_take_a_users_name() -> None:
    model = Net()
    x = model.input("x", [4, 8])
    y = model.op("MatMul", [x, model.weight("w", 8, 8)], "x_QuantizeLinear")
    model.op("Relu", [y], "x_scale")
    model.output("x_scale", [4, 8])
    cache = _empty_cache().model_copy(update={"ranges": {"x": TensorRange(min=-3, max=3, amax=3)}})
    result, _ = quantize(model.model(), cache, INT8)
    check_typed(model.model(), result)


def test_keeping_everything_quantizes_nothing() -> None:
    precision = Precision.model_validate({"quantize": "int8", "keep": [{"name": "*"}]})
    assert candidate_tensors(net("cnn"), precision) == ()
    assert candidate_tensors(net("cnn"), Precision()) == ()
