"""Fusions around linear operators: what they rewrite, what they refuse, and that numbers stay."""

from typing import Any

import ml_dtypes
import models_graph as mg
import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from trtforge.graph import rounding
from trtforge.graph.fusion import linear
from trtforge.graph.model import Model
from trtforge.graph.passes import PassRequest, run_passes
from trtforge.graph.report import PassOutcome

CLOSE = 1e-5
HALF = 5e-3


def applied(proto: ModelProto, *names: str) -> tuple[Model, PassOutcome]:
    """Run passes without the built-in proof; the tests prove by themselves."""
    onnx.checker.check_model(proto, full_check=True)
    result = run_passes(Model(proto), PassRequest(use=names, prove=False))
    onnx.checker.check_model(result.model.proto, full_check=True)
    assert result.model.contract == Model(proto).contract
    assert not any(outcome.rolled_back for outcome in result.report.passes), result.report.passes
    again = run_passes(result.model, PassRequest(use=names, prove=False))
    assert not any(outcome.rewrites for outcome in again.report.passes)
    return result.model, result.report.passes[0]


def unchanged(proto: ModelProto, name: str, why: str) -> None:
    model, outcome = applied(proto, name)
    assert outcome.rewrites == 0
    assert mg.ops(model) == mg.ops(proto)
    refused = [note.reason for note in outcome.notes if note.kind == "refused"]
    assert any(why in reason for reason in refused) if why else not refused, refused


def proven(proto: ModelProto, names: tuple[str, ...], expected: list[str], **shapes: Any) -> Model:
    """Check that passes leave these operators, and the same numbers; return the result."""
    model, outcome = applied(proto, *names)
    assert outcome.rewrites > 0, outcome.notes
    assert mg.ops(model) == expected
    half = any(t.data_type == TensorProto.FLOAT16 for t in proto.graph.initializer)
    assert mg.largest_difference(Model(proto), model, shapes) < (HALF if half else CLOSE)
    return model


def norm(prefix: str, channels: int, seed: int = 7, dtype: Any = np.float32) -> list[TensorProto]:
    found = mg.batchnorm_parameters(prefix, channels, seed)
    return [mg.tensor(t.name, numpy_helper.to_array(t), dtype) for t in found]


def product(
    op: str = "Gemm",
    *,
    x: tuple[int | str, ...] = ("N", 6),
    bias: tuple[int, ...] | None = (5,),
    dtype: Any = np.float32,
    **attributes: Any,
) -> tuple[list[Any], list[TensorProto], list[Any]]:
    """x (.., 6) times W (6, 5): nodes, initializers and inputs; the result is p."""
    turned = attributes.get("transB", 0)
    initializers = [mg.tensor("W", mg.weights(*((5, 6) if turned else (6, 5))), dtype)]
    names = ["x", "W"]
    if op == "Gemm" and bias is not None:
        initializers.append(mg.tensor("b", mg.weights(*bias, seed=3), dtype))
        names.append("b")
    return [mg.node(op, names, ["p"], **attributes)], initializers, [mg.info("x", x, dtype)]


# Gemm and MatMul + BatchNormalization


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("bias", [None, (5,), (1, 5), (1,), ()])
@pytest.mark.parametrize(
    "attributes", [{}, {"transB": 1}, {"alpha": 0.5, "beta": 3.0}, {"transA": 1, "alpha": -2.0}]
)
def test_gemm_and_batchnorm(attributes: dict[str, Any], bias: Any, dtype: type) -> None:
    x = (6, "N") if attributes.get("transA") else ("N", 6)
    nodes, initializers, inputs = product(x=x, bias=bias, dtype=dtype, **attributes)
    nodes.append(mg.batchnorm("p", "y", "bn", epsilon=0.01))
    proto = mg.model(
        nodes, inputs, [mg.info("y", ["N", 5], dtype)], initializers + norm("bn", 5, dtype=dtype)
    )
    shapes = {"x": (6, 3) if attributes.get("transA") else (3, 6)}
    model = proven(proto, ("gemm-batchnorm",), ["Gemm"], **shapes)
    left = {a.name for a in model.proto.graph.node[0].attribute}
    assert left == set(attributes) - {"alpha", "beta"}
    assert "W" in model.initializers


def test_matmul_and_batchnorm_become_a_gemm() -> None:
    nodes, initializers, inputs = product("MatMul")
    nodes.append(mg.batchnorm("p", "y", "bn"))
    proto = mg.model(nodes, inputs, [mg.info("y", ["N", 5])], initializers + norm("bn", 5))
    model = proven(proto, ("gemm-batchnorm",), ["Gemm"], x=(3, 6))
    assert model.proto.graph.node[0].output[0] == "y"


def test_batchnorm_of_another_axis_stays() -> None:
    nodes, initializers, inputs = product("MatMul", x=("N", 5, 6))
    nodes.append(mg.batchnorm("p", "y", "bn"))
    proto = mg.model(nodes, inputs, [mg.info("y", ["N", 5, 5])], initializers + norm("bn", 5))
    unchanged(proto, "gemm-batchnorm", "along axis 1")


def test_bias_that_differs_from_row_to_row_stays() -> None:
    nodes, initializers, inputs = product(x=(3, 6), bias=(3, 1))
    nodes.append(mg.batchnorm("p", "y", "bn"))
    proto = mg.model(nodes, inputs, [mg.info("y", [3, 5])], initializers + norm("bn", 5))
    unchanged(proto, "gemm-batchnorm", "has shape [3, 1]")


def test_gemm_before_opset_7_stays() -> None:
    nodes, initializers, inputs = product(broadcast=1)
    nodes.append(mg.batchnorm("p", "y", "bn", is_test=1))
    proto = mg.model(nodes, inputs, [mg.info("y", ["N", 5])], initializers + norm("bn", 5), opset=6)
    unchanged(proto, "gemm-batchnorm", "before opset 7")


def test_product_of_two_activations_is_no_place_for_weights() -> None:
    proto = mg.model(
        [mg.node("MatMul", ["x", "z"], ["p"]), mg.node("Mul", ["p", "k"], ["y"])],
        [mg.info("x", [2, 6]), mg.info("z", [6, 5])],
        [mg.info("y", [2, 5])],
        [mg.tensor("k", [0.5], np.float32)],
    )
    unchanged(proto, "gemm-mul-add", "")


# Gemm and MatMul + Mul/Add/Sub/Div


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("shape", [(), (1,), (5,), (1, 5)])
@pytest.mark.parametrize("op", ["Mul", "Add", "Sub", "Div"])
@pytest.mark.parametrize("linear_op", ["Gemm", "MatMul"])
def test_product_and_constant(
    linear_op: str, op: str, shape: tuple[int, ...], first: bool, dtype: type
) -> None:
    nodes, initializers, inputs = product(linear_op, dtype=dtype)
    nodes.append(mg.node(op, ["p", "k"] if first else ["k", "p"], ["y"]))
    constant = mg.tensor("k", mg.weights(*shape, seed=2), dtype)
    proto = mg.model(nodes, inputs, [mg.info("y", ["N", 5], dtype)], [*initializers, constant])
    if op == "Div" and not first:
        unchanged(proto, "gemm-mul-add", "")
        return
    gains_bias = op == "Add" or op == "Sub"
    result = "Gemm" if linear_op == "Gemm" or gains_bias else "MatMul"
    proven(proto, ("gemm-mul-add",), [result], x=(3, 6))


@pytest.mark.parametrize("channels", [5, 4])
@pytest.mark.parametrize(
    ("shape", "attributes", "fits"),
    [
        ((5,), {"axis": 1}, True),
        ((1, 5, 1), {"axis": 0}, True),
        ((5, 1, 1), {}, True),
        ((), {}, True),
        ((4,), {}, False),
        ((4, 1), {"axis": 2}, False),
    ],
)
def test_broadcasting_before_opset_7(
    shape: tuple[int, ...], attributes: dict[str, int], fits: bool, channels: int
) -> None:
    """The result is (2, channels, 4, 4): with 4 channels, (4,) is along the wrong axis."""
    shape = tuple(channels if dim == 5 else dim for dim in shape)
    proto = mg.model(
        [
            mg.node("Conv", ["x", "W"], ["c"]),
            mg.node("Mul", ["c", "k"], ["y"], broadcast=1, **attributes),
        ],
        [mg.info("x", [2, 3, 4, 4])],
        [mg.info("y", [2, channels, 4, 4])],
        [mg.tensor("W", mg.weights(channels, 3, 1, 1)), mg.tensor("k", mg.weights(*shape, seed=2))],
        opset=6,
    )
    if not fits:
        unchanged(proto, "conv-mul-add", "not one value per channel")
        return
    model, outcome = applied(proto, "conv-mul-add")
    assert outcome.rewrites == 1
    factor = np.broadcast_to(mg.weights(*shape, seed=2).reshape(-1), (channels,))
    exact = mg.weights(channels, 3, 1, 1).astype(np.float64) * factor.reshape(-1, 1, 1, 1)
    assert np.array_equal(model.initializer("W"), exact.astype(np.float32))


@pytest.mark.parametrize("x", [("N", "T", 6), (2, 3, 4, 6)])
@pytest.mark.parametrize("op", ["Mul", "Div"])
def test_product_of_more_axes_and_factor(x: tuple[int | str, ...], op: str) -> None:
    nodes, initializers, inputs = product("MatMul", x=x)
    nodes.append(mg.node(op, ["p", "k"], ["y"]))
    constant = mg.tensor("k", mg.weights(5, seed=2))
    proto = mg.model(nodes, inputs, [mg.info("y", [*x[:-1], 5])], [*initializers, constant])
    shape = tuple(dim if isinstance(dim, int) else 3 for dim in x)
    proven(proto, ("gemm-mul-add",), ["MatMul"], x=shape)


def test_weights_of_many_matrices_are_scaled_along_their_last_axis() -> None:
    proto = mg.model(
        [mg.node("MatMul", ["x", "W"], ["p"]), mg.node("Mul", ["p", "k"], ["y"])],
        [mg.info("x", [2, 3, 4])],
        [mg.info("y", [2, 3, 5])],
        [mg.tensor("W", mg.weights(2, 4, 5)), mg.tensor("k", mg.weights(5, seed=1))],
    )
    proven(proto, ("gemm-mul-add",), ["MatMul"])


@pytest.mark.parametrize("shape", [(5,), (1, 1, 5), (1,)])
@pytest.mark.parametrize("op", ["Mul", "Div"])
def test_factor_goes_through_the_bias(op: str, shape: tuple[int, ...]) -> None:
    nodes, initializers, inputs = product("MatMul", x=("N", "T", 6))
    nodes += [mg.node("Add", ["b", "p"], ["a"]), mg.node(op, ["a", "k"], ["y"])]
    initializers += [mg.tensor("b", mg.weights(5)), mg.tensor("k", mg.weights(*shape, seed=2))]
    proto = mg.model(nodes, inputs, [mg.info("y", ["N", "T", 5])], initializers)
    model = proven(proto, ("gemm-mul-add",), ["MatMul", "Add"], x=(2, 3, 6))
    assert set(model.initializers) == {"W", "b"}


def test_factor_after_a_bias_that_others_read_stays() -> None:
    nodes, initializers, inputs = product("MatMul", x=("N", "T", 6))
    nodes += [mg.node("Add", ["p", "b"], ["a"]), mg.node("Mul", ["a", "k"], ["y"])]
    initializers += [mg.tensor("b", mg.weights(5)), mg.tensor("k", mg.weights(5, seed=2))]
    outputs = [mg.info("y", ["N", "T", 5]), mg.info("a", ["N", "T", 5])]
    proto = mg.model(nodes, inputs, outputs, initializers)
    unchanged(proto, "gemm-mul-add", "used elsewhere")


@pytest.mark.parametrize(
    ("shape", "x", "y"),
    [((3, 1), (3, 6), (3, 5)), ((2, 1, 1), (3, 6), (2, 3, 5)), ((1, 3, 5), (2, 3, 6), (2, 3, 5))],
)
def test_constant_of_other_axes_stays(
    shape: tuple[int, ...], x: tuple[int, ...], y: tuple[int, ...]
) -> None:
    nodes, initializers, inputs = product("MatMul", x=x)
    nodes.append(mg.node("Mul", ["p", "k"], ["y"]))
    constant = mg.tensor("k", mg.weights(*shape))
    proto = mg.model(nodes, inputs, [mg.info("y", y)], [*initializers, constant])
    unchanged(proto, "gemm-mul-add", "not one value per channel")


def test_bias_of_more_axes_is_no_near_miss() -> None:
    nodes, initializers, inputs = product("MatMul", x=("N", "T", 6))
    nodes.append(mg.node("Add", ["p", "b"], ["y"]))
    initializers.append(mg.tensor("b", mg.weights(5)))
    proto = mg.model(nodes, inputs, [mg.info("y", ["N", "T", 5])], initializers)
    unchanged(proto, "gemm-mul-add", "")
    unchanged(proto, "matmul-bias", "")


# MatMul + bias, Gemm's alpha and beta, Transpose + Gemm


@pytest.mark.parametrize("computed", [False, True])
@pytest.mark.parametrize("shape", [(), (1,), (5,), (1, 5)])
def test_matmul_and_bias(shape: tuple[int, ...], computed: bool) -> None:
    nodes, initializers, inputs = product("MatMul")
    nodes.append(mg.node("Add", ["b", "p"], ["y"]))
    if computed:
        inputs.append(mg.info("b", shape))
    else:
        initializers.append(mg.tensor("b", mg.weights(*shape)))
    proto = mg.model(nodes, inputs, [mg.info("y", ["N", 5])], initializers)
    model = proven(proto, ("matmul-bias", "dead-code"), ["Gemm"], x=(3, 6))
    assert list(model.proto.graph.node[0].input) == ["x", "W", "b"]


@pytest.mark.parametrize("computed", [False, True])
def test_gemm_without_bias_takes_one(computed: bool) -> None:
    nodes, initializers, inputs = product(bias=None, transB=1, alpha=0.5, beta=3.0)
    nodes.append(mg.node("Add", ["p", "b"], ["y"]))
    if computed:
        inputs.append(mg.info("b", [5]))
    else:
        initializers.append(mg.tensor("b", mg.weights(5)))
    proto = mg.model(nodes, inputs, [mg.info("y", ["N", 5])], initializers)
    model = proven(proto, ("matmul-bias", "dead-code"), ["Gemm"], x=(3, 6))
    assert {a.name for a in model.proto.graph.node[0].attribute} == {"transB", "alpha"}


def test_product_that_others_read_keeps_its_sum() -> None:
    nodes, initializers, inputs = product("MatMul")
    nodes.append(mg.node("Add", ["p", "b"], ["y"]))
    initializers.append(mg.tensor("b", mg.weights(5)))
    outputs = [mg.info("y", ["N", 5]), mg.info("p", ["N", 5])]
    proto = mg.model(nodes, inputs, outputs, initializers)
    unchanged(proto, "matmul-bias", "used elsewhere")


@pytest.mark.parametrize("shape", [(3, 1), ("N", 5), (None, 5)])
def test_residual_is_no_bias(shape: tuple[Any, ...]) -> None:
    nodes, initializers, inputs = product("MatMul", x=(3, 6))
    nodes.append(mg.node("Add", ["p", "r"], ["y"]))
    inputs.append(mg.info("r", shape))
    proto = mg.model(nodes, inputs, [mg.info("y", [3, 5])], initializers)
    unchanged(proto, "matmul-bias", "not one value per column")


def test_integers_have_no_gemm() -> None:
    proto = mg.model(
        [mg.node("MatMul", ["x", "W"], ["p"]), mg.node("Add", ["p", "b"], ["y"])],
        [mg.info("x", [2, 3], np.int32)],
        [mg.info("y", [2, 4], np.int32)],
        [mg.tensor("W", np.ones((3, 4)), np.int32), mg.tensor("b", np.ones(4), np.int32)],
    )
    unchanged(proto, "matmul-bias", "")


@pytest.mark.parametrize("bias", [(5,), (3, 5), (3, 1), ()])
def test_alpha_and_beta_go_into_constants(bias: tuple[int, ...]) -> None:
    nodes, initializers, inputs = product(x=(3, 6), bias=bias, alpha=0.25, beta=-1.5, transB=1)
    proto = mg.model([nodes[0]], inputs, [mg.info("p", [3, 5])], initializers)
    model = proven(proto, ("gemm-constants",), ["Gemm"])
    assert [a.name for a in model.proto.graph.node[0].attribute] == ["transB"]


def test_alpha_of_computed_operands_stays() -> None:
    proto = mg.model(
        [mg.node("Gemm", ["x", "z", "b"], ["y"], alpha=0.5, beta=2.0)],
        [mg.info("x", [2, 6]), mg.info("z", [6, 5])],
        [mg.info("y", [2, 5])],
        [mg.tensor("b", mg.weights(5))],
    )
    model = proven(proto, ("gemm-constants",), ["Gemm"])
    assert [a.name for a in model.proto.graph.node[0].attribute] == ["alpha"]


@pytest.mark.parametrize("op", ["Gemm", "MatMul"])
@pytest.mark.parametrize("which", ["first", "second", "both"])
def test_transposes_go_into_the_product(which: str, op: str) -> None:
    nodes, names = [], ["x", "z"]
    dims = {"x": [3, 6], "z": [6, 5]}
    for index, name in enumerate("xz"):
        if which in ("both", ("first", "second")[index]):
            nodes.append(mg.node("Transpose", [name], [f"{name}t"], perm=[1, 0]))
            names[index], dims[name] = f"{name}t", dims[name][::-1]
    nodes.append(mg.node(op, names, ["y"]))
    inputs = [mg.info(name, dims[name]) for name in "xz"]
    proto = mg.model(nodes, inputs, [mg.info("y", [3, 5])])
    proven(proto, ("gemm-transpose", "dead-code"), ["Gemm"])


def test_transposed_twice_is_not_transposed() -> None:
    nodes = [
        mg.node("Transpose", ["x"], ["t"]),
        mg.node("Gemm", ["t", "W"], ["y"], transA=1),
    ]
    weights = [mg.tensor("W", mg.weights(6, 5))]
    proto = mg.model(nodes, [mg.info("x", [3, 6])], [mg.info("y", [3, 5])], weights)
    model = proven(proto, ("gemm-transpose", "dead-code"), ["Gemm"])
    assert not model.proto.graph.node[0].attribute


def test_transposed_matrix_that_others_read_stays() -> None:
    nodes = [
        mg.node("Transpose", ["z"], ["t"], perm=[1, 0]),
        mg.node("MatMul", ["x", "t"], ["y"]),
    ]
    inputs = [mg.info("x", [3, 6]), mg.info("z", [5, 6])]
    proto = mg.model(nodes, inputs, [mg.info("y", [3, 5]), mg.info("t", [6, 5])])
    unchanged(proto, "gemm-transpose", "used elsewhere")


def test_product_of_more_matrices_keeps_its_transpose() -> None:
    nodes = [
        mg.node("Transpose", ["z"], ["t"], perm=[1, 0]),
        mg.node("MatMul", ["x", "t"], ["y"]),
    ]
    inputs = [mg.info("x", [2, 3, 6]), mg.info("z", [5, 6])]
    unchanged(mg.model(nodes, inputs, [mg.info("y", [2, 3, 5])]), "gemm-transpose", "")


# Weights: blocks, types, sharing, bodies


def test_weights_are_scaled_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    values, factor = mg.weights(7, 5, 3), mg.weights(7, 1, 1, seed=1).astype(np.float64)
    whole = rounding.scaled(values, factor)
    total = rounding.weighted_sum(values, factor.reshape(1, 7, 1)[:, :5], 0)
    monkeypatch.setattr(rounding, "_BLOCK_ELEMENTS", 40)
    assert np.array_equal(whole, (values.astype(np.float64) * factor).astype(np.float32))
    assert np.array_equal(rounding.scaled(values, factor), whole)
    blocks = rounding.weighted_sum(values, factor.reshape(1, 7, 1)[:, :5], 0)
    np.testing.assert_allclose(blocks, total, rtol=1e-12)


def test_half_precision_weights_that_would_vanish_stay() -> None:
    nodes, initializers, inputs = product("MatMul", dtype=np.float16)
    nodes.append(mg.node("Mul", ["p", "k"], ["y"]))
    constant = mg.tensor("k", [1e-6], np.float16)
    outputs = [mg.info("y", ["N", 5], np.float16)]
    unchanged(
        mg.model(nodes, inputs, outputs, [*initializers, constant]),
        "gemm-mul-add",
        "too small for float16",
    )


@pytest.mark.parametrize("op", ["Gemm", "Conv"])
def test_bfloat16_weights_are_rounded_once(op: str) -> None:
    bf16 = ml_dtypes.bfloat16
    kernel = (1, 1) if op == "Conv" else ()
    shape = (5, 6, *kernel)
    weight, factor = mg.weights(*shape, dtype=bf16), mg.weights(5, seed=2, dtype=bf16)
    attributes: dict[str, Any] = {} if op == "Conv" else {"transB": 1}
    proto = mg.model(
        [
            mg.node(op, ["x", "W", "b"], ["p"], **attributes),
            mg.node("Mul", ["p", "k"], ["y"]),
        ],
        [mg.info("x", [2, 6, *kernel], bf16)],
        [mg.info("y", [2, 5, *kernel], bf16)],
        [
            numpy_helper.from_array(weight, "W"),
            numpy_helper.from_array(mg.weights(5, seed=4, dtype=bf16), "b"),
            numpy_helper.from_array(factor.reshape(1, 5, *kernel), "k"),
        ],
        opset=22,
        ir_version=10,
    )
    model, outcome = applied(proto, f"{op.lower()}-mul-add")
    assert outcome.rewrites == 1
    exact = weight.astype(np.float64) * factor.astype(np.float64).reshape(5, 1, *kernel)
    assert np.array_equal(model.initializer("W"), exact.astype(bf16))


def two_convolutions(channels: int) -> ModelProto:
    """One weight, two convolutions, each with its own normalization."""
    nodes = []
    for name in "ac":
        nodes.append(mg.node("Conv", ["x", "W"], [f"{name}0"]))
        nodes.append(mg.batchnorm(f"{name}0", f"{name}1", f"bn.{name}"))
    weights = mg.tensor("W", mg.weights(channels, channels, 1, 1))
    outputs = [mg.info(f"{name}1", [1, channels, 2, 2]) for name in "ac"]
    parameters = norm("bn.a", channels) + norm("bn.c", channels, seed=9)
    return mg.model(nodes, [mg.info("x", [1, channels, 2, 2])], outputs, [weights, *parameters])


def test_small_shared_weights_are_split_up() -> None:
    model = proven(two_convolutions(16), ("conv-batchnorm",), ["Conv", "Conv"])
    weights = {node.input[1] for node in model.proto.graph.node}
    assert len(weights) == 2
    assert "W" in weights


def test_big_shared_weights_stay() -> None:
    proto = two_convolutions(520)  # 1.03 MiB
    unchanged(proto, "conv-batchnorm", "('W') are shared")


def test_shared_weights_that_need_no_change_take_a_bias(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "_MOST_GROWTH_BYTES", 0)
    proto = mg.model(
        [
            mg.node("Conv", ["x", "W"], ["c"]),
            mg.node("Add", ["c", "k"], ["y"]),
            mg.node("Conv", ["y", "W"], ["z"]),
        ],
        [mg.info("x", [1, 4, 3, 3])],
        [mg.info("z", [1, 4, 3, 3])],
        [mg.tensor("W", mg.weights(4, 4, 1, 1)), mg.tensor("k", mg.weights(4, 1, 1))],
    )
    proven(proto, ("conv-mul-add",), ["Conv", "Conv"])


@pytest.mark.parametrize("also_outside", [False, True])
def test_weights_from_outside_a_body(also_outside: bool) -> None:
    branches = {}
    for branch, op in (("then_branch", "Mul"), ("else_branch", "Add")):
        nodes = [
            mg.node("Gemm", ["x", "W" if op == "Mul" else "V"], [f"{op}.p"]),
            mg.node(op, [f"{op}.p", "k"], [f"{op}.y"]),
        ]
        branches[branch] = helper.make_graph(nodes, op, [], [mg.info(f"{op}.y", ["N", 5])])
    nodes = [mg.node("If", ["flag"], ["y"], **branches)]
    outputs = [mg.info("y", ["N", 5])]
    if also_outside:
        nodes.append(mg.node("MatMul", ["x", "W"], ["z"]))
        outputs.append(mg.info("z", ["N", 5]))
    weights = [mg.tensor("W", mg.weights(6, 5)), mg.tensor("V", mg.weights(6, 5, seed=5))]
    inputs = [mg.info("x", ["N", 6]), mg.info("flag", [], bool)]
    constant = mg.tensor("k", mg.weights(5, seed=8))
    proto = mg.model(nodes, inputs, outputs, [*weights, constant])
    model, outcome = applied(proto, "gemm-mul-add", "dead-code")
    assert outcome.rewrites == 2
    for seed in range(4):
        assert mg.largest_difference(Model(proto), model, {"x": (3, 6)}, seed) < CLOSE
