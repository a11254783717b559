"""Laws of Q/DQ placement on random networks of products, movers, joints and residual branches."""

from collections.abc import Iterator

import numpy as np
import onnx
from hypothesis import given, settings
from hypothesis import strategies as st
from models_precision import Net
from onnx import helper
from precision_samples import check_typed, sqnr_db
from quantize_samples import calibrated, feeds_of, int8, pairs, producers
from random_graphs import MOVES, random_model

from trtforge.graph.execute import Session
from trtforge.graph.model import Model
from trtforge.precision.cache import CalibrationCache, TensorRange
from trtforge.precision.placement_rules import JOINING, PASSING, UNITE_WITHIN, WEIGHTED
from trtforge.precision.quantize import QuantizeReport, candidate_tensors, quantize
from trtforge.recipe.schema import Precision

SIZE = 6
OPS = [
    *("Conv", "Conv", "MatMul", "Product", "Left", "Relu", "Sigmoid", "Add", "Mul", "Identity"),
    *("Transpose", "Reshape", "MaxPool", "Split", "Slice", "Pad", "Resize", "Concat", "Concat"),
]


class Growing:
    """A network of images of one size; every step adds a node, or a few."""

    def __init__(self, seed: int) -> None:
        self.net = Net(seed)
        self.channels = {self.net.input("x", [2, 4, SIZE, SIZE]): 4}

    def step(self, op: str, a: str, b: str, name: str) -> None:
        net, channels = self.net, self.channels[a]
        if op == "Conv":
            weight = net.weight(f"w_{name}", 4, channels, 3, 3)
            net.op(op, [a, weight], name, pads=[1, 1, 1, 1])
            channels = 4
        elif op in ("MatMul", "Left"):
            weight = net.weight(f"w_{name}", SIZE, SIZE)
            net.op("MatMul", [a, weight] if op == "MatMul" else [weight, a], name)
        elif op in ("Product", "Add", "Mul"):
            channels = self.pair(op, a, b, name)
        elif op == "Concat":
            net.op(op, [a, b], name, axis=1)
            channels += self.channels[b]
        elif op == "Split":
            channels = self.split(a, name)
        else:
            self.move(op, a, name)
        self.channels[name] = channels

    def pair(self, op: str, a: str, b: str, name: str) -> int:
        other = b if self.channels[a] == self.channels[b] else a
        kind = "MatMul" if op == "Product" else op
        self.net.op(kind, [a, other], name)
        return self.channels[a]

    def split(self, a: str, name: str) -> int:
        channels = self.channels[a]
        if channels < 2 or channels % 2:
            self.net.op("Identity", [a], name)
            return channels
        outputs = [name, f"{name}_rest"]
        node = helper.make_node("Split", [a], outputs, f"n_{name}", axis=1, num_outputs=2)
        self.net.nodes.append(node)
        self.channels[outputs[1]] = channels // 2
        return channels // 2

    def move(self, op: str, a: str, name: str) -> None:
        net, channels = self.net, self.channels[a]

        def ints(suffix: str, *values: int) -> str:
            return net.const(f"{name}_{suffix}", list(values), np.int64)

        if op == "Transpose":
            net.op(op, [a], name, perm=[0, 1, 3, 2])
        elif op == "Reshape":
            net.op(op, [a, ints("to", 2, channels, SIZE, SIZE)], name)
        elif op == "MaxPool":
            net.op(op, [a], name, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        elif op == "Slice":
            net.op(op, [a, ints("from", 0), ints("to", SIZE), ints("axis", 2)], name)
        elif op == "Pad":
            net.op(op, [a, ints("pads", 0, 0, 0, 0, 0, 0, 0, 0)], name)
        elif op == "Resize":
            net.op(op, [a, "", net.const(f"{name}_scales", [1.0, 1, 1, 1])], name, mode="nearest")
        else:
            net.op(op, [a], name)


@st.composite
def networks(draw: st.DrawFn) -> Model:
    grown = Growing(draw(st.integers(0, 1000)))
    ops = draw(st.lists(st.sampled_from(OPS), min_size=2, max_size=12))
    readers = draw(st.lists(st.sampled_from(["Conv", "MatMul"]), min_size=1, max_size=5))
    for index, op in enumerate([*ops, *readers]):
        tensors = list(grown.channels)[-5 - len(readers) :]
        a, b = draw(st.sampled_from(tensors)), draw(st.sampled_from(tensors))
        grown.step(op, a, b, f"t{index}")
    read = {name for node in grown.net.nodes for name in node.input}
    made = [name for name in grown.channels if name != "x"]
    more = draw(st.lists(st.sampled_from(made), max_size=1))
    for name in made:
        if name not in read or name in more:
            grown.net.output(name, [2, grown.channels[name], SIZE, SIZE])
    return grown.net.model()


precisions = st.builds(
    lambda kind, attention, ends, floats: Precision.model_validate(
        {"quantize": kind, "attention": attention, "unquantized": ends, "type": floats}
    ),
    st.sampled_from(["int8", "fp8"]),
    st.booleans(),
    st.sampled_from([[], ["first"], ["first", "last"]]),
    st.sampled_from(["fp32", "fp16"]),
)


@settings(max_examples=60, deadline=None)
@given(networks(), precisions)
def test_laws_of_placement(model: Model, precision: Precision) -> None:
    if not candidate_tensors(model, precision):
        return
    cache = calibrated(model, precision)
    result, report = quantize(model, cache, precision)
    check_typed(model, result)
    check_structure(result, report)
    check_scales(model, result, cache, precision)
    check_errors(model, result, precision)
    again, _ = quantize(result, cache, precision)
    assert again.proto.graph.node == result.proto.graph.node


def check_structure(result: Model, report: QuantizeReport) -> None:
    """Quantized readers read quantized values; nothing else does, and nothing is done twice."""
    made = producers(result)
    quantized = {d.node for d in report.decisions if d.action == "quantized"}
    passing = {d.node for d in report.explained if d.action == "passes"}
    for node in result.proto.graph.node:
        rounded = [comes_from_a_pair(name, made) for name in node.input]
        if node.name in quantized and node.op_type in WEIGHTED:
            assert all(rounded[:2]), f"{node.name} reads floats"
            assert not any(rounded[2:]), f"the bias of {node.name} is quantized"
        elif node.name in quantized:
            assert sum(rounded) >= 1
        elif node.op_type == "QuantizeLinear":
            assert not rounded[0], f"{node.input[0]} is quantized twice in a row"
        elif node.op_type != "DequantizeLinear" and node.name not in passing:
            assert not any(rounded), f"{node.name} wants floats"
    for spec in result.proto.graph.output:
        assert not comes_from_a_pair(spec.name, made), f"output {spec.name} is rounded"


def comes_from_a_pair(name: str, made: dict[str, onnx.NodeProto]) -> bool:
    """Whether dequantized values, moved at most, are all that a tensor holds."""
    while name in made:
        node = made[name]
        if node.op_type in JOINING:
            return all(comes_from_a_pair(part, made) for part in node.input)
        if node.op_type not in PASSING:
            return node.op_type == "DequantizeLinear"
        name = node.input[0]
    return False


def check_scales(
    model: Model, result: Model, cache: CalibrationCache, precision: Precision
) -> None:
    """A scale is the cache's, or that of another tensor whose range is not far away."""
    kind, floats = precision.quantize, precision.type
    known = {name: np.float32(cache.scale(name, kind, floats)) for name in cache.ranges}
    for name, scale in pairs(result).items():
        assert np.float32(scale) in set(known.values())
        assert known[name] <= scale <= known[name] * UNITE_WITHIN * 1.01
    for quantizer, dequantizer in both(result):
        assert list(quantizer.input[1:]) == list(dequantizer.input[1:])
    zero = [t for t in result.proto.graph.initializer if t.name.endswith("zero_point")]
    assert len(zero) == 1


def both(result: Model) -> Iterator[tuple[onnx.NodeProto, onnx.NodeProto]]:
    for quantizer in result.proto.graph.node:
        if quantizer.op_type == "QuantizeLinear":
            readers = [n for n in result.proto.graph.node if quantizer.output[0] in n.input]
            assert [node.op_type for node in readers] == ["DequantizeLinear"]
            yield quantizer, readers[0]


def check_errors(model: Model, result: Model, precision: Precision) -> None:
    feeds = feeds_of(model)
    expected, got = Session(model).run(feeds), Session(result).run(feeds)
    least = {"int8": 12.0, "fp8": 8.0}[precision.quantize]
    for name, values in expected.items():
        if np.isfinite(values).all() and values.any():
            assert sqnr_db(values, got[name]) > least, name


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from((13, 18, 20, 21)),
    st.lists(
        st.tuples(st.integers(0, len(MOVES) - 1), st.integers(0, 999)), min_size=8, max_size=30
    ),
    st.integers(0, 99),
    st.booleans(),
)
def test_graphs_of_any_operators_stay_sound(
    opset: int, moves: list[tuple[int, int]], outputs: int, attention: bool
) -> None:
    """Dynamic shapes, control flow, integers: what comes out is valid, and it runs."""
    proto, feeds = random_model(opset, moves, outputs)
    for index, node in enumerate(proto.graph.node):
        node.name = f"n{index}"
    model, precision = Model(proto), int8(attention=attention)
    names = candidate_tensors(model, precision)
    if not names:
        return
    computed = [name for name in names if name not in feeds[0]]
    seen = dict(feeds[0])
    if computed:
        seen |= Session(model, outputs=computed).run(feeds[0], computed)
    seen = {name: seen[name] for name in names}
    if not all(values.size and np.isfinite(values).all() for values in seen.values()):
        return
    ranges = {
        name: TensorRange(min=v.min(), max=v.max(), amax=np.abs(v).max())
        for name, v in seen.items()
    }
    cache = CalibrationCache(method="minmax", samples=1, graph_digest="", ranges=ranges)
    result, report = quantize(model, cache, precision)
    onnx.checker.check_model(result.proto, full_check=True)
    assert result.contract == model.contract
    check_structure(result, report)
    expected, got = Session(model).run(feeds[0]), Session(result).run(feeds[0])
    assert {name: v.shape for name, v in got.items()} == {n: v.shape for n, v in expected.items()}
