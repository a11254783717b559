"""Chains of Reshapes and Casts, and Expand: what becomes one node, what is left and why."""

import graph_chain_cases as cases
import models_graph as mg
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trtforge.graph.execute import Session
from trtforge.graph.model import Model

# Reshape, Flatten, Squeeze, Unsqueeze


@pytest.mark.parametrize("opset", [11, 13, 18, 21])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_unsqueezes_merge_on_dynamic_dimensions(opset: int, dtype: type) -> None:
    if opset >= 13:
        nodes = [mg.node("Unsqueeze", ["x", "a"], ["t"]), mg.node("Unsqueeze", ["t", "b"], ["y"])]
        constants = {"a": np.array([1]), "b": np.array([0, -1])}
    else:
        nodes = [mg.node("Unsqueeze", ["x"], ["t"], axes=[1])]
        nodes.append(mg.node("Unsqueeze", ["t"], ["y"], axes=[0, 4]))
        constants = {}
    proto = cases.graph(nodes, {"x": ["N", "M"]}, constants, dtype=dtype, opset=opset)
    model = cases.becomes(proto, "reshape-chains", ["Unsqueeze"], close=0)
    assert [
        d.dim_value or d.dim_param for d in model.proto.graph.output[0].type.tensor_type.shape.dim
    ] == [1, "N", 1, "M", 1]


def test_squeezes_merge() -> None:
    nodes = [mg.node("Squeeze", ["x", "a"], ["t"]), mg.node("Squeeze", ["t", "b"], ["y"])]
    constants = {"a": np.array([1]), "b": np.array([-1])}
    proto = cases.graph(nodes, {"x": ["N", 1, "M", 1]}, constants)
    cases.becomes(proto, "reshape-chains", ["Squeeze"], close=0)


@pytest.mark.parametrize(
    ("first", "second", "dims", "axes"),
    [
        ("Unsqueeze", "Squeeze", ["N", "M"], (1, 1)),
        ("Squeeze", "Unsqueeze", ["N", 1, "M"], (1, 1)),
        ("Squeeze", "Unsqueeze", ["N", 1], (1, -1)),
    ],
)
def test_squeeze_and_unsqueeze_cancel(
    first: str, second: str, dims: list[int | str], axes: tuple[int, int]
) -> None:
    nodes = [
        mg.node("Abs", ["x"], ["a"]),
        mg.node(first, ["a", "i"], ["t"]),
        mg.node(second, ["t", "j"], ["u"]),
        mg.node("Exp", ["u"], ["y"]),
    ]
    constants = {"i": np.array([axes[0]]), "j": np.array([axes[1]])}
    cases.becomes(cases.graph(nodes, {"x": dims}, constants), "reshape-chains", ["Abs", "Exp"])


def test_squeeze_and_unsqueeze_elsewhere_are_one_reshape() -> None:
    nodes = [mg.node("Squeeze", ["x", "i"], ["t"]), mg.node("Unsqueeze", ["t", "j"], ["y"])]
    constants = {"i": np.array([0]), "j": np.array([2])}
    proto = cases.graph(nodes, {"x": [1, "N", 5]}, constants)
    cases.becomes(proto, "reshape-chains", ["Reshape"], close=0)


@pytest.mark.parametrize(
    ("dims", "first", "second"),
    [
        (["N", 4, 6], [0, -1], [0, 8, 3]),  # the 0 is the same N
        (["N", 4, 6], [-1, 6], [2, -1]),
        (["N", 4, 6], [0, 2, 2, 6], [-1, 24]),
        ([2, 3, 4], [6, 4], [0, 2, 2]),  # 0 is another axis before: written as a number
    ],
)
def test_reshapes_merge(dims: list[int | str], first: list[int], second: list[int]) -> None:
    nodes = [mg.node("Reshape", ["x", "a"], ["t"]), mg.node("Reshape", ["t", "b"], ["y"])]
    constants = {"a": np.array(first), "b": np.array(second)}
    proto = cases.graph(nodes, {"x": dims}, constants)
    cases.becomes(proto, "reshape-chains", ["Reshape"], close=0)


def test_flatten_and_reshape_merge() -> None:
    nodes = [mg.node("Reshape", ["x", "a"], ["t"]), mg.node("Flatten", ["t"], ["y"], axis=2)]
    proto = cases.graph(nodes, {"x": ["N", 4, 6]}, {"a": np.array([0, 2, 2, 6])})
    cases.becomes(proto, "reshape-chains", ["Reshape"], close=0)


def test_reshape_there_and_back_is_nothing() -> None:
    nodes = [
        mg.node("Abs", ["x"], ["a"]),
        mg.node("Reshape", ["a", "s"], ["t"]),
        mg.node("Reshape", ["t", "r"], ["u"]),
        mg.node("Exp", ["u"], ["y"]),
        mg.node("Neg", ["t"], ["z"]),
    ]
    constants = {"s": np.array([0, 24]), "r": np.array([0, 4, 6])}
    proto = cases.graph(nodes, {"x": ["N", 4, 6]}, constants, ["y", "z"])
    cases.becomes(proto, "reshape-chains", ["Abs", "Exp", "Reshape", "Neg"])


def test_transpose_of_an_axis_of_size_one_goes_into_a_reshape() -> None:
    nodes = [
        mg.node("Transpose", ["x"], ["t"], perm=[0, 2, 1, 3]),
        mg.node("Reshape", ["t", "s"], ["y"]),
    ]
    proto = cases.graph(nodes, {"x": ["N", 1, 4, 6]}, {"s": np.array([0, 24])})
    cases.becomes(proto, "reshape-chains", ["Reshape"], close=0)


def test_transpose_that_moves_elements_stays() -> None:
    nodes = [
        mg.node("Transpose", ["x"], ["t"], perm=[0, 2, 1]),
        mg.node("Reshape", ["t", "s"], ["y"]),
    ]
    proto = cases.graph(nodes, {"x": ["N", 4, 6]}, {"s": np.array([0, 24])})
    cases.untouched(proto, "reshape-chains")


def test_reshape_whose_dimensions_are_unknown_stays() -> None:
    nodes = [mg.node("Reshape", ["x", "s"], ["t"]), mg.node("Flatten", ["t"], ["y"], axis=2)]
    made = cases.graph(nodes, {"x": ["N", "M", "H"]}, {"s": np.array([-1, 2, 1, 3])})
    model, _ = cases.apply(made, "reshape-chains")
    assert cases.SIZES["N"] * cases.SIZES["M"] * cases.SIZES["H"] % 6 == 0
    assert cases.difference(made, model) == 0
    nodes = [mg.node("Reshape", ["x", "s"], ["t"]), mg.node("Reshape", ["t", "r"], ["y"])]
    proto = cases.graph(
        nodes, {"x": ["N", "M", 6]}, {"s": np.array([-1, 3]), "r": np.array([0, 3, 1])}
    )
    cases.becomes(proto, "reshape-chains", ["Reshape"], close=0)


@pytest.mark.parametrize("size", [0, 2])
def test_empty_tensors_still_go_through(size: int) -> None:
    nodes = [mg.node("Unsqueeze", ["x", "a"], ["t"]), mg.node("Flatten", ["t"], ["y"], axis=1)]
    proto = cases.graph(nodes, {"x": ["N", "M", 6]}, {"a": np.array([3])})
    cases.refused(proto, "reshape-chains", "would fail on empty tensors")
    constants = {"s": np.array([0, 2, 2, 6])}
    nodes = [mg.node("Reshape", ["x", "s"], ["t"]), mg.node("Flatten", ["t"], ["y"], axis=2)]
    proto = cases.graph(nodes, {"x": ["N", 4, 6]}, constants)
    model = cases.becomes(proto, "reshape-chains", ["Reshape"], close=0)
    feeds = {"x": np.zeros((size, 4, 6), np.float32)}
    for name, expected in Session(Model(proto)).run(feeds).items():
        assert Session(model).run(feeds)[name].shape == expected.shape


def test_reshape_read_elsewhere_stays() -> None:
    nodes = [
        mg.node("Reshape", ["x", "s"], ["t"]),
        mg.node("Flatten", ["t"], ["y"], axis=2),
        mg.node("Abs", ["t"], ["z"]),
    ]
    proto = cases.graph(nodes, {"x": ["N", 4, 6]}, {"s": np.array([0, 2, 2, 6])}, ["y", "z"])
    cases.refused(proto, "reshape-chains", "read by other nodes")


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_random_chains_of_shapes_keep_the_numbers(data: st.DataObject) -> None:
    """Any chain over (N, 2, 3, 4) ends up as at most one node."""
    dims: list[int | str] = ["N", 2, 3, 4]
    nodes, constants = [], {}
    current = "x"
    for index in range(data.draw(st.integers(2, 4))):
        op = data.draw(st.sampled_from(["Reshape", "Flatten", "Unsqueeze", "Squeeze"]))
        result = f"t{index}"
        if op == "Reshape":
            target = data.draw(st.sampled_from([[-1, 24], [-1, 1, 24], [-1, 6, 4], [-1, 2, 12, 1]]))
            dims = ["N", *target[1:]]
        elif op == "Flatten":
            rest = int(np.prod([d for d in dims if isinstance(d, int)]))
            nodes.append(mg.node("Flatten", [current], [result], axis=1))
            current, dims = result, ["N", rest]
            continue
        elif op == "Unsqueeze":
            axis = data.draw(st.integers(1, len(dims)))
            target, dims = [axis], [*dims[:axis], 1, *dims[axis:]]
        else:
            ones = [axis for axis, dim in enumerate(dims) if dim == 1]
            if not ones:
                continue
            target = [data.draw(st.sampled_from(ones))]
            dims = [*dims[: target[0]], *dims[target[0] + 1 :]]
        constants[f"c{index}"] = np.array(target)
        nodes.append(mg.node(op, [current, f"c{index}"], [result]))
        current = result
    nodes.append(mg.node("Abs", [current], ["y"]))
    proto = cases.graph(nodes, {"x": ["N", 2, 3, 4]}, constants)
    model, _ = cases.apply(proto, "reshape-chains", "dead-code")
    assert len(mg.ops(model)) <= 2
    assert cases.difference(proto, model) == 0


# Cast


FLOAT, FLOAT16, INT64, DOUBLE, INT32 = 1, 10, 7, 11, 6


@pytest.mark.parametrize(
    ("dtype", "between", "last", "left"),
    [
        (np.float16, FLOAT, FLOAT16, []),
        (np.float16, FLOAT, DOUBLE, ["Cast"]),
        (np.int32, INT64, INT32, []),
        (np.int32, DOUBLE, INT32, []),
        (np.bool_, INT64, FLOAT, ["Cast"]),
        (np.float32, FLOAT16, FLOAT16, ["Cast"]),
    ],
)
def test_casts_merge(dtype: type, between: int, last: int, left: list[str]) -> None:
    nodes = [
        mg.node("Identity", ["x"], ["a"]),
        mg.node("Cast", ["a"], ["t"], to=between),
        mg.node("Cast", ["t"], ["u"], to=last),
        mg.node("Identity", ["u"], ["y"]),
    ]
    proto = cases.graph(nodes, {"x": ["N", 5]}, dtype=dtype)
    cases.becomes(proto, "cast-chains", ["Identity", *left, "Identity"], close=0)


@pytest.mark.parametrize(
    ("dtype", "between", "last"),
    [(np.float32, FLOAT16, FLOAT), (np.int64, INT32, INT64), (np.int64, DOUBLE, INT64)],
)
def test_cast_through_a_narrower_type_stays(dtype: type, between: int, last: int) -> None:
    nodes = [mg.node("Cast", ["x"], ["t"], to=between), mg.node("Cast", ["t"], ["y"], to=last)]
    proto = cases.graph(nodes, {"x": ["N", 5]}, dtype=dtype)
    cases.refused(proto, "cast-chains", "cannot hold every")


# Expand


def test_expand_goes_where_the_operator_broadcasts() -> None:
    nodes = [mg.node("Expand", ["a", "s"], ["t"]), mg.node("Add", ["t", "b"], ["y"])]
    shape = {"s": np.array([3, 4])}
    proto = cases.graph(nodes, {"a": [1, 4], "b": ["N", 3, 4]}, shape)
    cases.becomes(proto, "expand-before-broadcast", ["Add"], close=0)
    proto = cases.graph(nodes, {"a": [1, 4], "b": ["N", 1, 4]}, shape)
    cases.refused(proto, "expand-before-broadcast", "may decide the dimensions")
