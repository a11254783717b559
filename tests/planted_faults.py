"""Small models with a fault for FP16 planted in an ordinary body, each with samples that show it.

Each body is a perceptron with nearly all of the multiply-accumulates, so that keeping the culprit
wide costs little. Without the culprit, FP16 gives 55 dB or more.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import (
    ModelProto,
    NodeProto,
    TensorProto,
    ValueInfoProto,
    helper,
    numpy_helper,
    shape_inference,
)

Array = np.ndarray

SAMPLES = 8
WIDTH, ROWS, HIDDEN = 64, 16, 256
FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


@dataclass(frozen=True)
class Planted:
    """A model with a fault.

    Attributes:
        name: of the builder.
        fault: what is planted, in a line.
        proto: the FP32 model.
        data: SAMPLES samples of each input, along axis 0.
    """

    name: str
    fault: str
    proto: ModelProto
    data: dict[str, Array]


@dataclass
class Net:
    """A graph in the making; operators return the name of their result."""

    seed: int = 0
    opset: int = 18
    nodes: list[NodeProto] = field(default_factory=list)
    weights: list[TensorProto] = field(default_factory=list)
    inputs: list[ValueInfoProto] = field(default_factory=list)
    data: dict[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)

    def normal(self, *shape: int, scale: float = 1.0) -> Array:
        """Random float32 numbers."""
        return (self.random.standard_normal(shape) * scale).astype(np.float32)

    def input(self, name: str, values: Array) -> str:
        """An input of batch 1, with its samples."""
        kind = helper.np_dtype_to_tensor_dtype(values.dtype)
        self.inputs.append(helper.make_tensor_value_info(name, kind, [1, *values.shape[1:]]))
        self.data[name] = values
        return name

    def x(self, scale: float = 1.0, rows: int = ROWS, width: int = WIDTH) -> str:
        """The float input that most models have."""
        return self.input("x", self.normal(SAMPLES, rows, width, scale=scale))

    def const(self, values: Array | float) -> str:
        """A constant; float32 unless it is an array of integers."""
        array = np.asarray(values)
        array = array.astype(np.float32) if array.dtype.kind == "f" else array
        name = f"c{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def op(self, kind: str, *inputs: str | float | Array, **attrs: Any) -> str:
        """One operator; numbers and arrays among the inputs become constants."""
        names = [one if isinstance(one, str) else self.const(one) for one in inputs]
        result = f"{kind.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, names, [result], name=f"/{result}", **attrs))
        return result

    def linear(self, x: str, inner: int = WIDTH, outer: int = WIDTH, scale: float = 1.0) -> str:
        """A matrix product with a bias."""
        weight = self.normal(inner, outer, scale=scale / inner**0.5)
        return self.op("Add", self.op("MatMul", x, weight), self.normal(outer, scale=0.1))

    def body(self, x: str) -> str:
        """A perceptron of three layers: 98 % of what there is to multiply."""
        x = self.op("Relu", self.linear(x, WIDTH, HIDDEN, 1.4))
        x = self.op("Relu", self.linear(x, HIDDEN, HIDDEN, 1.4))
        return self.linear(x, HIDDEN, WIDTH)

    def mean(self, x: str, axis: int = -1) -> str:
        """ReduceMean that keeps its axis."""
        return self.op("ReduceMean", x, np.array([axis]), keepdims=1)

    def norm(self, x: str, epsilon: float) -> str:
        """A layer normalization, spelled out."""
        centred = self.op("Sub", x, self.mean(x))
        variance = self.mean(self.op("Pow", centred, 2.0))
        return self.op("Div", centred, self.op("Sqrt", self.op("Add", variance, epsilon)))

    def done(self, name: str, fault: str, output: str) -> Planted:
        """Close the graph."""
        unknown = [None] * (4 if "conv" in output or "relu" in output else 3)
        result = helper.make_tensor_value_info("y", FLOAT, unknown)
        self.nodes.append(helper.make_node("Identity", [output], ["y"], name="/y"))
        graph = helper.make_graph(self.nodes, name, self.inputs, [result], self.weights)
        opsets = [helper.make_opsetid("", self.opset)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
        return Planted(name, fault, shape_inference.infer_shapes(model), self.data)


def attention_logits() -> Planted:
    """One channel that all keys share lifts the scores to 1e5: Softmax does not mind, FP16 does."""
    net = Net(1)
    x = net.x()
    lift = np.zeros(WIDTH, np.float32)
    lift[0] = 320
    query = net.op("Add", net.op("MatMul", x, _without_first(net)), lift)
    key = net.op("Add", net.op("MatMul", x, _without_first(net)), lift)
    scores = net.op("MatMul", query, net.op("Transpose", key, perm=[0, 2, 1]))
    weights = net.op("Softmax", net.op("Mul", scores, 1 / 8), axis=-1)
    mixed = net.op("MatMul", weights, net.linear(x))
    return net.done("attention_logits", "attention scores of 1e5", net.body(mixed))


def _without_first(net: Net) -> Array:
    weight = net.normal(WIDTH, WIDTH, scale=WIDTH**-0.5)
    weight[:, 0] = 0
    return weight


def tiny_variance() -> Planted:
    """Inputs of 1e-4 are normalized with an epsilon of 1e-12: squares of 1e-8 are 0 in FP16."""
    net = Net(2)
    normed = net.norm(net.x(1e-4), 1e-12)
    return net.done("tiny_variance", "variance of 1e-8, epsilon of 1e-12", net.body(normed))


def large_mask() -> Planted:
    """Attention with an additive mask of -1e9, made of integers."""
    net = Net(3)
    x = net.x()
    kept = (np.arange(ROWS)[None, None, :] < 8 + np.arange(SAMPLES)[:, None, None]).astype(np.int64)
    mask = net.op("Cast", net.input("mask", kept), to=FLOAT)
    mask = net.op("Mul", net.op("Sub", 1.0, mask), -1e9)
    keys = net.op("Transpose", net.linear(x), perm=[0, 2, 1])
    scores = net.op("Mul", net.op("MatMul", net.linear(x), keys), 1 / 8)
    weights = net.op("Softmax", net.op("Add", scores, mask), axis=-1)
    mixed = net.op("MatMul", weights, net.linear(x))
    return net.done("large_mask", "mask of -1e9", net.body(mixed))


def large_weight() -> Planted:
    """A weight of 1e5, as of a unit that was changed, and its counterpart behind it."""
    net = Net(4)
    x = net.op("Tanh", net.op("Mul", net.op("Mul", net.x(), 1e5), 1e-5))
    return net.done("large_weight", "weight of 1e5", net.body(x))


def loop_body() -> Planted:
    """A Loop whose body casts its counter and adds up squares of 300."""
    net = Net(5)
    x = net.op("Mul", net.x(), 300.0)
    value = helper.make_tensor_value_info
    nodes = [
        helper.make_node("Cast", ["i"], ["step"], name="step", to=FLOAT),
        helper.make_node("Add", ["step", "one"], ["count"], name="count"),
        helper.make_node("Mul", [x, x], ["square"], name="square"),
        helper.make_node("Div", ["square", "count"], ["part"], name="part"),
        helper.make_node("Add", ["sum", "part"], ["sum_out"], name="sum"),
        helper.make_node("Identity", ["go"], ["go_out"], name="go"),
    ]
    body = helper.make_graph(
        nodes,
        "body",
        [
            value("i", INT64, []),
            value("go", TensorProto.BOOL, []),
            value("sum", FLOAT, [1, ROWS, WIDTH]),
        ],
        [value("go_out", TensorProto.BOOL, []), value("sum_out", FLOAT, [1, ROWS, WIDTH])],
        [numpy_helper.from_array(np.array(1, np.float32), "one")],
    )
    start = net.const(np.zeros((1, ROWS, WIDTH), np.float32))
    total = net.op("Loop", net.const(np.array(3)), net.const(np.array(True)), start, body=body)
    x = net.op("Div", x, net.op("Sqrt", net.op("Add", total, 1.0)))
    return net.done("loop_body", "squares of 300 and a cast in a Loop", net.body(x))


def two_culprits() -> Planted:
    """A norm whose variance is lost, and far behind it an Exp that overflows."""
    net = Net(6)
    x = net.body(net.norm(net.x(1e-4), 1e-12))
    large = net.op("Exp", net.op("Add", net.op("Tanh", x), 12.0))
    x = net.op("Sub", net.op("Log", large), 12.0)
    return net.done("two_culprits", "lost variance, and exp(12)", net.body(x))


def large_softmax() -> Planted:
    """Softmax of scores around 1e5."""
    net = Net(7)
    scores = net.op("Add", net.linear(net.x(), scale=2.0), 1e5)
    x = net.op("Mul", net.op("Softmax", scores, axis=-1), 8.0)
    return net.done("large_softmax", "Softmax of 1e5", net.body(x))


def rms_norm() -> Planted:
    """RMSNorm of values around 500: their squares overflow."""
    net = Net(8)
    x = net.x(500.0)
    root = net.op("Sqrt", net.op("Add", net.mean(net.op("Pow", x, 2.0)), 1e-6))
    return net.done("rms_norm", "mean of squares of 500", net.body(net.op("Div", x, root)))


def long_sum() -> Planted:
    """A hundred thousand ones are counted, and divided by."""
    net = Net(9)
    ones = net.input("ones", np.ones((SAMPLES, 100_000), np.float32))
    count = net.op("ReduceSum", ones, np.array([1]), keepdims=1)
    x = net.op("Mul", net.op("Div", net.op("Mul", net.x(), 1000.0), count), 100.0)
    return net.done("long_sum", "sum of 100,000 ones", net.body(x))


def log_sum_exp() -> Planted:
    """Logarithm of a sum of exponentials of up to 25, without subtracting the maximum."""
    net = Net(10)
    x = net.op("Mul", net.x(), 6.0)
    total = net.op("ReduceSum", net.op("Exp", x), np.array([-1]), keepdims=1)
    x = net.op("Mul", net.op("Sub", x, net.op("Log", total)), 0.1)
    return net.done("log_sum_exp", "log of a sum of exp(25)", net.body(x))


def positions() -> Planted:
    """Sine and cosine of positions up to 5000."""
    net = Net(11)
    ids = np.stack([np.arange(ROWS) + 700 * n for n in range(SAMPLES)])[..., None].astype(np.int64)
    steps = net.op("Cast", net.input("positions", ids), to=FLOAT)
    frequencies = (10000.0 ** -np.linspace(0, 1, WIDTH // 2)).astype(np.float32)
    angles = net.op("Mul", steps, frequencies)
    waves = net.op("Concat", net.op("Sin", angles), net.op("Cos", angles), axis=-1)
    x = net.op("Add", net.x(), waves)
    return net.done("positions", "sine of positions up to 5000", net.body(x))


def resize() -> Planted:
    """Resize with scales in FP32, between convolutions; a factor of 1e5 stands before."""
    net = Net(12)
    x = net.input("x", net.normal(SAMPLES, 8, 16, 16))
    x = net.op("Mul", net.op("Mul", x, 1e5), 1e-5)
    x = net.op("Relu", net.op("Conv", x, net.normal(32, 8, 3, 3, scale=0.15), pads=[1] * 4))
    x = net.op("Resize", x, "", net.const(np.array([1, 1, 1.7, 1.7], np.float32)), mode="linear")
    x = net.op("Conv", x, net.normal(8, 32, 3, 3, scale=0.06), pads=[1] * 4)
    return net.done("resize", "Resize by 1.7, and a weight of 1e5", x)


def small_divisor() -> Planted:
    """A ratio of two numbers around 1e-6."""
    net = Net(13)
    x = net.x()
    below = net.op("Mul", net.op("Add", net.op("Abs", x), 0.5), 1e-6)
    ratio = net.op("Div", net.op("Mul", x, 1e-6), below)
    return net.done("small_divisor", "division by 1e-6", net.body(ratio))


def embedding_sum() -> Planted:
    """Looked-up rows of 4000 are added up over 64 tokens, then scaled down."""
    net = Net(14)
    ids = net.input("ids", net.random.integers(0, 100, (SAMPLES, 64)))
    table = net.const(np.abs(net.normal(100, WIDTH, scale=4000)))
    total = net.op("ReduceSum", net.op("Gather", table, ids), np.array([1]), keepdims=1)
    x = net.op("Add", net.x(), net.op("Mul", total, 1e-5))
    return net.done("embedding_sum", "sum of 64 rows of 4000", net.body(x))


def batch_norm() -> Planted:
    """BatchNormalization with variances of 1e-9."""
    net = Net(15)
    x = net.input("x", net.normal(SAMPLES, WIDTH, 8, 8, scale=3e-5))
    ones, zeros = np.ones(WIDTH, np.float32), np.zeros(WIDTH, np.float32)
    x = net.op("BatchNormalization", x, ones, zeros, zeros, ones * 1e-9, epsilon=1e-12)
    for _ in range(2):
        weight = net.normal(WIDTH, WIDTH, 3, 3, scale=(2 / 9 / WIDTH) ** 0.5)
        x = net.op("Relu", net.op("Conv", x, weight, pads=[1] * 4))
    return net.done("batch_norm", "BatchNormalization of variance 1e-9", x)


def large_integers() -> Planted:
    """Lengths of 70,000 come as integers."""
    net = Net(16)
    lengths = net.input("lengths", 70_000 + np.arange(SAMPLES)[:, None, None])
    share = net.op("Mul", net.op("Cast", lengths, to=FLOAT), net.op("Sigmoid", net.x()))
    x = net.op("Div", share, 35_000.0)
    return net.done("large_integers", "integers of 70,000 as floats", net.body(x))


def deep_residual() -> Planted:
    """A residual stream that grows to 1e5 over four blocks, each with LayerNormalization."""
    net = Net(17)
    x = net.x()
    scale, bias = np.ones(WIDTH, np.float32), np.zeros(WIDTH, np.float32)
    for growth in (10.0, 300.0, 5000.0, 30000.0):
        normed = net.op("LayerNormalization", x, scale, bias, axis=-1)
        x = net.op("Add", x, net.op("Mul", net.body(normed), growth))
    x = net.op("LayerNormalization", x, scale, bias, axis=-1)
    return net.done("deep_residual", "residual stream of 1e5", net.linear(x))


def cancellation() -> Planted:
    """Variance as the mean of squares less the square of the mean, around 30."""
    net = Net(18)
    x = net.op("Add", net.x(0.5), 30.0)
    mean = net.mean(x)
    square = net.mean(net.op("Mul", x, x))
    variance = net.op("Sub", square, net.op("Mul", mean, mean))
    x = net.op("Div", net.op("Sub", x, mean), net.op("Sqrt", net.op("Add", variance, 1e-5)))
    return net.done("cancellation", "mean of squares less square of mean", net.body(x))


BUILDERS: tuple[Callable[[], Planted], ...] = (
    attention_logits,
    tiny_variance,
    large_mask,
    large_weight,
    loop_body,
    two_culprits,
    large_softmax,
    rms_norm,
    long_sum,
    log_sum_exp,
    positions,
    resize,
    small_divisor,
    embedding_sum,
    batch_norm,
    large_integers,
    deep_residual,
    cancellation,
)
