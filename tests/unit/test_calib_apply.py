"""Foreign calibration caches on models: names, spellings, movers, and what has no range."""

from collections.abc import Mapping

import numpy as np
import onnx
import pytest
from models_precision import FLOAT, Net
from precision_samples import SHAPES, net, samples_for

from trtforge.graph.execute import Session
from trtforge.graph.inputs import random_feeds
from trtforge.graph.model import Model
from trtforge.graph.passes import PassRequest, run_passes
from trtforge.precision.apply_cache import Applied, apply_cache
from trtforge.precision.cache import CalibrationCache, TensorRange
from trtforge.precision.cache_diff import diff_caches
from trtforge.precision.cache_lint import RULES
from trtforge.precision.cache_match import Match, Matching, match_ranges
from trtforge.precision.calibrate import CalibrationRequest, calibrate
from trtforge.precision.quantize import candidate_tensors
from trtforge.precision.typeinfo import element_types
from trtforge.recipe.schema import Precision

INT8 = Precision(quantize="int8")


def cache(amax: Mapping[str, float]) -> CalibrationCache:
    return CalibrationCache(
        method="EntropyCalibration2",
        samples=0,
        graph_digest="",
        ranges={name: TensorRange(min=-top, max=top, amax=top) for name, top in amax.items()},
        origin="TRT-8601-EntropyCalibration2",
    )


def chain() -> Model:
    """Conv, BatchNormalization, Relu, MaxPool, Reshape, MatMul, MatMul: movers before a matrix."""
    net = Net(5)
    x = net.input("x", ["N", 3, 8, 8])
    c = net.op("Conv", [x, net.weight("w", 8, 3, 3, 3)], "/conv/Conv_output_0", pads=[1, 1, 1, 1])
    norms = [net.const(f"bn{i}", np.full(8, value)) for i, value in enumerate((1, 0.1, 0, 2))]
    b = net.op("BatchNormalization", [c, *norms], "/bn/BatchNormalization_output_0")
    r = net.op("Relu", [b], "/relu/Relu_output_0")
    p = net.op("MaxPool", [r], "/pool/MaxPool_output_0", kernel_shape=[2, 2], strides=[2, 2])
    f = net.op("Reshape", [p, net.const("shape", [0, -1], np.int64)], "/flat/Reshape_output_0")
    h = net.op("Tanh", [net.op("MatMul", [f, net.weight("m", 128, 16)], "/m/MatMul_output_0")],
               "/act/Tanh_output_0")  # fmt: skip
    net.op("MatMul", [h, net.weight("n", 16, 4)], "y")
    net.output("y", ["N", 4])
    return net.model()


def cleaned(model: Model) -> Model:
    return run_passes(model, PassRequest(prove=False)).model


def matched(amax: Mapping[str, float], model: Model | None = None) -> Matching:
    original = model or chain()
    clean = cleaned(original)
    return match_ranges(cache(amax), candidate_tensors(clean, INT8), clean, original)


def match_of(found: Matching, tensor: str) -> Match:
    return next(match for match in found.matches if match.tensor == tensor)


FLAT = "/flat/Reshape_output_0"


@pytest.mark.parametrize(
    ("source", "how", "through"),
    [
        (FLAT, "name", ()),
        ("/flat/Reshape", "spelling", ()),
        ("/flat/Reshape:0", "spelling", ()),
        ("/pool/MaxPool_output_0", "same values", ("Reshape",)),
        ("/relu/Relu_output_0", "upper bound", ("Reshape", "MaxPool")),
        ("/bn/BatchNormalization_output_0", "upper bound", ("Reshape", "MaxPool", "Relu")),
        ("/pool/MaxPool", "same values", ("Reshape",)),
    ],
)
def test_a_range_is_found_by_name_and_through_movers(
    source: str, how: str, through: tuple[str, ...]
) -> None:
    found = matched({source: 7.0})
    assert match_of(found, FLAT) == Match(FLAT, (source,), how, through)
    assert found.ranges[FLAT].amax == 7
    assert found.unused == ()


def test_the_nearest_and_the_exact_one_wins() -> None:
    found = matched({"/relu/Relu_output_0": 9.0, "/pool/MaxPool_output_0": 7.0})
    assert match_of(found, FLAT).sources == ("/pool/MaxPool_output_0",)
    assert [(one.name, one.slug) for one in found.unused] == [("/relu/Relu_output_0", "not-needed")]


def test_arithmetic_is_not_a_mover() -> None:
    """The range before BatchNormalization, and those before MatMul and Tanh, say nothing."""
    found = matched({"/conv/Conv_output_0": 3.0, "/m/MatMul_output_0": 3.0, "x": 1.0})
    assert found.missing == (FLAT, "/act/Tanh_output_0")
    slugs = {one.name: one.slug for one in found.unused}
    assert slugs == {"/conv/Conv_output_0": "fused-away", "/m/MatMul_output_0": "not-needed"}
    assert set(slugs.values()) <= set(RULES)


def test_a_spelling_that_two_names_share_decides_nothing() -> None:
    found = matched({"/flat/Reshape:0": 1.0, "/flat/Reshape": 2.0})
    assert FLAT in found.missing


def test_a_spelling_that_is_another_tensors_name_decides_nothing() -> None:
    net = Net(2)
    x = net.input("t_output_0", ["N", 4])
    net.op("MatMul", [net.op("Tanh", [x], "t"), net.weight("w", 4, 4)], "y")
    net.output("y", ["N", 4])
    assert matched({"t_output_0": 3.0}, net.model()).missing == ("t",)


def test_concat_takes_the_largest_of_its_parts() -> None:
    net = Net(2)
    x = net.input("x", ["N", 4])
    parts = [net.op(op, [x], op.lower()) for op in ("Sin", "Exp")]
    net.op("MatMul", [net.op("Concat", parts, "joined", axis=1), net.weight("w", 8, 4)], "y")
    net.output("y", ["N", 4])
    found = matched({"sin": 1.0, "exp": 20.0}, net.model())
    assert match_of(found, "joined").sources == ("sin", "exp")
    assert found.ranges["joined"].amax == 20
    assert matched({"exp": 20.0}, net.model()).missing == ("joined",)


def test_a_name_that_the_clean_up_removed_is_followed_in_the_original_graph() -> None:
    net = Net(2)
    x = net.op("Tanh", [net.input("x", ["N", 4])], "t")
    same = net.op("Identity", [net.op("Identity", [x], "i1")], "i2")
    net.op("MatMul", [same, net.weight("w", 4, 4)], "y")
    net.output("y", ["N", 4])
    assert "i1" not in {t for n in cleaned(net.model()).proto.graph.node for t in n.output}
    found = matched({"i1": 1.0}, net.model())
    assert found.missing == ()
    assert found.matches[0].how == "same values"


def applied(amax: Mapping[str, float], **precision: object) -> tuple[Model, Applied]:
    original = chain()
    wanted = Precision.model_validate({"quantize": "int8", **precision})
    return original, apply_cache(cache(amax), cleaned(original), wanted, original)


WHOLE = {"x": 4.0, FLAT: 3.0, "/act/Tanh_output_0": 1.0}


def pairs(model: Model) -> set[str]:
    constants = {one.name for one in model.proto.graph.initializer}
    nodes = [node for node in model.proto.graph.node if node.op_type == "QuantizeLinear"]
    return {node.input[0] for node in nodes} - constants


@pytest.mark.parametrize("kind", ["int8", "fp8"])
@pytest.mark.parametrize("float_type", ["fp32", "fp16", "bf16"])
def test_a_whole_cache_quantizes_the_model(kind: str, float_type: str) -> None:
    _, found = applied(WHOLE, quantize=kind, type=float_type)
    assert found.left == ()
    assert found.matching.missing == ()
    assert all(one.action == "quantized" for one in found.typed.quantize.decisions)
    onnx.checker.check_model(found.typed.model.proto, full_check=True)


def test_what_has_no_range_stays_a_float_and_the_rest_is_quantized() -> None:
    original, found = applied({"x": 4.0, "/act/Tanh_output_0": 1.0})
    model = found.typed.model
    assert pairs(model) == {"x", "/act/Tanh_output_0"}
    (left,) = found.left
    assert (left.op, left.tensor) == ("MatMul", FLAT)
    reasons = {d.node: d.reason for d in found.typed.quantize.decisions if d.action == "kept"}
    assert reasons == {left.node: f"the calibration cache has no range of '{FLAT}'"}
    onnx.checker.check_model(model.proto, full_check=True)
    feeds = random_feeds(original, {"x": (4, 3, 8, 8)}, seed=1)
    (expected,), (got,) = (list(Session(one).run(feeds).values()) for one in (original, model))
    assert float(np.abs(expected - got).max()) < 0.1 * float(np.abs(expected).max())


def test_an_upper_bound_is_told() -> None:
    _, found = applied({"x": 4.0, "/relu/Relu_output_0": 3.0, "/act/Tanh_output_0": 1.0})
    assert found.left == ()
    assert any("may be too large" in text for text in found.typed.warnings)


def test_the_float_type_of_what_is_left_is_that_of_the_rest() -> None:
    _, found = applied({"x": 4.0, "/act/Tanh_output_0": 1.0}, type="fp16")
    weights = {one.name: one.data_type for one in found.typed.model.proto.graph.initializer}
    assert weights["m"] == onnx.TensorProto.FLOAT16


@pytest.mark.parametrize("name", ["", "n[1]*?"])
def test_nodes_of_any_name_are_left_out_alone(name: str) -> None:
    original = chain()
    for node in original.proto.graph.node:
        node.name = name and f"{name}{node.output[0]}"
    model = Model(original.proto)
    found = apply_cache(cache({"x": 4.0, "/act/Tanh_output_0": 1.0}), model, INT8)
    assert pairs(found.typed.model) == {"x", "/act/Tanh_output_0"}
    assert len(found.left) == 1


def test_scales_are_those_of_the_cache() -> None:
    _, found = applied(WHOLE)
    model = found.typed.model
    for node in model.proto.graph.node:
        if node.op_type == "QuantizeLinear" and node.input[0] in WHOLE:
            scale = float(model.initializer(node.input[1]).reshape(()))
            assert scale == pytest.approx(WHOLE[node.input[0]] / 127, rel=1e-6)


@pytest.mark.parametrize("name", ["cnn", "transformer"])
def test_tensors_keep_their_meaning_in_the_cleaned_up_graph(name: str) -> None:
    """What all matching by name rests on: equal names have equal ranges in both graphs."""
    original = net(name)
    clean = cleaned(original)
    floats = [
        {tensor for tensor, kind in element_types(model.proto).items() if kind == FLOAT}
        for model in (original, clean)
    ]
    made = {tensor for node in clean.proto.graph.node for tensor in node.output}
    tensors = tuple(sorted(floats[0] & floats[1] & made))
    assert len(tensors) > 10
    feeds = random_feeds(original, SHAPES[name], seed=3)
    before, after = (
        calibrate(model, samples_for(model, feeds), CalibrationRequest(tensors, "minmax"))
        for model in (original, clean)
    )
    assert not diff_caches(before, after, tolerance=1e-3).changed
