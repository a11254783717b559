"""Constants computed by numpy are what ONNX Runtime computes, to the type, shape and value."""

from collections.abc import Sequence
from typing import Any

import ml_dtypes
import models_graph as mg
import numpy as np
import pytest
from onnx import TensorProto, helper

from trtforge.errors import GraphError
from trtforge.graph.evaluate import evaluate
from trtforge.graph.execute import Session
from trtforge.graph.model import Model

Given = Sequence[np.ndarray | None]

FLOATS = ("float16", "float32", "float64")
INTS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
NUMBERS = (*FLOATS, *INTS)
SHAPES = ([(2, 3), (3,)], [(), ()], [(2, 1), (1, 4)], [(), (2, 2)], [(0, 3), (3,)], [(1,), ()])
"""Broadcasting, scalars, and nothing at all."""


def by_onnxruntime(op: str, inputs: Given, attrs: dict[str, Any], opset: int) -> np.ndarray:
    names = ["" if array is None else f"i{index}" for index, array in enumerate(inputs)]
    given = {name: array for name, array in zip(names, inputs, strict=True) if array is not None}
    proto = mg.model(
        [mg.node(op, names, ["y"], **attrs)],
        [mg.info(name, array.shape, array.dtype) for name, array in given.items()],
        [helper.make_empty_tensor_value_info("y")],
        opset=opset,
    )
    return Session(Model(proto)).run(given)["y"]


def same(op: str, inputs: Given, opset: int = 18, **attrs: Any) -> np.ndarray:
    """Compute a node both ways and return the value, which must be the same in every respect."""
    found = evaluate(op, list(inputs), attrs)
    assert found is not None, f"{op} is not computed"
    expected = by_onnxruntime(op, inputs, attrs, opset)
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    np.testing.assert_array_equal(found, expected)
    return found


def values(dtype: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    if dtype == "bool":
        return np.asarray(generator.integers(0, 2, shape), np.bool_)
    low = 0 if dtype.startswith("u") else -9
    if dtype.startswith(("int", "uint")):
        return np.asarray(generator.integers(low, 10, shape), dtype)
    return np.asarray(generator.standard_normal(shape) * 5, dtype)


def ints(*numbers: int) -> np.ndarray:
    return np.asarray(numbers, np.int64)


# Arithmetic


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int32", "int64", "uint64"])
@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div"])
def test_arithmetic(op: str, dtype: str, shapes: list[tuple[int, ...]]) -> None:
    first, second = (values(dtype, shape, seed) for seed, shape in enumerate(shapes))
    if op == "Div" and dtype not in FLOATS:
        second = np.where(second == 0, np.asarray(3, dtype), second)
    same(op, [first, second])


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64"])
def test_division_of_integers_is_toward_zero(dtype: str) -> None:
    limits = np.iinfo(dtype)
    above = np.asarray([7, -7, 7, -7, 6, -6, 0, limits.min, limits.max, limits.min], dtype)
    below = np.asarray([2, 2, -2, -2, 3, 3, -5, 2, -3, limits.max], dtype)
    found = evaluate("Div", [above, below], {})
    assert found is not None
    assert found.dtype == dtype
    assert found.tolist() == [
        -(abs(a) // abs(b)) if (a < 0) != (b < 0) else abs(a) // abs(b)
        for a, b in zip(above.tolist(), below.tolist(), strict=True)
    ]
    if dtype in ("int32", "int64"):
        same("Div", [above, below])


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_divisions_without_a_result_are_not_computed(dtype: str) -> None:
    one, zero, minus = (np.asarray([number], dtype) for number in (1, 0, -1))
    assert evaluate("Div", [one, zero], {}) is None
    assert evaluate("Div", [np.asarray([np.iinfo(dtype).min], dtype), minus], {}) is None


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul"])
@pytest.mark.parametrize("dtype", ["int32", "int64", "uint32", "uint64"])
def test_integers_wrap_around(op: str, dtype: str) -> None:
    limits = np.iinfo(dtype)
    same(op, [np.asarray([limits.max, limits.min, limits.max // 2], dtype), values(dtype, (3,), 5)])


def test_floats_that_are_not_finite() -> None:
    odd = np.asarray([0.0, -0.0, np.inf, -np.inf, np.nan, 1e30, 1.0], np.float32)
    for op in ("Add", "Sub", "Mul", "Div", "Equal", "Less", "GreaterOrEqual"):
        same(op, [odd[:, None], odd])
    for op in ("Abs", "Neg", "Floor", "Sqrt", "Reciprocal"):
        same(op, [odd])
    assert np.signbit(same("Neg", [odd]))[0]


@pytest.mark.parametrize(("op", "kinds"), [("Abs", NUMBERS), ("Neg", (*FLOATS, *INTS[:4]))])
def test_signs(op: str, kinds: tuple[str, ...]) -> None:
    for dtype in kinds:
        same(op, [values(dtype, (2, 5))])
        same(op, [values(dtype, ())])


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("op", ["Floor", "Sqrt", "Reciprocal"])
def test_functions_of_one_number(op: str, dtype: str) -> None:
    for shape in ((4, 3), (), (0,)):
        same(op, [np.asarray(np.abs(values(dtype, shape)) + 0.5, dtype)])


@pytest.mark.parametrize("exponent", ["float32", "float64", "int32", "int64"])
@pytest.mark.parametrize("base", ["float32", "float64"])
def test_powers(base: str, exponent: str) -> None:
    one, two = np.abs(values(base, (5,))) + 1, values(exponent, (3, 1))
    found = evaluate("Pow", [one, two], {})
    assert found is not None
    expected = by_onnxruntime("Pow", [one, two], {}, 18)
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    np.testing.assert_allclose(found, expected, rtol=3e-7)  # two libraries' pow: the last bit
    same("Pow", [np.asarray([-2.0, -3.0, 0.5], base), np.asarray(2, exponent)])
    same("Pow", [np.asarray(3, base), np.asarray(2, exponent)])


# Comparisons and logic


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int32", "int64"])
@pytest.mark.parametrize("op", ["Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"])
def test_comparisons(op: str, dtype: str) -> None:
    for shapes in SHAPES:
        one, two = (values(dtype, shape, seed) for seed, shape in enumerate(shapes))
        same(op, [one, two])
        same(op, [one, one.copy()])


@pytest.mark.parametrize("op", ["And", "Or", "Equal"])
def test_logic(op: str) -> None:
    for shapes in SHAPES:
        same(op, [values("bool", shape, seed) for seed, shape in enumerate(shapes)])
    same("Not", [values("bool", (3, 2))])
    same("Not", [values("bool", ())])


@pytest.mark.parametrize("dtype", ["float16", "float32", "int32", "int64", "uint8"])
def test_choice(dtype: str) -> None:
    condition = values("bool", (2, 1))
    same("Where", [condition, values(dtype, (3,)), values(dtype, (), 1)])
    same("Where", [np.asarray(True), values(dtype, ()), values(dtype, (), 1)])


# Casts


@pytest.mark.parametrize("target", ["bool", *NUMBERS])
@pytest.mark.parametrize("source", ["bool", *NUMBERS])
def test_casts(source: str, target: str) -> None:
    to = helper.np_dtype_to_tensor_dtype(np.dtype(target))
    for shape in ((3, 4), (), (0,)):
        given = values(source, shape)
        if source in FLOATS and target in INTS:
            assert evaluate("Cast", [given], {"to": to}) is None
        else:
            same("Cast", [given], to=to)


@pytest.mark.parametrize("target", ["int8", "uint8", "int32", "uint32", "float16", "float32"])
@pytest.mark.parametrize("source", ["int64", "uint64", "float32", "float64"])
def test_casts_of_numbers_that_do_not_fit(source: str, target: str) -> None:
    to = helper.np_dtype_to_tensor_dtype(np.dtype(target))
    if source.startswith("float"):
        if target.startswith("float"):
            same("Cast", [np.asarray([1e38, -7e4, 65519, 65520, 1e-9, np.nan], source)], to=to)
        return
    limits = np.iinfo(source)
    same("Cast", [np.asarray([limits.min, limits.max, 300, 2**24 + 1, 70000], source)], to=to)


@pytest.mark.parametrize(
    "to", [TensorProto.BFLOAT16, TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT8E5M2, 0, 99]
)
def test_casts_that_are_left_to_onnxruntime(to: int) -> None:
    assert evaluate("Cast", [values("float32", (2,))], {"to": to}) is None


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, ml_dtypes.float8_e5m2, ml_dtypes.int4])
def test_types_that_numpy_lacks_are_never_cast(dtype: Any) -> None:
    given = np.ones(3, dtype)
    assert evaluate("Cast", [given], {"to": TensorProto.FLOAT}) is None


# Shapes


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "int64", "bool"])
def test_moves(dtype: str) -> None:
    cube = values(dtype, (2, 3, 4))
    same("Transpose", [cube])
    same("Transpose", [cube], perm=[1, 0, 2])
    same("Transpose", [values(dtype, ())])
    same("Identity", [cube])
    same("Flatten", [cube])
    for axis in (-3, -1, 0, 2, 3):
        same("Flatten", [cube], axis=axis)
    same("Concat", [cube, cube, values(dtype, (2, 0, 4))], axis=1)
    same("Concat", [cube, values(dtype, (2, 3, 1))], axis=-1)
    same("Expand", [values(dtype, (3, 1)), ints(2, 1, 4)])
    same("Expand", [cube, ints(4)])
    same("Expand", [values(dtype, ()), ints()])
    same("Expand", [values(dtype, ()), ints(2, 0)])


def test_transposed_weights_lie_in_order() -> None:
    found = evaluate("Transpose", [values("float32", (4, 5))], {})
    assert found is not None
    assert found.flags.c_contiguous


@pytest.mark.parametrize(
    ("shape", "target", "attrs"),
    [
        ((2, 3, 4), (6, 4), {}),
        ((2, 3, 4), (0, -1), {}),
        ((2, 3, 4), (-1, 0, 2), {}),
        ((2, 3, 4), (1, 2, 1, 12), {}),
        ((1,), (), {}),
        ((), (1, 1), {}),
        ((), (-1,), {}),
        ((0, 3), (3, 0), {"allowzero": 1}),
        ((0, 3), (0, 3), {}),
    ],
)
def test_reshape(shape: tuple[int, ...], target: tuple[int, ...], attrs: dict[str, int]) -> None:
    same("Reshape", [values("float32", shape), ints(*target)], **attrs)


def test_axes_of_one_element() -> None:
    flat = values("float32", (1, 3, 1))
    same("Squeeze", [flat])
    same("Squeeze", [flat, ints(-1)])
    same("Squeeze", [flat], opset=11, axes=[0, 2])
    same("Squeeze", [values("int64", (1,)), ints(0)])
    same("Squeeze", [values("int64", ())])
    same("Unsqueeze", [flat, ints(0, -1)])
    same("Unsqueeze", [values("int64", ()), ints(0)])
    same("Unsqueeze", [values("int64", ()), ints(1, 0)])
    same("Unsqueeze", [flat], opset=11, axes=[1])
    assert evaluate("Squeeze", [flat, ints()], {}) is None  # ONNX Runtime drops all, ONNX none


def test_gather() -> None:
    table = values("float32", (4, 3))
    same("Gather", [table, ints(3, -4, 0)])
    same("Gather", [table, np.asarray(2, np.int32)])
    same("Gather", [table, np.asarray([[0, -1], [1, 1]])], axis=-1)
    same("Gather", [values("int64", (4,)), np.asarray(-1)])
    same("Gather", [table, np.zeros((0,), np.int64)])
    assert evaluate("Gather", [table, ints(4)], {}) is None


@pytest.mark.parametrize(
    ("starts", "ends", "axes", "steps"),
    [
        ((1,), (3,), None, None),
        ((-3,), (-1,), (0,), None),
        ((0, 1), (2**63 - 1, -1), (1, -2), (2, 1)),
        ((-100,), (100,), (0,), (3,)),
        ((3,), (1,), (0,), (1,)),
        ((9,), (10,), (1,), None),
        ((1,), (5,), None, (2,)),
    ],
)
def test_slice(
    starts: tuple[int, ...],
    ends: tuple[int, ...],
    axes: tuple[int, ...] | None,
    steps: tuple[int, ...] | None,
) -> None:
    rest = [None if part is None else ints(*part) for part in (axes, steps)]
    while rest and rest[-1] is None:
        rest.pop()
    same("Slice", [values("float32", (5, 4)), ints(*starts), ints(*ends), *rest])


def test_shapes_and_sizes() -> None:
    cube = values("float16", (2, 0, 4))
    same("Shape", [cube])
    same("Shape", [values("bool", ())])
    same("Size", [cube])
    same("Size", [values("int8", ())])
    for attrs in ({"start": 1}, {"end": -1}, {"start": -2, "end": 9}, {"start": 2, "end": 1}):
        same("Shape", [cube], **attrs)


@pytest.mark.parametrize("dtype", ["int16", "int32", "int64"])
@pytest.mark.parametrize(
    ("start", "stop", "step"), [(0, 5, 1), (5, 0, -2), (-3, 4, 3), (2, 2, 1), (0, 5, -1), (7, 3, 1)]
)
def test_range(dtype: str, start: int, stop: int, step: int) -> None:
    same("Range", [np.asarray(number, dtype) for number in (start, stop, step)])


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_products(dtype: str) -> None:
    vector = values(dtype, (5,)) + np.asarray(1, dtype)
    same("ReduceProd", [vector], keepdims=0)
    same("ReduceProd", [vector], keepdims=1)
    same("ReduceProd", [vector, ints(0)], keepdims=0)
    same("ReduceProd", [vector, ints(-1)])
    same("ReduceProd", [vector], opset=13, axes=[0])
    same("ReduceProd", [vector], noop_with_empty_axes=1)
    assert evaluate("ReduceProd", [np.full(9, 10**9, dtype)], {}) is None
    same("ReduceProd", [values(dtype, (0,))])


# What is left alone


@pytest.mark.parametrize(
    ("op", "inputs", "attrs"),
    [
        ("Relu", [values("float32", (2,))], {}),
        ("Add", [values("float32", (2,)), values("int64", (2,))], {}),
        ("Add", [values("bool", (2,)), values("bool", (2,))], {}),
        ("Add", [values("float32", (2,)), values("float32", (3,))], {}),
        ("Add", [np.ones(2, ml_dtypes.bfloat16), np.ones(2, ml_dtypes.bfloat16)], {}),
        ("Add", [np.asarray(["a"]), np.asarray(["b"])], {}),
        ("Neg", [values("uint8", (2,))], {}),
        ("Not", [values("int64", (2,))], {}),
        ("Floor", [values("int64", (2,))], {}),
        ("Pow", [values("int32", (2,)), ints(2, 2)], {}),
        ("Pow", [values("float32", (2,))], {}),
        ("Reshape", [values("float32", (2, 3)), ints(4)], {}),
        ("Reshape", [values("float32", (2, 3)), None], {}),
        ("Reshape", [values("float32", (2,)), ints(0, 0)], {}),
        ("Transpose", [values("float32", (2, 3))], {"perm": [0, 5]}),
        ("Unsqueeze", [values("float32", (2, 3))], {}),
        ("Unsqueeze", [values("float32", (2, 3)), ints(7)], {}),
        ("Squeeze", [values("float32", (2, 3)), ints(0)], {}),
        ("Concat", [values("float32", (2, 3))], {}),
        ("Gather", [values("float32", (2,)), None], {}),
        ("Slice", [values("float32", (5,)), ints(4), ints(0), ints(0), ints(-1)], {}),
        ("Slice", [values("float32", (5,)), ints(0), ints(4), ints(0), ints(0)], {}),
        ("Slice", [values("float32", (5,)), ints(0)], {}),
        ("Slice", [values("float32", (5,)), ints(0), ints(1), ints(3)], {}),
        ("Expand", [values("float32", (5,)), ints(3)], {}),
        ("Expand", [values("float32", (5,)), None], {}),
        ("Where", [values("bool", (2,)), ints(1, 2), values("float32", (2,))], {}),
        ("Where", [values("bool", (2,)), ints(1, 2), None], {}),
        ("Range", [np.asarray(0.0), np.asarray(1.0), np.asarray(0.1)], {}),
        ("Range", [np.asarray(0), np.asarray(5), np.asarray(0)], {}),
        ("ReduceProd", [values("int64", (2, 2))], {}),
        ("ReduceProd", [values("float32", (2,))], {}),
        ("Identity", [None], {}),
        ("Cast", [values("int64", (2,))], {}),
    ],
)
def test_what_is_not_computed(op: str, inputs: list[Any], attrs: dict[str, Any]) -> None:
    assert evaluate(op, inputs, attrs) is None


def test_onnxruntime_refuses_what_is_malformed() -> None:
    with pytest.raises(GraphError):
        by_onnxruntime("Reshape", [values("float32", (2, 3)), ints(4)], {}, 18)
