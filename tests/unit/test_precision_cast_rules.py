"""Casts: force rules and paths, functions, tied weights, and where the fewest bytes are cast."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from models_precision import FLOAT, INT64, Net
from onnx import TensorProto, helper
from precision_samples import check_typed, fidelity, initializer_types, net, ops

from trtforge.graph.execute import Session
from trtforge.graph.model import Model
from trtforge.precision.cast import CastReport, cast, typed
from trtforge.precision.emulate import emulate
from trtforge.recipe.schema import Precision


def fp16(model: Model, **changes: object) -> tuple[Model, CastReport]:
    result, report = cast(model, Precision.model_validate({"type": "fp16"} | changes))
    check_typed(model, result)
    return result, report


def wider(report: CastReport) -> dict[str, str]:
    return {one.node: one.reason for one in report.decisions if one.type == "fp32"}


def big_weight() -> Model:
    net = Net()
    x = net.input("x", [4, 8])
    y = net.op("MatMul", [x, net.const("big", np.full((8, 8), 1e5))], "y")
    net.op("Tanh", [net.op("MatMul", [y, net.weight("w", 8, 8)], "z")], "t")
    net.output("t", [4, 8])
    return net.model()


# -- rules -------------------------------------------------------------------------------------


def test_force_narrows_in_spite_of_a_hazard_and_says_so() -> None:
    result, report = fp16(big_weight(), force=[{"name": "n_y", "type": "fp16"}])
    assert initializer_types(result)["big"] == TensorProto.FLOAT16
    assert np.isinf(result.initializer("big")).all()
    (decision,) = [one for one in report.decisions if one.node == "n_y"]
    assert decision.type == "fp16"
    assert decision.reason.startswith("force rule {name: n_y, type: fp16}, in spite of this: ")
    assert "'big' reaches 1e+05" in decision.reason


def test_force_of_what_is_narrow_anyway_is_no_news() -> None:
    _, report = fp16(net("cnn"), force=[{"op": "Conv", "type": "fp16"}])
    assert report.decisions == ()


def test_keep_beats_force() -> None:
    rule = {"op": "Conv"}
    _, report = fp16(net("cnn"), keep=[rule], force=[rule | {"type": "fp16"}])
    assert set(wider(report).values()) >= {"keep rule {op: Conv, type: fp32}"}


def test_force_alone_makes_single_nodes_narrow() -> None:
    model = net("cnn")
    wanted = Precision.model_validate({"force": [{"op": "Gemm", "type": "fp16"}]})
    result, report = cast(model, wanted)
    check_typed(model, result)
    assert report.nodes["fp16"] == 1
    assert report.casts_added == 2


def test_force_to_another_type_than_the_rest() -> None:
    wanted = {"type": "fp16", "force": [{"op": "Conv", "type": "bf16"}]}
    _, report = cast(net("cnn"), Precision.model_validate(wanted))
    assert {one.type for one in report.decisions if one.op == "Conv"} == {"bf16"}


def test_force_cannot_make_what_does_not_exist() -> None:
    net = Net()
    x = net.input("x", [4, 8])
    y = net.op("Celu", [net.op("MatMul", [x, net.weight("w", 8, 8)], "m")], "y")
    net.op("MatMul", [y, net.weight("w2", 8, 8)], "z")
    net.output("z", [4, 8])
    _, report = fp16(net.model(), force=[{"op": "Celu", "type": "fp16"}])
    assert wider(report)["n_y"] == (
        "force rule {op: Celu, type: fp16} cannot be met: Celu has no FP16 form at opset 19"
    )


def test_rules_that_select_nothing_are_warned_of() -> None:
    wanted = {
        "type": "fp16",
        "keep": [{"path": "loop/*"}, {"op": "Softmax"}],
        "force": [{"name": "none", "type": "fp16"}],
    }
    warnings = typed(net("transformer"), None, Precision.model_validate(wanted)).warnings
    assert [line for line in warnings if line.endswith("selects no node")] == [
        "the keep rule {path: loop/*, type: fp32} selects no node",
        "the force rule {name: none, type: fp16} selects no node",
    ]


def test_a_node_without_a_name_goes_by_its_first_output() -> None:
    proto = onnx.ModelProto()
    proto.CopyFrom(net("cnn").proto)  # which other tests have as well
    for node in proto.graph.node:
        node.name = ""
    for key in ("name", "path"):
        _, report = fp16(Model(proto), keep=[{key: "log*"}])
        assert [one.op for one in report.decisions] == ["Gemm"], key


# -- functions ---------------------------------------------------------------------------------


def test_functions_are_written_out_and_their_nodes_typed() -> None:
    twice = helper.make_function(
        "own",
        "Twice",
        ["a", "w"],
        ["b"],
        [
            helper.make_node("MatMul", ["a", "w"], ["m"], "inner_product"),
            helper.make_node("Relu", ["m"], ["b"], "inner_relu"),
        ],
        [helper.make_opsetid("", 19)],
    )
    net = Net()
    x = net.input("x", [4, 8])
    one = helper.make_node("Twice", [x, net.weight("w1", 8, 8)], ["one"], "first", domain="own")
    two = helper.make_node("Twice", ["one", net.weight("w2", 8, 8)], ["y"], "second", domain="own")
    net.output("y", [4, 8])
    proto = _with(net, one, two)
    proto.functions.append(twice)
    proto.opset_import.append(helper.make_opsetid("own", 1))
    onnx.checker.check_model(proto)
    model = Model(proto)
    result, report = fp16(model)
    assert not result.proto.functions
    assert report.nodes["fp16"] == 4
    assert report.casts_added == 2
    feeds = {"x": np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32)}
    assert fidelity(model, result, feeds) > 55
    name = next(one.name for one in result.proto.graph.node if "inner_relu" in one.name)
    kept = Precision.model_validate({"type": "fp16", "keep": [{"name": name}]})
    assert not [line for line in typed(model, None, kept).warnings if "selects no" in line]


def _with(net: Net, *nodes: onnx.NodeProto) -> onnx.ModelProto:
    weights = [onnx.numpy_helper.from_array(v, n) for n, v in net.weights.items()]
    graph = helper.make_graph(list(nodes), "net", net.inputs, net.outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=10)


# -- weights -----------------------------------------------------------------------------------


def test_tied_external_weights_stay_tied_and_are_converted_when_they_are_written(
    tmp_path: Path,
) -> None:
    width = 256
    values = np.random.default_rng(0).standard_normal((2, width, width)).astype(np.float32) / 16
    (tmp_path / "w.data").write_bytes(values.tobytes())
    net = Net()
    x = net.input("x", [4, width])
    for index, at in enumerate((0, 1, 0)):
        tensor = TensorProto(name=f"w{index}", data_type=FLOAT, dims=[width, width])
        tensor.data_location = TensorProto.EXTERNAL
        size = width * width * 4
        for key, value in (("location", "w.data"), ("offset", at * size), ("length", size)):
            tensor.external_data.add(key=key, value=str(value))
        net.weights[f"w{index}"] = tensor
        x = net.op("MatMul", [x, f"w{index}"], f"t{index}")
    net.output(x, [4, width])
    weights = list(net.weights.values())
    net.weights = {}
    proto = _with(net, *net.nodes)
    proto.graph.initializer.extend(weights)
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    model = Model.load(tmp_path / "m.onnx")
    result, _ = cast(model, Precision(type="fp16"))
    for index, at in enumerate((0, 1, 0)):
        assert np.array_equal(result.initializer(f"w{index}"), values[at].astype(np.float16))
    extents = [w.external_data[0].value for w in result.proto.graph.initializer]
    assert extents[0] == extents[2] != extents[1]
    result.save(tmp_path / "typed.onnx")
    assert Model.load(tmp_path / "typed.onnx").digest() == result.digest()
    feeds = {"x": np.ones((4, width), np.float32)}
    assert fidelity(model, result, feeds) > 50
    Session(result)


# -- where casts stand -------------------------------------------------------------------------


def _sizes(model: Model) -> dict[str, int]:
    """Elements that each cast reads."""
    shapes = onnx.shape_inference.infer_shapes(model.proto).graph
    known = {
        value.name: int(np.prod([dim.dim_value for dim in value.type.tensor_type.shape.dim]))
        for value in (*shapes.input, *shapes.value_info, *shapes.output)
    }
    return {
        node.name: known[node.input[0]] for node in model.proto.graph.node if node.op_type == "Cast"
    }


@pytest.mark.parametrize("grows", [True, False])
def test_casts_stand_where_tensors_are_small(grows: bool) -> None:
    """Between Softmax, which is kept, and a product: Expand before it or Slice behind it."""
    net = Net()
    small, large = [4, 1, 16], [4, 4096, 16]
    x = net.input("x", small if grows else large)
    soft = net.op("Softmax", [net.op("Abs", [x], "abs")], "soft")
    if grows:
        net.const("shape", large, np.int64)
        moved = net.op("Expand", [soft, "shape"], "moved")
    else:
        for name, value in (("start", 0), ("end", 1), ("axis", 1)):
            net.const(name, [value], np.int64)
        moved = net.op("Slice", [soft, "start", "end", "axis"], "moved")
    net.op("MatMul", [moved, net.weight("w", 16, 16)], "y")
    net.output("y", large if grows else small)
    result, report = fp16(net.model(), keep=[{"op": "Softmax"}])
    assert report.casts_added == 2
    assert _sizes(result)["soft_Cast_fp16" if grows else "moved_Cast_fp16"] == 64


def test_a_cast_is_not_made_twice_for_a_residual_around_a_kept_node() -> None:
    net = Net()
    x = net.op("MatMul", [net.input("x", [4, 8]), net.weight("w0", 8, 8)], "x0")
    for index in range(3):
        kept = net.op("Softmax", [x], f"kept{index}")
        x = net.op("Add", [x, kept], f"sum{index}")
    net.op("MatMul", [x, net.weight("w1", 8, 8)], "y")
    net.output("y", [4, 8])
    _, report = fp16(net.model(), keep=[{"op": "Softmax"}])
    assert report.casts_added == 4, "in, up before the chain, down behind it, out"


def test_existing_casts_to_fp16_and_back_are_folded_and_twins_merged() -> None:
    net = Net()
    ids = net.input("ids", [4, 8], INT64)
    half = net.op("Cast", [ids], "half", to=TensorProto.FLOAT16)
    again = net.op("Cast", [ids], "again", to=TensorProto.FLOAT16)
    up = [net.op("Cast", [name], f"{name}_up", to=FLOAT) for name in (half, again)]
    net.op("MatMul", [net.op("Add", up, "sum"), net.weight("w", 8, 8)], "y")
    net.output("y", [4, 8])
    model = net.model()
    result, _ = fp16(model)
    assert ops(result)["Cast"] == 2, "the ids down once, the output up"
    feeds = {"ids": np.arange(32).reshape(4, 8)}
    assert np.isfinite(Session(emulate(result)).run(feeds)["y"]).all()
