"""Which inputs decide shapes by their values."""

import pytest
from engine_models import model
from onnx import TensorProto, helper
from shape_values import DECIDING, gathered

from trtforge.graph.deciding import deciding_inputs
from trtforge.graph.model import Model

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


@pytest.mark.parametrize("name", DECIDING)
def test_what_operators_read_decides(name: str) -> None:
    assert deciding_inputs(Model(DECIDING[name].graph)) == ("k",)


def test_indices_decide_nothing() -> None:
    assert deciding_inputs(Model(gathered())) == ()


def test_arithmetic_is_followed_and_shapes_of_tensors_are_not() -> None:
    nodes = [
        helper.make_node("Add", ["k", "k"], ["twice"]),
        helper.make_node("Shape", ["other"], ["of"]),
        helper.make_node("Concat", ["twice", "of"], ["to"], axis=0),
        helper.make_node("Expand", ["x", "to"], ["y"]),
    ]
    inputs = {"x": (FLOAT, [1, 1]), "k": (INT64, [1]), "other": (INT64, [6])}
    graph = model(nodes, inputs, {"y": (FLOAT, ["a", "b"])})
    assert deciding_inputs(Model(graph)) == ("k",)


def test_branches_are_looked_into() -> None:
    def branch(name: str) -> object:
        node = helper.make_node("Tile", ["x", "k"], [name])
        info = helper.make_tensor_value_info(name, FLOAT, ["a"])
        return helper.make_graph([node], name, [], [info])

    nodes = [helper.make_node("If", ["c"], ["y"], then_branch=branch("t"), else_branch=branch("e"))]
    inputs = {"x": (FLOAT, [2]), "k": (INT64, [1]), "c": (TensorProto.BOOL, [])}
    graph = model(nodes, inputs, {"y": (FLOAT, ["a"])})
    assert deciding_inputs(Model(graph)) == ("k",)


@pytest.mark.parametrize(("kind", "dims"), [(INT64, ["n"]), (INT64, [1, 2])])
def test_what_no_profile_can_hold_is_left_out(kind: int, dims: list[object]) -> None:
    nodes = [
        helper.make_node("Reshape", ["k", "flat"], ["to"]),
        helper.make_node("Expand", ["x", "to"], ["y"]),
    ]
    flat = helper.make_tensor("flat", INT64, [1], [-1])
    inputs = {"x": (FLOAT, [1, 1]), "k": (kind, dims)}
    graph = model(nodes, inputs, {"y": (FLOAT, ["a", "b"])}, [flat])
    assert deciding_inputs(Model(graph)) == ()
