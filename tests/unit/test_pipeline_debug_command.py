"""`trtforge debug` as a command: recipes, bundles, files, what is refused, engines."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from debug_faults import (
    attention_logits,
    overflow,
    planted,
    rounded_constant,
    subject_of_model,
    vanishing_variance,
)
from models_precision import Net

from trtforge.cli.main import cli
from trtforge.errors import ForgeError, MissingError, UsageError
from trtforge.graph.data import ArrayData
from trtforge.graph.model import Model
from trtforge.pipeline.debug import debug, examine
from trtforge.pipeline.debug_subject import DebugOptions
from trtforge.precision.cast import typed
from trtforge.recipe.load import load_recipe
from trtforge.recipe.precision import Precision


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
    types = {one["node"]: one["type"] for one in document["layers"]["layers"]}
    assert (types["n_m1"], types["n_m2"], types["n_t1"]) == ("int8", "fp16", "fp16")
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
    model, _ = planted(overflow)
    model.save(tmp_path / "m.onnx")
    typed(model, None, Precision(type="fp16")).model.save(tmp_path / "t.onnx")
    with pytest.raises(UsageError, match="original is needed"):
        debug(tmp_path / "t.onnx")
    result = debug(tmp_path / "t.onnx", DebugOptions(against=tmp_path / "m.onnx"))
    assert result.outcome == "nothing_to_do", "what overflows is kept wide by itself"


def test_what_no_width_mends_is_said(tmp_path):
    model, _ = planted(overflow)
    other, _ = planted(attention_logits)
    subject = subject_of_model(model, tmp_path)
    other.save(subject.question.reference)
    result = examine(subject, DebugOptions())
    assert (result.outcome, result.rules, result.exit_status) == ("not_found", (), 5)
    assert result.evaluations <= DebugOptions().evaluations
    assert result.after.verdict == "fail", "that of every node wide"


def test_a_limit_that_is_too_low_is_said(tmp_path):
    model, _ = planted(vanishing_variance)
    result = examine(subject_of_model(model, tmp_path), DebugOptions(evaluations=2))
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
    from trtforge.precision.emulate import emulate

    class Emulated(OnnxRuntimeRunner):
        def __init__(self, source):
            assert source.engine.stat().st_size > 1000
            assert source.backend == "tensorrt_rtx"
            typed = Model.load(source.engine.with_name("model.onnx"))
            super().__init__(emulate(typed), name=source.backend)

        @staticmethod
        def unavailable_reason():
            return None

    monkeypatch.setattr(engines, "EngineRunner", Emulated)
    model, culprits = planted(rounded_constant)
    result = examine(subject_of_model(model, tmp_path), DebugOptions(backend="tensorrt_rtx"))
    assert {one.node for one in result.culprits} == culprits


def test_data_is_used(tmp_path):
    model, _ = planted(overflow)
    np.savez(tmp_path / "d.npz", x=np.ones((8, 8), np.float32))
    subject = subject_of_model(model, tmp_path, data=tmp_path / "d.npz")
    assert isinstance(subject.question.data, ArrayData)
    assert examine(subject, DebugOptions()).before.cases == {"data": 1}
