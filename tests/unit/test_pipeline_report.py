"""The stage `report`: what it takes from the others, what may be absent, what is in its key."""

import json
import shutil

import numpy as np
import pytest
from report_samples import OPTIMIZE, SAMPLE, not_run, parity

from trtforge.pipeline.stage import Job
from trtforge.pipeline.stages.report import ReportStage
from trtforge.pipeline.store import Entry, Store
from trtforge.precision.cache import CalibrationCache
from trtforge.precision.observers.histogram import Histogram
from trtforge.precision.ranges import TensorRange
from trtforge.precision.state import TensorState
from trtforge.recipe.load import load_recipe


@pytest.fixture
def job(digits, tmp_path):
    for name in ("int8.yaml", "model.onnx", "calib.npz", "test.npz"):
        shutil.copy(digits / name, tmp_path / name)
    loaded = load_recipe(tmp_path / "int8.yaml", ["verify.samples=64"])
    return Job(loaded, loaded.recipe, Store(tmp_path / "store"))


def cache():
    state = TensorState(histogram=Histogram())
    state.update(np.linspace(-3, 3, 1000, dtype=np.float32))
    state.settle()
    ranges = {"x": TensorRange.of(state, 2.5)}
    return CalibrationCache(method="entropy", samples=4, graph_digest="", ranges=ranges).as_json()


@pytest.fixture
def inputs(tmp_path):
    verdicts = {
        "graph_parity": parity(),
        "engine_parity": {"rtx": not_run("no NVIDIA driver")},
        "attest": SAMPLE.attest,
    }
    decision = {"node": "s", "op": "Softmax", "type": "fp32", "reason": "keep rule"}
    precision = {"quantize": None, "cast": {"decisions": [decision]}, "warnings": ["odd"]}
    precision["engine_warnings"] = ["larger"]
    build = {"engine_bytes": 4096, "version": "1.7"}
    contents = {
        "import": {"contract.json": SAMPLE.contract},
        "optimize": {"optimize.json": OPTIMIZE},
        "precision": {
            "precision.json": precision,
            "attest.json": SAMPLE.attested,
            "model.onnx": "weights",
        },
        "verify": {"parity.json": verdicts},
        "calibrate": {"cache.json": cache()},
        "build:rtx": {"build.json": build},
    }
    return {name: entry(tmp_path, name, files) for name, files in contents.items()}


def entry(folder, name, files):
    path = folder / "entries" / name.replace(":", "-")
    path.mkdir(parents=True, exist_ok=True)
    for file, content in files.items():
        (path / file).write_text(json.dumps(content))
    return Entry(name, "key", path, dict.fromkeys(files, "digest"), 0.0, {})


def written(job, inputs, tmp_path, stage):
    out = tmp_path / "out"
    out.mkdir(exist_ok=True)
    stage.run(job, inputs, out, lambda fraction, text: None)
    return (out / "report.html").read_text(), (out / "junit.xml").read_text()


STAGE = ReportStage(("rtx",), measured=True)


def test_findings_of_every_stage_are_on_the_page(job, inputs, tmp_path):
    page, junit = written(job, inputs, tmp_path, STAGE)
    for word in (
        "no NVIDIA driver",
        "keep rule",
        "odd",
        "trtforge build int8.yaml --set verify.samples=64",
        "trtforge verify BUNDLE --against model.onnx --data test.npz",
        "4.0 KiB",
        "magnitudes from 0 to 3.062",
        "single layers were not compared",
        "samples: 64",
    ):
        assert word in page, word
    assert str(tmp_path) not in page
    assert "MACs in int8" in junit
    assert written(job, inputs, tmp_path, STAGE) == (page, junit)


def test_layers_and_a_budget_are_shown_where_they_are(job, inputs, tmp_path):
    verdicts = inputs["verify"].json("parity.json")
    layered = entry(tmp_path, "verify", {"parity.json": verdicts, "layers.json": SAMPLE.layers})
    budget = entry(tmp_path, "budget", {"pareto.json": SAMPLE.budget})
    found = inputs | {"verify": layered, "budget": budget}
    stage = ReportStage(("rtx",), measured=True, budgeted=True)
    page, _ = written(job, found, tmp_path, stage)
    assert "The error first jumps at node /head/gemm" in page
    assert "3 mixes tried" in page
    assert "single layers were not compared" not in page


def test_a_profile_that_was_not_made_says_why(job, inputs, tmp_path):
    verdicts = inputs["verify"].json("parity.json")
    nothing = {"layers": [], "first_jump": None, "reason": "the model is too big"}
    files = {"parity.json": verdicts, "layers.json": nothing}
    found = inputs | {"verify": entry(tmp_path, "verify", files)}
    page, _ = written(job, found, tmp_path, STAGE)
    assert "○ not run: the model is too big" in page


def test_without_ranges_the_page_says_why(job, inputs, tmp_path):
    del inputs["calibrate"]
    page, _ = written(job, inputs, tmp_path, ReportStage(("rtx",), measured=False))
    assert "the recipe quantizes no activations" in page


def test_what_is_consumed_follows_the_recipe():
    assert set(STAGE.consumes) == {
        "import",
        "optimize",
        "precision",
        "verify",
        "calibrate",
        "build:rtx",
    }
    assert "layers.json" in STAGE.consumes["verify"]
    budgeted = ReportStage((), measured=False, budgeted=True)
    assert set(budgeted.consumes) == {"import", "optimize", "precision", "verify", "budget"}


def test_what_is_shown_of_a_recipe_is_in_the_key(job, digits):
    facts = STAGE.facts(job)
    other = load_recipe(job.loaded.path, ["verify.samples=65"])
    assert STAGE.facts(Job(other, other.recipe, job.store)) != facts
    assert json.loads(json.dumps(facts)) == facts
