"""Mixes of the digits network: what they cost, how they are made, against brute force."""

import itertools
import json
import math
from collections import Counter
from functools import lru_cache
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from trtforge.graph.data import ArrayData
from trtforge.graph.model import Model
from trtforge.graph.passes import PassRequest, run_passes
from trtforge.pipeline.budget_samples import Data, Trial, trial_of
from trtforge.pipeline.budgeting import Answer, Question, meet_budget
from trtforge.pipeline.measures import Sqnr
from trtforge.precision.attest import attest
from trtforge.precision.budget import Search, with_rounding
from trtforge.precision.calibrate import CalibrationRequest
from trtforge.precision.cast import typed
from trtforge.precision.mixes import Mix, Mixes, mixes_of, with_bias_shifts
from trtforge.precision.prepare import prepare
from trtforge.precision.rounded import rounded
from trtforge.precision.sensitivity import harms_at_outputs
from trtforge.precision.switches import LayeredModel, layered
from trtforge.recipe.precision import ForceRule
from trtforge.recipe.schema import KeepRule, Precision

DIGITS = Path(__file__).parents[2] / "recipes" / "digits"
SHAPES = {"image": (1, 1, 8, 8)}
KEPT = "/separable*/depthwise/*"
AUTO = Precision.model_validate(
    {"type": "auto", "budget": {"sqnr_db": 40}, "keep": [{"name": KEPT, "type": "fp16"}]}
)
BOUNDS = (35.0, 39.0, 41.0, 43.0, 46.0, 50.0, 60.0)


@lru_cache
def data() -> ArrayData:
    return ArrayData.open(DIGITS / "calib.npz", Model.load(DIGITS / "model.onnx").contract)


@lru_cache
def space() -> Mixes:
    """Six convolutions and products, an addition, and what is no layer; two are kept by a rule."""
    model = run_passes(Model.load(DIGITS / "model.onnx"), PassRequest()).model
    request = CalibrationRequest((), "entropy", samples=64)
    ready = prepare(model, data(), AUTO, request)
    assert ready.cache is not None
    cache = with_bias_shifts(ready.cache, ready.model, AUTO, data())
    return mixes_of(ready.model, cache, AUTO, SHAPES)


@lru_cache
def trial() -> Trial:
    return trial_of(
        Model.load(DIGITS / "model.onnx"), Data(data(), 16, "calibration.data"), "sqnr_db"
    )


@lru_cache(512)
def sqnr(mix: Mix) -> float:
    return trial().value(space().typed(mix).model, Sqnr(0))


@lru_cache
def every_mix() -> tuple[Mix, ...]:
    """All mixes of the layers that have work; the addition stays INT8 in them."""
    options = [unit.types if unit.macs else unit.types[:1] for unit in space().units]
    return tuple(itertools.product(*options))


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a search of all 64 mixes left, so that those here need not run them again."""
    path = tmp_path_factory.mktemp("log") / "mixes"
    lines = [json.dumps({"mix": mix, "value": sqnr(mix)}) for mix in every_mix()]
    path.write_text("\n".join(lines))
    return path


def chosen(bound: float, log: Path) -> Answer:
    question = Question(space(), Sqnr(bound), trial(), 40, log)
    return meet_budget(question, lambda *_: None)


def some_mixes() -> list[Mix]:
    return [space().narrowest(), space().widest(), *every_mix()[5::13]]


def test_units_are_what_has_a_choice_and_rules_are_left_alone() -> None:
    names = [unit.node for unit in space().units]
    assert not [name for name in names if name.startswith("/separable") and "/depthwise/" in name]
    layers = [unit for unit in space().units if unit.types[0] == "int8"]
    assert Counter(unit.op for unit in layers) == {"Conv": 5, "Gemm": 1, "Add": 1}
    assert all(unit.types == ("int8", "fp16") for unit in layers)
    assert all(unit.types == ("fp16",) for unit in space().units if unit not in layers)
    assert set(space().fixed_macs) == {"fp16"}


@pytest.mark.parametrize("index", range(6))
def test_a_mix_has_the_macs_that_the_typed_graph_has(index: int) -> None:
    mix = some_mixes()[index]
    assert space().macs(mix) == dict(attest(space().typed(mix).model, SHAPES).macs)


def test_costs_are_shares_of_fp32_and_grow_with_each_wider_type() -> None:
    one = space()
    assert one.cost(one.widest()) == pytest.approx(0.5)
    assert 0.25 < one.cost(one.narrowest()) < 0.27
    mix = list(one.narrowest())
    for index, unit in enumerate(one.units):
        wider = (*mix[:index], unit.types[-1], *mix[index + 1 :])
        assert one.cost(wider) >= one.cost(tuple(mix))
        assert (one.cost(wider) > one.cost(tuple(mix))) == (len(unit.types) > 1)


def test_the_settled_section_makes_the_same_graph_without_a_budget() -> None:
    for mix in some_mixes()[:4]:
        settled = space().settled(mix)
        assert settled.budget is None
        assert settled.keep[0] == AUTO.keep[0]
        again = typed(space().corrected(mix), space().cache, settled)
        assert again.model.digest() == space().typed(mix).model.digest()


def test_the_lines_for_a_recipe_are_the_settled_section() -> None:
    for mix in some_mixes():
        lines = YAML(typ="safe").load("\n".join(space().rule_lines(mix)))
        settled = space().settled(mix)
        assert Precision.model_validate(lines | {"techniques": settled.techniques}) == settled


def test_names_with_the_letters_of_globs_select_nothing_else() -> None:
    model = Model.load(DIGITS / "model.onnx")
    proto = type(model.proto)()
    proto.CopyFrom(model.proto)
    for node in proto.graph.node:
        node.name = f"{node.name}[*]"
    auto = Precision.model_validate({"type": "auto", "quantize": "none", "budget": {"sqnr_db": 70}})
    one = mixes_of(Model(proto), None, auto, SHAPES)
    mix = ("fp32", *one.widest()[1:])
    assert one.settled(mix).keep == (
        KeepRule(op="Conv", name="/stem/conv/Conv[[][*]]", type="fp32"),
    )
    assert not one.typed(mix).warnings


def test_nothing_quantized_and_everything_wide_are_said_plainly() -> None:
    none = space().settled(space().widest())
    assert (none.type, none.quantize, none.keep) == ("fp16", "none", AUTO.keep)
    wide = space().settled(tuple("fp32" for _ in space().units))
    assert (wide.type, wide.quantize, wide.keep) == ("fp32", "none", AUTO.keep)


def test_what_is_forced_may_be_quantized_and_is_never_fp32() -> None:
    """A force rule says the float type; whether a layer is quantized is the budget's to choose."""
    one = space()
    precision = AUTO.model_copy(update={"force": (ForceRule(op="Conv", type="fp16"),)})
    found = mixes_of(one.model, one.cache, precision, SHAPES)
    layers = [unit for unit in found.units if unit.op == "Conv"]
    assert len(layers) == 5
    assert {unit.types for unit in layers} == {("int8", "fp16")}
    wide = with_rounding(found, {})
    assert {unit.types[-1] for unit in wide.units if unit.op == "Conv"} == {"fp16"}
    assert {unit.types[-1] for unit in wide.units if unit.op != "Conv"} == {"fp32"}
    made = found.typed(found.widest()).model.proto.graph.node
    assert "QuantizeLinear" not in {node.op_type for node in made}


def test_an_addition_is_not_quantized_for_itself() -> None:
    """It fuses into a quantized convolution, or nothing is, and the mix is the one without."""
    one = space()
    add = next(i for i, unit in enumerate(one.units) if unit.op == "Add")
    assert one.units[add].types[0] == "int8"
    alone = (*one.widest()[:add], "int8", *one.widest()[add + 1 :])
    assert one.effective(alone) == one.widest()
    assert one.effective(one.narrowest()) == one.narrowest()
    assert not [node for node in one.typed(alone).model.proto.graph.node if "Quant" in node.op_type]
    search = Search(lambda _, mix: (1.0, True), 9)
    assert search.meets(one, alone)
    assert list(search.tried) == [one.widest()]


def test_biases_are_corrected_for_what_is_quantized_and_for_nothing_else() -> None:
    one = space()
    assert one.cache is not None
    assert len(one.cache.bias_shifts) == 6
    assert one.corrected(one.widest()) is one.model
    gemm = next(i for i, unit in enumerate(one.units) if unit.op == "Gemm")
    mix = (*one.widest()[:gemm], "int8", *one.widest()[gemm + 1 :])
    changed = one.corrected(mix)
    biases = {node.name: list(node.input) for node in changed.proto.graph.node}
    for node in one.model.proto.graph.node:
        if len(node.input) == 3:
            before, after = (
                one.model.initializer(node.input[2]),
                changed.initializer(biases[node.name][2]),
            )
            assert (before != after).any() == (node.op_type == "Gemm"), node.name


def test_the_search_is_within_two_percent_of_the_best_of_all_mixes(log: Path) -> None:
    """64 mixes of six layers, each made and run; the search may try the usual 40."""
    assert len(every_mix()) == 64
    for bound in BOUNDS:
        answer = chosen(bound, log)
        assert answer.chosen.value == pytest.approx(sqnr(answer.chosen.mix))
        assert answer.chosen.value >= bound
        assert len(answer.tried) <= 40
        costs = [space().cost(mix) for mix in every_mix() if sqnr(mix) >= bound]
        assert answer.chosen.cost <= min(costs) * 1.02, bound


def test_a_tighter_bound_never_costs_less(log: Path) -> None:
    costs = [chosen(bound, log).chosen.cost for bound in BOUNDS]
    assert costs == sorted(costs)
    assert costs[0] == space().cost(space().narrowest())
    assert len(set(costs)) >= 5


def harms(found: LayeredModel) -> dict[str, float]:
    """What the other form of each layer does to the outputs, dB, by the layer's output."""
    values = harms_at_outputs(found, data(), 16)
    return {layer.output: value for layer, value in zip(found.layers, values, strict=True)}


def test_the_harm_of_a_layer_is_that_of_the_mix_that_quantizes_it_alone() -> None:
    found = harms(space().layered())
    layers = [unit for unit in space().units if unit.types[0] == "int8"]
    assert set(found) == {unit.output for unit in layers}
    for unit in [unit for unit in layers if unit.macs]:
        mix = ["int8" if one is unit else one.types[-1] for one in space().units]
        assert found[unit.output] == pytest.approx(sqnr(tuple(mix)), abs=1.0), unit.node


def test_correcting_biases_takes_harm_away() -> None:
    one = space()
    plain = harms(layered(one.model, one.cache, one.precision))
    less = harms(one.layered())
    assert sum(less.values()) > sum(plain.values()) + 1
    assert all(less[name] > plain[name] - 0.5 for name in plain)


def test_the_harms_of_rounding_add_up_to_what_fp16_does() -> None:
    """Each rounded tensor and weight counts once, with the node that computes or reads it."""
    found = harms(rounded(space().model, {unit.output for unit in space().units}, "fp16"))
    assert len(found) == len(space().units)
    total = -10 * math.log10(sum(10 ** (-value / 10) for value in found.values()))
    assert total == pytest.approx(sqnr(space().widest()), abs=3.0)
