"""FP8 by arithmetic has the bits of ONNX's conversion, and is left where it would not do."""

from itertools import count

import ml_dtypes
import numpy as np
import onnx.parser
import pytest
from emulation_samples import differing
from onnx import NodeProto, TensorProto, helper

from trtforge.graph.execute import Session
from trtforge.graph.model import Model
from trtforge.precision.emulate import emulate
from trtforge.precision.emulation import float8

E4M3 = ml_dtypes.float8_e4m3fn
SCALES = (1.0, 0.1, 0.0123, 3.7, 1 / 3, 2.0**-24, 65504.0, 2.0**-100, 1e20)
HEADER = '<ir_version: 10, opset_import: ["": 20]>'


def chain(scale: float) -> Session:
    """FP32 x through both conversions, by arithmetic."""
    numbers: dict[float, str] = {}

    def constant(value: float) -> str:
        return numbers.setdefault(value, f"c{len(numbers)}")

    names = map(str, count())
    nodes: list[NodeProto] = []
    quantize = helper.make_node("QuantizeLinear", ["x"], ["q"])
    nodes += float8.quantized(quantize, scale, constant, lambda wanted: wanted + next(names))
    dequantize = helper.make_node("DequantizeLinear", ["q"], ["y"])
    nodes.append(float8.dequantized(dequantize, scale, constant))
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N"]) for name in ("x", "y")]
    weights = [
        helper.make_tensor(name, TensorProto.FLOAT, [], [value]) for value, name in numbers.items()
    ]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    opset = [helper.make_opsetid("", 20)]
    return Session(Model(helper.make_model(graph, opset_imports=opset, ir_version=10)))


def hard_values(scale: float) -> np.ndarray:
    """All FP16 and BF16 numbers, any FP32 ones, and what is next to the half-way points."""
    rng = np.random.default_rng(7)
    steps = np.arange(-512 * 450, 512 * 450) / 1024 * scale
    near = steps.astype(np.float32)
    return np.concatenate(
        [
            np.arange(65536, dtype=np.uint16).view(np.float16).astype(np.float32),
            (np.arange(65536, dtype=np.uint32) << 16).view(np.float32),
            rng.integers(0, 2**32, 200_000, dtype=np.uint64).astype(np.uint32).view(np.float32),
            near,
            np.nextafter(near, np.float32(np.inf)),
            np.nextafter(near, np.float32(-np.inf)),
        ]
    )


@pytest.mark.parametrize("scale", SCALES)
def test_it_is_the_rounding_of_ml_dtypes_and_saturates(scale: float) -> None:
    scale = float(np.float32(scale))
    x = hard_values(scale)
    with np.errstate(all="ignore"):
        exact = x / np.float32(scale)
        expected = np.clip(exact, -448, 448).astype(E4M3).astype(np.float32) * np.float32(scale)
    got = chain(scale).run({"x": x})["y"]
    unlike = got.view(np.uint32) != expected.view(np.uint32)
    assert not (unlike & ~(np.isnan(got) & np.isnan(expected))).any()
    assert np.isnan(got).sum() == np.isnan(x).sum() > 0


def pair(kind: str, more: str = "", outputs: str = "", quantized: str = "x, s, z") -> Model:
    """A conversion to FP8 and back between two operators."""
    text = f"""{HEADER} net ({kind}[N] a) => ({kind}[N] y{outputs}) <{kind} s, float8e4m3fn z> {{
        x = Mul(a, a)  q = QuantizeLinear({quantized})  d = DequantizeLinear(q, s, z)
        y = Add(d, x)  {more} }}"""
    proto = onnx.parser.parse_model(text)
    types = {"float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16}
    proto.graph.initializer.append(helper.make_tensor("s", types[kind], [], [0.0371]))
    proto.graph.initializer.append(helper.make_tensor("z", TensorProto.FLOAT8E4M3FN, [], [0]))
    del proto.graph.value_info[:]
    return Model(proto)


def operators(model: Model) -> list[str]:
    return [node.op_type for node in model.proto.graph.node]


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_the_twin_has_the_bits_of_each_operator_alone(kind: str) -> None:
    model = pair(kind)
    bits = np.arange(65536, dtype=np.uint16)
    values = bits.view(np.float16 if kind == "float16" else ml_dtypes.bfloat16)
    assert not differing(model, {"a": values[np.isfinite(values.astype(np.float32))]})
    assert "QuantizeLinear" not in operators(emulate(model))
    assert "q" not in {name for node in emulate(model).proto.graph.node for name in node.output}


def test_a_tensor_that_is_wanted_is_there() -> None:
    model = pair("float16")
    twin = emulate(model, kept=["q"])
    assert "QuantizeLinear" in operators(twin)
    assert not differing(model, {"a": np.array([1, 2.5, -3], np.float16)}, twin)


@pytest.mark.parametrize(
    "model",
    [
        pair("float16", outputs=", float8e4m3fn[N] q"),
        pair("float16", more="t = Transpose(q)  w = DequantizeLinear(t, s, z)"),
        pair("float16", more="w = DequantizeLinear(q, x, z)"),
        pair("float16", more="c = Cast<to = 9>(a)  w = If(c) <then_branch = b () => (float16 v)"
             " { v = DequantizeLinear(q, s, z) }, else_branch = c () => (float16 v) {"
             " v = Identity(x) }>"),
        pair("float16", quantized="x, x, z"),
    ],
    ids=["output", "moved", "scale computed", "body", "own scale computed"],
)  # fmt: skip
def test_where_fp8_is_read_as_such_it_stays(model: Model) -> None:
    assert "QuantizeLinear" in operators(emulate(model))


def test_other_conversions_stay() -> None:
    """One that does not saturate, one per axis, E5M2, an odd scale."""
    for change in ("saturate", "axis", "e5m2", "scale"):
        model = pair("float16")
        (node,) = [one for one in model.proto.graph.node if one.op_type == "QuantizeLinear"]
        s, z = model.proto.graph.initializer
        if change == "saturate":
            node.attribute.append(helper.make_attribute("saturate", 0))
        elif change == "axis":
            s.CopyFrom(helper.make_tensor("s", TensorProto.FLOAT16, [2], [0.5, 0.25]))
        elif change == "e5m2":
            z.CopyFrom(helper.make_tensor("z", TensorProto.FLOAT8E5M2, [], [0]))
        else:
            s.CopyFrom(helper.make_tensor("s", TensorProto.FLOAT16, [], [0.0]))
        assert "QuantizeLinear" in operators(emulate(Model(model.proto))), change
