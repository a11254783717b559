"""ONNX Runtime's own operators in standard ones: the numbers are those of its kernels."""

from typing import Any

import models_graph as mg
import numpy as np
import pytest
from onnx import ModelProto, TensorProto
from readiness_models import ms_model, ms_node, ready, stays

from trtforge.graph.readiness.support import support_problems

PASS = "contrib-to-standard"
BATCH, TOKENS, SIZE, HEADS = 2, 5, 12, 3
X = mg.info("x", [BATCH, TOKENS, SIZE])
Y = mg.info("y", [BATCH, TOKENS, SIZE])


def standard(proto: ModelProto, **options: Any) -> list[str]:
    """Rewrite, prove against ONNX Runtime's kernel, and return the operators left."""
    assert support_problems_of(proto) or mg.ops(proto) == ["Gelu"]
    model, _ = ready(proto, PASS, "dead-code", **options)
    assert not [n.op_type for n in model.proto.graph.node if n.domain]
    assert not support_problems(model, "tensorrt_rtx")
    return mg.ops(model)


def support_problems_of(proto: ModelProto) -> tuple[Any, ...]:
    from trtforge.graph.model import Model

    return support_problems(Model(proto), "tensorrt_rtx")


def one(node: Any, *initializers: Any, x: Any = X, y: Any = Y, **options: Any) -> ModelProto:
    return ms_model([node], [x], [y], initializers, **options)


@pytest.mark.parametrize("opset", [17, 20])
@pytest.mark.parametrize("op", ["Gelu", "BiasGelu", "FastGelu", "QuickGelu"])
def test_activations(op: str, opset: int) -> None:
    has_bias = op in ("BiasGelu", "FastGelu")
    inputs = ["x", "b"] if has_bias else ["x"]
    initializers = [mg.tensor("b", mg.weights(SIZE))] if has_bias else []
    left = standard(one(ms_node(op, inputs, ["y"]), *initializers, opset=opset))
    gelu = "Gelu" in left
    assert gelu == (opset >= 20 and op != "QuickGelu")
    assert ("Add" in left) == (has_bias or (not gelu and op != "QuickGelu"))


def test_half_precision_stays_half() -> None:
    half = mg.info("x", [2, 4], np.float16), mg.info("y", [2, 4], np.float16)
    proto = one(ms_node("QuickGelu", ["x"], ["y"]), x=half[0], y=half[1])
    model, _ = ready(proto, PASS)
    assert {t.data_type for t in model.proto.graph.initializer} == {TensorProto.FLOAT16}


@pytest.mark.parametrize("alpha", [1.0, 0.25])
@pytest.mark.parametrize("turn", ["", "A", "B", "AB"])
def test_fused_matmul(turn: str, alpha: float) -> None:
    left = [2, 4, 3] if "A" in turn else [2, 3, 4]
    right = (2, 5, 4) if "B" in turn else (2, 4, 5)
    attributes = {f"trans{side}": 1 for side in turn}
    node = ms_node("FusedMatMul", ["x", "W"], ["y"], alpha=alpha, **attributes)
    proto = one(
        node,
        mg.tensor("W", mg.weights(*right)),
        x=mg.info("x", left),
        y=mg.info("y", [2, 3, 5]),
    )
    assert standard(proto).count("Transpose") == len(turn)


def test_batches_that_are_transposed_are_refused() -> None:
    node = ms_node("FusedMatMul", ["x", "W"], ["y"], transBatchA=1)
    proto = one(
        node,
        mg.tensor("W", mg.weights(2, 4, 3)),
        x=mg.info("x", [5, 2, 4]),
        y=mg.info("y", ["a", "b", "c"]),
    )
    stays(proto, PASS, "transposes batches")


@pytest.mark.parametrize(
    ("activation", "parameters", "added"),
    [
        ("Relu", None, False),
        ("Relu", None, True),
        ("Sigmoid", None, False),
        ("Tanh", None, False),
        ("LeakyRelu", [0.2], False),
        ("Clip", [-0.5, 0.5], False),
        ("HardSigmoid", [0.3, 0.4], False),
    ],
)
def test_fused_conv(activation: str, parameters: list[float] | None, added: bool) -> None:
    attributes = {"activation_params": parameters} if parameters else {}
    inputs = ["x", "W", "b", *(["z"] if added else [])]
    node = ms_node("FusedConv", inputs, ["y"], activation=activation, pads=[1] * 4, **attributes)
    proto = one(
        node,
        mg.tensor("W", mg.weights(4, 3, 3, 3)),
        mg.tensor("b", mg.weights(4)),
        mg.tensor("z", mg.weights(1, 4, 6, 6, seed=2)),
        x=mg.info("x", [1, 3, 6, 6]),
        y=mg.info("y", [1, 4, 6, 6]),
    )
    assert standard(proto) == ["Conv", *(["Add"] if added else []), activation]


def test_an_unknown_activation_is_refused() -> None:
    node = ms_node("FusedConv", ["x", "W"], ["y"], activation="Elu")
    proto = one(
        node,
        mg.tensor("W", mg.weights(4, 3, 3, 3)),
        x=mg.info("x", [1, 3, 6, 6]),
        y=mg.info("y", [1, 4, 4, 4]),
    )
    stays(proto, PASS, "activation Elu")


def test_fused_gemm() -> None:
    node = ms_node("FusedGemm", ["x", "W", "b"], ["y"], activation="LeakyRelu", transB=1)
    node.attribute.append(mg.helper.make_attribute("activation_alpha", 0.3))
    proto = one(
        node,
        mg.tensor("W", mg.weights(5, 4)),
        mg.tensor("b", mg.weights(5)),
        x=mg.info("x", [2, 4]),
        y=mg.info("y", [2, 5]),
    )
    assert standard(proto) == ["Gemm", "LeakyRelu"]


def normalization(**outputs: bool) -> ModelProto:
    names = [
        "y",
        "mean" if outputs.get("mean") else "",
        "",
        "total" if outputs.get("total") else "",
    ]
    while names[-1] == "":
        names.pop()
    inputs = ["x", "s", "g", "b", "bias"] if outputs.get("bias") else ["x", "s", "g", "b"]
    found = [Y, *([mg.info("total", [BATCH, TOKENS, SIZE])] if outputs.get("total") else [])]
    if outputs.get("mean"):
        found.append(mg.info("mean", [BATCH, TOKENS, 1]))
    return ms_model(
        [ms_node("SkipLayerNormalization", inputs, names, epsilon=1e-5)],
        [X],
        found,
        [
            mg.tensor("s", mg.weights(BATCH, TOKENS, SIZE, seed=1)),
            mg.tensor("g", mg.weights(SIZE, seed=2)),
            mg.tensor("b", mg.weights(SIZE, seed=3)),
            mg.tensor("bias", mg.weights(SIZE, seed=4)),
        ],
    )


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("total", [False, True])
def test_skip_layer_normalization(bias: bool, total: bool) -> None:
    left = standard(normalization(bias=bias, total=total))
    assert left == [*["Add"] * (1 + bias), "LayerNormalization"]


def test_its_mean_is_refused() -> None:
    stays(normalization(mean=True), PASS, "mean or variance is used")


def test_the_opset_is_raised_for_it() -> None:
    proto = normalization()
    proto.opset_import[0].version = 14
    model, _ = ready(proto, PASS)
    assert model.opset == 17
    model, _ = ready(proto, PASS, opset_limit=16)
    assert [n.op_type for n in model.proto.graph.node if n.domain] == ["SkipLayerNormalization"]


@pytest.mark.parametrize("segments", [False, True])
@pytest.mark.parametrize("mask", [False, True])
def test_embeddings(segments: bool, mask: bool) -> None:
    inputs = ["ids", "kinds" if segments else "", "words", "places", "segments" if segments else ""]
    inputs += ["g", "b", *(["mask"] if mask else [])]
    ids = [BATCH, TOKENS]
    proto = ms_model(
        [
            ms_node("EmbedLayerNormalization", inputs, ["y", "count"], epsilon=1e-5),
            mg.node("Identity", ["count"], ["n"]),
        ],
        [mg.info("unused", [1])],
        [Y, mg.info("n", [BATCH], np.int32)],
        [
            mg.tensor("ids", np.arange(BATCH * TOKENS).reshape(ids) % 7, np.int32),
            mg.tensor("kinds", np.arange(BATCH * TOKENS).reshape(ids) % 2, np.int32),
            mg.tensor("mask", [[1, 1, 1, 0, 0], [1, 1, 1, 1, 0]], np.int32),
            mg.tensor("words", mg.weights(7, SIZE)),
            mg.tensor("places", mg.weights(9, SIZE, seed=1)),
            mg.tensor("segments", mg.weights(2, SIZE, seed=2)),
            mg.tensor("g", mg.weights(SIZE, seed=3)),
            mg.tensor("b", mg.weights(SIZE, seed=4)),
        ],
    )
    if mask:
        left = standard(proto)
        assert left.count("Gather") == 1 + segments
    else:
        stays(proto, PASS, "has no mask")


def attention(*extra: str, **attributes: Any) -> ModelProto:
    return ms_model(
        [ms_node("Attention", ["x", "W", "b", *extra], ["y"], num_heads=HEADS, **attributes)],
        [X],
        [Y],
        [
            mg.tensor("W", mg.weights(SIZE, 3 * SIZE)),
            mg.tensor("b", mg.weights(3 * SIZE, seed=1)),
            mg.tensor("mask", [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], np.int32),
            mg.tensor("lengths", [3, 4], np.int32),
            mg.tensor("bias", mg.weights(BATCH, HEADS, TOKENS, TOKENS, seed=2)),
        ],
    )


@pytest.mark.parametrize(
    "extra", [(), ("mask",), ("lengths",), ("", "", "bias"), ("mask", "", "bias")]
)
def test_attention(extra: tuple[str, ...]) -> None:
    assert standard(attention(*extra)).count("MatMul") == 3


def test_attention_with_a_scale_of_its_own() -> None:
    assert "Softmax" in standard(attention(scale=0.5))


def test_attention_that_looks_back_is_refused() -> None:
    stays(attention(unidirectional=1), PASS, "looks back only")


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("added", [False, True])
def test_multi_head_attention(bias: bool, added: bool) -> None:
    inputs = ["x", "k", "v", "b" if bias else "", "", "bias" if added else ""]
    proto = ms_model(
        [ms_node("MultiHeadAttention", inputs, ["y"], num_heads=HEADS)],
        [X],
        [Y],
        [
            mg.tensor("k", mg.weights(BATCH, 7, SIZE, seed=1)),
            mg.tensor("v", mg.weights(BATCH, 7, SIZE, seed=2)),
            mg.tensor("b", mg.weights(3 * SIZE, seed=3)),
            mg.tensor("bias", mg.weights(BATCH, HEADS, TOKENS, 7, seed=4)),
        ],
    )
    assert standard(proto).count("MatMul") == 2


def test_what_onnxs_inference_loses_behind_an_own_operator_is_found() -> None:
    nodes = []
    for layer in range(6):  # the type of each is known only through the one before
        source = f"t{layer - 1}" if layer else "x"
        nodes.append(ms_node("QuickGelu", [source], [f"q{layer}"]))
        nodes.append(
            ms_node("FusedMatMul", [f"q{layer}", f"q{layer}"], [f"m{layer}"], transB=1, alpha=0.1)
        )
        nodes.append(mg.node("MatMul", [f"m{layer}", f"q{layer}"], [f"t{layer}"]))
    nodes.append(mg.node("Identity", ["t5"], ["y"]))
    assert len(standard(ms_model(nodes, [X], [Y]))) > 6 * 5


def test_other_operators_of_onnxruntime_are_named_by_the_report() -> None:
    proto = one(ms_node("MurmurHash3", ["x"], ["y"]), y=mg.info("y", [BATCH], np.uint32))
    problems = support_problems_of(proto)
    assert any(problem.operator == "com.microsoft::MurmurHash3" for problem in problems)


@pytest.mark.parametrize("per_column", [False, True])
@pytest.mark.parametrize("op", ["DynamicQuantizeMatMul", "MatMulIntegerToFloat"])
def test_integer_products(op: str, per_column: bool) -> None:
    columns = (5,) if per_column else ()
    if op == "DynamicQuantizeMatMul":
        nodes = [ms_node(op, ["x", "W", "s", "z", "b"], ["y"])]
    else:
        nodes = [
            mg.node("DynamicQuantizeLinear", ["x"], ["q", "t", "p"]),
            ms_node(op, ["q", "W", "t", "s", "p", "z", "b"], ["y"]),
        ]
    proto = ms_model(
        nodes,
        [mg.info("x", [3, 4])],
        [mg.info("y", [3, 5])],
        [
            mg.tensor("W", np.arange(20).reshape(4, 5) - 9, np.int8),
            mg.tensor("s", np.full(columns, 0.1), np.float32),
            mg.tensor("z", np.zeros(columns), np.int8),
            mg.tensor("b", mg.weights(5)),
        ],
    )
    assert support_problems_of(proto)
    model, _ = ready(proto, PASS, "dynamic-quantization", "dead-code")
    assert not support_problems(model, "tensorrt_rtx")
    assert mg.ops(model)[-4:] == ["MatMul", "Mul", "Mul", "Add"]
