"""The error profile: statistics against plain numpy, where the error jumps, bounded memory."""

import json
import math

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from models_precision import FLOAT, INT64, Net, cnn
from precision_samples import ranges

from trtforge.cli.main import cli
from trtforge.errors import ParityError, UsageError
from trtforge.graph.inputs import random_feeds
from trtforge.pipeline.compare import VerifyOptions, verify
from trtforge.precision.cast import typed
from trtforge.precision.emulate import emulate
from trtforge.recipe.schema import KeepRule, Precision
from trtforge.verify.compute_types import Producer
from trtforge.verify.jumps import find_drops
from trtforge.verify.layers import TensorStats, compare_layers
from trtforge.verify.metrics import OutputStats

FP16 = Precision(type="fp16")
FORCED = Precision(type="fp16", keep=(KeepRule(name="*", type="fp16"),))


def _feeds(model, count=2):
    shapes = {
        spec.name: tuple(dim if isinstance(dim, int) else 2 for dim in spec.dims)
        for spec in model.contract.inputs
    }
    return [random_feeds(model, shapes, seed) for seed in range(count)]


def _fp16(model, precision=FP16):
    return emulate(typed(model, None, precision).model)


def _overflow():
    """x -> Gemm -> Mul by 3000 -> Mul by 3000 (overflows) -> Mul by 1e-7 -> Relu."""
    net = Net()
    x = net.input("x", ["N", 8])
    h = net.op("Gemm", [x, net.weight("w", 8, 8)], "gemm")
    h = net.op("Mul", [h, net.const("up1", 3000.0)], "once")
    h = net.op("Mul", [h, net.const("up2", 3000.0)], "twice")
    h = net.op("Mul", [h, net.const("down", 1e-7)], "small")
    net.op("Relu", [h], "y")
    net.output("y", ["N", 8])
    return net.model()


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 70_000),
    st.sampled_from([1e-30, 1e-12, 1e-3, 1.0, 1e4, 1e17, 1e30]),
    st.floats(0, 1e-2),
    st.integers(0, 2**31),
    st.sampled_from([np.float16, np.float32, np.float64]),
)
def test_statistics_are_those_of_the_exact_metrics(size, scale, noise, seed, dtype):
    random = np.random.default_rng(seed)
    with np.errstate(over="ignore"):
        reference = (random.standard_normal(size) * scale).astype(dtype)
        candidate = (reference * (1 + noise * random.standard_normal(size))).astype(dtype)
    if seed % 4 == 0:
        candidate[seed % size] = [np.nan, np.inf][seed % 2]
    if seed % 5 == 0:
        reference[0] = candidate[0] = -np.inf
    stats = TensorStats()
    stats.add(reference, candidate)
    exact = OutputStats().update(reference, candidate).metrics()
    assert stats.sqnr_db == pytest.approx(exact.sqnr_db, abs=1e-3)
    assert stats.nonfinite == exact.candidate_nonfinite
    finite = np.abs(reference[np.isfinite(reference)].astype(np.float64))
    assert stats.amax == pytest.approx(finite.max(initial=0.0), rel=1e-6)
    if exact.nonfinite == 0:
        # FP32 differences of FP32 numbers are rounded once.
        assert stats.max_abs == pytest.approx(exact.max_abs, rel=1e-3, abs=1e-37)


def test_a_model_equals_itself():
    model = cnn()
    profile = compare_layers(model, model, _feeds(model))
    assert profile.samples == 2
    assert len(profile.layers) == sum(len(node.output) for node in model.proto.graph.node)
    assert {layer.sqnr_db for layer in profile.layers} == {math.inf}
    assert profile.first_jump is None
    assert profile.missing == ()


def test_fp16_rounding_is_no_jump_and_has_its_type():
    model = cnn()
    profile = compare_layers(model, _fp16(model), _feeds(model))
    assert profile.first_jump is None
    assert {layer.type for layer in profile.layers} == {"fp16"}, "the restored output as well"
    assert all(layer.sqnr_db > 45 for layer in profile.layers)
    by_tensor = {layer.tensor: (layer.node, layer.op) for layer in profile.layers}
    assert by_tensor["logits"] == ("n_logits", "Gemm"), "not the cast that restores the output"


def test_the_first_jump_is_where_values_overflow():
    model = _overflow()
    profile = compare_layers(model, _fp16(model, FORCED), _feeds(model))
    jump = profile.first_jump
    assert (jump.node, jump.tensor, jump.to_db) == ("n_twice", "twice", -math.inf)
    assert jump.from_db > 55
    assert [one.node for one in profile.jumps] == ["n_twice"], "what follows only passes it on"
    broken = {layer.tensor for layer in profile.layers if layer.nonfinite}
    assert broken == {"twice", "small", "y"}


def test_a_cancellation_is_a_jump_although_nothing_overflows():
    net = Net()
    x = net.input("x", ["N", 64])
    shifted = net.op("Add", [x, net.const("c", 1000.0)], "shifted")
    back = net.op("Sub", [shifted, net.const("d", 1000.0)], "back")
    net.op("Relu", [back], "y")
    net.output("y", ["N", 64])
    model = net.model()
    profile = compare_layers(model, _fp16(model), _feeds(model))
    assert profile.first_jump.node == "n_back"
    assert profile.first_jump.drop_db > 40


def test_json_has_the_documented_form():
    model = _overflow()
    document = json.loads(
        json.dumps(compare_layers(model, _fp16(model, FORCED), _feeds(model)).as_json())
    )
    assert list(document) == ["schema", "samples", "layers", "first_jump", "missing"]
    assert document["schema"] == "trtforge.layers/1"
    assert set(document["layers"][0]) == {
        *("tensor", "node", "op", "type", "sqnr_db", "max_abs", "reference_amax", "nonfinite"),
        "rescaled_db",
    }
    assert document["first_jump"]["to_db"] == "-inf"
    assert document["layers"][2]["sqnr_db"] == "-inf"


def test_tensors_that_do_not_fit_take_turns_and_give_the_same():
    model = cnn()
    candidate, feeds = _fp16(model), _feeds(model)
    whole = compare_layers(model, candidate, feeds)
    for memory in (1, 20_000, 200_000):
        assert compare_layers(model, candidate, iter(feeds), memory_bytes=memory) == whole


def test_what_is_not_in_both_is_named():
    model, other = cnn(), Net()
    x = other.input("image", ["N", 3, 16, 16])
    other.op("Relu", [x], "stem")
    other.output("stem", ["N", 3, 16, 16])
    profile = compare_layers(model, other.model(), _feeds(model))
    assert profile.layers == ()
    assert profile.missing[0] == "stem", "another shape"
    assert "logits" in profile.missing


def test_nothing_to_compare_is_said():
    model = cnn()
    with pytest.raises(ParityError, match="no inputs") as caught:
        compare_layers(model, model, [])
    assert caught.value.code == "TF0741"
    other = Net()
    other.op("Relu", [other.input("image", ["N", 3, 16, 16], FLOAT)], "else")
    other.output("else", ["N", 3, 16, 16])
    with pytest.raises(ParityError, match="no tensor"):
        compare_layers(model, other.model(), _feeds(model))


def test_verify_shows_the_layers(tmp_path):
    model = _overflow()
    model.save(tmp_path / "m.onnx")
    typed(model, None, FORCED).model.save(tmp_path / "t.onnx")
    paths = [str(tmp_path / "t.onnx"), "--against", str(tmp_path / "m.onnx"), "--layers"]
    done = CliRunner().invoke(cli, ["verify", *paths], standalone_mode=False)
    assert done.return_value == 5
    assert "first jump: Mul 'n_twice' (65.0 dB -> NaN or Inf)" in done.output
    assert "y       Relu      fp16  -inf" in done.output
    done = CliRunner().invoke(cli, ["verify", *paths, "--json"], standalone_mode=False)
    layers = json.loads(done.output)["layers"]
    assert layers["first_jump"]["node"] == "n_twice"
    assert len(layers["layers"]) == 5


def test_an_embedding_of_rounded_rows_is_no_jump():
    """Nothing in the graph says that the rows that it moves were FP16 before."""
    net = Net()
    table = net.weight("table", 40, 16)
    rows = net.op("Gather", [table, net.input("ids", ["N"], INT64)], "rows")
    net.op("MatMul", [rows, net.weight("w", 16, 4)], "y")
    net.output("y", ["N", 4])
    model = net.model()
    ids = [{"ids": np.arange(start, start + 9)} for start in (0, 20)]
    for kind in ("fp16", "bf16"):
        profile = compare_layers(model, _fp16(model, Precision(type=kind)), ids)
        assert profile.layers[0].tensor == "rows"
        assert 40 < profile.layers[0].sqnr_db < 90
        assert profile.first_jump is None


def test_layers_that_are_quantized_to_fp8_are_said_to_be():
    model, precision = cnn(), Precision(type="fp16", quantize="fp8")
    candidate = emulate(typed(model, ranges("cnn"), precision).model)
    types = {one.op: one.type for one in compare_layers(model, candidate, _feeds(model)).layers}
    assert types["Conv"] == "fp8"
    assert types["Relu"] == "fp16"


def test_what_is_quantized_before_an_uncompared_tensor_is_no_jump_behind_it():
    """A MatMul in FP8 whose result has another name: its bias shows the loss, and has none."""
    made = {
        "a": Producer("cast", "Mul", "fp16", ("x",)),
        "renamed": Producer("product", "MatMul", "fp8", ("a",)),
        "y": Producer("bias", "Add", "fp16", ("renamed",)),
    }
    assert not [drop for drop in find_drops({"a": 66.0, "y": 25.0}, made) if drop.is_jump]
    (jump,) = [drop for drop in find_drops({"a": 66.0, "y": 10.0}, made) if drop.is_jump]
    assert jump.node == "bias"
    assert jump.from_db == pytest.approx(24.1, abs=0.1)


def test_layers_need_two_onnx_files(tmp_path):
    (tmp_path / "t.engine").write_bytes(b"engine")
    _overflow().save(tmp_path / "m.onnx")
    with pytest.raises(UsageError, match="--layers") as caught:
        verify(tmp_path / "t.engine", VerifyOptions(against=tmp_path / "m.onnx", layers=True))
    assert caught.value.code == "TF0742"
