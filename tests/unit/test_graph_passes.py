"""Each pass: what it rewrites, what it refuses and why, and that the numbers stay."""

import cProfile
import sys
from types import ModuleType

import models_graph as mg
import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper

from trtforge.errors import UsageError
from trtforge.graph import passes
from trtforge.graph.model import Model
from trtforge.graph.passes import Editor, PassRequest, run_passes
from trtforge.graph.report import PassOutcome

CLOSE = 1e-5


def applied(proto: ModelProto, *names: str) -> tuple[Model, PassOutcome]:
    """Run passes without the built-in proof; the tests prove by themselves."""
    onnx.checker.check_model(proto, full_check=True)
    result = run_passes(Model(proto), PassRequest(use=names, prove=False))
    onnx.checker.check_model(result.model.proto, full_check=True)
    assert result.model.contract == Model(proto).contract
    return result.model, result.report.passes[0]


def reasons(outcome: PassOutcome, kind: str) -> list[str]:
    return [note.reason for note in outcome.notes if note.kind == kind]


def unchanged(proto: ModelProto, name: str, why: str) -> None:
    model, outcome = applied(proto, name)
    assert outcome.rewrites == 0
    assert model.proto is not None
    assert mg.ops(model) == mg.ops(proto)
    assert any(why in reason for reason in reasons(outcome, "refused")), outcome.notes


# Conv + BatchNormalization


@pytest.mark.parametrize(("dtype", "close"), [(np.float32, CLOSE), (np.float16, 5e-3)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("op", "group", "rank"),
    [
        ("Conv", 1, 2),
        ("Conv", 2, 2),
        ("Conv", 4, 2),
        ("Conv", 1, 1),
        ("Conv", 2, 3),
        ("ConvTranspose", 1, 2),
        ("ConvTranspose", 2, 2),
        ("ConvTranspose", 4, 1),
    ],
)
def test_convolution_and_batchnorm(
    op: str, group: int, rank: int, bias: bool, dtype: type, close: float
) -> None:
    inputs, outputs = 4, 8
    shape = (outputs, inputs // group) if op == "Conv" else (inputs, outputs // group)
    initializers = [mg.tensor("W", mg.weights(*shape, *[3] * rank), dtype)]
    if bias:
        initializers.append(mg.tensor("b", mg.weights(outputs, seed=3), dtype))
    for parameter in mg.batchnorm_parameters("bn", outputs):
        initializers.append(mg.tensor(parameter.name, onnx.numpy_helper.to_array(parameter), dtype))
    proto = mg.model(
        [
            mg.node(op, ["x", "W", *(["b"] if bias else [])], ["c"], group=group),
            mg.batchnorm("c", "y", "bn", epsilon=0.01),
        ],
        [mg.info("x", ["N", inputs, *[5] * rank], dtype)],
        [mg.info("y", ["N", outputs, *[None] * rank], dtype)],
        initializers,
    )
    model, outcome = applied(proto, "conv-batchnorm")
    assert outcome.rewrites == 1
    assert mg.ops(model) == [op]
    assert "W" in model.initializers
    assert len(model.initializers) == 2
    shapes = {"x": (2, inputs, *[5] * rank)}
    assert mg.largest_difference(Model(proto), model, shapes) < close


def test_fused_names_are_the_users() -> None:
    model, _ = applied(mg.conv_bn(), "conv-batchnorm")
    conv = model.proto.graph.node[0]
    assert (conv.name, list(conv.input), list(conv.output)) == ("/Conv_c", ["x", "W", "b"], ["n"])


def test_half_precision_weights_that_would_overflow_stay() -> None:
    proto = mg.model(
        [mg.node("Conv", ["x", "W"], ["c"]), mg.batchnorm("c", "y", "bn")],
        [mg.info("x", [1, 1, 2, 2], np.float16)],
        [mg.info("y", [1, 1, 2, 2], np.float16)],
        [
            mg.tensor("W", [[[[1000.0]]]], np.float16),
            mg.tensor("bn.scale", [1.0], np.float16),
            mg.tensor("bn.B", [0.0], np.float16),
            mg.tensor("bn.mean", [0.0], np.float16),
            mg.tensor("bn.var", [0.0], np.float16),
        ],
    )
    unchanged(proto, "conv-batchnorm", "do not fit in float16")


def test_conv_result_used_twice_stays() -> None:
    proto = mg.conv_bn()
    proto.graph.node.append(mg.node("Abs", ["c"], ["z"]))
    proto.graph.output.append(mg.info("z", ["N", 4, 6, 6]))
    unchanged(proto, "conv-batchnorm", "used elsewhere")


def test_conv_result_that_is_an_output_stays() -> None:
    proto = mg.conv_bn()
    proto.graph.output.append(mg.info("c", ["N", 4, 6, 6]))
    unchanged(proto, "conv-batchnorm", "is an output")


@pytest.mark.parametrize("shared", ["W", "b"])
def test_shared_weights_stay(shared: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trtforge.graph.fusion.linear._MOST_GROWTH_BYTES", 0)
    proto = mg.conv_bn()
    second = mg.node("Conv", ["x", "W", "b2"], ["c2"], pads=[1, 1, 1, 1])
    second.input[1:] = ["W", "b2"] if shared == "W" else ["W2", "b"]
    proto.graph.node.append(second)
    proto.graph.initializer.extend(
        [mg.tensor("W2", mg.weights(4, 3, 3, 3, seed=9)), mg.tensor("b2", mg.weights(4, seed=9))]
    )
    proto.graph.output.append(mg.info("c2", ["N", 4, 6, 6]))
    kept = {"W2", "b2"} - {f"{shared}2"}
    for name in {"W2", "b2"} - kept:
        proto.graph.initializer.remove(next(t for t in proto.graph.initializer if t.name == name))
    unchanged(proto, "conv-batchnorm", f"('{shared}') are shared")


def test_training_mode_batchnorm_stays() -> None:
    proto = mg.conv_bn()
    norm = proto.graph.node[1]
    norm.attribute.append(helper.make_attribute("training_mode", 1))
    norm.output.extend(["m", "v"])
    unchanged(proto, "conv-batchnorm", "training mode")


def test_weights_computed_at_run_time_stay() -> None:
    proto = mg.conv_bn()
    proto.graph.node.insert(0, mg.node("Mul", ["W", "s"], ["W.scaled"]))
    proto.graph.input.append(mg.info("s", [1]))
    proto.graph.node[1].input[1] = "W.scaled"
    unchanged(proto, "conv-batchnorm", "not constant")


def test_conv_result_read_inside_a_body_stays() -> None:
    proto = mg.conv_bn()
    then = helper.make_graph([mg.node("Abs", ["c"], ["t"])], "then", [], [mg.info("t", None)])
    other = helper.make_graph([mg.node("Neg", ["y"], ["e"])], "else", [], [mg.info("e", None)])
    for body, name in ((then, "t"), (other, "e")):
        body.output[0].CopyFrom(mg.info(name, ["N", 4, 6, 6]))
    proto.graph.node.append(mg.node("If", ["flag"], ["z"], then_branch=then, else_branch=other))
    proto.graph.input.append(mg.info("flag", [], bool))
    proto.graph.output.append(mg.info("z", ["N", 4, 6, 6]))
    unchanged(proto, "conv-batchnorm", "used elsewhere")


def test_a_dead_body_reads_nothing_any_more() -> None:
    proto = mg.conv_bn()
    bodies = {}
    for branch, op in (("then_branch", "Abs"), ("else_branch", "Neg")):
        result = mg.info(op, ["N", 4, 6, 6])
        bodies[branch] = helper.make_graph([mg.node(op, ["c"], [op])], op, [], [result])
    proto.graph.node.append(mg.node("If", ["flag"], ["unused"], **bodies))
    proto.graph.input.append(mg.info("flag", [], bool))
    model, outcome = applied(proto, "conv-batchnorm", "dead-code")
    assert outcome.rewrites == 1
    assert mg.ops(model) == ["Conv", "Relu"]
    assert mg.largest_difference(Model(proto), model, {"x": (2, 3, 6, 6)}) < CLOSE


# Conv + Mul/Add/Sub/Div


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("shape", [(), (1,), (8, 1, 1), (1, 8, 1, 1)])
@pytest.mark.parametrize("op", ["Mul", "Add", "Sub", "Div"])
def test_convolution_and_per_channel_constant(op: str, shape: tuple[int, ...], first: bool) -> None:
    proto = mg.model(
        [
            mg.node("ConvTranspose", ["x", "W"], ["c"], group=2),
            mg.node(op, ["c", "k"] if first else ["k", "c"], ["y"]),
        ],
        [mg.info("x", [2, 4, 5, 5])],
        [mg.info("y", [2, 8, 7, 7])],
        [mg.tensor("W", mg.weights(4, 4, 3, 3)), mg.tensor("k", mg.weights(*shape, seed=2))],
    )
    model, outcome = applied(proto, "conv-mul-add")
    assert outcome.rewrites == (0 if op == "Div" and not first else 1)
    assert mg.largest_difference(Model(proto), model, {}) < CLOSE


def test_mul_and_add_in_a_row_are_both_folded() -> None:
    proto = mg.model(
        [
            mg.node("Conv", ["x", "W"], ["c"]),
            mg.node("Mul", ["c", "k"], ["m"]),
            mg.node("Add", ["t", "m"], ["y"]),
        ],
        [mg.info("x", [1, 3, 5, 5])],
        [mg.info("y", [1, 4, 3, 3])],
        [
            mg.tensor("W", mg.weights(4, 3, 3, 3)),
            mg.tensor("k", mg.weights(4, 1, 1, seed=1)),
            mg.tensor("t", mg.weights(1, 4, 1, 1, seed=2)),
        ],
    )
    model, outcome = applied(proto, "conv-mul-add")
    assert (outcome.rewrites, mg.ops(model)) == (2, ["Conv"])
    assert mg.largest_difference(Model(proto), model, {}) < CLOSE


@pytest.mark.parametrize(
    ("shape", "result"),
    [((4,), (1, 4, 4, 4)), ((1, 4, 4, 4), (1, 4, 4, 4)), ((1, 1, 4, 1, 1), (1, 1, 4, 4, 4))],
)
def test_constants_along_other_axes_stay(shape: tuple[int, ...], result: tuple[int, ...]) -> None:
    proto = mg.model(
        [mg.node("Conv", ["x", "W"], ["c"]), mg.node("Mul", ["c", "k"], ["y"])],
        [mg.info("x", [1, 3, 4, 4])],
        [mg.info("y", result)],
        [mg.tensor("W", mg.weights(4, 3, 1, 1)), mg.tensor("k", mg.weights(*shape))],
    )
    unchanged(proto, "conv-mul-add", "not one value per channel")


def test_constant_that_would_widen_one_channel_stays() -> None:
    proto = mg.model(
        [mg.node("Conv", ["x", "W"], ["c"]), mg.node("Add", ["c", "k"], ["y"])],
        [mg.info("x", [1, 3, 4, 4])],
        [mg.info("y", [1, 6, 4, 4])],
        [mg.tensor("W", mg.weights(1, 3, 1, 1)), mg.tensor("k", mg.weights(6, 1, 1))],
    )
    unchanged(proto, "conv-mul-add", "not one value per channel")


def test_division_by_zero_stays() -> None:
    proto = mg.model(
        [mg.node("Conv", ["x", "W"], ["c"]), mg.node("Div", ["c", "k"], ["y"])],
        [mg.info("x", [1, 3, 4, 4])],
        [mg.info("y", [1, 2, 4, 4])],
        [mg.tensor("W", mg.weights(2, 3, 1, 1)), mg.tensor("k", [[[0.0]], [[1.0]]], np.float32)],
    )
    unchanged(proto, "conv-mul-add", "do not fit")


def test_a_result_multiplied_by_itself_is_no_pattern() -> None:
    proto = mg.model(
        [mg.node("Conv", ["x", "W"], ["c"]), mg.node("Mul", ["c", "c"], ["y"])],
        [mg.info("x", [1, 3, 4, 4])],
        [mg.info("y", [1, 2, 4, 4])],
        [mg.tensor("W", mg.weights(2, 3, 1, 1))],
    )
    assert applied(proto, "conv-mul-add")[1].rewrites == 0


# Identity and Dropout


def chain(*nodes: onnx.NodeProto, opset: int = mg.OPSET, **values: np.ndarray) -> ModelProto:
    initializers = [mg.tensor(name, value) for name, value in values.items()]
    return mg.model(
        nodes, [mg.info("x", [2, 3])], [mg.info("y", [2, 3])], initializers, opset=opset
    )


def test_identities_vanish_and_outputs_keep_their_names() -> None:
    proto = chain(
        mg.node("Identity", ["x"], ["a"]),
        mg.node("Abs", ["a"], ["b"]),
        mg.node("Identity", ["b"], ["c"]),
        mg.node("Dropout", ["c"], ["d"]),
        mg.node("Neg", ["d"], ["e"]),
        mg.node("Identity", ["e"], ["y"]),
    )
    model, outcome = applied(proto, "identity")
    assert outcome.rewrites == 4
    assert mg.ops(model) == ["Abs", "Neg"]
    assert model.proto.graph.node[1].output[0] == "y"
    assert mg.largest_difference(Model(proto), model, {}) == 0


def test_another_reader_of_a_renamed_output_follows() -> None:
    proto = chain(
        mg.node("Abs", ["x"], ["a"]),
        mg.node("Identity", ["a"], ["y"]),
        mg.node("Neg", ["a"], ["z"]),
    )
    proto.graph.output.append(mg.info("z", [2, 3]))
    model, outcome = applied(proto, "identity")
    assert (outcome.rewrites, mg.ops(model)) == (1, ["Abs", "Neg"])
    assert mg.largest_difference(Model(proto), model, {}) == 0


@pytest.mark.parametrize(
    ("nodes", "why"),
    [
        ([mg.node("Identity", ["x"], ["y"])], "not computed by this graph"),
        ([mg.node("Identity", ["k"], ["y"])], "not computed by this graph"),
        (
            [
                mg.node("Dropout", ["x", "", "train"], ["d"]),
                mg.node("Abs", ["d"], ["y"]),
            ],
            "training mode",
        ),
    ],
)
def test_identities_that_must_stay(nodes: list[onnx.NodeProto], why: str) -> None:
    used = {name for node in nodes for name in node.input}
    values = {"k": mg.weights(2, 3), "train": np.array(True)}
    proto = chain(*nodes, **{name: value for name, value in values.items() if name in used})
    unchanged(proto, "identity", why)


def test_two_outputs_of_one_tensor_stay_two() -> None:
    proto = chain(mg.node("Abs", ["x"], ["a"]), mg.node("Identity", ["a"], ["y"]))
    proto.graph.output.append(mg.info("a", [2, 3]))
    unchanged(proto, "identity", "both outputs")


def test_dropout_whose_mask_is_used_stays() -> None:
    proto = chain(mg.node("Dropout", ["x"], ["d", "m"]), mg.node("Abs", ["d"], ["y"]))
    proto.graph.node.append(mg.node("Not", ["m"], ["z"]))
    proto.graph.output.append(mg.info("z", [2, 3], bool))
    unchanged(proto, "identity", "mask is used")


def test_dropout_with_training_decided_at_run_time_stays() -> None:
    proto = chain(mg.node("Dropout", ["x", "", "t"], ["d"]), mg.node("Abs", ["d"], ["y"]))
    proto.graph.input.append(mg.info("t", [], bool))
    unchanged(proto, "identity", "run time")


# Constants


def test_constants_are_computed_once() -> None:
    proto = chain(
        mg.node("Constant", [], ["k"], value=mg.tensor("", mg.weights(3))),
        mg.node("Constant", [], ["two"], value_float=2.0),
        mg.node("Mul", ["k", "two"], ["k2"]),
        mg.node("Shape", ["x"], ["shape"]),
        mg.node("Expand", ["k2", "shape"], ["k3"]),
        mg.node("Add", ["x", "k3"], ["y"]),
    )
    result = run_passes(Model(proto), PassRequest())
    assert mg.ops(result.model) == ["Add"]
    assert set(result.model.initializers) == {"k3"}
    assert result.report.proof.verdict == "pass"
    assert mg.largest_difference(Model(proto), result.model, {}) == 0


def test_the_shape_of_a_dynamic_tensor_is_not_folded() -> None:
    proto = mg.model(
        [mg.node("Shape", ["x"], ["y"])], [mg.info("x", ["N", 3])], [mg.info("y", [2], np.int64)]
    )
    assert applied(proto, "constant-folding")[1].rewrites == 0


def test_part_of_a_shape() -> None:
    proto = mg.model(
        [mg.node("Shape", ["x"], ["s"], start=-2, end=3), mg.node("Abs", ["s"], ["y"])],
        [mg.info("x", [4, 5, 6, 7])],
        [mg.info("y", [1], np.int64)],
    )
    model, outcome = applied(proto, "shape-folding")
    assert outcome.rewrites == 1
    assert mg.largest_difference(Model(proto), model, {}) == 0


def test_quantization_is_never_folded() -> None:
    proto = chain(
        mg.node("DequantizeLinear", ["q", "s"], ["w"]),
        mg.node("Mul", ["x", "w"], ["y"]),
        q=np.array([[1, 2, 3]], np.int8),
        s=np.float32(0.5),
    )
    model, outcome = applied(proto, "constant-folding")
    assert outcome.rewrites == 0
    assert mg.ops(model) == ["DequantizeLinear", "Mul"]


@pytest.mark.parametrize("fill", ["ConstantOfShape", "Expand"])
def test_results_bigger_than_their_sources_stay(fill: str) -> None:
    nodes = [mg.node("ConstantOfShape", ["shape"], ["big"])]
    if fill == "Expand":
        nodes = [mg.node("Neg", ["one"], ["minus"]), mg.node("Expand", ["minus", "shape"], ["big"])]
    nodes.append(mg.node("Add", ["x", "big"], ["y"]))
    initializers = [mg.tensor("shape", [1500, 1000], np.int64)]
    if fill == "Expand":
        initializers.append(mg.tensor("one", [1.0], np.float32))
    dims = [1500, 1000]
    proto = mg.model(nodes, [mg.info("x", dims)], [mg.info("y", dims)], initializers)
    model, outcome = applied(proto, "constant-folding")
    assert mg.ops(model) == [fill, "Add"]
    assert len(reasons(outcome, "refused")) == 1
    assert mg.largest_difference(Model(proto), model, {}) == 0


def test_random_constants_stay_random() -> None:
    proto = chain(
        mg.node("RandomNormalLike", ["k"], ["r"]),
        mg.node("Add", ["x", "r"], ["y"]),
        k=mg.weights(2, 3),
    )
    assert applied(proto, "constant-folding")[1].rewrites == 0


def test_a_constant_that_onnxruntime_cannot_compute_stays() -> None:
    proto = chain(
        mg.node("Reshape", ["k", "bad"], ["r"]),
        mg.node("Neg", ["k2"], ["n"]),
        mg.node("Add", ["x", "r"], ["z"]),
        mg.node("Add", ["z", "n"], ["y"]),
        k=mg.weights(7),
        bad=np.array([2, 3]),
        k2=mg.weights(3),
    )
    result = run_passes(Model(proto), PassRequest(use=("constant-folding",), prove=False))
    assert mg.ops(result.model) == ["Reshape", "Add", "Add"]
    assert reasons(result.report.passes[0], "refused")


def test_constant_nodes_become_initializers_of_the_same_name() -> None:
    proto = chain(
        mg.node("Constant", [], ["k"], value=mg.tensor("other", mg.weights(3))),
        mg.node("Constant", [], ["n"], value_floats=[1.0, 2.0, 3.0]),
        mg.node("Constant", [], ["text"], value_string="never"),
        mg.node("Add", ["x", "k"], ["a"]),
        mg.node("Add", ["a", "n"], ["y"]),
    )
    model, outcome = applied(proto, "constant-to-initializer")
    assert (outcome.rewrites, set(model.initializers)) == (2, {"k", "n"})
    assert reasons(outcome, "refused") == ["its value is sparse or text"]
    assert mg.largest_difference(Model(proto), model, {}) == 0


def test_a_constant_that_is_an_output_stays() -> None:
    proto = mg.model([mg.node("Constant", [], ["y"], value_float=1.0)], [], [mg.info("y", [])])
    unchanged(proto, "constant-to-initializer", "is an output")


def test_duplicates_are_merged_by_type_shape_and_bytes() -> None:
    same = mg.weights(3)
    nodes = [
        mg.node("Add", ["x", "a"], ["p"]),
        mg.node("Add", ["p", "b"], ["q"]),
        mg.node("Add", ["q", "c"], ["r"]),
        mg.node("Add", ["r", "d"], ["y"]),
    ]
    proto = chain(*nodes, a=same, b=same.copy(), c=same.reshape(1, 3), d=-same)
    model, outcome = applied(proto, "duplicate-initializers")
    assert outcome.rewrites == 1
    assert set(model.initializers) == {"a", "c", "d"}
    assert mg.largest_difference(Model(proto), model, {}) == 0


def test_negative_zero_is_not_zero() -> None:
    nodes = [mg.node("Div", ["x", "a"], ["p"]), mg.node("Div", ["p", "b"], ["y"])]
    proto = chain(*nodes, a=np.zeros(3, np.float32), b=-np.zeros(3, np.float32))
    assert applied(proto, "duplicate-initializers")[1].rewrites == 0


def test_dead_nodes_and_unused_initializers_go_but_inputs_stay() -> None:
    proto = chain(
        mg.node("Abs", ["x"], ["y"]),
        mg.node("Neg", ["x"], ["dead"]),
        mg.node("Add", ["dead", "k"], ["deader"]),
        k=mg.weights(3),
        unused=mg.weights(5),
    )
    proto.graph.input.append(mg.info("idle", ["N"]))
    model, outcome = applied(proto, "dead-code")
    assert outcome.rewrites == 3
    assert mg.ops(model) == ["Abs"]
    assert not model.initializers
    assert [spec.name for spec in model.contract.inputs] == ["x", "idle"]


def test_code_that_only_a_body_reads_is_alive() -> None:
    def body(name: str, *nodes: onnx.NodeProto) -> onnx.GraphProto:
        return helper.make_graph(nodes, name, [], [mg.info(f"{name}.r", [2, 3])])

    then = body("t", mg.node("Add", ["deep", "k"], ["t.r"]))
    other = body("e", mg.node("Identity", ["deep"], ["e.r"]))
    proto = chain(
        mg.node("Abs", ["x"], ["shallow"]),
        mg.node("Identity", ["shallow"], ["deep"]),
        mg.node("If", ["flag"], ["y"], then_branch=then, else_branch=other),
        k=mg.weights(3),
    )
    proto.graph.input.append(mg.info("flag", [], bool))
    result = run_passes(Model(proto), PassRequest())
    assert mg.ops(result.model) == ["Abs", "If"]
    assert set(result.model.initializers) == {"k"}
    assert result.report.proof.verdict == "pass"
    for seed in range(4):
        assert mg.largest_difference(Model(proto), result.model, {}, seed) == 0


# The framework


def test_default_passes_on_a_small_network() -> None:
    lines: list[str] = []
    shapes = tuple({"x": (n, 3, 6, 6)} for n in (1, 2, 5, 2))
    result = run_passes(Model(mg.conv_bn()), PassRequest(shapes=shapes), lines.append)
    assert mg.ops(result.model) == ["Conv", "Relu"]
    assert result.report.nodes_before == 3
    assert result.report.nodes_after == 2
    assert result.report.rounds == 3  # the last one follows another shape inference
    assert result.report.initializer_bytes_after < result.report.initializer_bytes_before
    proof = result.report.proof
    assert (proof.verdict, proof.cases) == ("pass", 6)  # on two seeds each
    assert 0 < proof.max_abs < 1e-4
    assert 100 < proof.min_sqnr_db < 200
    assert any("conv-batchnorm" in line for line in lines)
    assert {p["name"]: p["rewrites"] for p in result.report.as_json()["passes"]}[
        "conv-batchnorm"
    ] == 1


def test_nothing_to_do_gives_back_the_original() -> None:
    model = Model(chain(mg.node("Abs", ["x"], ["y"])))
    result = run_passes(model, PassRequest())
    assert result.model is model
    assert result.report.proof.verdict == "pass"
    assert result.report.as_json()["proof"]["min_sqnr_db"] == "inf"


def test_none_and_drop() -> None:
    assert run_passes(Model(mg.conv_bn()), PassRequest(use="none")).report.passes == ()
    request = PassRequest(drop=("conv-batchnorm",), prove=False)
    assert mg.ops(run_passes(Model(mg.conv_bn()), request).model)[1] == "BatchNormalization"


@pytest.mark.parametrize(
    "request_", [PassRequest(use=("conv-batchnrom",)), PassRequest(drop=("conv-batchnrom",))]
)
def test_unknown_pass(request_: PassRequest) -> None:
    with pytest.raises(UsageError) as caught:
        run_passes(Model(mg.conv_bn()), request_)
    assert caught.value.code == "TF0411"
    assert caught.value.hint == "did you mean 'conv-batchnorm'?"


def test_no_shapes_for_a_dynamic_model_is_said() -> None:
    proof = run_passes(Model(mg.conv_bn()), PassRequest()).report.proof
    assert proof.verdict == "not_run"
    assert "no shapes" in (proof.reason or "")


def test_a_model_that_does_not_run_here_is_said() -> None:
    proto = mg.conv_bn()
    proto.opset_import.append(helper.make_opsetid("org.example", 1))
    proto.graph.node.append(helper.make_node("Magic", ["y"], ["z"], domain="org.example"))
    proto.graph.output.append(mg.info("z", ["N", 4, 6, 6]))
    report = run_passes(Model(proto), PassRequest(shapes=({"x": (1, 3, 6, 6)},))).report
    assert report.nodes_after == report.nodes_before - 1
    assert report.proof.verdict == "not_run"


def test_a_random_model_proves_nothing() -> None:
    proto = chain(
        mg.node("Identity", ["x"], ["i"]),
        mg.node("RandomNormalLike", ["i"], ["r"]),
        mg.node("Add", ["i", "r"], ["y"]),
    )
    proof = run_passes(Model(proto), PassRequest()).report.proof
    assert proof.verdict == "not_run"
    assert "each time" in (proof.reason or "")


def inject(monkeypatch: pytest.MonkeyPatch, **made: type) -> None:
    module = ModuleType("injected_passes")
    for attribute, one in made.items():
        setattr(module, attribute, one)
        name = one.name  # type: ignore[attr-defined]
        monkeypatch.setitem(passes.PASSES, name, f"injected_passes:{attribute}")
    monkeypatch.setitem(sys.modules, "injected_passes", module)


class Wrong:
    """Takes out Relu, as if it were an identity."""

    name = "wrong"

    def apply(self, editor: Editor) -> None:
        for node in editor.nodes("Relu"):
            editor.match(node, "is surely the same")
            editor.replace(node, "Neg", node.inputs)


class SlightlyWrong:
    """Changes one weight by a hundredth."""

    name = "slightly-wrong"

    def apply(self, editor: Editor) -> None:
        node = editor.graph.nodes[0]
        weight = node.inputs[1]
        if weight.name == "W" and not weight.values.flags.owndata:
            values = weight.values.copy()
            values[0, 0, 0, 0] += 0.01
            weight.values = values
            editor.match(node, "a hundredth is next to nothing")


class Crashing:
    name = "crashing"

    def apply(self, editor: Editor) -> None:
        editor.graph.nodes.pop()
        raise ZeroDivisionError("one over zero")


class Lying:
    name = "lying"

    def apply(self, editor: Editor) -> None:
        node = editor.graph.nodes[-1]
        editor.replace(node, "Neg", node.inputs)


class Breaking:
    """Leaves a graph that is no graph."""

    name = "breaking"

    def apply(self, editor: Editor) -> None:
        node = editor.graph.nodes[-1]
        if node.op != "Nonsense":
            editor.match(node, "this is better")
            editor.replace(node, "Nonsense", node.inputs)


class Renaming:
    """Changes the contract."""

    name = "renaming"

    def apply(self, editor: Editor) -> None:
        output = editor.graph.outputs[0]
        if output.name != "z":
            output.name = "z"
            editor.match(editor.graph.nodes[-1], "z is a nicer name")


@pytest.mark.parametrize(
    ("faulty", "reason"),
    [
        (Wrong, "changes the result: output 'y' differs"),
        (SlightlyWrong, "changes the result: output 'y' differs"),
        (Crashing, "ZeroDivisionError: one over zero"),
        (Lying, "reported no rewrite"),
        (Breaking, "changes the result: ONNX Runtime cannot load"),
        (Renaming, "no longer the same"),
    ],
)
def test_a_faulty_pass_is_found_named_and_taken_back(
    monkeypatch: pytest.MonkeyPatch, faulty: type, reason: str
) -> None:
    inject(monkeypatch, Faulty=faulty)
    name = faulty.name  # type: ignore[attr-defined]
    names = ("identity", name, *passes.DEFAULT_PASSES[1:])
    model = Model(mg.conv_bn())
    shapes = ({"x": (2, 3, 6, 6)},)
    result = run_passes(model, PassRequest(use=names, shapes=shapes))
    outcomes = {outcome.name: outcome for outcome in result.report.passes}
    assert outcomes[name].rolled_back
    assert reason in (outcomes[name].reason or "")
    assert outcomes[name].rewrites == 0
    assert [o.name for o in result.report.passes if o.rolled_back] == [name]
    assert mg.ops(result.model) == ["Conv", "Relu"]
    assert result.report.proof.verdict == "pass"
    assert mg.largest_difference(model, result.model, shapes[0]) < CLOSE


def test_two_faulty_passes_are_both_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    inject(monkeypatch, Wrong=Wrong, SlightlyWrong=SlightlyWrong)
    names = ("wrong", "slightly-wrong", "conv-batchnorm")
    request = PassRequest(use=names, shapes=({"x": (1, 3, 6, 6)},))
    report = run_passes(Model(mg.conv_bn()), request).report
    assert [outcome.rolled_back for outcome in report.passes] == [True, True, False]
    assert report.proof.verdict == "pass"


def test_a_pass_that_never_ends_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    class Restless:
        name = "restless"

        def apply(self, editor: Editor) -> None:
            node = editor.graph.nodes[0]
            editor.set_attribute(node, "count", node.attrs.get("count", 0) + 1)
            editor.match(node, "one more")

    inject(monkeypatch, Restless=Restless)
    request = PassRequest(use=("restless",), prove=False)
    assert run_passes(Model(mg.conv_bn()), request).report.rounds == 20


def test_the_original_is_untouched() -> None:
    proto = mg.conv_bn()
    before = proto.SerializeToString(deterministic=True)
    run_passes(Model(proto), PassRequest(shapes=({"x": (1, 3, 6, 6)},)))
    assert proto.SerializeToString(deterministic=True) == before


def test_metadata_of_a_fused_node_survives() -> None:
    proto = mg.conv_bn()
    proto.graph.node[0].doc_string = "the stem"
    proto.graph.node[0].metadata_props.add(key="scope", value="stem")
    proto.metadata_props.add(key="stride", value="32")
    model, _ = applied(proto, "conv-batchnorm")
    assert model.proto.graph.node[0].doc_string == "the stem"
    assert model.proto.graph.node[0].metadata_props[0].value == "stem"
    assert model.proto.metadata_props[0].value == "32"


def test_functions_are_written_out() -> None:
    proto = mg.conv_bn()
    proto.opset_import.append(helper.make_opsetid("f", 1))
    body = [mg.node("Identity", ["a"], ["i"]), mg.node("Identity", ["i"], ["b"])]
    imports = [helper.make_opsetid("", mg.OPSET)]
    proto.functions.append(helper.make_function("f", "Same", ["a"], ["b"], body, imports))
    proto.graph.node.append(helper.make_node("Same", ["y"], ["z"], domain="f"))
    proto.graph.output.append(mg.info("z", ["N", 4, 6, 6]))
    result = run_passes(Model(proto), PassRequest(shapes=({"x": (1, 3, 6, 6)},)))
    # 'y' and 'z' are both outputs, so that one copy stays.
    assert mg.ops(result.model) == ["Conv", "Relu", "Identity"]
    assert not result.model.proto.functions
    assert [f"{i.domain}:{i.version}" for i in result.model.proto.opset_import] == [f":{mg.OPSET}"]
    assert result.report.proof.verdict == "pass"


def test_integer_outputs_must_be_equal() -> None:
    proto = mg.conv_bn()
    proto.graph.node.append(mg.node("ArgMax", ["y"], ["z"], axis=1))
    proto.graph.output.append(mg.info("z", ["N", 1, 6, 6], np.int64))
    report = run_passes(Model(proto), PassRequest(shapes=({"x": (2, 3, 6, 6)},))).report
    assert report.proof.verdict == "pass"
    assert proto.graph.output[1].type.tensor_type.elem_type == TensorProto.INT64


def long_network(blocks: int) -> Model:
    """Ten nodes a block; all blocks share one weight and one factor."""
    nodes, initializers = (
        [],
        [
            mg.tensor("one", np.float32(1.5)),
            mg.tensor("W", mg.weights(2, 2, 1, 1) / 2),
        ],
    )
    last = "x"
    for i in range(blocks):
        initializers.append(mg.tensor(f"W{i}", mg.weights(2, 2, 1, 1, seed=i) / 2))
        initializers.extend(mg.batchnorm_parameters(f"bn{i}", 2, i))
        nodes += [
            mg.node("Conv", [last, f"W{i}"], [f"c{i}"]),
            mg.batchnorm(f"c{i}", f"n{i}", f"bn{i}"),
            mg.node("Mul", [f"n{i}", "one"], [f"m{i}"]),
            mg.node("Identity", [f"m{i}"], [f"i{i}"]),
            mg.node("Constant", [], [f"k{i}"], value_float=0.5),
            mg.node("Tanh", [f"k{i}"], [f"f{i}"]),
            mg.node("Add", [f"i{i}", f"f{i}"], [f"a{i}"]),
            mg.node("Tanh", [f"a{i}"], [f"r{i}"]),
            mg.node("Mul", [f"r{i}", "one"], [f"s{i}"]),
            mg.node("Conv", [f"s{i}", "W"], [f"t{i}"]),
        ]
        last = f"t{i}"
    dims = ["N", 2, 1, 1]
    return Model(mg.model(nodes, [mg.info("x", dims)], [mg.info(last, dims)], initializers))


def test_work_grows_with_the_graph_and_no_faster() -> None:
    def calls(blocks: int) -> int:
        model = long_network(blocks)
        profile = cProfile.Profile()
        profile.enable()
        run_passes(model, PassRequest(prove=False))
        profile.disable()
        return sum(entry.callcount for entry in profile.getstats())

    calls(1)  # imports
    assert calls(200) / calls(50) < 4.4


def test_ten_thousand_nodes() -> None:
    model = long_network(1000)
    result = run_passes(model, PassRequest(shapes=({"x": (1, 2, 1, 1)},)))
    assert (result.report.nodes_before, result.report.nodes_after) == (10_000, 3_000)
    assert result.report.proof.verdict == "pass"
