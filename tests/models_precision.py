"""Small real networks for the precision tests, built node by node with seeded weights."""

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from trtforge.graph.model import Model

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


class Net:
    """Collects nodes and weights; every method returns the name of the new tensor."""

    def __init__(self, seed: int = 0, opset: int = 19) -> None:
        self.random = np.random.default_rng(seed)
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, np.ndarray] = {}
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []

    def input(self, name: str, shape: Sequence[int | str], kind: int = FLOAT) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def output(self, name: str, shape: Sequence[int | str], kind: int = FLOAT) -> None:
        self.outputs.append(helper.make_tensor_value_info(name, kind, shape))

    def const(self, name: str, values: object, dtype: type = np.float32) -> str:
        self.weights[name] = np.asarray(values, dtype)
        return name

    def weight(self, name: str, *shape: int, fan_in: int | None = None) -> str:
        fan = fan_in or int(np.prod(shape[1:])) or 1
        return self.const(name, self.random.standard_normal(shape) / np.sqrt(fan))

    def op(self, kind: str, inputs: Sequence[str], name: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(kind, list(inputs), [name], f"n_{name}", **attributes))
        return name

    def model(self) -> Model:
        weights = [numpy_helper.from_array(v, n) for n, v in self.weights.items()]
        graph = helper.make_graph(self.nodes, "net", self.inputs, self.outputs, weights)
        opsets = [helper.make_opsetid("", self.opset)]
        proto = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        onnx.checker.check_model(proto, full_check=True)
        return Model(proto)


def cnn(opset: int = 19) -> Model:
    """Conv, Relu, residual Adds, depthwise, ConvTranspose, Resize, pooling, Gemm; dynamic batch."""
    net = Net(1, opset)
    x = net.input("image", ["N", 3, 16, 16])
    stem = net.op("Conv", [x, net.weight("w_stem", 16, 3, 3, 3), net.weight("b_stem", 16)], "stem",
                  pads=[1, 1, 1, 1])  # fmt: skip
    trunk = net.op("Relu", [stem], "stem_relu")
    a = net.op("Conv", [trunk, net.weight("w_a", 16, 16, 3, 3)], "a", pads=[1, 1, 1, 1])
    a = net.op("Relu", [a], "a_relu")
    b = net.op("Conv", [a, net.weight("w_b", 16, 16, 3, 3)], "b", pads=[1, 1, 1, 1])
    trunk = net.op("Relu", [net.op("Add", [b, trunk], "sum1")], "sum1_relu")
    deep = net.op("Conv", [trunk, net.weight("w_dw", 16, 1, 3, 3)], "dw", group=16,
                  pads=[1, 1, 1, 1])  # fmt: skip
    main = net.op("Conv", [deep, net.weight("w_pw", 32, 16, 1, 1)], "pw", strides=[2, 2])
    short = net.op("Conv", [trunk, net.weight("w_short", 32, 16, 1, 1)], "short", strides=[2, 2])
    trunk = net.op("Relu", [net.op("Add", [short, main], "sum2")], "sum2_relu")
    up = net.op("ConvTranspose", [trunk, net.weight("w_up", 32, 16, 2, 2, fan_in=32)], "up",
                strides=[2, 2])  # fmt: skip
    net.const("scales", [1, 1, 2, 2])
    big = net.op("Resize", [up, "", "scales"], "big", mode="nearest")
    pooled = net.op("GlobalAveragePool", [net.op("Sigmoid", [big], "gate")], "pooled")
    flat = net.op("Flatten", [pooled], "flat")
    net.op("Gemm", [flat, net.weight("w_fc", 10, 16), net.weight("b_fc", 10)], "logits", transB=1)
    net.output("logits", ["N", 10])
    return net.model()


def transformer(mask_value: float = -1e9, opset: int = 19) -> Model:
    """One encoder block over int64 ids with an additive mask; dynamic batch and sequence."""
    net = Net(2, opset)
    width, heads, vocabulary = 32, 4, 50
    ids = net.input("ids", ["B", "S"], INT64)
    mask = net.input("mask", ["B", "S"], INT64)
    table = net.const("table", net.random.standard_normal((vocabulary, width)))
    x = net.op("Gather", [table, ids], "embedded")
    gain, shift = net.const("gain", np.ones(width)), net.const("shift", np.zeros(width))
    x = net.op("LayerNormalization", [x, gain, shift], "norm0", axis=-1)
    net.const("heads", [0, 0, heads, width // heads], np.int64)
    parts = {}
    for part in "qkv":
        made = net.op("MatMul", [x, net.weight(f"w_{part}", width, width)], f"{part}_flat")
        made = net.op("Add", [made, net.weight(f"b_{part}", width)], f"{part}_biased")
        made = net.op("Reshape", [made, "heads"], f"{part}_split")
        order = [0, 2, 3, 1] if part == "k" else [0, 2, 1, 3]
        parts[part] = net.op("Transpose", [made], part, perm=order)
    scores = net.op("MatMul", [parts["q"], parts["k"]], "scores")
    scores = net.op("Div", [scores, net.const("sqrt_d", np.sqrt(width / heads))], "scaled")
    net.const("axes", [1, 2], np.int64)
    wide = net.op("Cast", [net.op("Unsqueeze", [mask, "axes"], "mask4")], "mask_f", to=FLOAT)
    off = net.op("Sub", [net.const("one", 1.0), wide], "masked")
    bias = net.op("Mul", [off, net.const("minus", mask_value)], "mask_bias")
    probabilities = net.op("Softmax", [net.op("Add", [scores, bias], "biased")], "attention")
    context = net.op("MatMul", [probabilities, parts["v"]], "context")
    context = net.op("Transpose", [context], "context_t", perm=[0, 2, 1, 3])
    net.const("merge", [0, 0, width], np.int64)
    context = net.op("Reshape", [context, "merge"], "merged")
    projected = net.op("MatMul", [context, net.weight("w_o", width, width)], "projected")
    x = net.op("Add", [projected, x], "residual1")
    normed = net.op("LayerNormalization", [x, gain, shift], "norm1", axis=-1)
    hidden = net.op("MatMul", [normed, net.weight("w_up", width, 4 * width)], "hidden")
    hidden = _gelu(net, hidden)
    down = net.op("MatMul", [hidden, net.weight("w_down", 4 * width, width)], "down")
    net.op("Add", [down, x], "encoded")
    net.output("encoded", ["B", "S", width])
    return net.model()


def _gelu(net: Net, x: str) -> str:
    inner = net.op("Erf", [net.op("Div", [x, net.const("sqrt2", np.sqrt(2))], "g_div")], "g_erf")
    plus = net.op("Add", [inner, net.const("g_one", 1.0)], "g_add")
    both = net.op("Mul", [x, plus], "g_mul")
    return net.op("Mul", [both, net.const("half", 0.5)], "gelu")


def control_flow() -> Model:
    """An If whose branches read outer tensors, between two Convs; static shapes."""
    net = Net(3)
    x = net.input("x", [2, 8, 8, 8])
    first = net.op("Conv", [x, net.weight("w1", 8, 8, 3, 3)], "first", pads=[1, 1, 1, 1])
    first = net.op("Relu", [first], "first_relu")
    top = net.op("ReduceMax", [first], "top", keepdims=0)
    flag = net.op("Greater", [top, net.const("limit", 1.0)], "flag")
    shared = net.const("shared", np.full((1, 8, 1, 1), 0.5))

    def branch(kind: str) -> onnx.GraphProto:
        node = helper.make_node(kind, [first, shared], [f"out_{kind}"], f"inner_{kind}")
        value = helper.make_tensor_value_info(f"out_{kind}", FLOAT, [2, 8, 8, 8])
        return helper.make_graph([node], kind, [], [value])

    chosen = net.op("If", [flag], "chosen", then_branch=branch("Add"), else_branch=branch("Mul"))
    scaled = net.op("Mul", [chosen, shared], "scaled")
    net.op("Conv", [scaled, net.weight("w2", 8, 8, 1, 1)], "second")
    net.output("second", [2, 8, 8, 8])
    return net.model()
