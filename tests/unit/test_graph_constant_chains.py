"""Constants in a row: merged arithmetic, scales that go into weights, and what is refused."""

import graph_chain_cases as cases
import ml_dtypes
import models_graph as mg
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, NodeProto, helper, numpy_helper

TYPES = [(np.float32, 1e-6), (np.float16, 3e-3)]


def _chain(ops: list[tuple[str, int, object]], dtype: type = np.float32) -> ModelProto:
    """x op c op c ...: each an operator, the index of the constant, and its values."""
    nodes, constants, current = [], {}, "x"
    for i, (op, index, values) in enumerate(ops):
        result = "y" if i == len(ops) - 1 else f"t{i}"
        inputs = [f"c{i}", current] if index == 0 else [current, f"c{i}"]
        constants[f"c{i}"] = np.asarray(values, dtype)
        nodes.append(mg.node(op, inputs, [result]))
        current = result
    return cases.graph(nodes, {"x": ["N", 3, 4]}, constants, dtype=dtype)


# Arithmetic


@pytest.mark.parametrize(("dtype", "close"), TYPES)
@pytest.mark.parametrize("second", [("Add", 1), ("Sub", 1), ("Sub", 0), ("Add", 0)])
@pytest.mark.parametrize("first", [("Add", 1), ("Sub", 1), ("Sub", 0)])
def test_sums_merge(
    first: tuple[str, int], second: tuple[str, int], dtype: type, close: float
) -> None:
    proto = _chain([(*first, mg.weights(4)), (*second, mg.weights(3, 1, seed=1))], dtype)
    is_turned = (first == ("Sub", 0)) != (second == ("Sub", 0))
    cases.becomes(proto, "constant-arithmetic", ["Sub" if is_turned else "Add"], close)


@pytest.mark.parametrize(("dtype", "close"), TYPES)
@pytest.mark.parametrize("second", [("Mul", 1), ("Div", 1), ("Div", 0)])
@pytest.mark.parametrize("first", [("Mul", 0), ("Div", 1), ("Div", 0)])
def test_products_merge(
    first: tuple[str, int], second: tuple[str, int], dtype: type, close: float
) -> None:
    proto = _chain([(*first, [2.0, 0.7, -3.0, 1.5]), (*second, 1.25)], dtype)
    model, _ = cases.apply(proto, "constant-arithmetic", "dead-code")
    assert len(mg.ops(model)) == 1
    assert cases.difference(proto, model) <= close


def test_three_in_a_row_are_one() -> None:
    proto = _chain([("Mul", 1, 2.0), ("Div", 1, 3.0), ("Mul", 0, 5.0)])
    cases.becomes(proto, "constant-arithmetic", ["Mul"])


def test_integers_are_added_exactly() -> None:
    proto = _chain([("Add", 1, 2**40), ("Sub", 0, 5)], np.int64)
    cases.becomes(proto, "constant-arithmetic", ["Sub"], close=0)


@pytest.mark.parametrize(
    ("ops", "dtype", "why"),
    [
        ([("Div", 1, 7), ("Div", 1, 2)], np.int64, "integers rounds"),
        ([("Mul", 1, 2**40), ("Mul", 1, 2**40)], np.int64, "does not fit"),
        ([("Mul", 1, 1000.0), ("Mul", 1, 1000.0)], np.float16, "does not fit"),
        ([("Div", 1, 0.0), ("Mul", 1, 2.0)], np.float32, "does not fit"),
        ([("Mul", 1, 1e-3), ("Mul", 1, 1e-3)], np.float16, "too small"),
        ([("Add", 1, 1.5 * 2**23), ("Sub", 1, 1.5 * 2**23)], np.float32, "may be meant"),
        ([("Add", 1, 1024.0), ("Add", 1, -1024.0)], np.float16, "may be meant"),
        ([("Add", 1, np.ones((1, 3, 1))), ("Add", 1, np.ones((5000, 1, 4)))], np.float32, "bigger"),
    ],
)
def test_what_is_more_than_rounding_stays(
    ops: list[tuple[str, int, object]], dtype: type, why: str
) -> None:
    proto = _chain(ops, dtype)
    if why == "bigger":
        proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
        proto = cases.graph(
            proto.graph.node,
            {"x": [1, 3, 4]},
            {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer},
        )
    cases.refused(proto, "constant-arithmetic", why)


def test_first_result_read_elsewhere_stays() -> None:
    nodes = [
        mg.node("Mul", ["x", "c"], ["t"]),
        mg.node("Mul", ["t", "d"], ["y"]),
        mg.node("Abs", ["t"], ["z"]),
    ]
    constants = {"c": np.float32(2), "d": np.float32(3)}
    proto = cases.graph(nodes, {"x": ["N"]}, constants, ["y", "z"])
    cases.refused(proto, "constant-arithmetic", "read elsewhere")


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["Add", "Sub", "Mul", "Div"]),
            st.integers(0, 1),
            st.floats(0.25, 4).map(lambda v: round(v, 3)),
        ),
        min_size=2,
        max_size=6,
    )
)
@settings(max_examples=40, deadline=None)
def test_random_arithmetic_keeps_the_numbers(ops: list[tuple[str, int, float]]) -> None:
    # a constant over a computed sum may come near a pole, where rounding is not relative
    chosen = [(op, 1 if op == "Div" else index, value) for op, index, value in ops]
    proto = _chain(list(chosen))
    model, _ = cases.apply(proto, "constant-arithmetic", "dead-code")
    assert len(mg.ops(model)) <= len(ops)
    assert cases.difference(proto, model) < 1e-5


# Scales


def _projection(
    op: str, after: list[NodeProto], constants: dict[str, np.ndarray], dtype: type = np.float32
) -> ModelProto:
    """x (N, 8) times a weight (8, 8) plus a bias, called t; then some nodes."""
    held = {"w": mg.weights(8, 8), "b": mg.weights(8, seed=2), **constants}
    held = {n: v.astype(dtype) if v.dtype.kind == "f" else v for n, v in held.items()}
    if op == "MatMul":
        nodes = [mg.node("MatMul", ["x", "w"], ["m"]), mg.node("Add", ["b", "m"], ["t"])]
    else:
        nodes = [mg.node("Gemm", ["x", "w", "b"], ["t"], transB=1, alpha=0.5, beta=2.0)]
    inputs: dict[str, list[int | str]] = {"x": ["N", 8]}
    if any("z" in node.input for node in after):
        inputs["z"] = [2, 4, 3]
    return cases.graph([*nodes, *after], inputs, held, dtype=dtype)


HEADS = {"r": np.array([-1, 2, 4])}


def _heads(last: NodeProto) -> list[NodeProto]:
    return [
        mg.node("Reshape", ["t", "r"], ["u"]),
        mg.node("Transpose", ["u"], ["v"], perm=[1, 0, 2]),
        last,
    ]


@pytest.mark.parametrize(("dtype", "close"), TYPES)
@pytest.mark.parametrize("op", ["MatMul", "Gemm"])
@pytest.mark.parametrize("scaling", ["Mul", "Div"])
def test_scale_goes_into_the_projection_before_it(
    op: str, scaling: str, dtype: type, close: float
) -> None:
    after = _heads(mg.node(scaling, ["v", "s"], ["y"]))
    proto = _projection(op, after, {"s": np.array([0.3]), **HEADS}, dtype)
    left = (["MatMul", "Add"] if op == "MatMul" else ["Gemm"]) + ["Reshape", "Transpose"]
    model = cases.becomes(proto, "scale-folding", left, close)
    held = {t.name: numpy_helper.to_array(t) for t in model.proto.graph.initializer}
    factor = 0.3 if scaling == "Mul" else 1 / np.float64(np.asarray(0.3, dtype))
    weight = mg.weights(8, 8).astype(dtype)
    expected = (weight.astype(np.float64) * np.float64(np.asarray(factor, dtype))).astype(dtype)
    np.testing.assert_allclose(held["w"], expected, rtol=2 * np.finfo(dtype).eps)


@pytest.mark.parametrize("op", ["MatMul", "Gemm"])
def test_scale_per_column_goes_into_the_projection(op: str) -> None:
    proto = _projection(op, [mg.node("Mul", ["s", "t"], ["y"])], {"s": mg.weights(8, seed=5)})
    left = ["MatMul", "Add"] if op == "MatMul" else ["Gemm"]
    cases.becomes(proto, "scale-folding", left, 1e-5)


def test_scale_of_one_part_goes_into_its_columns() -> None:
    after = [
        mg.node("Reshape", ["t", "r"], ["p"]),
        mg.node("Split", ["p", "i"], ["q", "k"], axis=2),
        mg.node("Mul", ["q", "s"], ["u"]),
        mg.node("Concat", ["k", "u"], ["y"], axis=2),
    ]
    constants = {"s": np.array(0.3), "i": np.array([2, 6]), "r": np.array([1, -1, 8])}
    for op, left in (("MatMul", ["MatMul", "Add"]), ("Gemm", ["Gemm"])):
        proto = _projection(op, after, constants)
        cases.becomes(proto, "scale-folding", [*left, "Reshape", "Split", "Concat"], 1e-5)


@pytest.mark.parametrize(("dtype", "close"), TYPES)
def test_scale_goes_into_the_product_after_it(dtype: type, close: float) -> None:
    nodes = [
        mg.node("Relu", ["x"], ["a"]),
        mg.node("Mul", ["a", "s"], ["t"]),
        mg.node("Reshape", ["t", "r"], ["u"]),
        mg.node("MatMul", ["u", "w"], ["y"]),
    ]
    constants = {"s": np.asarray(0.3, dtype), "w": mg.weights(4, 5).astype(dtype)}
    proto = cases.graph(nodes, {"x": ["N", 8]}, {**constants, "r": np.array([-1, 4])}, dtype=dtype)
    cases.becomes(proto, "scale-folding", ["Relu", "Reshape", "MatMul"], close)


def test_scale_goes_into_a_convolution_after_it() -> None:
    nodes = [
        mg.node("Relu", ["x"], ["a"]),
        mg.node("Div", ["a", "s"], ["t"]),
        mg.node("Conv", ["t", "w", "b"], ["y"], pads=[1, 1, 1, 1]),
    ]
    constants = {"s": np.float32(255), "w": mg.weights(2, 3, 3, 3), "b": mg.weights(2)}
    proto = cases.graph(nodes, {"x": ["N", 3, 5, 5]}, constants)
    cases.becomes(proto, "scale-folding", ["Relu", "Conv"], 1e-5)


def _attention(scale: float, dtype: type = np.float32, *, both: bool = True) -> ModelProto:
    """Exp(q) s times Exp(k)^T s: neither has a projection of its own."""
    nodes = [
        mg.node("Tanh", ["q"], ["a"]),
        mg.node("Tanh", ["k"], ["b"]),
        mg.node("Transpose", ["b"], ["bt"], perm=[0, 2, 1]),
        mg.node("Mul", ["a", "s"], ["c"]),
        mg.node("Div" if both else "Mul", ["bt", "r"], ["d"]),
        mg.node("MatMul", ["c", "d"], ["y"]),
    ]
    constants = {"s": np.asarray(scale, dtype), "r": np.asarray([1 / scale], dtype)}
    return cases.graph(nodes, {"q": ["N", "M", 8], "k": ["N", "H", 8]}, constants, dtype=dtype)


@pytest.mark.parametrize(("dtype", "close"), TYPES)
def test_scales_of_both_factors_become_one(dtype: type, close: float) -> None:
    proto = _attention(0.35, dtype)
    cases.becomes(proto, "scale-folding", ["Tanh", "Tanh", "Transpose", "Mul", "MatMul"], close)


def test_scale_after_a_product_goes_into_a_projection_of_one_factor() -> None:
    after = [*_heads(mg.node("MatMul", ["v", "z"], ["m2"])), mg.node("Div", ["m2", "s"], ["y"])]
    for dtype, close in TYPES:
        proto = _projection("MatMul", after, {"s": np.array(8.0), **HEADS}, dtype)
        left = ["MatMul", "Add", "Reshape", "Transpose", "MatMul"]
        cases.becomes(proto, "scale-folding", left, close)


@pytest.mark.parametrize(
    ("scale", "dtype", "weight", "why"),
    [
        (0.0, np.float32, 1.0, "zero or not finite"),
        (1e30, np.float32, 1e30, "do not fit in float32"),
        (1000.0, np.float16, 1000.0, "do not fit in float16"),
        (1e-4, np.float16, 1e-2, "too small for float16"),
    ],
)
def test_scales_that_lose_something_stay(
    scale: float, dtype: type, weight: float, why: str
) -> None:
    nodes = [mg.node("MatMul", ["x", "w"], ["t"]), mg.node("Mul", ["t", "s"], ["y"])]
    values = (mg.weights(4, 4) * np.float64(weight)).astype(dtype)
    constants = {"w": values, "s": np.asarray(scale, dtype)}
    proto = cases.graph(nodes, {"x": ["N", 4]}, constants, dtype=dtype)
    cases.refused(proto, "scale-folding", why)


def test_growing_half_precision_factors_stay() -> None:
    after = [*_heads(mg.node("MatMul", ["v", "z"], ["m2"])), mg.node("Mul", ["m2", "s"], ["y"])]
    proto = _projection("MatMul", after, {"s": np.array(8.0), **HEADS}, np.float16)
    cases.refused(proto, "scale-folding", "leave float16's range")
    proto = _attention(8.0, np.float16)
    cases.refused(proto, "scale-folding", "too big or too small for float16")


def test_shared_weights_stay() -> None:
    weight = mg.weights(160, 160)
    nodes = [
        mg.node("MatMul", ["x", "w"], ["t"]),
        mg.node("Mul", ["t", "s"], ["y"]),
        mg.node("MatMul", ["x", "w"], ["z"]),
    ]
    constants = {"w": weight, "s": np.float32(2)}
    proto = cases.graph(nodes, {"x": ["N", 160]}, constants, ["y", "z"])
    cases.refused(proto, "scale-folding", "is shared")


def test_small_shared_bias_is_kept_for_the_others() -> None:
    nodes = [
        mg.node("Gemm", ["x", "w", "b"], ["t"]),
        mg.node("Mul", ["t", "s"], ["y"]),
        mg.node("Add", ["x", "b"], ["z"]),
    ]
    constants = {"w": mg.weights(4, 4), "b": mg.weights(4), "s": np.float32(3)}
    proto = cases.graph(nodes, {"x": ["N", 4]}, constants, ["y", "z"])
    cases.becomes(proto, "scale-folding", ["Gemm", "Add"], 1e-5)


def test_result_read_elsewhere_stays() -> None:
    nodes = [
        mg.node("MatMul", ["x", "w"], ["t"]),
        mg.node("Mul", ["t", "s"], ["y"]),
        mg.node("Abs", ["t"], ["z"]),
    ]
    constants = {"w": mg.weights(4, 4), "s": np.float32(2)}
    proto = cases.graph(nodes, {"x": ["N", 4]}, constants, ["y", "z"])
    cases.refused(proto, "scale-folding", "read elsewhere")


def test_bfloat16_weights_are_scaled() -> None:
    weight = mg.weights(4, 4).astype(ml_dtypes.bfloat16)
    held = [
        helper.make_tensor("w", 16, [4, 4], weight.tobytes(), raw=True),
        helper.make_tensor("s", 16, [], np.asarray(0.5, ml_dtypes.bfloat16).tobytes(), raw=True),
    ]
    nodes = [mg.node("MatMul", ["x", "w"], ["t"]), mg.node("Mul", ["t", "s"], ["y"])]
    bf16 = [helper.make_tensor_value_info(name, 16, [2, 4]) for name in ("x", "y")]
    proto = mg.model(nodes, [bf16[0]], [bf16[1]], held)
    model, outcome = cases.apply(proto, "scale-folding")
    assert mg.ops(model) == ["MatMul"], outcome.notes
    scaled = cases.initializer(model, "w")
    assert (
        np.frombuffer(scaled.raw_data, ml_dtypes.bfloat16).astype(np.float32).tolist()
        == (weight.astype(np.float32) / 2).reshape(-1).tolist()
    )
