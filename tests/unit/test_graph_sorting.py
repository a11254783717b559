"""Nodes out of order are put in order at the gate; cycles are refused there."""

from pathlib import Path

import models_graph as mg
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, helper

from trtforge.errors import GraphError
from trtforge.graph.model import Model
from trtforge.graph.sorting import sort_nodes


def chain(order: list[int]) -> ModelProto:
    """x -> Neg -> Abs -> Exp -> Tanh -> y, and a sum of two of them, its nodes in that order."""
    nodes = [
        mg.node("Neg", ["x"], ["a"]),
        mg.node("Abs", ["a"], ["b"]),
        mg.node("Tanh", ["b"], ["c"]),
        mg.node("Add", ["a", "c"], ["d"]),
        mg.node("Sigmoid", ["d"], ["y"]),
    ]
    return mg.model(
        [nodes[index] for index in order], [mg.info("x", [2, 3])], [mg.info("y", [2, 3])]
    )


@given(order=st.permutations(range(5)))
@settings(deadline=None, max_examples=40)
def test_any_order_becomes_the_only_one(order: list[int]) -> None:
    proto = chain(list(order))
    changed = sort_nodes(proto)
    assert changed == (list(order) != [0, 1, 2, 3, 4])
    assert mg.ops(proto) == ["Neg", "Abs", "Tanh", "Add", "Sigmoid"]
    onnx.checker.check_model(proto, full_check=True)
    assert sort_nodes(proto) == 0


def test_nodes_that_may_stay_keep_their_order() -> None:
    proto = chain([0, 1, 2, 3, 4])
    free = [mg.node("Neg", ["x"], [f"f{index}"]) for index in range(4)]
    late = mg.node("Exp", ["late"], ["e"])
    proto.graph.node.extend([late, *free, mg.node("Neg", ["y"], ["late"])])
    proto.graph.output.extend(mg.info(name, [2, 3]) for name in ("e", *(f"f{i}" for i in range(4))))
    sort_nodes(proto)
    names = [node.output[0] for node in proto.graph.node]
    assert names == ["a", "b", "c", "d", "y", "f0", "f1", "f2", "f3", "late", "e"]


def test_what_a_body_reads_comes_before_it_and_bodies_are_sorted(tmp_path: Path) -> None:
    body = helper.make_graph(
        [mg.node("Neg", ["inner"], ["t"]), mg.node("Exp", ["outside"], ["inner"])],
        "then",
        [],
        [mg.info("t", [2, 3])],
    )
    other = helper.make_graph([mg.node("Abs", ["x"], ["e"])], "else", [], [mg.info("e", [2, 3])])
    proto = mg.model(
        [
            mg.node("If", ["flag"], ["y"], then_branch=body, else_branch=other),
            mg.node("Tanh", ["x"], ["outside"]),
        ],
        [mg.info("x", [2, 3]), mg.info("flag", [], bool)],
        [mg.info("y", [2, 3])],
    )
    path = tmp_path / "unsorted.onnx"
    onnx.save(proto, path)
    with pytest.raises(onnx.checker.ValidationError):
        onnx.checker.check_model(proto)
    model = Model.load(path)
    assert mg.ops(model) == ["Tanh", "If"]
    onnx.checker.check_model(model.proto, full_check=True)
    x = np.asarray([[1, -2, 3], [0, 4, -1]], np.float32)
    from trtforge.graph.execute import Session

    found = Session(model).run({"x": x, "flag": np.asarray(True)})["y"]
    assert np.allclose(found, -np.exp(np.tanh(x)))


def test_a_cycle_is_refused_as_it_came(tmp_path: Path) -> None:
    proto = chain([0, 1, 2, 3, 4])
    proto.graph.node[0].input[0] = "d"
    path = tmp_path / "cycle.onnx"
    onnx.save(proto, path)
    assert sort_nodes(proto) == 0
    with pytest.raises(GraphError, match="topologically sorted") as caught:
        Model.load(path)
    assert caught.value.code == "TF0403"
