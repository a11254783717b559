"""Which techniques run, in which order, on what; what they leave of a cache."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from precision_samples import SHAPES, net, samples_for

from trtforge.errors import UsageError
from trtforge.graph.inputs import random_feeds
from trtforge.pipeline.events import Warned
from trtforge.pipeline.steps import Steps, left_behind
from trtforge.precision.calibrate import CalibrationRequest
from trtforge.precision.cast import quantized_only, typed
from trtforge.precision.prepare import Prepared, prepare
from trtforge.precision.techniques import AFTER, BEFORE, DEFAULT
from trtforge.precision.techniques.job import TechniqueJob, chosen_techniques, run_techniques
from trtforge.recipe.schema import Precision

INT8 = Precision(quantize="int8")


def with_techniques(*names: str) -> Precision:
    return INT8.model_copy(update={"techniques": names})


def prepared(precision: Precision, name: str = "cnn", method: str = "mse") -> Prepared:
    model = net(name)
    data = samples_for(model, random_feeds(model, SHAPES[name], seed=1))
    return prepare(model, data, precision, CalibrationRequest((), method))


def test_the_order_is_that_of_the_tables_not_of_the_recipe() -> None:
    asked = with_techniques("bias-correction", "mse-weights", "smoothquant", "equalize")
    assert chosen_techniques(asked) == (
        "equalize",
        "smoothquant",
        "mse-weights",
        "bias-correction",
    )
    assert chosen_techniques(INT8) == tuple(n for n in BEFORE | AFTER if n in DEFAULT["int8"])
    assert chosen_techniques(INT8.model_copy(update={"techniques": "none"})) == ()
    assert chosen_techniques(Precision()) == ()


def test_an_unknown_technique_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UsageError) as caught:
        prepared(with_techniques("bias_correction"))
    assert caught.value.code == "TF0538"
    assert "bias-correction" in str(caught.value.hint)


@pytest.mark.parametrize("name", [name for name in (*BEFORE, *AFTER) if name != "gptq"])
def test_without_samples_or_ranges_nothing_happens(name: str) -> None:
    job = TechniqueJob(net("cnn"), None, INT8)
    run_techniques((name,), job)
    assert job.model is net("cnn")
    assert job.cache is None
    assert job.notes == [f"{name}: nothing to do"]


@pytest.mark.parametrize("network", list(SHAPES))
@pytest.mark.parametrize("name", ["all", "default"])
def test_whatever_ran_the_result_quantizes_and_keeps_its_contract(name: str, network: str) -> None:
    every = tuple(one for one in (*BEFORE, *AFTER) if one != "gptq")
    found = prepared(with_techniques(*every) if name == "all" else INT8, network)
    assert found.cache is not None
    quantized = quantized_only(found.model, found.cache, INT8)[0]
    assert quantized.contract == net(network).contract
    assert len(found.notes) == (len(every) if name == "all" else len(DEFAULT["int8"]))


def test_tensorrt_rtx_builds_what_techniques_leave(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    every = with_techniques(*(one for one in (*BEFORE, *AFTER) if one != "gptq"))
    files = []
    for network in ("cnn", "transformer"):
        found = prepared(every, network)
        path = tmp_path / f"{network}.onnx"
        typed(found.model, found.cache, every.model_copy(update={"type": "fp16"})).model.save(path)
        files.append(str(path))
    program = Path(__file__).parent.parent / "precision_build.py"
    done = subprocess.run(
        [sys.executable, str(program), *files], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert [json.loads(line)["errors"] for line in done.stdout.splitlines()] == [[], []]


def test_the_cache_belongs_to_the_model_that_was_calibrated() -> None:
    untouched = prepared(with_techniques("mse-weights", "bias-correction"))
    assert untouched.cache is not None
    assert untouched.cache.graph_digest == net("cnn").digest()
    assert untouched.model.digest() != net("cnn").digest()
    scaled = prepared(with_techniques("equalize"))
    assert scaled.cache is not None
    assert scaled.cache.graph_digest == scaled.model.digest() != net("cnn").digest()


def test_results_do_not_depend_on_how_often_or_in_which_company_they_are_made() -> None:
    one, other = prepared(INT8), prepared(INT8)
    assert one.model.digest() == other.model.digest()
    assert one.cache == other.cache


def test_progress_is_told() -> None:
    told: list[tuple[float, str]] = []
    model = net("cnn")
    data = samples_for(model, random_feeds(model, SHAPES["cnn"], seed=1))
    every = with_techniques(*(one for one in (*BEFORE, *AFTER) if one != "gptq"))
    request = CalibrationRequest((), "mse")
    prepare(model, data, every, request, lambda share, text: told.append((share, text)))
    assert all(0 <= share <= 1 for share, _ in told)
    for name in ("channels", "rounding", "bias-correction", "refine-scales"):
        assert any(text.startswith(name) for _, text in told)


@pytest.mark.parametrize(
    ("during", "is_kept"), [("channels", False), ("minmax", True), ("bias-correction", False)]
)
def test_ctrl_c_promises_to_go_on_only_where_something_was_measured(
    during: str, is_kept: bool, tmp_path: Path
) -> None:
    model, checkpoint = net("cnn"), tmp_path / "cache.json"
    data = samples_for(model, random_feeds(model, {"image": (200, 3, 16, 16)}, seed=1))
    precision = with_techniques("equalize", "bias-correction")
    request = CalibrationRequest((), "minmax", checkpoint=checkpoint)
    told: list[object] = []

    def press(_share: float, text: str) -> None:
        if text.startswith(during):
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt), Steps(told.append).resumable(checkpoint):
        prepare(model, data, precision, request, press)
    assert bool(left_behind(checkpoint)) == is_kept
    warnings = [event.text for event in told if isinstance(event, Warned)]
    assert len(warnings) == is_kept
    assert all("the same command goes on from there" in text for text in warnings)


def test_mse_weights_fixes_scales_and_leaves_weights_alone() -> None:
    found = prepared(with_techniques("mse-weights"))
    assert found.cache is not None
    assert len(found.cache.weight_scales["w_stem"]) == 16
    before, after = net("cnn").initializer("w_stem"), found.model.initializer("w_stem")
    np.testing.assert_array_equal(before, after)
