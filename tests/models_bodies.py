"""Small models whose layers stand in the bodies of If, Loop and Scan."""

from collections.abc import Sequence

import onnx
from models_precision import BOOL, FLOAT, INT64, Net
from onnx import TensorProto, helper, numpy_helper

from trtforge.graph.model import Model

WIDTH = 16
info, node = helper.make_tensor_value_info, helper.make_node


def weight(net: Net, name: str, *shape: int) -> TensorProto:
    values = net.random.standard_normal(shape) / shape[0] ** 0.5
    return numpy_helper.from_array(values.astype("float32"), name)


def branch(net: Net, captured: str, inner: str, names: str = "") -> onnx.GraphProto:
    """MatMul with a weight of its own, an activation, a bias: over an outer tensor."""
    weights = [weight(net, f"w{names}", WIDTH, WIDTH), weight(net, f"b{names}", WIDTH)]
    nodes = [
        node("MatMul", [captured, f"w{names}"], [f"m{names}"], f"product{names}"),
        node("Add", [f"m{names}", f"b{names}"], [f"a{names}"], f"bias{names}"),
        node(inner, [f"a{names}"], [f"r{names}"], f"{inner}{names}"),
    ]
    return helper.make_graph(nodes, inner, [], [info(f"r{names}", FLOAT, [4, WIDTH])], weights)


def an_if(repeated_names: bool = False) -> Model:
    """Both branches multiply an outer tensor; their names are alike or not."""
    net = Net(11)
    x = net.input("x", [4, WIDTH])
    start = net.op("MatMul", [x, net.weight("w0", WIDTH, WIDTH)], "start")
    flag = net.op("Greater", [net.op("ReduceMax", [x], "top", keepdims=0), net.const("limit", 1.0)],
                  "flag")  # fmt: skip
    then = branch(net, start, "Relu", "" if repeated_names else "_then")
    other = branch(net, start, "Tanh", "" if repeated_names else "_else")
    chosen = net.op("If", [flag], "chosen", then_branch=then, else_branch=other)
    net.op("MatMul", [chosen, net.weight("w9", WIDTH, WIDTH)], "y")
    net.output("y", [4, WIDTH])
    return net.model()


def a_loop(body: Sequence[onnx.NodeProto], weights: Sequence[TensorProto] = ()) -> Model:
    """A Loop of three iterations over `state`, which becomes `next`; `start` is outside."""
    net = Net(12)
    x = net.input("x", [4, WIDTH])
    net.op("MatMul", [x, net.weight("w0", WIDTH, WIDTH)], "start")
    net.const("count", 3, "int64")
    net.const("go", True, "bool")
    graph = helper.make_graph(
        [*body, node("Identity", ["go_in"], ["go_out"], "again")],
        "body",
        [info("i", INT64, []), info("go_in", BOOL, []), info("state", FLOAT, [4, WIDTH])],
        [info("go_out", BOOL, []), info("next", FLOAT, [4, WIDTH])],
        [weight(net, "w", WIDTH, WIDTH), *weights],
    )
    looped = net.op("Loop", ["count", "go", x], "looped", body=graph)
    net.op("MatMul", [looped, net.weight("w9", WIDTH, WIDTH)], "y")
    net.output("y", [4, WIDTH])
    return net.model()


def recurrent() -> Model:
    """Each iteration multiplies the state and adds an outer tensor."""
    return a_loop(
        [
            node("MatMul", ["state", "w"], ["product"], "product"),
            node("Add", ["product", "start"], ["sum"], "sum"),
            node("Tanh", ["sum"], ["next"], "squash"),
        ]
    )


def cast_in_a_loop() -> Model:
    """The iteration's number is cast to float, and the state to FP16 and back."""
    return a_loop(
        [
            node("Cast", ["i"], ["number"], "number", to=FLOAT),
            node("Cast", ["state"], ["half"], "down", to=TensorProto.FLOAT16),
            node("Cast", ["half"], ["back"], "up", to=FLOAT),
            node("MatMul", ["back", "w"], ["product"], "product"),
            node("Add", ["product", "number"], ["sum"], "sum"),
            node("Tanh", ["sum"], ["next"], "squash"),
        ]
    )


def accumulating() -> Model:
    """The state is a running sum of products of an outer tensor."""
    return a_loop(
        [
            node("MatMul", ["start", "w"], ["product"], "product"),
            node("Add", ["product", "state"], ["next"], "accumulate"),
        ]
    )


def a_scan() -> Model:
    """A recurrent cell over a sequence: sliced inputs, stacked outputs, a state."""
    net = Net(13)
    x = net.input("x", [6, 4, WIDTH])
    fed = net.op("MatMul", [x, net.weight("w0", WIDTH, WIDTH)], "fed")
    zeros = net.op("ConstantOfShape", [net.const("size", [4, WIDTH], "int64")], "zeros")
    nodes = [
        node("MatMul", ["h", "w"], ["product"], "product"),
        node("Add", ["product", "slice"], ["sum"], "sum"),
        node("Tanh", ["sum"], ["h_next"], "squash"),
        node("MatMul", ["h_next", "u"], ["made"], "made"),
    ]
    names = ("h", "slice"), ("h_next", "made")
    ends = [[info(name, FLOAT, [4, WIDTH]) for name in side] for side in names]
    weights = [weight(net, "w", WIDTH, WIDTH), weight(net, "u", WIDTH, WIDTH)]
    body = helper.make_graph(nodes, "cell", *ends, weights)
    net.nodes.append(
        node("Scan", [zeros, fed], ["last", "all"], "n_scan", num_scan_inputs=1, body=body)
    )
    net.op("MatMul", ["all", net.weight("w9", WIDTH, WIDTH)], "y")
    net.output("y", [6, 4, WIDTH])
    return net.model()


def nested() -> Model:
    """An If within a Loop: its branches multiply the state and a tensor from outside of both."""
    net = Net(14)
    then = branch(net, "state", "Relu", "_then")
    other = branch(net, "start", "Tanh", "_else")
    return a_loop(
        [
            node("ReduceMax", ["state"], ["top"], "top", keepdims=0),
            node("Greater", ["top", "limit"], ["flag"], "flag"),
            node("If", ["flag"], ["chosen"], "choice", then_branch=then, else_branch=other),
            node("MatMul", ["chosen", "w"], ["product"], "product"),
            node("Tanh", ["product"], ["next"], "squash"),
        ],
        [numpy_helper.from_array(net.random.standard_normal(()).astype("float32"), "limit")],
    )


BODIES = {
    "if": an_if,
    "if_repeated": lambda: an_if(repeated_names=True),
    "loop": recurrent,
    "cast_in_a_loop": cast_in_a_loop,
    "accumulating": accumulating,
    "scan": a_scan,
    "nested": nested,
}
