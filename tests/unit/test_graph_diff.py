"""What two models differ in, and that what is no difference is not told as one."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import models_graph as mg
import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper

from trtforge.graph import diff_values, external, weights
from trtforge.graph.diff import ModelDiff, diff_models
from trtforge.graph.diff_attributes import FieldChange
from trtforge.graph.diff_nodes import match_nodes
from trtforge.graph.model import Model


def diff(before: ModelProto, after: ModelProto) -> ModelDiff:
    return diff_models(Model(before), Model(after))


def edited(change: Callable[[ModelProto], object], of: ModelProto | None = None) -> ModelDiff:
    """Return how a model differs from itself after `change`."""
    before = of or mg.conv_bn()
    after = ModelProto()
    after.CopyFrom(before)
    change(after)
    return diff(before, after)


def changes_of(found: ModelDiff) -> list[tuple[str, Any, Any]]:
    (node,) = found.nodes.changed
    return [(change.what, change.before, change.after) for change in node.changes]


def branch(name: str, value: float, op: str = "Add") -> onnx.GraphProto:
    return helper.make_graph(
        [helper.make_node(op, ["x", "w"], [f"{name}_y"], name="Add_3")],
        name,
        [],
        [mg.info(f"{name}_y", [2])],
        [mg.tensor("w", [value, value], np.float32)],
    )


def conditional(value: float = 1.0, op: str = "Add", name: str = "/if_0") -> ModelProto:
    body = {"then_branch": branch("t", value, op), "else_branch": branch("e", 2.0)}
    return mg.model(
        [mg.node("If", ["c"], ["y"], name=name, **body)],
        [mg.info("c", [], np.bool_), mg.info("x", [2])],
        [mg.info("y", [2])],
    )


# No differences


@pytest.mark.parametrize("model", [mg.conv_bn, conditional], ids=["plain", "subgraphs"])
def test_a_model_does_not_differ_from_itself(model: Callable[[], ModelProto]) -> None:
    found = diff(model(), model())
    assert found.identical
    assert found.as_json()["nodes"]["changed"] == []


def test_where_and_how_weights_are_stored_is_no_difference(tmp_path: Path) -> None:
    proto = mg.conv_bn()
    outside = Model.load(mg.save_external(proto, tmp_path / "outside.onnx"))
    typed = ModelProto()
    typed.CopyFrom(proto)
    for tensor in typed.graph.initializer:
        values = weights.tensor_array(tensor, external.ExternalFiles(None)).reshape(-1)
        tensor.ClearField("raw_data")
        tensor.float_data.extend(values.tolist())
    typed.graph.initializer.sort(key=lambda tensor: tensor.name)
    assert diff_models(Model(proto), outside).identical
    assert diff_models(outside, Model(typed)).identical


# The contract and the model's own facts


def test_the_contract() -> None:
    def change(proto: ModelProto) -> None:
        proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 8
        proto.graph.input.append(mg.info("mask", [None], np.int64))
        proto.graph.output[0].name = "z"
        proto.graph.node[-1].output[0] = "z"

    found = edited(change)
    assert [spec.name for spec in found.inputs.added] == ["mask"]
    ((old, new),) = found.inputs.changed
    assert (old.dims, new.dims) == (("N", 3, 6, 6), (8, 3, 6, 6))
    assert [spec.name for spec in found.outputs.removed] == ["y"]
    assert [spec.name for spec in found.outputs.added] == ["z"]
    assert changes_of(found) == [("output 0", "y", "z")]


def test_the_order_of_inputs_is_part_of_the_contract() -> None:
    inputs = [mg.info("a", [2]), mg.info("b", [2])]
    models = [
        mg.model([mg.node("Sub", ["a", "b"], ["y"])], order, [mg.info("y", [2])])
        for order in (inputs, inputs[::-1])
    ]
    found = diff(*models)
    assert found.inputs.reordered
    assert not found.identical
    assert not diff(models[0], models[0]).inputs.reordered


def test_model_facts() -> None:
    def change(proto: ModelProto) -> None:
        proto.ir_version = 10
        proto.opset_import[0].version = 20
        proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
        proto.producer_name = "trtforge"
        helper.set_model_props(proto, {"author": "me"})
        proto.graph.value_info.append(mg.info("c", ["N", 4, 6, 6]))
        proto.graph.input.append(mg.info("W", [4, 3, 3, 3]))

    found = edited(change)
    assert {c.what: (c.before, c.after) for c in found.model} == {
        "ir_version": (9, 10),
        "opset ai.onnx": (18, 20),
        "opset com.microsoft": (None, 1),
        "producer_name": ("", "trtforge"),
        "metadata author": (None, "me"),
        "graph value_info": (0, 1),
        "graph inputs with initializers": (0, 1),
    }
    assert found.inputs.identical, "an initializer's input is no part of the contract"
    assert found.nodes.identical


def test_the_empty_domain_is_the_onnx_domain() -> None:
    def change(proto: ModelProto) -> None:
        proto.opset_import[0].domain = "ai.onnx"
        proto.graph.node[0].domain = "ai.onnx"

    assert edited(change).identical


# Nodes


def test_a_node_is_the_same_by_its_output() -> None:
    def change(proto: ModelProto) -> None:
        proto.graph.node[2].op_type = "Sigmoid"
        proto.graph.node[2].name = "other"

    found = edited(change)
    assert changes_of(found) == [("op", "Relu", "Sigmoid"), ("name", "/Relu_y", "other")]
    assert [(o.op, o.before, o.after) for o in found.operators] == [
        ("Relu", 1, 0),
        ("Sigmoid", 0, 1),
    ]


def test_a_node_is_the_same_by_its_name() -> None:
    def change(proto: ModelProto) -> None:
        proto.graph.node[0].output[0] = proto.graph.node[1].input[0] = "c2"

    found = edited(change)
    assert not found.nodes.added
    assert not found.nodes.removed
    assert [entry.before.path for entry in found.nodes.changed] == [
        "/Conv_c",
        "/BatchNormalization_n",
    ]
    assert found.nodes.changed[0].changes == (FieldChange("output 0", "c", "c2"),)
    assert found.nodes.changed[1].changes == (FieldChange("input 0", "c", "c2"),)


def test_a_fused_node_is_still_that_node() -> None:
    """It makes now what the removed one made, whose name it does not bear."""

    def change(proto: ModelProto) -> None:
        proto.graph.node[0].output[0] = "n"
        del proto.graph.node[1]

    found = edited(change)
    assert [facts.op for facts in found.nodes.removed] == ["BatchNormalization"]
    assert changes_of(found) == [("output 0", "c", "n")]
    assert found.nodes.count == (3, 2)


def test_nodes_of_one_name_are_paired_once_and_nameless_ones_are_no_pair() -> None:
    first = [mg.node("Relu", ["x"], ["a"], name="n"), mg.node("Abs", ["x"], ["b"], name="n")]
    second = [mg.node("Abs", ["x"], ["c"], name="n"), mg.node("Relu", ["x"], ["d"], name="n")]
    assert match_nodes(first, second) == [(0, 1), (1, 0)]
    nameless = [helper.make_node("Relu", ["x"], [name]) for name in ("a", "b")]
    assert match_nodes(nameless[:1], nameless[1:]) == []
    absent = [helper.make_node("LSTM", ["x"], ["", name]) for name in ("a", "b")]
    assert match_nodes(absent[:1], absent[1:]) == [], "an output left out is no identity"


def test_attributes_say_their_old_and_new_values() -> None:
    def change(proto: ModelProto) -> None:
        conv, norm, _ = proto.graph.node
        conv.attribute[0].ints[0] = 2
        conv.attribute.append(helper.make_attribute("group", 1))
        norm.attribute.append(helper.make_attribute("epsilon", 0.1))

    found = edited(change)
    assert found.nodes.changed[0].changes == (
        FieldChange("pads", [1, 1, 1, 1], [2, 1, 1, 1]),
        FieldChange("group", None, 1),
    )
    assert found.nodes.changed[1].changes == (FieldChange("epsilon", None, 0.1),)


@pytest.mark.parametrize(
    ("before", "after", "note"),
    [
        ([1.0, 2.0], [1.0, 2.5], "1 of 2 values differ, max abs 0.5"),
        ([1.0, 2.0], [1.0, 2.0, 3.0], None),
        (["a", "b"], ["a", "c"], "1 of 2 values differ"),
        ([2**62, 0], [-(2**62), 0], "1 of 2 values differ, max abs 9.223e+18"),
    ],
)
def test_tensor_attributes(before: list[Any], after: list[Any], note: str | None) -> None:
    models = [
        mg.model(
            [mg.node("Constant", [], ["y"], value=mg.tensor("", values))], [], [mg.info("y", None)]
        )
        for values in (before, after)
    ]
    (node,) = diff(*models).nodes.changed
    (change,) = node.changes
    assert (change.what, change.note) == ("value", note)
    assert change.before["values"] == before
    assert change.after["values"] == after
    assert diff(models[0], models[0]).identical


def test_a_tensor_attribute_stored_otherwise_is_the_same() -> None:
    stored = mg.tensor("", [1.0, 2.0], np.float32)
    typed = TensorProto(data_type=TensorProto.FLOAT, dims=[2], float_data=[1.0, 2.0])
    models = [
        mg.model([mg.node("Constant", [], ["y"], value=value)], [], [mg.info("y", [2])])
        for value in (stored, typed)
    ]
    assert diff(*models).identical


def test_node_order_and_annotations() -> None:
    relu, absolute = mg.node("Relu", ["x"], ["a"]), mg.node("Abs", ["x"], ["b"])
    outputs = [mg.info("a", [2]), mg.info("b", [2])]
    before = mg.model([relu, absolute], [mg.info("x", [2])], outputs)
    after = mg.model([absolute, relu], [mg.info("x", [2])], outputs)
    found = diff(before, after)
    assert found.nodes.reordered == ("",)
    assert not found.nodes.changed
    after.graph.node[0].metadata_props.add(key="namespace", value="m")
    assert changes_of(diff(before, after)) == [("metadata namespace", None, "m")]


# Subgraphs and functions


def test_subgraphs_have_paths() -> None:
    found = diff(conditional(), conditional(1.5, "Sub"))
    (node,) = found.nodes.changed
    assert node.before.path == "/if_0:then_branch/Add_3"
    assert node.changes == (FieldChange("op", "Add", "Sub"),)
    (weight,) = found.initializers.changed
    assert weight.before.path == "/if_0:then_branch/w"
    assert weight.values == diff_values.ValueDifference(2, 2, 0.5)
    assert found.initializers.count == (2, 2)
    assert found.nodes.count == (3, 3)
    assert {o.op: o.after - o.before for o in found.operators} == {"Add": -1, "Sub": 1}


def test_the_subgraphs_of_a_renamed_node_are_compared_with_each_other() -> None:
    found = diff(conditional(), conditional(name="renamed"))
    assert changes_of(found) == [("name", "/if_0", "renamed")]
    assert found.initializers.identical


def test_the_subgraphs_of_a_node_that_is_gone_are_gone() -> None:
    after = mg.model(
        [mg.node("Add", ["x", "w"], ["t"], name="flat"), mg.node("Relu", ["t"], ["z"])],
        [mg.info("c", [], np.bool_), mg.info("x", [2])],
        [mg.info("z", [2])],
        [mg.tensor("w", [1.0, 1.0], np.float32)],
    )
    found = diff(conditional(), after)
    assert [facts.path for facts in found.nodes.removed] == [
        "/if_0",
        "/if_0:else_branch/Add_3",
        "/if_0:then_branch/Add_3",
    ]
    ((old, new),) = found.initializers.renamed
    assert (old.path, new.path) == ("/if_0:then_branch/w", "w")
    assert [facts.path for facts in found.initializers.removed] == ["/if_0:else_branch/w"]


def test_what_a_subgraph_gives_is_part_of_its_node() -> None:
    after = conditional()
    after.graph.node[0].attribute[0].g.output[0].type.tensor_type.shape.dim[0].dim_value = 3
    label = after.graph.node[0].attribute[0].name
    ((what, old, new),) = changes_of(diff(conditional(), after))
    assert what == f"{label} outputs"
    assert old != new


def function(op: str, **fields: Any) -> onnx.FunctionProto:
    return helper.make_function(
        "local",
        fields.pop("name", "block"),
        ["a"],
        ["b"],
        [helper.make_node(op, ["a"], ["b"], name="inner")],
        [helper.make_opsetid("", fields.pop("opset", 18))],
        **fields,
    )


def with_functions(*functions: onnx.FunctionProto) -> ModelProto:
    call = helper.make_node("block", ["x"], ["y"], name="call", domain="local")
    proto = mg.model([call], [mg.info("x", [2])], [mg.info("y", [2])])
    proto.functions.extend(functions)
    return proto


def test_functions() -> None:
    found = diff(
        with_functions(function("Relu"), function("Abs", name="old")),
        with_functions(function("Sigmoid", opset=20), function("Abs", name="new")),
    )
    assert found.functions.removed == ("local::old",)
    assert found.functions.added == ("local::new",)
    (change,) = found.functions.changed
    assert change.changes == (FieldChange("opset ai.onnx", 18, 20),)
    (node,) = found.nodes.changed
    assert node.before.path == "local::block/inner"
    assert node.changes == (FieldChange("op", "Relu", "Sigmoid"),)
    assert diff(with_functions(function("Relu")), with_functions(function("Relu"))).identical


# Scale


def long_chain(length: int, op: str) -> ModelProto:
    nodes = [
        helper.make_node(
            op if index % 2 else "Add",
            [f"t{index}", "w"],
            [f"t{index + 1}"],
            name=f"n{index % 100}",
        )
        for index in range(length)
    ]
    one = mg.tensor("w", [1.0], np.float32)
    return mg.model(nodes, [mg.info("t0", [1])], [mg.info(f"t{length}", [1])], [one])


def test_ten_thousand_nodes_take_about_a_second() -> None:
    before, after = long_chain(10_000, "Mul"), long_chain(10_000, "Sub")
    after.graph.node[0].output[0] = after.graph.node[1].input[0] = "other"
    started = time.perf_counter()
    found = diff(before, after)
    assert time.perf_counter() - started < 4, "measured 0.2 s; near linear, not quadratic"
    assert len(found.nodes.changed) == 5001
