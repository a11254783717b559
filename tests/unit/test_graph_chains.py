"""Chains of data movement: what becomes one node, what is left and why, and the numbers."""

import graph_chain_cases as cases
import models_graph as mg
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

INT_MAX = 2**63 - 1


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


# Slice, Concat, Pad


def _slice(source: str, result: str, index: int) -> object:
    return mg.node("Slice", [source, *(f"{role}{index}" for role in "seak")], [result])


def _ranges(index: int, *rows: tuple[int, int, int, int]) -> dict[str, np.ndarray]:
    columns = zip(*rows, strict=True)
    return {f"{role}{index}": np.array(c) for role, c in zip("seak", columns, strict=True)}


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ([(1, 9, 1, 1)], [(0, 2, 2, 1)]),
        ([(1, 9, 1, 1)], [(2, 4, 1, 1)]),
        ([(1, 9, 1, 2)], [(1, INT_MAX, 1, 2)]),
        ([(-8, -1, 1, 1)], [(-5, -2, 1, 1)]),
        ([(2, 100, 1, 1)], [(1, 100, 1, 1), (1, 3, 2, 1)]),
        ([(0, 1, 0, 1)], [(0, 5, 0, 1)]),
        ([(5, 5, 1, 1)], [(0, 5, 1, 1)]),
    ],
)
def test_slices_merge(
    first: list[tuple[int, int, int, int]], second: list[tuple[int, int, int, int]], dtype: type
) -> None:
    nodes = [_slice("x", "t", 1), _slice("t", "y", 2)]
    constants = {**_ranges(1, *first), **_ranges(2, *second)}
    proto = cases.graph(nodes, {"x": ["N", 10, 4]}, constants, dtype=dtype)
    cases.becomes(proto, "slice-chains", ["Slice"], close=0)


def test_slices_by_attributes_merge() -> None:
    nodes = [
        mg.node("Slice", ["x"], ["t"], starts=[1], ends=[9], axes=[1]),
        mg.node("Slice", ["t"], ["y"], starts=[2], ends=[4], axes=[1]),
    ]
    proto = cases.graph(nodes, {"x": ["N", 10]}, opset=9)
    cases.becomes(proto, "slice-chains", ["Slice"], close=0)


@pytest.mark.parametrize("row", [(9, 1, 1, -1), (-3, INT_MAX, 1, 1)])
def test_slices_that_cannot_be_said_as_one_stay(row: tuple[int, int, int, int]) -> None:
    nodes = [_slice("x", "t", 1), _slice("t", "y", 2)]
    constants = {**_ranges(1, row), **_ranges(2, (1, 2, 1, 1))}
    proto = cases.graph(nodes, {"x": ["N", "M", 4]}, constants)
    cases.refused(proto, "slice-chains", "cannot be said as one")


def test_slice_read_elsewhere_stays() -> None:
    nodes = [_slice("x", "t", 1), _slice("t", "y", 2), mg.node("Abs", ["t"], ["z"])]
    constants = {**_ranges(1, (1, 3, 1, 1)), **_ranges(2, (0, 2, 2, 1))}
    proto = cases.graph(nodes, {"x": ["N", 10, 4]}, constants, ["y", "z"])
    cases.refused(proto, "slice-chains", "read elsewhere")


def test_concats_merge() -> None:
    nodes = [
        mg.node("Concat", ["a", "b"], ["t"], axis=1),
        mg.node("Concat", ["b", "t", "a"], ["y"], axis=-2),
    ]
    proto = cases.graph(nodes, {"a": ["N", "M", 3], "b": ["N", 2, 3]})
    model = cases.becomes(proto, "slice-chains", ["Concat"], close=0)
    assert list(model.proto.graph.node[0].input) == ["b", "a", "b", "a"]


@pytest.mark.parametrize("opset", [10, 13, 18])
def test_pads_merge(opset: int) -> None:
    if opset < 11:
        nodes = [mg.node("Pad", ["x"], ["t"], pads=[0, 1, 0, 2], value=1.5)]
        nodes.append(mg.node("Pad", ["t"], ["y"], pads=[1, 0, 0, 1], value=1.5))
        constants = {}
    else:
        nodes = [mg.node("Pad", ["x", "p", "v"], ["t"]), mg.node("Pad", ["t", "q", "v"], ["y"])]
        constants = {
            "p": np.array([0, 1, 0, 2]),
            "q": np.array([1, 0, 0, 1]),
            "v": np.float32(1.5),
        }
    proto = cases.graph(nodes, {"x": ["N", 3]}, constants, opset=opset)
    cases.becomes(proto, "slice-chains", ["Pad"], close=0)


@pytest.mark.parametrize(
    ("pads", "value", "mode", "why"),
    [
        ([0, 1, 0, 2], 2.0, "constant", "pads with"),
        ([0, -1, 0, 0], 1.5, "constant", "crops"),
        ([0, 1, 0, 1], 1.5, "edge", "not constant"),
    ],
)
def test_other_pads_stay(pads: list[int], value: float, mode: str, why: str) -> None:
    nodes = [
        mg.node("Pad", ["x", "p", "v"], ["t"]),
        mg.node("Pad", ["t", "q", "w"], ["y"], mode=mode),
    ]
    constants = {
        "p": np.array([0, 1, 0, 2]),
        "q": np.array(pads),
        "v": np.float32(1.5),
        "w": np.float32(value),
    }
    cases.refused(cases.graph(nodes, {"x": ["N", 3]}, constants), "slice-chains", why)


# Parts of a Concat


def test_split_and_concat_cancel() -> None:
    nodes = [
        mg.node("Abs", ["x"], ["a"]),
        mg.node("Split", ["a", "s"], ["p", "q"], axis=1),
        mg.node("Concat", ["p", "q"], ["t"], axis=1),
        mg.node("Exp", ["t"], ["y"]),
    ]
    proto = cases.graph(nodes, {"x": ["N", 5]}, {"s": np.array([2, 3])})
    cases.becomes(proto, "parts", ["Abs", "Exp"])
    nodes[2] = mg.node("Concat", ["q", "p"], ["t"], axis=1)
    cases.untouched(cases.graph(nodes, {"x": ["N", 5]}, {"s": np.array([2, 3])}), "parts")


def test_split_of_a_concat_gives_the_parts() -> None:
    nodes = [
        mg.node("Concat", ["a", "b"], ["t"], axis=-1),
        mg.node("Split", ["t", "s"], ["p", "q"], axis=1),
        mg.node("Sub", ["p", "a"], ["y"]),
        mg.node("Abs", ["q"], ["z"]),
    ]
    inputs = {"a": ["N", 2], "b": ["N", 3]}
    proto = cases.graph(nodes, inputs, {"s": np.array([2, 3])}, ["y", "z"])
    cases.becomes(proto, "parts", ["Sub", "Abs"])
    nodes[2] = mg.node("Abs", ["p"], ["y"])
    proto = cases.graph(nodes, inputs, {"s": np.array([3, 2])}, ["y", "z"])
    cases.refused(proto, "parts", "does not take")
    proto = cases.graph(nodes[:2], inputs, {"s": np.array([2, 3])}, ["p", "q"])
    cases.refused(proto, "parts", "output of the graph")


@pytest.mark.parametrize(
    ("row", "left"),
    [
        ((2, 5, 1, 1), ["Abs"]),
        ((-3, INT_MAX, 1, 1), ["Abs"]),
        ((3, 5, 1, 1), ["Slice", "Abs"]),
        ((1, 3, 1, 1), ["Concat", "Slice", "Abs"]),
        ((2, 5, 1, 2), ["Concat", "Slice", "Abs"]),
    ],
)
def test_slice_of_a_concat_takes_a_part(row: tuple[int, int, int, int], left: list[str]) -> None:
    nodes = [
        mg.node("Concat", ["a", "b"], ["t"], axis=1),
        _slice("t", "u", 1),
        mg.node("Abs", ["u"], ["y"]),
    ]
    proto = cases.graph(nodes, {"a": ["N", 2], "b": ["N", 3]}, _ranges(1, row))
    cases.becomes(proto, "parts", left)


def test_gather_of_a_stack_takes_what_was_stacked() -> None:
    nodes = [
        mg.node("Unsqueeze", ["a", "i"], ["p"]),
        mg.node("Unsqueeze", ["b", "i"], ["q"]),
        mg.node("Concat", ["p", "q"], ["t"], axis=0),
        mg.node("Gather", ["t", "j"], ["u"], axis=0),
        mg.node("Abs", ["u"], ["y"]),
    ]
    constants = {"i": np.array([0]), "j": np.array(-1)}
    proto = cases.graph(nodes, {"a": ["N", 2], "b": ["N", 2]}, constants)
    cases.becomes(proto, "parts", ["Abs"])


def test_split_read_by_squeezes_is_gathers() -> None:
    nodes = [mg.node("Split", ["x"], ["p", "q", "r"], axis=0, num_outputs=3)]
    nodes += [mg.node("Squeeze", [s, "i"], [f"{s}s"]) for s in "pqr"]
    nodes += [mg.node("Add", ["ps", "qs"], ["t"]), mg.node("Mul", ["t", "rs"], ["y"])]
    proto = cases.graph(nodes, {"x": [3, "N", 4]}, {"i": np.array([0])})
    cases.becomes(proto, "take-one", ["Gather"] * 3 + ["Add", "Mul"])
    nodes[-1] = mg.node("Mul", ["t", "r"], ["y"])
    proto = cases.graph(nodes, {"x": [3, "N", 4]}, {"i": np.array([0])})
    cases.refused(proto, "take-one", "not read by a Squeeze alone")


def test_slice_and_squeeze_are_a_gather() -> None:
    nodes = [_slice("x", "t", 1), mg.node("Squeeze", ["t", "i"], ["y"])]
    constants = {**_ranges(1, (-1, INT_MAX, 1, 1)), "i": np.array([1])}
    cases.becomes(cases.graph(nodes, {"x": ["N", 5]}, constants), "take-one", ["Gather"], close=0)
    cases.untouched(cases.graph(nodes, {"x": ["N", "M"]}, constants), "take-one")


@pytest.mark.parametrize("opset", [11, 13, 18])
def test_slices_that_cover_an_axis_are_a_split(opset: int) -> None:
    nodes = [_slice("x", "p", 1), _slice("x", "q", 2), mg.node("Sub", ["p", "q"], ["y"])]
    constants = {**_ranges(1, (3, INT_MAX, 1, 1)), **_ranges(2, (0, 3, -1, 1))}
    proto = cases.graph(nodes, {"x": ["N", 6]}, constants, opset=opset)
    cases.becomes(proto, "slices-to-split", ["Split", "Sub"])
    constants = {**_ranges(1, (3, 6, 1, 1)), **_ranges(2, (1, 4, 1, 1))}
    proto = cases.graph(nodes, {"x": ["N", 6]}, constants, opset=opset)
    cases.refused(proto, "slices-to-split", "leave places out")


# Expand


def test_expand_goes_where_the_operator_broadcasts() -> None:
    nodes = [mg.node("Expand", ["a", "s"], ["t"]), mg.node("Add", ["t", "b"], ["y"])]
    shape = {"s": np.array([3, 4])}
    proto = cases.graph(nodes, {"a": [1, 4], "b": ["N", 3, 4]}, shape)
    cases.becomes(proto, "expand-before-broadcast", ["Add"], close=0)
    proto = cases.graph(nodes, {"a": [1, 4], "b": ["N", 1, 4]}, shape)
    cases.refused(proto, "expand-before-broadcast", "may decide the dimensions")


# One input, one output


@pytest.mark.parametrize(
    ("ops", "left"),
    [
        (["Neg", "Neg"], []),
        (["Abs", "Abs"], ["Abs"]),
        (["Relu", "Relu"], ["Relu"]),
        (["Neg", "Abs"], ["Abs"]),
        (["Sigmoid", "Relu"], ["Sigmoid"]),
        (["Round", "Round"], ["Round"]),
        (["Reciprocal", "Reciprocal"], ["Reciprocal", "Reciprocal"]),
        (["Neg", "Neg", "Neg"], ["Neg"]),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_activations_merge(ops: list[str], left: list[str], dtype: type) -> None:
    names = ["x", *(f"t{i}" for i in range(len(ops)))]
    nodes = [mg.node(op, [names[i]], [names[i + 1]]) for i, op in enumerate(ops)]
    nodes = [mg.node("Tanh", ["x"], ["start"]), *nodes, mg.node("Tanh", [names[-1]], ["y"])]
    nodes[1].input[0] = "start"
    proto = cases.graph(nodes, {"x": ["N", 4]}, dtype=dtype)
    cases.becomes(proto, "activation-chains", ["Tanh", *left, "Tanh"], close=0)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize(
    ("first", "second", "left"),
    [
        ((-0.5, 0.5), (-0.2, 0.9), "Clip"),
        ((-0.5, None), (None, 0.7), "Clip"),
        (None, (-1.0, 0.4), "Clip"),
        ((-0.3, 0.4), None, "Clip"),
        ((-0.3, None), None, "Relu"),
        ((0.5, 0.9), (-0.5, 0.1), "Clip"),
        ((-0.9, -0.5), (0.2, 0.4), "Clip"),
    ],
)
@pytest.mark.parametrize("opset", [10, 13])
def test_bounds_merge(
    first: tuple[float | None, float | None] | None,
    second: tuple[float | None, float | None] | None,
    left: str,
    dtype: type,
    opset: int,
) -> None:
    constants: dict[str, np.ndarray] = {}
    nodes = []
    for index, (bounds, given_, made) in enumerate([(first, "x", "t"), (second, "t", "y")]):
        if bounds is None:
            nodes.append(mg.node("Relu", [given_], [made]))
        elif opset < 11:
            pairs = zip(("min", "max"), bounds, strict=True)
            nodes.append(
                mg.node("Clip", [given_], [made], **{n: b for n, b in pairs if b is not None})
            )
        else:
            names = []
            for role, bound in zip(("l", "h"), bounds, strict=True):
                names.append(f"{role}{index}" if bound is not None else "")
                if bound is not None:
                    constants[names[-1]] = np.array(bound, dtype)
            nodes.append(mg.node("Clip", [given_, *names], [made]))
    proto = cases.graph(nodes, {"x": ["N", 16]}, constants, dtype=dtype, opset=opset)
    cases.becomes(proto, "activation-chains", [left], close=0)


def test_computed_bounds_stay() -> None:
    nodes = [mg.node("Relu", ["x"], ["t"]), mg.node("Clip", ["t", "", "h"], ["y"])]
    proto = cases.graph(nodes, {"x": ["N", 4], "h": []})
    cases.refused(proto, "activation-chains", "computed")


def test_names_are_kept_when_all_of_a_chain_is_an_output() -> None:
    nodes = [mg.node("Neg", ["x"], ["t"]), mg.node("Neg", ["t"], ["y"])]
    cases.refused(cases.graph(nodes, {"x": ["N", 4]}), "activation-chains", "is an output")
