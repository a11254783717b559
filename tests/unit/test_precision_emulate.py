"""Emulation: bit for bit what rounding after every operator gives, overflow included."""

import ml_dtypes
import numpy as np
import onnx
import pytest
from models_precision import FLOAT, Net
from onnx import TensorProto, helper, numpy_helper
from precision_samples import net, ops, ranges

from trtforge.graph.execute import Session
from trtforge.graph.inputs import random_feeds
from trtforge.graph.model import Model
from trtforge.precision.cast import cast, typed
from trtforge.precision.emulate import emulate
from trtforge.recipe.schema import Precision

NUMPY = {"fp16": np.float16, "bf16": ml_dtypes.bfloat16}


def chain() -> Model:
    model = Net(7)
    x = model.input("x", [64, 33])
    y = model.op("Mul", [x, model.weight("factor", 33)], "scaled")
    y = model.op("Add", [y, model.weight("shift", 33)], "shifted")
    y = model.op("Transpose", [y], "turned", perm=[1, 0])
    y = model.op("Mul", [y, y], "squared")
    y = model.op("Sqrt", [y], "root")
    y = model.op("Div", [y, model.const("by", 3.1)], "divided")
    model.op("Sub", [y, model.const("off", 0.37)], "out")
    model.output("out", [33, 64])
    return model.model()


@pytest.mark.parametrize("kind", ["fp16", "bf16"])
def test_every_operator_is_rounded_once(kind: str) -> None:
    model = chain()
    narrow = NUMPY[kind]

    def step(values: np.ndarray) -> np.ndarray:
        return values.astype(narrow).astype(np.float32)

    x = np.random.default_rng(0).standard_normal((64, 33)).astype(np.float32) * 5
    weights = {n: step(model.initializer(n)) for n in ("factor", "shift", "by", "off")}
    expected = step(step(x) * weights["factor"])
    expected = step(expected + weights["shift"]).T
    expected = step(np.sqrt(step(expected * expected)))
    expected = step(step(expected / weights["by"]) - weights["off"])
    result, _ = cast(model, Precision.model_validate({"type": kind}))
    got = Session(emulate(result)).run({"x": x})["out"]
    assert got.tobytes() == np.ascontiguousarray(expected).tobytes()


def test_overflow_shows_although_onnx_runtime_itself_hides_it() -> None:
    model = Net()
    x = model.input("x", [1])
    y = model.op("Mul", [x, model.const("up", 1000.0)], "y")
    model.op("Mul", [y, model.const("down", 0.001)], "z")
    model.output("z", [1])
    result, _ = cast(model.model(), Precision(type="fp16"))
    feeds = {"x": np.array([100.0], np.float32)}
    assert np.isfinite(Session(result).run(feeds)["z"]).all()
    assert Session(emulate(result)).run(feeds)["z"][0] == np.inf
    wider, _ = cast(model.model(), Precision(type="bf16"))
    assert np.isfinite(Session(emulate(wider)).run(feeds)["z"]).all()


def test_the_twin_is_fp32_and_keeps_scales_and_integers() -> None:
    source = typed(net("cnn"), ranges("cnn"), Precision(type="fp16", quantize="int8")).model
    twin = emulate(source)
    onnx.checker.check_model(twin.proto, full_check=True)
    before = {t.name: numpy_helper.to_array(t) for t in source.proto.graph.initializer}
    after = {t.name: numpy_helper.to_array(t) for t in twin.proto.graph.initializer}
    weights = {name.removesuffix("_values") for name in after.keys() - before.keys()}
    made = {node.output[0]: node for node in source.proto.graph.node}
    assert {made[name].op_type for name in weights} == {"DequantizeLinear"}
    assert before.keys() <= after.keys()
    for name, values in before.items():
        assert (after[name].astype(np.float64) == values.astype(np.float64)).all(), name
        assert after[name].dtype == (np.float32 if values.dtype == np.float16 else values.dtype)
    for op in ("QuantizeLinear", "Conv", "Add"):
        assert ops(twin)[op] == ops(source)[op]
    # Those of weights are computed once.
    left = ops(source)["DequantizeLinear"] - len(weights)
    assert ops(twin)["DequantizeLinear"] == left == ops(source)["QuantizeLinear"]
    assert twin.contract == source.contract


def test_results_do_not_depend_on_the_optimization_level() -> None:
    source, _ = cast(net("transformer"), Precision(type="bf16"))
    twin = emulate(source)
    feeds = random_feeds(net("transformer"), {"ids": (2, 7), "mask": (2, 7)}, 3)
    plain = Session(twin).run(feeds)["encoded"]
    optimized = Session(twin, optimize=True).run(feeds)["encoded"]
    # The order of FP32 sums may differ; a rounding that was dropped would show at 2^-9.
    assert np.abs(plain - optimized).max() <= np.abs(plain).max() * 2.0**-7


def test_a_model_without_narrow_types_comes_back_unchanged() -> None:
    assert emulate(net("cnn")) is net("cnn")


def test_bodies_are_treated_alike_and_borders_keep_their_types() -> None:
    """An FP16 model of the user's own, with an If whose branches overflow or not."""
    half, info = TensorProto.FLOAT16, helper.make_tensor_value_info
    big = numpy_helper.from_array(np.array([60000.0], np.float16), "big")

    def branch(name: str, sign: str) -> onnx.GraphProto:
        nodes = [
            helper.make_node(sign, ["x", "big"], [f"{name}_sum"], f"{name}_1"),
            helper.make_node("Sub", [f"{name}_sum", "big"], [f"{name}_out"], f"{name}_2"),
        ]
        return helper.make_graph(nodes, name, [], [info(f"{name}_out", half, [1])])

    chosen = helper.make_node(
        "If", ["flag"], ["y"], "choose",
        then_branch=branch("then", "Add"), else_branch=branch("else", "Min"),
    )  # fmt: skip
    graph = helper.make_graph(
        [chosen],
        "g",
        [info("x", half, [1]), info("flag", TensorProto.BOOL, [])],
        [info("y", half, [1])],
        [big],
    )
    opset = [helper.make_opsetid("", 19)]
    model = Model(helper.make_model(graph, opset_imports=opset, ir_version=10))
    twin = emulate(model)
    onnx.checker.check_model(twin.proto, full_check=True)
    assert twin.contract == model.contract
    session = Session(twin)
    x = np.array([10000.0], np.float16)
    assert session.run({"x": x, "flag": np.array(True)})["y"][0] == np.inf
    low = session.run({"x": x, "flag": np.array(False)})["y"]
    assert low.dtype == np.float16
    assert low[0] == np.float16(10000.0) - np.float16(60000.0)


def test_casts_in_the_original_still_round() -> None:
    model = Net()
    x = model.input("x", [3])
    half = model.op("Cast", [x], "half", to=TensorProto.FLOAT16)
    model.op("Cast", [half], "y", to=FLOAT)
    model.output("y", [3])
    values = np.array([1.0001, 70000.0, 2049.0], np.float32)
    got = Session(emulate(model.model())).run({"x": values})["y"]
    assert got.tolist() == [1.0, np.inf, 2048.0]
