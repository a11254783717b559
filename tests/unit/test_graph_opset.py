"""Raising the opset keeps numbers, names and metadata, and refuses what it cannot express."""

import models_graph as mg
import numpy as np
import onnx
import pytest
from onnx import NodeProto, helper

from trtforge.errors import GraphError
from trtforge.graph.model import Model

DIMS = [2, 3, 4, 6]


def raised(
    nodes: list[NodeProto], opset: int, to: int, dims: list[int] = DIMS, **values: np.ndarray
) -> Model:
    """Raise x -> nodes -> y and compare; the result must pass the strict checker."""
    initializers = [mg.tensor(name, value) for name, value in values.items()]
    used = {name for node in nodes for name in node.input}
    made = {name for node in nodes for name in node.output}
    outputs = [mg.info(name, [f"{name}{i}" for i in range(4)]) for name in sorted(made - used)]
    proto = mg.model(nodes, [mg.info("x", dims)], outputs, initializers, opset=opset)
    del proto.graph.output[:]
    inferred = onnx.shape_inference.infer_shapes(proto)
    for found in outputs:
        info = next(i for i in inferred.graph.value_info if i.name == found.name)
        proto.graph.output.append(info)
    onnx.checker.check_model(proto, full_check=True)
    model = Model(proto)
    after = model.with_opset(to)
    onnx.checker.check_model(after.proto, full_check=True)
    assert after.opset == to
    assert after.contract == model.contract
    assert model.opset == opset
    assert mg.largest_difference(model, after, {}) < 1e-6
    return after


@pytest.mark.parametrize("to", [13, 19, 21])
@pytest.mark.parametrize(
    ("opset", "nodes"),
    [
        (9, [mg.node("Clip", ["x"], ["y"], min=-0.5, max=0.5)]),
        (9, [mg.node("Clip", ["x"], ["y"], max=0.5)]),
        (9, [mg.node("Pad", ["x"], ["y"], pads=[0, 0, 1, 2, 0, 0, 3, 0], value=2.0)]),
        (9, [mg.node("Dropout", ["x"], ["y"], ratio=0.3)]),
        (9, [mg.node("Upsample", ["x", "s"], ["y"], mode="nearest")]),
        (9, [mg.node("Upsample", ["x", "s"], ["y"], mode="linear")]),
        (8, [mg.node("Upsample", ["x"], ["y"], scales=[1.0, 1.0, 1.5, 2.0])]),
        (10, [mg.node("Resize", ["x", "s"], ["y"], mode="linear")]),
        (9, [mg.node("TopK", ["x"], ["y", "i"], k=2)]),
        (9, [mg.node("Slice", ["x"], ["y"], starts=[1, 0], ends=[2, 3], axes=[1, 3])]),
        (8, [mg.node("Slice", ["x"], ["y"], starts=[1, 0], ends=[2, 3])]),
        (
            11,
            [
                mg.node("Squeeze", ["u"], ["y"], axes=[0]),
            ],
        ),
        (11, [mg.node("ReduceSum", ["x"], ["y"], axes=[1], keepdims=0)]),
        (11, [mg.node("ReduceMean", ["x"], ["y"], axes=[2, 3])]),
        (13, [mg.node("ReduceMax", ["x"], ["y"])]),
        (11, [mg.node("Split", ["x"], ["a", "b"], axis=3, split=[2, 4])]),
        (11, [mg.node("Split", ["x"], ["a", "b"], axis=3)]),
        (11, [mg.node("Softmax", ["x"], ["y"])]),
        (11, [mg.node("Softmax", ["x"], ["y"], axis=3)]),
        (11, [mg.node("LogSoftmax", ["x"], ["y"], axis=2)]),
        (11, [mg.node("Softmax", ["x"], ["y"], axis=-1)]),
        (7, [mg.node("AveragePool", ["x"], ["y"], kernel_shape=[2, 2])]),
        (
            7,
            [
                mg.node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2]),
            ],
        ),
    ],
)
def test_changed_operators(opset: int, nodes: list[NodeProto], to: int) -> None:
    values = {"s": np.array([1, 1, 2, 1.5], np.float32)} if "s" in nodes[0].input else {}
    if nodes[0].op_type == "Squeeze":
        nodes = [mg.node("Unsqueeze", ["x"], ["u"], axes=[0]), *nodes]
    raised([NodeProto.FromString(n.SerializeToString()) for n in nodes], opset, to, **values)


def test_a_convolutional_network_from_opset_9_keeps_everything() -> None:
    proto = mg.conv_bn(opset=9)
    proto.graph.node[0].doc_string = "the stem"
    proto.metadata_props.add(key="stride", value="32")
    model = Model(proto)
    after = model.with_opset(19)
    assert [n.name for n in after.proto.graph.node] == [n.name for n in proto.graph.node]
    assert after.proto.graph.node[0].doc_string == "the stem"
    assert after.proto.metadata_props == proto.metadata_props
    assert after.proto.ir_version >= 9
    assert mg.largest_difference(model, after, {"x": (2, 3, 6, 6)}) == 0


def test_the_same_or_an_older_opset_changes_nothing() -> None:
    model = Model(mg.conv_bn())
    assert model.with_opset(18) is model
    assert model.with_opset(13) is model


def test_bodies_are_raised_too() -> None:
    def body(name: str) -> onnx.GraphProto:
        nodes = [mg.node("ReduceSum", ["x"], [f"{name}.y"], axes=[1], keepdims=0)]
        return helper.make_graph(nodes, name, [], [mg.info(f"{name}.y", [2, 4, 6])])

    proto = mg.model(
        [mg.node("If", ["flag"], ["y"], then_branch=body("t"), else_branch=body("e"))],
        [mg.info("x", DIMS), mg.info("flag", [], bool)],
        [mg.info("y", [2, 4, 6])],
        opset=11,
    )
    after = Model(proto).with_opset(18)
    onnx.checker.check_model(after.proto, full_check=True)
    assert mg.largest_difference(Model(proto), after, {}) == 0


def test_names_that_are_taken_are_not_used_again() -> None:
    nodes = [
        mg.node("Clip", ["x"], ["y"], min=-0.5, max=0.5),
        mg.node("Abs", ["x"], ["y_min"]),
    ]
    after = raised(nodes, 9, 13)
    assert set(after.initializers) == {"y_min_1", "y_max"}


@pytest.mark.parametrize(
    ("node", "opset", "to", "why"),
    [
        (
            mg.node("GroupNormalization", ["x", "s", "s"], ["y"], num_groups=3),
            18,
            21,
            "meaning changed",
        ),
        (mg.node("Scan", ["", "x"], ["y"], num_scan_inputs=1), 8, 9, "removed|changed"),
    ],
)
def test_what_cannot_be_expressed_is_refused(
    node: NodeProto, opset: int, to: int, why: str
) -> None:
    proto = mg.model(
        [node],
        [mg.info("x", DIMS)],
        [mg.info("y", DIMS)],
        [mg.tensor("s", mg.weights(3))],
        opset=opset,
    )
    if node.op_type == "Scan":
        body = helper.make_graph([], "b", [mg.info("i", [4])], [mg.info("i", [4])])
        proto.graph.node[0].attribute.extend(
            [helper.make_attribute("body", body), helper.make_attribute("directions", [0])]
        )
    with pytest.raises(GraphError, match=why) as caught:
        Model(proto).with_opset(to)
    assert caught.value.code == "TF0407"
    assert caught.value.where is not None
    assert caught.value.where.node == node.name


@pytest.mark.parametrize(("opset", "to"), [(6, 13), (18, 999)])
def test_opsets_that_are_not_known(opset: int, to: int) -> None:
    with pytest.raises(GraphError, match=f"opset {opset} to {to}"):
        Model(mg.conv_bn(opset=opset)).with_opset(to)
