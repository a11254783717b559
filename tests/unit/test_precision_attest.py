"""Attestation: multiply-accumulates counted by hand, shares, shapes that only a run tells."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from models_precision import BOOL, FLOAT, INT64, Net
from onnx import TensorProto, helper, numpy_helper
from precision_samples import SHAPES, net, ranges

from trtforge.errors import GraphError
from trtforge.graph.model import Model
from trtforge.precision.attest import attest, shares
from trtforge.precision.cast import cast, typed
from trtforge.recipe.schema import Precision


def test_macs_by_hand() -> None:
    model = Net()
    x = model.input("x", ["N", 4, 10, 10])
    y = model.op("Conv", [x, model.weight("w1", 8, 2, 3, 3)], "y", group=2)  # 8 x 8 out
    z = model.op("ConvTranspose", [y, model.weight("w2", 8, 6, 2, 2)], "z", strides=[2, 2])
    p = model.op("Flatten", [model.op("GlobalMaxPool", [z], "pool")], "p")
    g = model.op("Gemm", [p, model.weight("w3", 5, 6)], "g", transB=1)
    model.op("MatMul", [g, model.weight("w4", 5, 7)], "m")
    model.output("m", ["N", 7])
    result = attest(model.model(), {"x": (3, 4, 10, 10)})
    by_name = {node.name: node.macs for node in result.per_node}
    assert by_name["n_y"] == 3 * 8 * 8 * 8 * (2 * 3 * 3)
    assert by_name["n_z"] == 3 * 8 * 8 * 8 * (6 * 2 * 2)
    assert by_name["n_g"] == 3 * 5 * 6
    assert by_name["n_m"] == 3 * 7 * 5
    assert result.macs == {"fp32": sum(by_name.values())}
    assert result.quantized_macs_share == 0.0


def test_shares_add_up_and_kept_nodes_show() -> None:
    precision = Precision.model_validate(
        {"type": "fp16", "quantize": "int8", "keep": [{"name": "n_a"}]}
    )
    result = attest(typed(net("cnn"), ranges("cnn"), precision).model, SHAPES["cnn"])
    kept = next(node for node in result.per_node if node.name == "n_a")
    assert kept.type == "fp32"
    assert result.macs["fp32"] == kept.macs
    total = sum(result.macs.values())
    assert result.quantized_macs_share == pytest.approx(result.macs["int8"] / total)
    assert result.weights_bytes["int8"] > result.weights_bytes["fp16"]
    document = json.loads(json.dumps(result.as_json(), allow_nan=False))
    assert document["quantized_macs_share"] == result.quantized_macs_share
    assert document["shapes"] == {"image": [8, 3, 16, 16]}


def test_one_quantized_operand_is_not_enough() -> None:
    model = Net()
    x = model.input("x", [4, 8])
    model.const("scale", 0.1)
    model.const("stored", np.ones((8, 8)), np.int8)
    w = model.op("DequantizeLinear", ["stored", "scale"], "w")
    model.op("MatMul", [x, w], "y")
    model.output("y", [4, 8])
    assert attest(model.model(), {}).macs == {"fp32": 4 * 8 * 8}


def test_mixed_storage_makes_no_quantized_product() -> None:
    model = Net(0, 21)
    x = model.input("x", [4, 8])
    model.const("scale", 0.1)
    q = model.op("QuantizeLinear", [x, "scale", model.const("zero", 0, np.int8)], "q")
    four = helper.make_tensor("four", TensorProto.INT4, [8, 8], [1] * 64)
    a = model.op("DequantizeLinear", [q, "scale"], "a")
    w = model.op("DequantizeLinear", ["four", "scale"], "w")
    model.op("MatMul", [a, w], "y")
    model.output("y", [4, 8])
    graph = helper.make_graph(
        model.nodes,
        "mixed",
        model.inputs,
        model.outputs,
        [four, *(numpy_helper.from_array(v, n) for n, v in model.weights.items())],
    )
    opsets = [helper.make_opsetid("", 21)]
    mixed = Model(helper.make_model(graph, opset_imports=opsets, ir_version=10))
    result = attest(mixed, {})
    assert result.macs == {"fp32": 4 * 8 * 8}
    assert result.weights_bytes["int4"] == 32


def test_macs_of_a_batch_grow_with_the_batch() -> None:
    small = attest(net("transformer"), {"ids": (1, 8), "mask": (1, 8)})
    large = attest(net("transformer"), {"ids": (6, 8), "mask": (6, 8)})
    assert sum(large.macs.values()) == 6 * sum(small.macs.values())


def test_shapes_that_depend_on_values_are_measured() -> None:
    model = Net()
    x = model.input("x", ["N", 8])
    chosen = model.op("NonZero", [model.op("Relu", [x], "r")], "chosen")
    columns = model.op("Transpose", [chosen], "columns", perm=[1, 0])
    floats = model.op("Cast", [columns], "floats", to=1)
    model.op("MatMul", [floats, model.weight("w", 2, 3)], "y")
    model.output("y", ["M", 3])
    source, _ = cast(model.model(), Precision(type="fp16"))
    macs = attest(source, {"x": (4, 8)}).macs
    assert 0 < macs["fp16"] < 32 * 6


def test_a_missing_shape_is_an_error() -> None:
    with pytest.raises(GraphError):
        attest(net("cnn"), {})


def test_integer_nodes_are_counted_as_integers() -> None:
    model = Net()
    x = model.input("x", ["N", 8], INT64)
    model.op("Add", [x, model.const("one", 1, np.int64)], "y")
    model.output("y", ["N", 8], INT64)
    result = attest(model.model(), {"x": (2, 8)})
    assert result.nodes == {"int64": 1}
    assert result.quantized_macs_share == 0.0


def test_recurrent_layers_count_as_well() -> None:
    model = Net()
    x = model.input("x", [7, 3, 4])
    model.nodes.append(
        helper.make_node(
            "LSTM",
            [x, model.weight("w", 1, 32, 4), model.weight("r", 1, 32, 8)],
            ["", "last"],
            "n_lstm",
            hidden_size=8,
        )
    )
    model.output("last", [1, 3, 8])
    source = model.model()
    assert attest(source, {}).macs == {"fp32": 7 * 3 * 32 * (4 + 8)}


def looped(inner: list, state: tuple = ("N", 4)) -> Model:
    """A Loop of 3 iterations over `inner`, whose nodes make 's_out' from 's_in'."""
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", ["go_in"], ["go_out"]), *inner],
        "body",
        [info("i", INT64, []), info("go_in", BOOL, []), info("s_in", FLOAT, None)],
        [info("go_out", BOOL, []), info("s_out", FLOAT, None)],
    )
    model = Net()
    x = model.input("x", state)
    model.const("trips", 3, np.int64)
    model.const("go", True, np.bool_)
    model.const("zero", [0], np.int64)
    model.weight("w", 4, 4)
    model.nodes.append(helper.make_node("Loop", ["trips", "go", x], ["y"], "loop", body=body))
    model.output("y", state)
    return model.model()


def test_macs_in_the_body_of_a_loop_are_those_of_its_first_iteration() -> None:
    step = helper.make_node("MatMul", ["s_in", "w"], ["s_out"], "step")
    assert attest(looped([step]), {"x": (5, 4)}).macs == {"fp32": 5 * 4 * 4}


def test_sizes_that_only_a_body_tells_are_not_known() -> None:
    """A shape that values decide within a Loop is no output that could be looked at."""
    inner = [
        helper.make_node("NonZero", ["s_in"], ["found"]),
        helper.make_node("Cast", ["found"], ["floats"], to=FLOAT),
        helper.make_node("ReduceSum", ["floats"], ["sum"], keepdims=0),
        helper.make_node("Add", ["s_in", "sum"], ["s_out"]),
    ]
    result = attest(looped(inner), {"x": (5, 4)})
    assert result.unmeasured > 0
    assert result.activations_bytes["fp32"] >= 2 * 5 * 4 * 4


def test_macs_in_a_scan_inside_a_loop_are_found_too() -> None:
    info = helper.make_tensor_value_info
    row = helper.make_graph(
        [
            helper.make_node("Unsqueeze", ["part", "zero"], ["flat"]),
            helper.make_node("MatMul", ["flat", "w"], ["turned"], "row"),
            helper.make_node("Squeeze", ["turned", "zero"], ["made"]),
            helper.make_node("Add", ["sum_in", "made"], ["sum_out"]),
        ],
        "row",
        [info("sum_in", FLOAT, None), info("part", FLOAT, None)],
        [info("sum_out", FLOAT, None), info("made", FLOAT, None)],
    )
    model = looped(
        [
            helper.make_node("ReduceSum", ["s_in", "zero"], ["start"], keepdims=0),
            helper.make_node(
                "Scan", ["start", "s_in"], ["total", "s_out"], "scan", body=row, num_scan_inputs=1
            ),
        ]
    )
    assert attest(model, {"x": (5, 4)}).macs == {"fp32": 4 * 4}


def test_activations_count_once_in_the_type_that_is_handed_on() -> None:
    model = Net()
    x = model.input("x", [2, 8])
    model.const("scale", 0.1)
    model.const("zero", 0, np.int8)
    r = model.op("Relu", [x], "r")  # read by Q alone: its INT8 form counts
    q = model.op("QuantizeLinear", [r, "scale", "zero"], "q")
    d = model.op("DequantizeLinear", [q, "scale", "zero"], "d")  # the stored q counts already
    m = model.op("MatMul", [d, model.weight("w", 8, 4)], "m")  # read by Cast alone
    h = model.op("Cast", [m], "h", to=TensorProto.FLOAT16)
    model.op("Sigmoid", [h], "y")
    model.op("Relu", ["w"], "constant")  # depends on no input
    model.op("Add", [x, x], "unread")
    model.output("y", [2, 4], TensorProto.FLOAT16)
    result = attest(model.model(), {})
    expected = {"fp32": 2 * 8 * 4, "int8": 2 * 8, "fp16": 2 * (2 * 4 * 2)}  # x, q, h and y
    assert result.activations_bytes == expected
    assert result.unmeasured == 0
    assert result.results == {"fp16": 1, "fp32": 4}


def test_weights_are_all_that_is_stored_and_the_dequantized_ones_apart() -> None:
    model = Net(0, 21)
    x = model.input("x", [2, 6])
    model.const("scale", np.full(5, 0.1))
    model.const("table", np.arange(4), np.int8)  # no weight of a product
    stored = helper.make_tensor("four", TensorProto.INT4, [6, 5], [1] * 30)
    w = model.op("DequantizeLinear", ["four", "scale"], "w", axis=1)
    y = model.op("MatMul", [x, w], "y")
    model.nodes.append(helper.make_node("Constant", [], ["c"], "", value_floats=[1.0, 2.0]))
    model.nodes.append(
        helper.make_node(
            "Constant", [], ["k"], "", value=numpy_helper.from_array(np.zeros((2, 5), np.float16))
        )
    )
    model.op("Gather", ["table", model.const("index", [0], np.int64)], "t")
    model.output(y, [2, 5])
    model.output("t", [1], TensorProto.INT8)
    graph = helper.make_graph(
        model.nodes,
        "stored",
        model.inputs,
        model.outputs,
        [stored, *(numpy_helper.from_array(v, n) for n, v in model.weights.items())],
    )
    graph.sparse_initializer.add(
        values=helper.make_tensor("sparse", FLOAT, [2], [1.0, 2.0]),
        indices=helper.make_tensor("at", INT64, [2], [0, 3]),
        dims=[9],
    )
    opsets = [helper.make_opsetid("", 21)]
    result = attest(Model(helper.make_model(graph, opset_imports=opsets, ir_version=10)), {})
    assert result.weights_bytes == {
        "int4": 15,
        "fp32": 5 * 4 + 2 * 4 + (2 * 4 + 2 * 8),
        "fp16": 20,
        "int8": 4,
        "int64": 8,
    }
    assert result.quantized_weights_bytes == {"int4": 15}


@pytest.mark.parametrize(("left", "right"), [(np.int8, np.int8), (np.uint8, np.int8)])
def test_a_product_of_8_bit_integers_is_one_whatever_their_signs(left: type, right: type) -> None:
    model = Net()
    x = model.input("x", [4, 8])
    model.const("scale", 0.1)
    model.const("a_zero", 0, left)
    model.const("w_zero", 0, right)
    model.const("stored", np.ones((8, 8)), right)
    q = model.op("QuantizeLinear", [x, "scale", "a_zero"], "q")
    a = model.op("DequantizeLinear", [q, "scale", "a_zero"], "a")
    w = model.op("DequantizeLinear", ["stored", "scale", "w_zero"], "w")
    model.op("MatMul", [a, w], "y")
    model.output("y", [4, 8])
    result = attest(model.model(), {})
    assert result.macs == {"int8": 4 * 8 * 8}
    assert result.results == {"fp32": 1}
    assert result.quantized_macs_share == 1.0


def test_functions_count_as_often_as_they_are_called() -> None:
    info = helper.make_tensor_value_info
    opsets = [helper.make_opsetid("", 19), helper.make_opsetid("own", 1)]
    function = helper.make_function(
        "own",
        "Twice",
        ["a", "w"],
        ["b"],
        [
            helper.make_node("MatMul", ["a", "w"], ["t"], "inner"),
            helper.make_node("Relu", ["t"], ["b"]),
        ],
        [helper.make_opsetid("", 19)],
    )
    graph = helper.make_graph(
        [
            helper.make_node("Twice", ["x", "w"], ["m"], domain="own"),
            helper.make_node("Twice", ["m", "w"], ["y"], domain="own"),
        ],
        "calls",
        [info("x", FLOAT, [3, 40])],
        [info("y", FLOAT, [3, 40])],
        [numpy_helper.from_array(np.ones((40, 40), np.float32), "w")],
    )
    proto = helper.make_model(graph, functions=[function], opset_imports=opsets, ir_version=10)
    result = attest(Model(proto), {})
    assert result.macs == {"fp32": 2 * 3 * 40 * 40}
    assert result.nodes == {"fp32": 4}
    assert result.weights_bytes == {"fp32": 40 * 40 * 4}


def test_shapes_that_small_integers_decide_are_found_without_a_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Half of the second dimension, computed by Shape, Gather and Div: ONNX's inference stops."""
    model = Net()
    x = model.input("x", ["N", "M"])
    size = model.op("Gather", [model.op("Shape", [x], "s"), model.const("one", 1, np.int64)], "m")
    half = model.op("Div", [size, model.const("two", 2, np.int64)], "half")
    ends = model.op("Unsqueeze", [half, model.const("axis", [0], np.int64)], "ends")
    part = model.op("Slice", [x, model.const("first", [0], np.int64), ends, "one_axis"], "part")
    model.const("one_axis", [1], np.int64)
    model.op("MatMul", [part, model.weight("w", 4, 3)], "y")
    model.output("y", ["N", 3])

    def never(*_: object) -> None:
        raise AssertionError("the model was run")

    monkeypatch.setattr("trtforge.precision.counting.Session", never)
    result = attest(model.model(), {"x": (5, 8)})
    assert result.macs == {"fp32": 5 * 4 * 3}
    assert result.elements["part"] == 5 * 4
    assert result.unmeasured == 0


def test_what_cannot_be_measured_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Net()
    x = model.input("x", [4])
    model.op("Relu", [model.op("Compress", [x, "chosen"], "some")], "y")
    model.const("chosen", [True, False, True, False], np.bool_)
    model.output("y", ["M"])

    def fails(*_: object, **__: object) -> None:
        raise GraphError("TF0408", "it does not run")

    assert attest(model.model(), {}).activations_bytes == {"fp32": (4 + 2 + 2) * 4}
    monkeypatch.setattr("trtforge.precision.counting.Session", fails)
    result = attest(model.model(), {})
    assert result.activations_bytes == {"fp32": 4 * 4}
    assert result.unmeasured == 2
    assert result.as_json()["unmeasured_activations"] == 2


@given(st.dictionaries(st.sampled_from(["int8", "fp8", "fp16", "fp32"]), st.integers(0, 10**15)))
def test_shares_sum_to_1_or_there_are_none(amounts: dict[str, int]) -> None:
    found = shares(amounts)
    assert set(found) == (set(amounts) if sum(amounts.values()) else set())
    assert not found or sum(found.values()) == pytest.approx(1)
    assert all(0 <= share <= 1 for share in found.values())


@pytest.mark.parametrize("name", ["cnn", "transformer", "control_flow"])
@pytest.mark.parametrize("kind", ["fp32", "fp16", "bf16"])
def test_every_share_of_real_nets_sums_to_1(name: str, kind: str) -> None:
    model, _ = cast(net(name), Precision(type=kind))
    document = attest(model, SHAPES[name]).as_json()
    assert document["unmeasured_activations"] == 0
    for what in ("macs", "nodes", "weights", "activations"):
        assert sum(document["shares"][what].values()) == pytest.approx(1), what
    assert sum(document["results"].values()) == len(document["per_node"])
