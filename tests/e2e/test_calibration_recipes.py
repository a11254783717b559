"""Recipes whose ranges are reused, made up, or were interrupted: what is shipped, what is said."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from running import Finished, environment, trtforge

from trtforge import open_bundle

RECIPE = """\
version: 1
name: digits
model: {{onnx: {digits}/model.onnx}}
shapes:
  image: {{min: [1, 1, 8, 8], opt: [32, 1, 8, 8], max: [256, 1, 8, 8]}}
precision: {{type: fp16, quantize: int8, techniques: none}}
calibration: {calibration}
targets:
  - {{name: cpu, backend: onnxruntime}}
verify:
  data: {digits}/test.npz
  samples: 100
  tolerance: {{sqnr_db: {sqnr_db}}}
"""


class Workplace:
    """A folder with recipes, and a store."""

    def __init__(self, digits: Path, folder: Path) -> None:
        self.digits = digits
        self.folder = folder
        self.store = folder / "store"

    def recipe(self, calibration: str, name: str = "recipe", sqnr_db: float = 25) -> Path:
        path = self.folder / f"{name}.yaml"
        path.write_text(RECIPE.format(digits=self.digits, calibration=calibration, sqnr_db=sqnr_db))
        return path

    def run(self, *arguments: object) -> Finished:
        return trtforge(*arguments, store=self.store, cwd=self.folder)

    def build(self, recipe: Path, *more: str) -> tuple[Path, str]:
        done = self.run("build", recipe, "--out", self.folder / "bundles", "--json", *more)
        assert done.status == 0, done.stderr
        (built,) = json.loads(done.stdout)["builds"]
        return Path(built["bundle"]), done.stderr


@pytest.fixture
def work(digits: Path, tmp_path: Path) -> Workplace:
    return Workplace(digits, tmp_path)


def test_a_cache_is_reused_and_needs_no_data(work: Workplace) -> None:
    first = work.recipe(f"{{data: {work.digits}/calib.npz, method: mse}}")
    measured, _ = work.build(first)
    made = work.run("calibrate", first, "-o", "calibration")
    assert made.status == 0, made.stderr
    for name in ("cache.json", "tensorrt.calib"):
        reused, _ = work.build(work.recipe(f"{{reuse: calibration/{name}}}", name="reuse"))
        facts = open_bundle(reused).manifest.calibration
        assert facts is not None
        if name == "cache.json":
            assert (reused / "model.onnx").read_bytes() == (measured / "model.onnx").read_bytes()
            assert (facts.method, facts.samples, facts.tensors) == ("mse", 256, 8)
            assert [one.source for one in facts.data] == ["calib.npz"]
        else:
            assert (facts.samples, facts.data) == (0, ())
            assert facts.origin.startswith("TRT-")


def test_a_cache_tells_how_the_graph_was_reshaped(work: Workplace) -> None:
    """With the techniques that INT8 has by default, two of which need data the first time."""
    default = ("--set", "precision.techniques=default")
    first = work.recipe(f"{{data: {work.digits}/calib.npz, method: mse}}")
    measured, _ = work.build(first, *default)
    made = work.run("calibrate", first, "-o", "calibration", *default)
    assert made.status == 0, made.stderr
    again = work.recipe("{reuse: calibration/cache.json}", name="reuse")
    reused, _ = work.build(again, *default)
    assert (reused / "model.onnx").read_bytes() == (measured / "model.onnx").read_bytes()
    refused = work.run("build", again)  # the recipe says `techniques: none`
    assert refused.status == 2
    assert "it was measured with equalize, which is not asked for" in refused.stderr


def test_the_key_holds_the_reused_cache(work: Workplace) -> None:
    first = work.recipe(f"{{data: {work.digits}/calib.npz}}")
    assert work.run("calibrate", first, "-o", "calibration").status == 0
    recipe = work.recipe("{reuse: calibration/cache.json}", name="reuse")
    work.build(recipe)
    cache = work.folder / "calibration" / "cache.json"
    cache.write_text(cache.read_text().replace('"method": "mse"', '"method": "other"'))
    planned = work.run("plan", recipe)
    assert "reused cache changed" in planned.stdout, planned.stdout


def test_a_stale_cache_is_refused_with_reasons_unless_the_recipe_accepts_it(
    work: Workplace,
) -> None:
    first = work.recipe(f"{{data: {work.digits}/calib.npz}}")
    assert work.run("calibrate", first, "-o", "calibration").status == 0
    cache = work.folder / "calibration" / "cache.json"
    cache.write_text(cache.read_text().replace('"graph_digest": "sha256:', '"graph_digest": "x'))
    refused = work.run("build", work.recipe("{reuse: calibration/cache.json}"))
    refused.assert_clean_failure(2)
    assert "error[TF0529]" in refused.stderr
    assert "measured on another graph" in refused.stderr
    accepted = work.recipe("{reuse: calibration/cache.json, accept_stale: true}")
    bundle, err = work.build(accepted)
    assert "warning: the reused calibration cache 'cache.json' is stale" in err
    report = (bundle / "reports" / "report.html").read_text()
    assert "is stale: it was measured on another graph" in report


def test_a_reused_cache_must_be_there(work: Workplace) -> None:
    done = work.run("build", work.recipe("{reuse: none.json}"))
    done.assert_clean_failure(2)
    assert "none.json" in done.stderr
    done = work.run("build", work.recipe("{data: none.npz, accept_stale: true}"))
    done.assert_clean_failure(2)
    assert "accept_stale is about the cache of `reuse`" in done.stderr


def test_synthetic_samples_are_told_of_everywhere(work: Workplace) -> None:
    bundle, err = work.build(work.recipe("{synthetic: true}", sqnr_db=0))
    assert "warning: the ranges come from synthetic samples" in err
    facts = open_bundle(bundle).manifest.calibration
    assert facts is not None
    assert facts.synthetic
    assert facts.samples == 32
    report = (bundle / "reports" / "report.html").read_text()
    assert report.count("The ranges come from synthetic samples") == 1
    measured, err = work.build(work.recipe(f"{{data: {work.digits}/calib.npz}}"))
    assert "synthetic" not in err
    manifest = open_bundle(measured).manifest
    assert manifest.calibration is not None
    assert not manifest.calibration.synthetic
    assert "synthetic samples" not in (measured / "reports" / "report.html").read_text()


SLOW = """
import numpy as np, time

class Slow:
    calls = 0
    def __iter__(self):
        Slow.calls += 1
        for number in range(600):  # they are read in blocks of 256
            if Slow.calls > 1:
                time.sleep(0.003)
            yield {"image": np.random.default_rng(number).random((1, 1, 8, 8), np.float32)}

samples = Slow()
"""


def test_a_build_that_was_interrupted_goes_on_where_it_was(work: Workplace) -> None:
    (work.folder / "slow.py").write_text(SLOW)
    recipe = work.recipe("{data: {python: slow:samples}}", sqnr_db=0)
    process = subprocess.Popen(
        [sys.executable, "-m", "trtforge.cli.main", "build", recipe, "-v"],
        env=environment(work.store),
        cwd=work.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "samples, " in line and "left" in line:
            break
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert "what was measured is kept in the store; the same command goes on from there" in err
    (left,) = (work.store / "unfinished").iterdir()
    seen = json.loads(left.read_text())["samples"]
    assert 0 < seen < 600
    again = work.run("build", recipe, "-v")
    assert again.status == 0, again.stderr
    assert f" of {600 - seen} samples" in again.stderr
    assert list((work.store / "unfinished").iterdir()) == []
    (bundle,) = (work.folder / "bundles").iterdir()
    whole = Workplace(work.digits, work.folder / "whole")
    whole.folder.mkdir()
    (whole.folder / "slow.py").write_text(SLOW)
    fresh, _ = whole.build(whole.recipe("{data: {python: slow:samples}}", sqnr_db=0))
    caches = [path / "calibration" / "cache.json" for path in (bundle, fresh)]
    assert caches[0].read_bytes() == caches[1].read_bytes()


def test_a_technique_for_weights_alone_gets_samples_and_no_ranges(work: Workplace) -> None:
    text = work.recipe(f"{{data: {work.digits}/calib.npz}}", sqnr_db=15).read_text()
    models = []
    for techniques in ("none", "[gptq]"):
        # FP32 beside it: types, too, would be chosen by what samples show.
        precision = "type: fp32, quantize: int4_weight_only, block_size: 32, "
        precision += f"techniques: {techniques}"
        recipe = work.folder / "weights.yaml"
        recipe.write_text(text.replace("type: fp16, quantize: int8, techniques: none", precision))
        bundle, _ = work.build(recipe)
        assert open_bundle(bundle).manifest.calibration is None
        assert not (bundle / "calibration").exists()
        models.append((bundle / "model.onnx").read_bytes())
        planned = work.run("plan", recipe).stdout
        assert ("calibrate" in planned) == (techniques != "none")
    assert models[0] != models[1]


def test_an_unknown_technique_has_its_place(work: Workplace) -> None:
    path = work.recipe(f"{{data: {work.digits}/calib.npz}}")
    path.write_text(path.read_text().replace("techniques: none", "techniques: [gpt]"))
    for command in ("build", "plan"):
        done = work.run(command, path)
        done.assert_clean_failure(2)
        assert "error[TF0538]: there is no technique 'gpt'" in done.stderr
        assert "recipe.yaml:6:" in done.stderr
