"""Models that ONNX Runtime's quantizers made, in the form that TensorRT takes; FP64; proven."""

from pathlib import Path
from typing import Any

import models_graph as mg
import numpy as np
import onnx
import pytest
from graph_judging import judged
from onnx import ModelProto, TensorProto
from onnxruntime.quantization import QuantFormat, QuantType
from readiness_models import (
    SYMMETRIC,
    dynamically_quantized,
    ms_model,
    ms_node,
    outcome_of,
    quantized,
    ready,
    refusals,
    stays,
)

from trtforge.graph.model import Model
from trtforge.graph.readiness.support import support_problems

INT8, UINT8 = QuantType.QInt8, QuantType.QUInt8
PASSES = ("qoperator-to-qdq", "symmetric-quantization", "quantized-bias", "dead-code")


def exact(proto: ModelProto, *names: str) -> Model:
    """Rewrite; not one value may differ, and TensorRT must have nothing left to refuse."""
    assert support_problems(Model(proto), "tensorrt_rtx")
    model, report = ready(proto, *names)
    assert report.proof.max_abs == 0.0
    assert not support_problems(model, "tensorrt_rtx")
    return model


@pytest.mark.parametrize("form", list(QuantFormat))
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("types", [(INT8, INT8), (UINT8, INT8)])
def test_symmetric_models_of_quantize_static(
    form: QuantFormat, per_channel: bool, types: tuple[QuantType, QuantType], tmp_path: Path
) -> None:
    proto = quantized(tmp_path, form, types, per_channel=per_channel, extra_options=SYMMETRIC)
    model = exact(proto, *PASSES)
    stored = {t.data_type for t in model.proto.graph.initializer}
    assert TensorProto.INT32 not in stored
    assert TensorProto.UINT8 not in stored
    ops = mg.ops(model)
    assert ops.count("Conv") == 2
    assert not [op for op in ops if op.startswith("QLinear") or op == "QGemm"]


@pytest.mark.parametrize("kind", ["QDQ", "QOperator", "dynamic"])
def test_a_second_run_changes_nothing(kind: str, tmp_path: Path) -> None:
    if kind == "dynamic":
        proto = dynamically_quantized(tmp_path, INT8, per_channel=True)
    else:
        form, types = QuantFormat[kind], (UINT8, INT8)
        proto = quantized(tmp_path, form, types, extra_options=SYMMETRIC, softmax=True)
    assert judged(Model(proto)).rewrites > 0


def test_asymmetric_models_are_refused_with_the_remedy(tmp_path: Path) -> None:
    model, report = ready(quantized(tmp_path), *PASSES)
    why = refusals(report, "symmetric-quantization")
    assert any("would clip other values" in reason for reason in why)
    assert all("ActivationSymmetric=True" in reason for reason in why)
    problems = support_problems(model, "tensorrt_rtx")
    assert {problem.operator for problem in problems} == {"QuantizeLinear", "DequantizeLinear"}
    assert all("zero point is not 0" in problem.reason for problem in problems)


def qdq(
    zero: Any,
    *middle: onnx.NodeProto,
    result: str = "q",
    dims: list[int] | None = None,
    opset: int = 18,
) -> ModelProto:
    """x -> QuantizeLinear -> middle -> DequantizeLinear -> y."""
    return mg.model(
        [
            mg.node("QuantizeLinear", ["x", "s", "z"], ["q"]),
            *middle,
            mg.node("DequantizeLinear", [result, "s", "z"], ["y"]),
        ],
        [mg.info("x", [1, 2, 4, 4])],
        [mg.info("y", dims or [1, 2, 4, 4])],
        [mg.tensor("s", 0.01, np.float32), mg.tensor("z", zero)],
        opset=opset,
    )


def test_the_shift_clips_at_the_same_values() -> None:
    proto = qdq(np.uint8(128))  # a step of 0.01 clips most of a normal distribution
    model = exact(proto, "symmetric-quantization")
    zeros = [t for t in model.proto.graph.initializer if t.name.startswith("z")]
    assert {(t.data_type, mg.numpy_helper.to_array(t).item()) for t in zeros} == {(3, 0)}


@pytest.mark.parametrize(
    ("middle", "dims"),
    [
        (mg.node("MaxPool", ["q"], ["r"], kernel_shape=[2, 2]), [1, 2, 3, 3]),
        (mg.node("Transpose", ["q"], ["r"], perm=[0, 2, 3, 1]), [1, 4, 4, 2]),
        (mg.node("Concat", ["q", "q"], ["r"], axis=1), [1, 4, 4, 4]),
        (mg.node("Flatten", ["q"], ["r"]), [1, 32]),
    ],
)
def test_the_shift_goes_through_what_moves_values(middle: onnx.NodeProto, dims: list[int]) -> None:
    model = exact(qdq(np.uint8(128), middle, result="r", dims=dims), "symmetric-quantization")
    assert mg.ops(model)[1] == middle.op_type


@pytest.mark.parametrize("zero", [np.uint8(0), np.uint8(127), np.int8(3)])
def test_other_zero_points_are_refused(zero: Any) -> None:
    stays(qdq(zero), "symmetric-quantization", f"its zero point is {zero}")
    assert support_problems(Model(qdq(zero)), "tensorrt_rtx")


def test_quantized_values_that_are_an_output_are_refused() -> None:
    proto = qdq(np.uint8(128))
    proto.graph.output.append(mg.info("q", [1, 2, 4, 4], np.uint8))
    stays(proto, "symmetric-quantization", "is an output")


def test_quantized_values_that_are_read_otherwise_are_refused() -> None:
    proto = qdq(np.uint8(128))
    proto.graph.node.append(mg.node("Cast", ["q"], ["c"], to=TensorProto.FLOAT))
    proto.graph.output.append(mg.info("c", [1, 2, 4, 4]))
    stays(proto, "symmetric-quantization", "Cast reads the quantized values")


def weights_of(values: Any, zero: Any, axis: int | None = None) -> ModelProto:
    count = 1 if np.ndim(zero) == 0 else len(zero)
    scale = np.full(np.shape(zero), 0.02, np.float32) if count > 1 else np.float32(0.02)
    attributes = {} if axis is None else {"axis": axis}
    return mg.model(
        [
            mg.node("DequantizeLinear", ["W", "s", "z"], ["w"], **attributes),
            mg.node("MatMul", ["x", "w"], ["y"]),
        ],
        [mg.info("x", [3, 2])],
        [mg.info("y", [3, 4])],
        [mg.tensor("W", values), mg.tensor("s", scale), mg.tensor("z", zero)],
    )


@pytest.mark.parametrize(
    ("values", "zero", "axis"),
    [
        (np.arange(8, dtype=np.uint8).reshape(2, 4) * 30, np.uint8(128), None),
        (np.arange(8, dtype=np.uint8).reshape(2, 4), np.uint8(0), None),
        (np.arange(8, dtype=np.int8).reshape(2, 4), np.int8(5), None),
        (np.full((2, 4), 120, np.uint8), np.array([1, 20, 128, 200], np.uint8), 1),
    ],
)
def test_weights_are_encoded_anew(values: Any, zero: Any, axis: int | None) -> None:
    exact(weights_of(values, zero, axis), "symmetric-quantization", "dead-code")


def test_weights_that_int8_does_not_hold_are_refused() -> None:
    proto = weights_of(np.full((2, 4), 200, np.uint8), np.uint8(3))
    stays(proto, "symmetric-quantization", "go from 197 to 197")


ASYMMETRIC = ("qoperator-to-qdq", "symmetric-quantization", "asymmetric-to-float")


@pytest.mark.parametrize("types", [(INT8, INT8), (UINT8, UINT8)])
def test_asymmetric_models_compute_the_same_in_floats(
    types: tuple[QuantType, QuantType], tmp_path: Path
) -> None:
    proto = quantized(tmp_path, types=types)
    exact(proto, *ASYMMETRIC, "quantized-bias", "dead-code")


@pytest.mark.parametrize("types", [(INT8, INT8), (UINT8, INT8)])
def test_softmax_has_another_zero_point_and_costs_nothing(
    types: tuple[QuantType, QuantType], tmp_path: Path
) -> None:
    form, options = QuantFormat.QOperator, {"extra_options": SYMMETRIC, "softmax": True}
    proto = quantized(tmp_path, form, types, **options)
    model = exact(proto, *PASSES, "float-quantization")
    assert mg.ops(model)[-4:] == ["Div", "Round", "Clip", "Mul"]


@pytest.mark.parametrize("zero", [np.uint8(0), np.uint8(77), np.int8(-128), np.int8(3)])
def test_a_pair_in_floats_rounds_and_clips_alike(zero: Any) -> None:
    model = exact(qdq(zero), "float-quantization", "dead-code")
    assert mg.ops(model) == ["Div", "Round", "Clip", "Mul"]


def test_a_pair_before_a_product_stays_unless_asked_for() -> None:
    proto = mg.model(
        [
            mg.node("QuantizeLinear", ["x", "s", "z"], ["q"]),
            mg.node("DequantizeLinear", ["q", "s", "z"], ["f"]),
            mg.node("MatMul", ["f", "W"], ["y"]),
        ],
        [mg.info("x", [2, 3])],
        [mg.info("y", [2, 4])],
        [
            mg.tensor("s", 0.02, np.float32),
            mg.tensor("z", 7, np.int8),
            mg.tensor("W", mg.weights(3, 4)),
        ],
    )
    stays(proto, "float-quantization", "asymmetric-to-float does so")
    exact(proto, "asymmetric-to-float", "dead-code")


def bias_model(**changes: Any) -> ModelProto:
    initializers = {
        "B": np.array([2**24 + 1, -3, 7], np.int32),
        "s": np.array([0.1, 0.2, 0.3], np.float32),
        **changes,
    }
    inputs = ["B", "s", *(["z"] if "z" in initializers else [])]
    return mg.model(
        [mg.node("DequantizeLinear", inputs, ["b"], axis=0), mg.node("Add", ["x", "b"], ["y"])],
        [mg.info("x", [2, 3])],
        [mg.info("y", [2, 3])],
        [mg.tensor(name, values) for name, values in initializers.items()],
    )


def test_a_bias_is_rounded_once() -> None:
    proto = bias_model()
    assert support_problems(Model(proto), "tensorrt_rtx")
    model, _ = ready(proto, "quantized-bias")
    assert mg.ops(model) == ["Add"]
    expected = np.array([2**24 + 1, -3, 7], np.float64) * np.float32([0.1, 0.2, 0.3])
    assert np.array_equal(model.initializer("b"), expected.astype(np.float32))


def test_a_bias_with_a_zero_point() -> None:
    small = np.array([9, -3, 7], np.int32)
    exact(bias_model(B=small, z=np.zeros(3, np.int32)), "quantized-bias")


def test_a_bias_that_is_an_output_or_has_a_computed_scale_is_refused() -> None:
    proto = bias_model()
    proto.graph.output.append(mg.info("b", [3]))
    stays(proto, "quantized-bias", "is an output")
    proto = bias_model()
    proto.graph.node.insert(0, mg.node("Abs", ["s"], ["t"]))
    proto.graph.node[1].input[1] = "t"
    stays(proto, "quantized-bias", "scale ('t') is not constant")


def test_a_scale_per_row_is_refused() -> None:
    names = ["a", "as", "az", "b", "bs", "bz", "ys", "yz"]
    proto = mg.model(
        [mg.node("QLinearMatMul", names, ["q"]), mg.node("DequantizeLinear", ["q", "ys"], ["y"])],
        [mg.info("a", [2, 3], np.int8)],
        [mg.info("y", [2, 4])],
        [
            mg.tensor("as", [0.1, 0.2], np.float32),
            mg.tensor("az", [0, 0], np.int8),
            mg.tensor("b", np.ones((3, 4)), np.int8),
            mg.tensor("bs", 0.1, np.float32),
            mg.tensor("bz", 0, np.int8),
            mg.tensor("ys", 0.1, np.float32),
            mg.tensor("yz", 0, np.int8),
        ],
    )
    stays(proto, "qoperator-to-qdq", "scale per row")


def test_channels_that_come_last_are_refused() -> None:
    node = ms_node("QLinearGlobalAveragePool", ["x", "s", "z", "s", "z"], ["y"], channels_last=1)
    proto = ms_model(
        [node],
        [mg.info("x", [1, 4, 4, 2], np.int8)],
        [mg.info("y", [1, 1, 1, 2], np.int8)],
        [mg.tensor("s", 0.1, np.float32), mg.tensor("z", 0, np.int8)],
    )
    stays(proto, "qoperator-to-qdq", "channels come last")


def test_onnxruntimes_own_qdq_become_onnxs() -> None:
    proto = ms_model(
        [
            ms_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
            ms_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
        ],
        [mg.info("x", [4])],
        [mg.info("y", [4])],
        [mg.tensor("s", 0.1, np.float32), mg.tensor("z", 0, np.int8)],
    )
    model, report = ready(proto, "qoperator-to-qdq")
    assert report.proof.max_abs == 0.0
    assert not any(node.domain for node in model.proto.graph.node)


@pytest.mark.parametrize("weight_type", [INT8, UINT8])
@pytest.mark.parametrize("per_channel", [False, True])
def test_models_of_quantize_dynamic(
    weight_type: QuantType, per_channel: bool, tmp_path: Path
) -> None:
    proto = dynamically_quantized(tmp_path, weight_type, per_channel)
    model = exact(proto, "dynamic-quantization", "dead-code")
    ops = mg.ops(model)
    assert ops.count("Conv") == 2
    assert ops.count("MatMul") == 2
    if weight_type == INT8:  # the weights stay in a quarter of their size
        assert ops.count("DequantizeLinear") == 4


def dynamic() -> ModelProto:
    return mg.model(
        [
            mg.node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
            mg.node("MatMulInteger", ["q", "W", "z"], ["i"]),
            mg.node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
            mg.node("Mul", ["f", "s"], ["y"]),
        ],
        [mg.info("x", [2, 3])],
        [mg.info("y", [2, 4])],
        [mg.tensor("W", np.arange(12).reshape(3, 4) - 5, np.int8)],
    )


@pytest.mark.parametrize(
    "x", [[[0, 0, 0], [0, 0, 0]], [[1, 2, 3], [4, 5, 6]], [[-1, -2, -3], [-4, -5, -6]]]
)
def test_dynamic_quantization_of_special_ranges(x: Any) -> None:
    from trtforge.graph.execute import Session

    model = exact(dynamic(), "dynamic-quantization", "dead-code")
    feeds = {"x": np.array(x, np.float32)}
    expected = Session(Model(dynamic())).run(feeds)["y"]
    assert np.array_equal(Session(model).run(feeds)["y"], expected)


def test_integers_that_are_read_otherwise_are_refused() -> None:
    proto = dynamic()
    proto.graph.node.append(mg.node("Cast", ["q"], ["c"], to=TensorProto.FLOAT))
    proto.graph.output.append(mg.info("c", [2, 3]))
    stays(proto, "dynamic-quantization", "reads its integers")


def test_a_product_that_is_not_cast_is_refused() -> None:
    proto = dynamic()
    proto.graph.output.append(mg.info("i", [2, 4], np.int32))
    stays(proto, "dynamic-quantization", "not read by one Cast alone")


def test_integers_from_elsewhere_are_refused() -> None:
    proto = mg.model(
        [mg.node("MatMulInteger", ["q", "W"], ["y"])],
        [mg.info("q", [2, 3], np.int8)],
        [mg.info("y", [2, 4], np.int32)],
        [mg.tensor("W", np.ones((3, 4)), np.int8)],
    )
    stays(proto, "dynamic-quantization", "not quantized by DynamicQuantizeLinear")


def double_inside() -> ModelProto:
    return mg.model(
        [
            mg.node("Cast", ["x"], ["d"], to=TensorProto.DOUBLE),
            mg.node("Mul", ["d", "W"], ["m"]),
            mg.node("Sin", ["m"], ["n"]),
            mg.node("Cast", ["n"], ["y"], to=TensorProto.FLOAT),
        ],
        [mg.info("x", [2, 3])],
        [mg.info("y", [2, 3])],
        [mg.tensor("W", mg.weights(3), np.float64)],
    )


def test_double_inside_becomes_float() -> None:
    model, report = ready(double_inside(), "double-to-float", "dead-code")
    assert outcome_of(report, "double-to-float").rewrites == 4
    assert report.proof.min_sqnr_db > 120
    proto = model.proto
    assert {t.data_type for t in proto.graph.initializer} == {TensorProto.FLOAT}
    assert {i.type.tensor_type.elem_type for i in proto.graph.value_info} <= {TensorProto.FLOAT}


def test_double_fills_become_float() -> None:
    proto = mg.model(
        [
            mg.node("ConstantOfShape", ["n"], ["d"], value=mg.tensor("", [0.1], np.float64)),
            mg.node("Cast", ["d"], ["f"], to=TensorProto.FLOAT),
            mg.node("Add", ["x", "f"], ["y"]),
        ],
        [mg.info("x", [2])],
        [mg.info("y", [2])],
        [mg.tensor("n", [2], np.int64)],
    )
    model, report = ready(proto, "double-to-float")
    assert report.proof.max_abs == 0.0
    assert model.proto.graph.node[0].attribute[0].t.data_type == TensorProto.FLOAT


def test_double_whose_bits_are_read_is_refused() -> None:
    proto = double_inside()
    proto.opset_import[0].version = 26
    proto.ir_version = 12
    proto.graph.node.append(mg.node("BitCast", ["n"], ["bits"], to=TensorProto.INT64))
    proto.graph.output.append(mg.info("bits", [2, 3], np.int64))
    stays(proto, "double-to-float", "reads its bits")


@pytest.mark.parametrize(("opset", "axis"), [(9, 1), (13, 1), (9, 2), (13, 2), (13, -1)])
def test_quantized_softmax_of_either_meaning(opset: int, axis: int) -> None:
    inputs = ["q", "s", "z", "t", "low"]
    node = ms_node("QLinearSoftmax", inputs, ["p"], axis=axis, opset=opset)
    proto = ms_model(
        [
            mg.node("QuantizeLinear", ["x", "s", "z"], ["q"]),
            node,
            mg.node("DequantizeLinear", ["p", "t", "low"], ["y"]),
        ],
        [mg.info("x", [2, 3, 4])],
        [mg.info("y", [2, 3, 4])],
        [
            mg.tensor("s", 0.05, np.float32),
            mg.tensor("t", 1 / 256, np.float32),
            mg.tensor("low", -128, np.int8),
            mg.tensor("z", 0, np.int8),
        ],
    )
    if (opset, axis) == (9, 1):  # over both axes: no Softmax of opset 18 does that
        stays(proto, "qoperator-to-qdq", "over all axes from 1 on")
    else:
        model, report = ready(proto, "qoperator-to-qdq")
        assert report.proof.max_abs == 0.0
        assert "Softmax" in mg.ops(model)


def test_double_inputs_and_outputs_are_refused() -> None:
    proto = double_inside()
    proto.graph.output.append(mg.info("n", [2, 3], np.float64))
    stays(proto, "double-to-float", "'n' is an output")
    problems = support_problems(Model(proto), "tensorrt_rtx")
    assert [(p.node, p.operator) for p in problems] == [("n", "")]
    assert "FP64" in problems[0].reason


def test_double_from_outside_and_values_that_do_not_fit_are_refused() -> None:
    proto = double_inside()
    proto.graph.initializer[0].CopyFrom(mg.tensor("W", [1e300, 1, 2], np.float64))
    stays(proto, "double-to-float", "does not fit FP32")
    proto = mg.model(
        [mg.node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)],
        [mg.info("x", [2], np.float64)],
        [mg.info("y", [2])],
    )
    stays(proto, "double-to-float", "comes from outside")
