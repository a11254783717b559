"""`trtforge debug` on planted faults: exactly the planted nodes, in few evaluations."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from models_precision import Net

from trtforge.cli.main import cli
from trtforge.errors import ForgeError, MissingError, UsageError
from trtforge.graph.data import ArrayData
from trtforge.pipeline.compare import VerifyOptions, question_of
from trtforge.pipeline.debug import DebugOptions, debug, examine
from trtforge.pipeline.debug_subject import Subject
from trtforge.precision.cast import typed
from trtforge.recipe.load import load_recipe
from trtforge.recipe.precision import ForceRule, Precision

FORCED = Precision(type="fp16", force=(ForceRule(name="*", type="fp16"),))


def attention_logits(net, x):
    """Logits of up to 1e5 and more, scaled to something small before the softmax."""
    q = net.op("Mul", [x, net.const("q_up", 300.0)], "q")
    k = net.op("Transpose", [net.op("Mul", [x, net.const("k_up", 300.0)], "k_flat")], "k",
               perm=[1, 0])  # fmt: skip
    scores = net.op("MatMul", [q, k], "scores")
    scaled = net.op("Mul", [scores, net.const("scale", 1e-6)], "scaled")
    probabilities = net.op("Softmax", [scaled], "probabilities")
    return net.op("MatMul", [probabilities, x], "context"), {"n_scores", "n_scaled"}


def vanishing_variance(net, x):
    """A spelled norm of small values: their squares are zero in FP16, and so is the epsilon."""
    small = net.op("Mul", [x, net.const("small", 1e-4)], "tiny")
    square = net.op("Mul", [small, small], "square")
    mean = net.op("ReduceMean", [square, net.const("axis", [-1], np.int64)], "mean")
    plus = net.op("Add", [mean, net.const("eps", 1e-12)], "plus")
    root = net.op("Sqrt", [plus], "root")
    normed = net.op("Div", [small, root], "normed")
    return normed, {"n_square", "n_mean", "n_plus", "n_root"}


def additive_mask(net, x):
    """0 * -1e9 is NaN where -1e9 is -Inf."""
    centred = net.op("Sub", [x, net.const("centre", 0.5)], "centred")
    off = net.op("Mul", [net.op("Sign", [net.op("Relu", [centred], "on")], "bit"),
                         net.const("minus", -1e9)], "bias")  # fmt: skip
    attention = net.op("Softmax", [net.op("Add", [x, off], "biased")], "attention")
    return attention, {"n_bias"}


def weight(net, x, name="heavy"):
    """A weight of 1e5 that meets small values."""
    matrix = np.eye(8, dtype=np.float32)
    matrix[0, 0] = 1e5
    column = np.ones(8, np.float32)
    column[0] = 1e-5
    small = net.op("Mul", [x, net.const(f"{name}_small", column)], f"{name}_in")
    return net.op("MatMul", [small, net.const(f"{name}_w", matrix)], name), {f"n_{name}"}


def overflow(net, x, name="burst"):
    """Inf - Inf is NaN, within one node."""
    big = [net.const(f"{name}_{sign}", sign * 70000.0) for sign in (1, -1)]
    return net.op("Sum", [x, *big], name), {f"n_{name}"}


def rounded_constant(net, x, name="slip"):
    """2049 is 2048 in FP16: all finite, and wrong by one."""
    parts = [net.const(f"{name}_a", 2049.0), net.const(f"{name}_b", -2048.0)]
    return net.op("Sum", [x, *parts], name), {f"n_{name}"}


def two(net, x):
    left, first = overflow(net, x)
    right, second = weight(net, x)
    return net.op("Add", [left, right], "joined"), first | second


def three(net, x):
    y, both = two(net, x)
    z, third = rounded_constant(net, y)
    return z, both | third


def _model(fault):
    net = Net(3)
    x = net.input("x", [8, 8])
    h = net.op("Relu", [net.op("MatMul", [x, net.weight("w0", 8, 8)], "first")], "first_relu")
    h = net.op("Add", [h, net.const("shift", 0.1)], "shifted")
    h, planted = fault(net, h)
    h = net.op("MatMul", [h, net.weight("w1", 8, 8)], "second")
    net.op("Tanh", [h], "y")
    net.output("y", [8, 8])
    return net.model(), planted


def _subject(model, folder, precision=FORCED, cache=None, **asked):
    path = folder / "original.onnx"
    model.save(path)
    bounds = VerifyOptions(tolerance=("sqnr_db=30",), **asked)
    return Subject(model, cache, precision, question_of(bounds, path, precision))


FAULTS = [
    attention_logits, vanishing_variance, additive_mask, weight, overflow, rounded_constant,
    two, three,
]  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_exactly_the_planted_nodes_are_named(fault, tmp_path, record_property):
    model, planted = _model(fault)
    result = examine(_subject(model, tmp_path), DebugOptions())
    record_property("evaluations", result.evaluations)
    assert result.before.verdict == "fail"
    assert (result.outcome, {one.node for one in result.culprits}) == ("found", planted)
    assert result.after.verdict == "pass"
    assert result.evaluations <= 12
    assert result.exit_status == 0


def _chain(length, places):
    """A chain of plain nodes, at some places of which something breaks."""
    net = Net(7)
    h = net.input("x", [2, 8])
    planted = set()
    for index in range(length):
        if index in places:
            h, more = (overflow, rounded_constant)[places[index]](net, h, f"bad{index}")
            planted |= more
        elif index % 3 == 0:
            h = net.op("Mul", [h, net.const(f"c{index}", 0.98)], f"t{index}")
        elif index % 3 == 1:
            h = net.op("Add", [h, net.const(f"c{index}", 0.02 * (-1) ** index)], f"t{index}")
        else:
            h = net.op("Neg", [h], f"t{index}")
    net.op("Identity", [h], "y")
    net.output("y", [2, 8])
    return net.model(), planted


@settings(max_examples=5, deadline=None)
@given(st.dictionaries(st.integers(0, 499), st.sampled_from([0, 1]), min_size=1, max_size=3))
def test_among_500_nodes_up_to_three_are_found(tmp_path_factory, places):
    model, planted = _chain(500, places)
    result = examine(_subject(model, tmp_path_factory.mktemp("chain")), DebugOptions())
    assert {one.node for one in result.culprits} == planted
    assert result.evaluations < 40
    assert result.candidates >= 500


def _quantized():
    """Linear layers; what the third reads has an outlier that its weight does not look at."""
    net = Net(5)
    h = net.input("x", ["N", 16])
    for index in range(5):
        weight = net.random.standard_normal((16, 16)) / 4
        if index == 2:
            push = np.zeros(16)
            push[3] = 1e4
            h = net.op("Add", [h, net.const("outlier", push)], "pushed")
            weight[3] = 0
        h = net.op("MatMul", [h, net.const(f"w{index}", weight)], f"m{index}")
        h = net.op("Tanh", [h], f"t{index}")
    net.op("Identity", [h], "y")
    net.output("y", ["N", 16])
    return net.model()


RECIPE = """\
version: 1
name: outlier
model: {onnx: m.onnx}
passes: {use: none}
shapes: {x: {min: [1, 16], opt: [8, 16], max: [8, 16]}}
precision:
  type: fp16   # what is not quantized
  quantize: int8
  techniques: none
  # nothing is kept yet
calibration: {data: calib.npz, method: minmax}
verify:
  data: calib.npz
  tolerance: {sqnr_db: 20}
targets:
  - {name: cpu, backend: onnxruntime}
"""


@pytest.fixture
def recipe(tmp_path):
    _quantized().save(tmp_path / "m.onnx")
    rows = np.random.default_rng(0).standard_normal((32, 16)).astype(np.float32)
    np.savez(tmp_path / "calib.npz", x=rows)
    path = tmp_path / "r.yaml"
    path.write_text(RECIPE)
    return path


def _run(*arguments):
    done = CliRunner().invoke(cli, ["debug", *map(str, arguments)], standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return done


def test_a_recipe_is_debugged_mended_and_then_passes(recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("TRTFORGE_STORE", str(tmp_path / "store"))
    done = _run(recipe, "--write", "-q", "--html", tmp_path / "page.html")
    assert done.return_value == 0
    assert "  - {name: n_m2}  # MatMul: " in done.stdout
    assert "each is needed" in done.stdout
    text = recipe.read_text()
    kept = RECIPE.replace("precision:\n", "precision:\n  keep:\n    - {name: n_m2}\n")
    assert text == kept
    assert [rule.name for rule in load_recipe(recipe).recipe.precision.keep] == ["n_m2"]
    done = _run(recipe, "--write", "--json")
    document = json.loads(done.stdout)
    assert document["schema"] == "trtforge.debug/1"
    assert (document["outcome"], document["evaluations"]) == ("nothing_to_do", 1)
    assert recipe.read_text() == kept
    assert "n_m2" in (tmp_path / "page.html").read_text()


def test_a_bundle_is_debugged_with_its_own_recipe_and_ranges(recipe, tmp_path, monkeypatch):
    from trtforge.pipeline.run import build

    monkeypatch.setenv("TRTFORGE_STORE", str(tmp_path / "store"))
    built = build(recipe, tmp_path / "out", overrides=("verify.tolerance={max_abs: 1000}",))
    options = DebugOptions(
        against=tmp_path / "m.onnx", data=tmp_path / "calib.npz", tolerance=("sqnr_db=20",)
    )
    result = debug(built.bundle, options)
    assert [one.node for one in result.culprits] == ["n_m2"]
    with pytest.raises(UsageError, match="original is needed") as caught:
        debug(built.bundle, DebugOptions())
    assert caught.value.code == "TF0761"


def test_a_typed_file_is_debugged_against_its_original(tmp_path):
    model, _ = _model(overflow)
    model.save(tmp_path / "m.onnx")
    typed(model, None, Precision(type="fp16")).model.save(tmp_path / "t.onnx")
    with pytest.raises(UsageError, match="original is needed"):
        debug(tmp_path / "t.onnx")
    result = debug(tmp_path / "t.onnx", DebugOptions(against=tmp_path / "m.onnx"))
    assert result.outcome == "nothing_to_do", "what overflows is kept wide by itself"


def test_what_no_width_mends_is_said(tmp_path):
    model, _ = _model(overflow)
    other, _ = _model(attention_logits)
    subject = _subject(model, tmp_path)
    other.save(subject.question.reference)
    result = examine(subject, DebugOptions())
    assert (result.outcome, result.rules, result.exit_status) == ("not_found", (), 5)
    assert result.evaluations <= DebugOptions().evaluations


def test_a_limit_that_is_too_low_is_said(tmp_path):
    model, _ = _model(vanishing_variance)
    result = examine(_subject(model, tmp_path), DebugOptions(evaluations=2))
    assert result.outcome in ("gave_up", "not_minimal")
    assert result.evaluations <= 3


@pytest.mark.parametrize(
    ("arguments", "error", "code"),
    [
        (["none.onnx"], UsageError, "TF0712"),
        (["."], UsageError, "TF0713"),
        (["m.onnx", "--write"], UsageError, "TF0766"),
        (["m.onnx", "--write", "--recipe", "no.yaml"], UsageError, "TF0765"),
        (["m.onnx", "--backend", "tensorrt_rtx"], MissingError, "TF0718"),
        (["q.onnx", "--against", "m.onnx"], UsageError, "TF0763"),
        (["fp32.yaml"], UsageError, "TF0762"),
        (["int8.yaml"], UsageError, "TF0763"),
    ],
)
def test_what_cannot_be_debugged_is_refused(recipe, tmp_path, monkeypatch, arguments, error, code):
    from trtforge.engine.runner import EngineRunner

    monkeypatch.setenv("TRTFORGE_STORE", str(tmp_path / "store"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(EngineRunner, "unavailable_reason", staticmethod(lambda: "no GPU"))
    plain = RECIPE.replace("type: fp16 ", "type: fp32 ").replace("quantize: int8", "quantize: none")
    (tmp_path / "fp32.yaml").write_text(plain)
    (tmp_path / "int8.yaml").write_text(RECIPE.replace("  data: calib.npz\n", "", 1))
    if "q.onnx" in arguments:
        from trtforge.pipeline.quantizing import QuantizeOptions, quantize_file
        from trtforge.pipeline.settings import Asked

        asked = Asked(data="calib.npz", techniques="none")
        quantize_file(tmp_path / "m.onnx", tmp_path / "q.onnx", QuantizeOptions(asked))
    with pytest.raises(error) as caught:
        _run(*arguments)
    assert isinstance(caught.value, ForgeError)
    assert caught.value.code == code


def test_engines_answer_in_place_of_the_emulator(tmp_path, monkeypatch):
    """Builds are real (TensorRT-RTX); what runs them here is the emulator, as there is no GPU."""
    from trtforge.engine import runner as engines
    from trtforge.engine.onnxruntime import OnnxRuntimeRunner
    from trtforge.graph.model import Model
    from trtforge.precision.emulate import emulate

    class Emulated(OnnxRuntimeRunner):
        def __init__(self, engine, backend):
            assert engine.stat().st_size > 1000
            assert backend == "tensorrt_rtx"
            super().__init__(emulate(Model.load(engine.with_name("model.onnx"))), name=backend)

        @staticmethod
        def unavailable_reason():
            return None

    monkeypatch.setattr(engines, "EngineRunner", Emulated)
    model, planted = _model(rounded_constant)
    result = examine(_subject(model, tmp_path), DebugOptions(backend="tensorrt_rtx"))
    assert {one.node for one in result.culprits} == planted


def test_data_is_used(tmp_path):
    model, _ = _model(overflow)
    np.savez(tmp_path / "d.npz", x=np.ones((8, 8), np.float32))
    subject = _subject(model, tmp_path, data=tmp_path / "d.npz")
    assert isinstance(subject.question.data, ArrayData)
    assert examine(subject, DebugOptions()).before.cases == {"data": 1}
