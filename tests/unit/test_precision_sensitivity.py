"""Layers ranked by the harm that quantizing each of them does, against brute force."""

import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from models_precision import Net
from precision_samples import SHAPES, Samples, net, ranges, samples_for, sqnr_db
from ruamel.yaml import YAML

from trtforge.errors import ForgeError
from trtforge.graph.execute import Session
from trtforge.graph.inputs import random_feeds
from trtforge.graph.model import Model
from trtforge.precision.cache import CalibrationCache
from trtforge.precision.calibrate import CalibrationRequest, calibrate
from trtforge.precision.harm import LayerHarm, SensitivityReport
from trtforge.precision.quantize import candidate_tensors, quantize
from trtforge.precision.sensitivity import SensitivityRequest, sensitivity
from trtforge.precision.switches import layered
from trtforge.precision.weight_only import quantize_weights
from trtforge.recipe.schema import KeepRule, Precision

INT8 = Precision(quantize="int8")
NETS = ("cnn", "transformer", "control_flow")
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
LOCAL = SensitivityRequest(method="local")

Feeds = dict[str, np.ndarray]


def held_out(name: str) -> Samples:
    model = net(name)
    return samples_for(model, random_feeds(model, SHAPES[name], seed=7))


def calibrated(model: Model, feeds: Feeds, precision: Precision = INT8) -> CalibrationCache:
    request = CalibrationRequest(candidate_tensors(model, precision), "minmax")
    return calibrate(model, samples_for(model, feeds), request)


def outputs(model: Model, data: Samples) -> Feeds:
    """Each sample alone, then put together."""
    session = Session(model)
    runs = [session.run(feeds) for feeds in data.batches(data.static_batch or 1)]
    return {name: np.concatenate([run[name] for run in runs]) for name in session.output_names}


def worst_db(expected: Feeds, got: Feeds) -> float:
    return min(sqnr_db(expected[name], got[name]) for name in expected)


def parsed(lines: list[str]) -> dict[str, Any]:
    return dict(YAML(typ="safe").load("\n".join(lines)))


def by_name(report: SensitivityReport) -> dict[str, LayerHarm]:
    return {layer.node: layer for layer in report.layers}


@pytest.mark.parametrize("name", NETS)
def test_the_harm_at_the_outputs_is_that_of_quantizing_the_layer_alone(name: str) -> None:
    model, cache, data = net(name), ranges(name), held_out(name)
    report = sensitivity(model, cache, data, INT8)
    assert report.samples == min(8, data.count)
    used = Samples({n: v[: report.samples] for n, v in data.arrays.items()}, data.static_batch)
    expected = outputs(model, used)
    weighted = [layer for layer in report.layers if layer.op in WEIGHTED]
    brute = {}
    for layer in weighted:
        others = tuple(
            KeepRule(op=other.op, name=other.node)
            for other in report.layers
            if other.node != layer.node
        )
        alone, made = quantize(model, cache, Precision(quantize="int8", keep=others))
        assert [d.node for d in made.decisions if d.action == "quantized"] == [layer.node]
        brute[layer.node] = worst_db(expected, outputs(alone, used))
        assert layer.output_sqnr_db == pytest.approx(brute[layer.node], abs=0.01)
    assert len(weighted) >= 2
    assert sorted(brute, key=lambda node: brute[node]) == [layer.node for layer in weighted]


@pytest.mark.parametrize("name", NETS)
def test_all_layers_switched_on_are_the_quantized_model(name: str) -> None:
    model, cache, data = net(name), ranges(name), held_out(name)
    twin = layered(model, cache, INT8).switched()
    session = Session(twin.model)
    feeds = next(data.batches(data.static_batch or 1))
    everything = session.run({**feeds, twin.mask: np.ones(len(twin.layers), np.bool_)})
    nothing = session.run({**feeds, twin.mask: np.zeros(len(twin.layers), np.bool_)})
    whole = Session(quantize(model, cache, INT8)[0]).run(feeds)
    floats = Session(model).run(feeds)
    for output in floats:
        np.testing.assert_array_equal(everything[output], whole[output])
        np.testing.assert_array_equal(nothing[output], floats[output])
        assert not np.array_equal(whole[output], floats[output])


def test_a_twin_that_begins_in_the_middle_computes_the_same() -> None:
    model, cache, data = net("cnn"), ranges("cnn"), held_out("cnn")
    found = layered(model, cache, INT8)
    whole, rest = found.switched(), found.switched(4, 7)
    assert rest.passed
    assert rest.layers == whole.layers[4:7]
    assert len(rest.model.proto.graph.node) < len(whole.model.proto.graph.node)
    feeds = next(data.batches(2))
    given = Session(model, outputs=rest.passed).run(feeds, rest.passed)
    mask = np.zeros(len(whole.layers), np.bool_)
    mask[[4, 6]] = True
    expected = Session(whole.model).run({**feeds, whole.mask: mask})
    got = Session(rest.model).run({**given, rest.mask: mask[4:7]})
    np.testing.assert_array_equal(got["logits"], expected["logits"])


def test_the_local_harm_is_that_at_the_layers_own_output_with_exact_inputs() -> None:
    model, cache, data = net("cnn"), ranges("cnn"), held_out("cnn")
    report = sensitivity(model, cache, data, INT8, LOCAL)
    assert {layer.output_sqnr_db for layer in report.layers} == {None}
    stem = by_name(report)["n_stem"]
    # The first layer's inputs are exact in any case, so the quantized model shows its harm.
    quantized = quantize(model, cache, INT8)[0]
    feeds = {"image": data.arrays["image"]}
    expected = Session(model, outputs=["stem"]).run(feeds)["stem"]
    got = Session(quantized, outputs=["stem"]).run(feeds)["stem"]
    assert stem.local_sqnr_db == pytest.approx(sqnr_db(expected, got), abs=0.01)
    ranked = [layer.local_sqnr_db for layer in report.layers]
    assert ranked == sorted(ranked)
    assert [layer.rank for layer in report.layers] == list(range(1, len(ranked) + 1))


def test_the_harm_of_a_residual_addition_is_that_of_its_skip_branch() -> None:
    model, cache, data = net("cnn"), ranges("cnn"), held_out("cnn")
    layer = by_name(sensitivity(model, cache, data, INT8))["n_sum1"]
    names = ["b", "stem_relu", "sum1"]
    values = Session(model, outputs=names).run({"image": data.arrays["image"]}, names)
    scale = np.float32(cache.scale("stem_relu", "int8"))
    rounded = np.clip(np.rint(values["stem_relu"] / scale), -128, 127) * scale
    assert layer.op == "Add"
    assert layer.macs == 0
    assert layer.local_sqnr_db == pytest.approx(
        sqnr_db(values["sum1"], values["b"] + rounded), abs=0.01
    )


def planted(where: str) -> tuple[Model, Feeds]:
    """Three layers alike, and an outlier in one of them that per-tensor scales must stretch to."""
    made = Net(4)
    x = made.input("x", ["N", 16, 8, 8])
    for index in range(3):
        made.weight(f"w{index}", 16, 16, 3, 3, fan_in=144)
        if where == "weight" and index == 1:
            made.weights["w1"][:, 5, 0, 0] *= 3000
        if where == "activation" and index == 2:
            made.weights["w2"][:, 5] *= 1e-3  # the outlier is hardly used
        x = made.op("Conv", [x, f"w{index}"], f"conv{index}", pads=[1, 1, 1, 1])
        x = made.op("Relu", [x], f"relu{index}")
        if where == "weight" and index == 0:
            mute = np.ones((1, 16, 1, 1), np.float32)
            mute[0, 5] = 1e-4  # what the outlier meets is small: the output is alike
            x = made.op("Mul", [x, made.const("mute", mute)], "muted")
        if where == "activation" and index == 1:
            spike = np.zeros((1, 16, 8, 8))
            spike[0, 5, 3, 3] = 300
            x = made.op("Add", [x, made.const("spike", spike)], "spiked")
    made.output(x, ["N", 16, 8, 8])
    feeds = {"x": made.random.standard_normal((8, 16, 8, 8)).astype(np.float32)}
    return made.model(), feeds


@pytest.mark.parametrize(("where", "node"), [("weight", "n_conv1"), ("activation", "n_conv2")])
@pytest.mark.parametrize("request_", [None, LOCAL])
def test_a_planted_sensitive_layer_is_first(
    where: str, node: str, request_: SensitivityRequest | None
) -> None:
    model, feeds = planted(where)
    report = sensitivity(model, calibrated(model, feeds), samples_for(model, feeds), INT8, request_)
    first, second = report.layers[:2]
    assert first.node == node
    assert first.harm > 3 * second.harm


def test_keeping_the_most_harmful_layers_makes_the_model_better_and_rules_select_them() -> None:
    model, feeds = planted("activation")
    cache, data = calibrated(model, feeds), samples_for(model, feeds)
    report = sensitivity(model, cache, data, INT8)
    lines = report.keep_rules(1)
    rules = parsed(lines)["keep"]
    assert rules == [{"op": "Conv", "name": "n_conv2", "type": "fp32"}]
    kept = Precision.model_validate({"quantize": "int8", "keep": rules})
    expected = outputs(model, data)
    before = worst_db(expected, outputs(quantize(model, cache, INT8)[0], data))
    after = worst_db(expected, outputs(quantize(model, cache, kept)[0], data))
    assert after > before + 6
    ranked = sensitivity(model, cache, data, kept)
    assert "n_conv2" not in by_name(ranked)
    assert report.keep_rules(0) == []


def test_rules_quote_what_a_glob_would_read_otherwise_and_skip_nodes_without_a_name() -> None:
    layers = tuple(
        LayerHarm(node, "Conv", "y", 10, 0.5, 20.0, None, rank)
        for rank, node in enumerate(['a[0]*"b"', ""], 1)
    )
    lines = SensitivityReport("local", "int8", "fp16", 8, layers).keep_rules(2)
    rules = parsed(lines)["keep"]
    assert rules == [{"op": "Conv", "name": 'a[[]0][*]"b"', "type": "fp16"}]
    assert "no name" in lines[2]
    assert layers[0].node == 'a[0]*"b"'
    only = SensitivityReport("local", "int8", "fp16", 8, layers[1:]).keep_rules(1)
    assert parsed(only)["keep"] is None


def test_the_budget_goes_by_harm_per_multiply_accumulate() -> None:
    def layer(node: str, macs: int, db: float) -> LayerHarm:
        return LayerHarm(node, "Conv", node, macs, macs / 100, 30.0, db, 1)

    layers = (
        layer("big", 90, 20.0),
        layer("small", 10, 23.0),
        layer("add", 0, 40.0),
        layer("exact", 0, math.inf),
    )
    steps = SensitivityReport("output", "int8", "fp32", 8, layers).budget()
    assert [step.layer.node for step in steps] == ["add", "small", "big", "exact"]
    assert [step.macs_kept for step in steps] == pytest.approx([0, 0.1, 1.0, 1.0])
    assert steps[0].sqnr_db == pytest.approx(-10 * math.log10(10**-2.0 + 10**-2.3))
    assert steps[1].sqnr_db == pytest.approx(20.0)
    assert steps[2].sqnr_db == math.inf


def test_the_report_as_json_and_as_a_table() -> None:
    report = sensitivity(net("cnn"), ranges("cnn"), held_out("cnn"), INT8)
    data = json.loads(json.dumps(report.as_json(), allow_nan=False))
    assert data["schema"] == "trtforge.sensitivity/1"
    assert (data["method"], data["quantize"], data["samples"]) == ("output", "int8", 8)
    assert [layer["rank"] for layer in data["layers"]] == list(range(1, len(report.layers) + 1))
    assert math.fsum(layer.macs_share for layer in report.layers) == pytest.approx(1.0)
    lines = report.lines()
    assert len(lines) == 1 + len(report.layers)
    assert lines[1].split()[-1] == report.layers[0].node


def test_a_layer_that_changes_nothing_has_no_finite_db() -> None:
    made = Net(6)
    x = made.input("x", ["N", 4])
    made.op("MatMul", [x, made.const("w", np.eye(4) * 127)], "y")
    made.output("y", ["N", 4])
    model = made.model()
    grid = np.arange(-127, 128, dtype=np.float32)[:, None].repeat(4, 1)
    cache = calibrated(model, {"x": grid})
    report = sensitivity(model, cache, Samples({"x": grid}), INT8, SensitivityRequest(255))
    (layer,) = report.layers
    assert layer.output_sqnr_db == math.inf
    assert layer.harm == 0
    assert layer.as_json()["output_sqnr_db"] is None


@pytest.mark.parametrize("changes", [{"quantize": "fp8"}, {"quantize": "int8", "type": "fp16"}])
def test_other_precisions(changes: dict[str, str]) -> None:
    model, data = net("transformer"), held_out("transformer")
    precision = Precision.model_validate(changes)
    cache = ranges("transformer")
    report = sensitivity(model, cache, data, precision, SensitivityRequest(2))
    assert report.type == precision.type
    assert all(10 < (layer.output_sqnr_db or 0) < 90 for layer in report.layers)


@pytest.mark.parametrize("kind", ["int8_weight_only", "int4_weight_only"])
def test_weights_alone_need_no_ranges(kind: str) -> None:
    model, data = net("transformer"), held_out("transformer")
    precision = Precision.model_validate({"quantize": kind, "block_size": 32})
    report = sensitivity(model, None, data, precision)
    session = layered(model, None, precision).switched()
    everything = np.ones(len(session.layers), np.bool_)
    feeds = next(data.batches(1))
    got = Session(session.model).run({**feeds, session.mask: everything})
    whole = Session(quantize_weights(model, precision)[0]).run(feeds)
    np.testing.assert_array_equal(got["encoded"], whole["encoded"])
    assert {layer.op for layer in report.layers} == {"MatMul"}
    assert math.isfinite(report.layers[0].harm)


def test_ranges_are_asked_for_where_activations_are_quantized() -> None:
    with pytest.raises(ForgeError) as caught:
        sensitivity(net("cnn"), None, held_out("cnn"), INT8)
    assert caught.value.code == "TF0532"


def test_a_batch_that_the_model_fixes() -> None:
    model, cache, data = net("control_flow"), ranges("control_flow"), held_out("control_flow")
    assert data.static_batch is not None
    report = sensitivity(model, cache, data, INT8)
    assert report.samples % data.static_batch == 0


def test_progress_is_told_and_ends_at_one() -> None:
    told: list[float] = []
    sensitivity(
        net("cnn"), ranges("cnn"), held_out("cnn"), INT8, on_progress=lambda f, _: told.append(f)
    )
    assert told == sorted(told)
    assert told[0] > 0
    assert told[-1] == pytest.approx(1.0)


class Counting(Samples):
    """Tells how many samples were read at once."""

    most = 0

    def batches(self, batch: int, limit: int | None = None, start: int = 0) -> Iterator[Feeds]:
        self.most = max(self.most, batch)
        return super().batches(batch, limit, start)


def test_samples_are_read_one_at_a_time() -> None:
    data = Counting(held_out("cnn").arrays)
    sensitivity(net("cnn"), ranges("cnn"), data, INT8, SensitivityRequest(3))
    assert data.most == 1


@pytest.mark.parametrize("asked", [0, 9])
def test_more_samples_than_there_are(asked: int) -> None:
    with pytest.raises(ForgeError) as caught:
        sensitivity(net("cnn"), ranges("cnn"), held_out("cnn"), INT8, SensitivityRequest(asked))
    assert caught.value.code == "TF0523"
    assert "8" in str(caught.value)


@pytest.mark.parametrize(
    "precision",
    [Precision(), Precision(quantize="int8", keep=(KeepRule(name="*"),))],
)
def test_nothing_to_rank(precision: Precision) -> None:
    with pytest.raises(ForgeError) as caught:
        sensitivity(net("cnn"), ranges("cnn"), held_out("cnn"), precision)
    assert caught.value.code == "TF0537"


def test_an_output_that_is_not_finite_by_itself() -> None:
    made = Net(8)
    x = made.input("x", ["N", 4])
    y = made.op("MatMul", [x, made.weight("w", 4, 4)], "y")
    made.op("Log", [made.op("Sub", [y, y], "zero")], "z")
    made.output("z", ["N", 4])
    model = made.model()
    feeds = {"x": np.ones((2, 4), np.float32)}
    with pytest.raises(ForgeError) as caught:
        sensitivity(model, calibrated(model, feeds), Samples(feeds), INT8)
    assert caught.value.code == "TF0524"


def test_outputs_without_floats() -> None:
    made = Net(8)
    x = made.input("x", ["N", 4])
    y = made.op("MatMul", [x, made.weight("w", 4, 4)], "y")
    made.op("ArgMax", [y], "best", axis=1, keepdims=0)
    made.output("best", ["N"], 7)
    model = made.model()
    feeds = {"x": np.random.default_rng(0).standard_normal((2, 4)).astype(np.float32)}
    cache = calibrated(model, feeds)
    with pytest.raises(ForgeError) as caught:
        sensitivity(model, cache, Samples(feeds), INT8)
    assert caught.value.code == "TF0537"
    assert math.isfinite(sensitivity(model, cache, Samples(feeds), INT8, LOCAL).layers[0].harm)
