"""Slices, Pads, Concats and Splits in a row: what becomes one node, what is left and why."""

import graph_chain_cases as cases
import models_graph as mg
import numpy as np
import pytest
from onnx import NodeProto

INT_MAX = 2**63 - 1


# Slice, Concat, Pad


def _slice(source: str, result: str, index: int) -> NodeProto:
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
