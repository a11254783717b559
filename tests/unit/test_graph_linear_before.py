"""What is folded into the linear operator after it, and BatchNormalizations that merge."""

from typing import Any

import models_graph as mg
import numpy as np
import pytest
from onnx import ModelProto
from test_graph_linear import CLOSE, applied, norm, proven, unchanged

from trtforge.graph.model import Model


def norm_then(
    op: str, x: tuple[Any, ...], weight: tuple[int, ...], **attributes: Any
) -> ModelProto:
    """x -> BatchNormalization -> op with weights (and a bias, for a group) -> y."""
    names = ["n", "W", *(["b"] if attributes.pop("bias", False) else [])]
    channels = int(x[1])
    dtype = attributes.pop("dtype", np.float32)
    outputs = weight[0] if op == "Conv" else weight[1] * attributes.get("group", 1)
    if op == "Gemm" and attributes.get("transB"):
        outputs = weight[0]
    initializers = [mg.tensor("W", mg.weights(*weight), dtype), *norm("bn", channels, dtype=dtype)]
    if len(names) == 3:
        initializers.append(mg.tensor("b", mg.weights(outputs, seed=5), dtype))
    return mg.model(
        [mg.batchnorm("x", "n", "bn", epsilon=0.1), mg.node(op, names, ["y"], **attributes)],
        [mg.info("x", x, dtype)],
        [mg.info("y", [None] * len(x), dtype)],
        initializers,
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("x", "weight", "attributes"),
    [
        ((2, 4, 5), (6, 4, 3), {}),
        ((2, 4, 6, 6), (6, 4, 3, 3), {"strides": [2, 2]}),
        ((2, 4, 6, 6), (6, 2, 3, 3), {"group": 2, "auto_pad": "VALID"}),
        ((2, 4, 6, 6), (4, 1, 3, 3), {"group": 4, "pads": [0, 0, 0, 0]}),
        ((2, 4, 4, 4, 4), (6, 4, 2, 2, 2), {"dilations": [2, 1, 1]}),
    ],
)
def test_batchnorm_before_a_convolution(
    x: tuple[int, ...], weight: tuple[int, ...], attributes: dict[str, Any], bias: bool, dtype: type
) -> None:
    proto = norm_then("Conv", x, weight, bias=bias, dtype=dtype, **attributes)
    model = proven(proto, ("batchnorm-before-linear",), ["Conv"])
    assert model.proto.graph.node[0].input[0] == "x"


@pytest.mark.parametrize(
    ("op", "weight", "attributes"),
    [
        ("Gemm", (6, 5), {"bias": True}),
        ("Gemm", (6, 5), {}),
        ("Gemm", (5, 6), {"transB": 1, "bias": True, "alpha": 0.5, "beta": 2.0}),
        ("MatMul", (6, 5), {}),
    ],
)
def test_batchnorm_before_a_product(
    op: str, weight: tuple[int, ...], attributes: dict[str, Any]
) -> None:
    proto = norm_then(op, ("N", 6), weight, **attributes)
    proven(proto, ("batchnorm-before-linear",), ["Gemm"], x=(3, 6))


@pytest.mark.parametrize(
    ("op", "weight", "attributes", "why"),
    [
        ("Conv", (6, 4, 3, 3), {"pads": [1, 1, 1, 1]}, "pads with zeros"),
        ("Conv", (6, 4, 3, 3), {"auto_pad": "SAME_UPPER"}, "pads with zeros"),
        ("ConvTranspose", (4, 6, 3, 3), {}, "not the same at its borders"),
    ],
)
def test_shift_that_padding_does_not_have_stays(
    op: str, weight: tuple[int, ...], attributes: dict[str, Any], why: str
) -> None:
    unchanged(norm_then(op, (2, 4, 6, 6), weight, **attributes), "batchnorm-before-linear", why)


@pytest.mark.parametrize(
    ("op", "weight", "group"), [("Conv", (6, 2, 3, 3), 2), ("ConvTranspose", (4, 3, 3, 3), 2)]
)
def test_batchnorm_without_shift_goes_through_padding(
    op: str, weight: tuple[int, ...], group: int
) -> None:
    proto = norm_then(op, (2, 4, 6, 6), weight, group=group, pads=[1, 1, 1, 1], bias=True)
    for initializer in proto.graph.initializer:
        if initializer.name in ("bn.B", "bn.mean"):
            initializer.CopyFrom(mg.tensor(initializer.name, np.zeros(4), np.float32))
    proven(proto, ("batchnorm-before-linear",), [op])


def test_transposed_activations_stay() -> None:
    proto = norm_then("Gemm", (6, 6), (6, 5), transA=1)
    unchanged(proto, "batchnorm-before-linear", "transposes its activations")


def test_product_of_more_axes_keeps_its_batchnorm() -> None:
    unchanged(norm_then("MatMul", (2, 6, 6), (6, 5)), "batchnorm-before-linear", "along axis 1")


def test_normalized_values_that_others_read_stay() -> None:
    proto = norm_then("Conv", (2, 4, 6, 6), (6, 4, 3, 3))
    proto.graph.output.append(mg.info("n", [2, 4, 6, 6]))
    unchanged(proto, "batchnorm-before-linear", "")


# Mul/Add/Sub/Div before


def arithmetic_then(op: str, first: str, shape: tuple[int, ...], **attributes: Any) -> ModelProto:
    """x `first` k -> op; x is (2, 4, 6, 6) for convolutions, (2, 3, 4) for MatMul."""
    x = [2, 3, 4] if op == "MatMul" else [2, 4, 6, 6]
    weight = {"MatMul": (4, 5), "Conv": (6, 4, 3, 3), "ConvTranspose": (4, 6, 3, 3)}[op]
    return mg.model(
        [mg.node(first, ["x", "k"], ["m"]), mg.node(op, ["m", "W"], ["y"], **attributes)],
        [mg.info("x", x)],
        [mg.info("y", [None] * len(x))],
        [mg.tensor("W", mg.weights(*weight)), mg.tensor("k", mg.weights(*shape, seed=3))],
    )


@pytest.mark.parametrize("shape", [(), (1,), (4, 1, 1), (1, 4, 1, 1)])
@pytest.mark.parametrize("first", ["Mul", "Add", "Sub", "Div"])
def test_arithmetic_before_a_convolution(first: str, shape: tuple[int, ...]) -> None:
    proven(arithmetic_then("Conv", first, shape), ("mul-add-before-linear",), ["Conv"])


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
def test_factor_before_a_convolution_that_pads(op: str) -> None:
    proto = arithmetic_then(op, "Mul", (4, 1, 1), pads=[1, 1, 1, 1])
    proven(proto, ("mul-add-before-linear",), [op])


@pytest.mark.parametrize(("op", "why"), [("Conv", "pads with zeros"), ("ConvTranspose", "borders")])
def test_sum_before_a_convolution_that_pads_stays(op: str, why: str) -> None:
    proto = arithmetic_then(op, "Add", (4, 1, 1), pads=[1, 1, 1, 1])
    unchanged(proto, "mul-add-before-linear", why)


@pytest.mark.parametrize("shape", [(), (4,), (1, 1, 4)])
def test_factor_before_a_product(shape: tuple[int, ...]) -> None:
    proven(arithmetic_then("MatMul", "Div", shape), ("mul-add-before-linear",), ["MatMul"])


def test_sum_before_a_product_of_more_axes_stays() -> None:
    unchanged(arithmetic_then("MatMul", "Add", (4,)), "mul-add-before-linear", "more than two")


@pytest.mark.parametrize("shape", [(6,), (2, 1, 1, 1), (6, 1)])
def test_constant_of_another_axis_stays(shape: tuple[int, ...]) -> None:
    proto = arithmetic_then("Conv", "Mul", shape)
    unchanged(proto, "mul-add-before-linear", "not one value per channel")


def test_constant_that_makes_the_channels_stays() -> None:
    proto = arithmetic_then("Conv", "Mul", (4, 1, 1))
    proto.graph.input[0].CopyFrom(mg.info("x", [2, 1, 6, 6]))
    unchanged(proto, "mul-add-before-linear", "may broadcast")


def test_last_step_of_a_normalization_stays() -> None:
    proto = mg.model(
        [
            mg.node("Mul", ["x", "x"], ["s"]),
            mg.node("ReduceMean", ["s", "axes"], ["v"]),
            mg.node("Sqrt", ["v"], ["d"]),
            mg.node("Div", ["x", "d"], ["n"]),
            mg.node("Mul", ["n", "g"], ["m"]),
            mg.node("MatMul", ["m", "W"], ["y"]),
        ],
        [mg.info("x", [2, 3, 4])],
        [mg.info("y", [2, 3, 5])],
        [
            mg.tensor("axes", [-1], np.int64),
            mg.tensor("g", mg.weights(4)),
            mg.tensor("W", mg.weights(4, 5)),
        ],
    )
    unchanged(proto, "mul-add-before-linear", "last step of a normalization")


def test_image_preprocessing_goes_into_the_first_convolution() -> None:
    proto = mg.model(
        [
            mg.node("Div", ["x", "255"], ["a"]),
            mg.node("Sub", ["a", "mean"], ["b"]),
            mg.node("Div", ["b", "std"], ["c"]),
            mg.node("Conv", ["c", "W"], ["y"], strides=[2, 2]),
        ],
        [mg.info("x", ["N", 3, 8, 8])],
        [mg.info("y", ["N", 6, None, None])],
        [
            mg.tensor("255", 255.0, np.float32),
            mg.tensor("mean", np.array([0.485, 0.456, 0.406]).reshape(1, 3, 1, 1), np.float32),
            mg.tensor("std", np.array([0.229, 0.224, 0.225]).reshape(1, 3, 1, 1), np.float32),
            mg.tensor("W", mg.weights(6, 3, 2, 2)),
        ],
    )
    model = proven(proto, ("mul-add-before-linear",), ["Conv"], x=(2, 3, 8, 8))
    assert model.proto.graph.node[0].input[0] == "x"


# BatchNormalizations that merge


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("op", ["BatchNormalization", "Mul", "Add", "Sub", "Div"])
def test_batchnorm_and_what_follows(op: str, dtype: type) -> None:
    initializers = [*norm("one", 4, dtype=dtype), *norm("two", 4, seed=11, dtype=dtype)]
    initializers.append(mg.tensor("k", mg.weights(4, 1, 1, seed=4), dtype))
    last = mg.node(op, ["n", "k"], ["y"])
    if op == "BatchNormalization":
        last = mg.batchnorm("n", "y", "two", epsilon=0.1)
    proto = mg.model(
        [mg.batchnorm("x", "n", "one"), last],
        [mg.info("x", ["N", 4, 3, 3], dtype)],
        [mg.info("y", ["N", 4, 3, 3], dtype)],
        initializers,
    )
    proven(proto, ("batchnorm-chain",), ["BatchNormalization"], x=(2, 4, 3, 3))


@pytest.mark.parametrize("order", ["xk", "kx"])
@pytest.mark.parametrize("op", ["Mul", "Add", "Sub", "Div"])
def test_what_precedes_a_batchnorm(op: str, order: str) -> None:
    proto = mg.model(
        [
            mg.node(op, list(order), ["m"]),
            mg.batchnorm("m", "y", "bn"),
            mg.node("Relu", ["y"], ["z"]),
        ],
        [mg.info("x", ["N", 4, 3, 3])],
        [mg.info("z", ["N", 4, 3, 3])],
        [*norm("bn", 4), mg.tensor("k", mg.weights(1, 4, 1, 1, seed=4))],
    )
    if op == "Div" and order == "kx":
        unchanged(proto, "batchnorm-chain", "")
        return
    names = ("batchnorm-chain", "dead-code")
    proven(proto, names, ["BatchNormalization", "Relu"], x=(2, 4, 3, 3))


def test_three_normalizations_are_one() -> None:
    proto = mg.model(
        [mg.batchnorm(source, source + "n", "bn") for source in ("x", "xn", "xnn")],
        [mg.info("x", [2, 4])],
        [mg.info("xnnn", [2, 4])],
        norm("bn", 4),
    )
    model, _ = applied(proto, "batchnorm-chain", "dead-code")
    assert mg.ops(model) == ["BatchNormalization"]
    assert mg.largest_difference(Model(proto), model, {}) < CLOSE


def test_constant_that_broadcasts_stays() -> None:
    proto = mg.model(
        [mg.node("Add", ["x", "k"], ["m"]), mg.batchnorm("m", "y", "bn")],
        [mg.info("x", [2, 1, 3])],
        [mg.info("y", [2, 4, 3])],
        [*norm("bn", 4), mg.tensor("k", mg.weights(4, 1))],
    )
    unchanged(proto, "batchnorm-chain", "may broadcast")


def test_first_of_two_normalizations_that_others_read_stays() -> None:
    proto = mg.model(
        [mg.batchnorm("x", "n", "bn"), mg.batchnorm("n", "y", "bn")],
        [mg.info("x", [2, 4])],
        [mg.info("n", [2, 4]), mg.info("y", [2, 4])],
        norm("bn", 4),
    )
    unchanged(proto, "batchnorm-chain", "used elsewhere")
