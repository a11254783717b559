"""Transposes: merged, absorbed, and moved only where fewer are left; the numbers stay."""

import cProfile

import graph_chain_cases as cases
import models_graph as mg
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, NodeProto

from trtforge.graph.model import Model
from trtforge.graph.passes import PassRequest, run_passes

TO_LAST, TO_SECOND = [0, 2, 3, 1], [0, 3, 1, 2]


def turn(source: str, result: str, perm: list[int]) -> NodeProto:
    return mg.node("Transpose", [source], [result], perm=perm)


# Merged


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_transposes_merge(dtype: type) -> None:
    nodes = [turn("x", "t", [1, 2, 0]), turn("t", "y", [0, 2, 1])]
    proto = cases.graph(nodes, {"x": ["N", "M", 3]}, dtype=dtype)
    model = cases.becomes(proto, "transpose-chains", ["Transpose"], close=0)
    assert list(model.proto.graph.node[0].attribute[0].ints) == [1, 0, 2]


def test_transposes_that_cancel_go_even_when_the_first_is_used() -> None:
    nodes = [
        mg.node("Abs", ["x"], ["a"]),
        turn("a", "t", [1, 0]),
        mg.node("Transpose", ["t"], ["u"]),
        mg.node("Exp", ["u"], ["y"]),
        mg.node("Neg", ["t"], ["z"]),
    ]
    proto = cases.graph(nodes, {"x": ["N", 3]}, {}, ["y", "z"])
    cases.becomes(proto, "transpose-chains", ["Abs", "Exp", "Transpose", "Neg"])


def test_transpose_read_elsewhere_stays() -> None:
    nodes = [turn("x", "t", [1, 2, 0]), turn("t", "y", [0, 2, 1]), mg.node("Neg", ["t"], ["z"])]
    proto = cases.graph(nodes, {"x": ["N", "M", 3]}, {}, ["y", "z"])
    cases.refused(proto, "transpose-chains", "read by other nodes")


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("index", [0, 1])
def test_gemm_takes_a_transpose_in(index: int, transposed: int) -> None:
    attribute = ("transA", "transB")[index]
    shape = ["N", 3] if (index == 0) == (transposed == 1) else [3, "N"]
    inputs = ["t", "w"] if index == 0 else ["w", "t"]
    weight = mg.weights(3, 3)
    gemm = mg.node("Gemm", inputs, ["y"], **{attribute: transposed})
    proto = cases.graph(
        [turn("x", "t", [1, 0]), gemm],
        {"x": shape},
        {"w": weight},
    )
    cases.becomes(proto, "gemm-transpose", ["Gemm"], close=1e-5)


def test_product_of_transposes_is_the_transposed_product() -> None:
    nodes = [
        turn("a", "t", [0, 2, 1]),
        turn("b", "u", [0, 2, 1]),
        mg.node("MatMul", ["t", "u"], ["y"]),
    ]
    proto = cases.graph(nodes, {"a": ["N", 5, "M"], "b": ["N", 4, 5]})
    cases.becomes(proto, "transpose-chains", ["MatMul", "Transpose"], close=1e-5)


# Moved


def _between(middle: list[NodeProto], **changes: object) -> ModelProto:
    """x (N, 4, 5, 6) to last, some nodes from t to u, and back."""
    nodes = [turn("x", "t", TO_LAST), *middle, turn("u", "y", TO_SECOND)]
    return cases.graph(nodes, {"x": ["N", 4, 5, 6]}, **changes)  # type: ignore[arg-type]


RANGES = {"s": np.array([1]), "e": np.array([3]), "k": np.array([-1])}

MIDDLES: dict[str, tuple[list[NodeProto], dict[str, np.ndarray]]] = {
    "unary": ([mg.node("Tanh", ["t"], ["v"]), mg.node("Elu", ["v"], ["u"], alpha=0.5)], {}),
    "channel constant": ([mg.node("Add", ["t", "c"], ["u"])], {"c": mg.weights(4)}),
    "whole constant": ([mg.node("Sub", ["c", "t"], ["u"])], {"c": mg.weights(1, 5, 6, 4)}),
    "scalar": ([mg.node("Mul", ["t", "c"], ["u"])], {"c": np.float32(2)}),
    "vector of one": ([mg.node("Div", ["t", "c"], ["u"])], {"c": np.ones(1, np.float32) * 3}),
    "itself": ([mg.node("Sigmoid", ["t"], ["v"]), mg.node("Mul", ["t", "v"], ["u"])], {}),
    "cast": (
        [mg.node("Cast", ["t"], ["v"], to=11), mg.node("Cast", ["v"], ["u"], to=1)],
        {},
    ),
    "softmax": ([mg.node("Softmax", ["t"], ["u"], axis=-1)], {}),
    "log softmax": ([mg.node("LogSoftmax", ["t"], ["u"], axis=1)], {}),
    "reduce": (
        [mg.node("ReduceMean", ["t", "a"], ["v"]), mg.node("Sub", ["t", "v"], ["u"])],
        {"a": np.array([-1, 1])},
    ),
    "reduce all": ([mg.node("ReduceMax", ["t"], ["v"]), mg.node("Sub", ["t", "v"], ["u"])], {}),
    "concat": ([mg.node("Concat", ["t", "t"], ["u"], axis=3)], {}),
    "split": (
        [
            mg.node("Split", ["t"], ["v", "w"], axis=-1, num_outputs=2),
            mg.node("Div", ["v", "w"], ["u"]),
        ],
        {},
    ),
    "slice": ([mg.node("Slice", ["t", "s", "e", "k"], ["u"])], RANGES),
    "pad": ([mg.node("Pad", ["t", "p"], ["u"])], {"p": np.array([0, 1, 2, 3, 0, 4, 5, 6])}),
    "reflect": (
        [mg.node("Pad", ["t", "p"], ["u"], mode="reflect")],
        {"p": np.array([0, 1, 2, 0, 0, 1, 2, 0])},
    ),
    "where": (
        [mg.node("Greater", ["t", "c"], ["v"]), mg.node("Where", ["v", "t", "c"], ["u"])],
        {"c": np.float32(0)},
    ),
    "clip": ([mg.node("Clip", ["t", "c"], ["u"])], {"c": np.float32(0)}),
    "prelu": ([mg.node("PRelu", ["t", "c"], ["u"])], {"c": mg.weights(4)}),
    "power": (
        [mg.node("Abs", ["t"], ["v"]), mg.node("Pow", ["v", "c"], ["u"])],
        {"c": np.float32(2)},
    ),
    "quantized": (
        [
            mg.node("QuantizeLinear", ["t", "c", "z"], ["v"]),
            mg.node("DequantizeLinear", ["v", "c", "z"], ["u"]),
        ],
        {"c": np.float32(0.1), "z": np.int8(0)},
    ),
}


@pytest.mark.parametrize("kind", MIDDLES)
def test_transposes_around_an_operator_cancel(kind: str) -> None:
    middle, constants = MIDDLES[kind]
    proto = _between(middle, constants=constants)
    cases.becomes(proto, "transpose-motion", [node.op_type for node in middle], close=1e-6)


@pytest.mark.parametrize("kind", ["channel constant", "softmax", "split"])
def test_transposes_around_an_operator_cancel_in_half(kind: str) -> None:
    middle, constants = MIDDLES[kind]
    half = {name: values.astype(np.float16) for name, values in constants.items()}
    proto = _between(middle, constants=half, dtype=np.float16)
    cases.becomes(proto, "transpose-motion", [node.op_type for node in middle], close=1e-3)


def test_axes_by_attribute_and_old_pads() -> None:
    middle = [
        mg.node("ReduceSum", ["t"], ["v"], axes=[3]),
        mg.node("Pad", ["v"], ["w"], pads=[0, 0, 0, 3, 0, 0, 0, 0]),
        mg.node("Slice", ["w"], ["r"], starts=[1], ends=[3], axes=[2]),
        mg.node("Concat", ["r", "r"], ["u"], axis=1),
    ]
    proto = _between(middle, opset=9)
    cases.becomes(proto, "transpose-motion", ["ReduceSum", "Pad", "Slice", "Concat"], close=1e-6)


def test_layer_normalization_of_axes_that_stay_last() -> None:
    nodes = [
        turn("x", "t", [1, 0, 2]),
        mg.node("LayerNormalization", ["t", "g", "b"], ["u"]),
        turn("u", "y", [1, 0, 2]),
    ]
    constants = {"g": mg.weights(6), "b": mg.weights(6, seed=1)}
    proto = cases.graph(nodes, {"x": ["N", "M", 6]}, constants)
    cases.becomes(proto, "transpose-motion", ["LayerNormalization"], close=1e-6)
    nodes[0], nodes[2] = turn("x", "t", [0, 2, 1]), turn("u", "y", [0, 2, 1])
    proto = cases.graph(nodes, {"x": ["N", 6, "M"]}, constants)
    cases.refused(proto, "transpose-motion", "leaves no fewer")


def test_softmax_over_several_axes_stays() -> None:
    proto = _between([mg.node("Softmax", ["t"], ["u"], axis=1)], opset=11)
    cases.untouched(proto, "transpose-motion")


def test_reduction_that_takes_axes_off_reads_the_stored_tensor() -> None:
    nodes = [
        turn("x", "t", TO_LAST),
        mg.node("Relu", ["t"], ["u"]),
        mg.node("ReduceMean", ["u", "a"], ["y"], keepdims=0),
    ]
    proto = cases.graph(nodes, {"x": ["N", 4, 5, 6]}, {"a": np.array([1, 2])})
    cases.becomes(proto, "transpose-motion", ["Relu", "ReduceMean"])
    proto = cases.graph(nodes, {"x": ["N", 4, 5, 6]}, {"a": np.array([1])})
    cases.refused(proto, "transpose-motion", "leaves no fewer")  # 5 and C would change places


def test_a_lone_transpose_stays_where_it_is() -> None:
    nodes = [turn("x", "t", TO_LAST), mg.node("Relu", ["t"], ["y"])]
    proto = cases.graph(nodes, {"x": ["N", 4, 5, 6]})
    cases.refused(proto, "transpose-motion", "leaves no fewer")


def test_operand_that_is_not_transposed_costs_what_is_gained() -> None:
    middle = [mg.node("Add", ["t", "z"], ["u"])]
    nodes = [turn("x", "t", TO_LAST), *middle, turn("u", "y", TO_SECOND)]
    proto = cases.graph(nodes, {"x": ["N", 4, 5, 6], "z": ["N", 5, 6, 4]})
    model = cases.becomes(proto, "transpose-motion", ["Transpose", "Add"], close=0)
    assert [node.op_type for node in model.proto.graph.node] == ["Transpose", "Add"]
    nodes = [*nodes[:2], mg.node("Exp", ["u"], ["w"]), nodes[2]]
    proto = cases.graph(nodes, {"x": ["N", 4, 5, 6], "z": ["N", 5, 6, 4]}, {}, ["y", "w"])
    cases.refused(proto, "transpose-motion", "leaves no fewer")  # w is to be restored, z turned


def test_outputs_keep_their_names_and_meaning() -> None:
    nodes = [
        turn("x", "t", TO_LAST),
        mg.node("Relu", ["t"], ["u"]),
        turn("u", "y", TO_SECOND),
        turn("u", "z", TO_SECOND),
        mg.node("Exp", ["u"], ["v"]),
        turn("v", "w", TO_SECOND),
    ]
    proto = cases.graph(nodes, {"x": ["N", 4, 5, 6]}, {}, ["y", "z", "w"])
    model, _ = cases.apply(proto, "transpose-motion")
    assert mg.ops(model).count("Transpose") < 4
    assert cases.difference(proto, model) == 0


def test_transpose_between_two_nodes_that_are_both_stored_otherwise() -> None:
    nodes = [
        turn("x", "t", [1, 0]),
        mg.node("Tanh", ["t"], ["a"]),
        turn("a", "b", [1, 0]),
        mg.node("Sub", ["a", "b"], ["u"]),
        turn("u", "y", [1, 0]),
    ]
    proto = cases.graph(nodes, {"x": [3, 3]})
    cases.becomes(proto, "transpose-motion", ["Tanh", "Transpose", "Sub"], close=1e-6)
    _, outcome = cases.apply(proto, "transpose-motion")
    assert any("2 Transposes fewer" in note.reason for note in outcome.notes)  # as many as go


def test_big_shared_constants_are_not_doubled() -> None:
    nodes = [
        turn("x", "t", [1, 0]),
        mg.node("Add", ["t", "c"], ["u"]),
        turn("u", "y", [1, 0]),
        mg.node("Neg", ["c"], ["z"]),
    ]
    proto = cases.graph(nodes, {"x": [512, 600]}, {"c": mg.weights(600, 512)}, ["y", "z"])
    cases.refused(proto, "transpose-motion", "leaves no fewer")


def channels_last(blocks: int) -> ModelProto:
    """A network as tf2onnx writes it: x (N, 8, 8, 4), Transposes around every convolution."""
    nodes, constants, current = [], {}, "x"
    for i in range(blocks):
        constants[f"w{i}"] = mg.weights(4, 4, 3, 3, seed=i) * np.float32(0.2)
        constants[f"b{i}"] = mg.weights(4, seed=i)
        nodes += [
            turn(current, f"i{i}", TO_SECOND),
            mg.node("Conv", [f"i{i}", f"w{i}"], [f"c{i}"], pads=[1, 1, 1, 1]),
            turn(f"c{i}", f"o{i}", TO_LAST),
            mg.node("Add", [f"o{i}", f"b{i}"], [f"a{i}"]),
            mg.node("Relu", [f"a{i}"], [f"r{i}"]),
        ]
        if i % 2:
            nodes.append(mg.node("Add", [f"r{i}", f"r{i - 1}"], [f"s{i}"]))
        current = f"s{i}" if i % 2 else f"r{i}"
    constants["axes"] = np.array([1, 2])
    nodes.append(mg.node("ReduceMean", [current, "axes"], ["y"], keepdims=0))
    return cases.graph(nodes, {"x": ["N", 8, 8, 4]}, constants)


def test_channels_last_network_has_transposes_only_at_its_ends() -> None:
    proto = channels_last(6)
    model, _ = cases.apply(proto, "transpose-motion", "transpose-chains", "dead-code")
    assert mg.ops(model).count("Transpose") == 1
    assert cases.difference(proto, model) < 1e-6


def test_cost_grows_with_the_graph_and_not_its_square() -> None:
    def calls(blocks: int) -> int:
        model = Model(channels_last(blocks))
        profile = cProfile.Profile()
        names = ("reshape-chains", "transpose-chains", "transpose-motion", "slice-chains", "parts")
        more = ("constant-arithmetic", "scale-folding", "activation-chains", "take-one")
        request = PassRequest(use=(*names, *more, "slices-to-split", "dead-code"), prove=False)
        profile.runcall(run_passes, model, request)
        return sum(entry.callcount for entry in profile.getstats())

    small, large = calls(100), calls(400)
    assert large < 5 * small


OPS = ["Tanh", "Add", "Turn", "Turn back", "Softmax", "Concat", "Mul", "Shared"]


@given(st.lists(st.tuples(st.sampled_from(OPS), st.integers(0, 3)), min_size=3, max_size=14))
@settings(max_examples=60, deadline=None)
def test_random_graphs_keep_their_numbers_and_have_no_more_transposes(
    steps: list[tuple[str, int]],
) -> None:
    nodes, current, shared = [], "x", "x"
    turned = shared_turned = False
    for i, (op, axis) in enumerate(steps):
        result = f"t{i}"
        if op.startswith("Turn"):
            nodes.append(turn(current, result, TO_SECOND if turned else TO_LAST))
            turned = not turned
        elif op == "Shared":
            shared, shared_turned = current, turned
            continue
        elif op in ("Add", "Mul"):
            other = shared if shared_turned == turned else "c"
            nodes.append(mg.node(op, [current, other], [result]))
        elif op == "Softmax":
            nodes.append(mg.node(op, [current], [result], axis=axis))
        elif op == "Concat":
            nodes.append(mg.node("Concat", [current, current], ["_" + result], axis=axis))
            halves = [result, result + "_"]
            nodes.append(mg.node("Split", ["_" + result], halves, axis=axis, num_outputs=2))
        else:
            nodes.append(mg.node("Tanh", [current], [result]))
        current = result
    nodes.append(mg.node("Abs", [current], ["y"]))
    nodes.append(mg.node("Exp", [shared], ["z"]))
    proto = cases.graph(nodes, {"x": ["N", 4, 4, 4]}, {"c": mg.weights(4)}, ["y", "z"])
    model, _ = cases.apply(proto, "transpose-chains", "transpose-motion", "dead-code")
    assert mg.ops(model).count("Transpose") <= mg.ops(proto).count("Transpose")
    assert cases.difference(proto, model) < 1e-5
