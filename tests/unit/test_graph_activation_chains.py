"""Elementwise operators of one input in a row: merged bounds, what is undone or repeated."""

import graph_chain_cases as cases
import models_graph as mg
import numpy as np
import pytest

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
