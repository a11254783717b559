"""Budgets of recipes: what is chosen, what is left behind, what is refused, and going on."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from running import environment, trtforge

from trtforge.errors import BudgetError, DataError, ForgeError, RecipeError
from trtforge.graph.execute import Session
from trtforge.graph.model import Model
from trtforge.pipeline.budget_samples import Trial
from trtforge.pipeline.events import Event, StageProgress, Warned
from trtforge.pipeline.plan import plan, stages_of
from trtforge.pipeline.run import BuildOptions, job_of, run_stages
from trtforge.pipeline.store import Entry
from trtforge.precision.emulate import emulate
from trtforge.recipe.schema import Precision, json_schema

UP_TO_PRECISION = ("import", "optimize", "calibrate", "budget", "precision")

HELD = 96
"""Samples of the test data that are used."""

PROGRAM = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = sys.argv[1:3]
import trtforge.pipeline.stage
from test_pipeline_budget import chosen, dies_at

trtforge.pipeline.stage.code_digest = lambda room: room  # whoever edits meanwhile changes no key
chosen(Path(sys.argv[3]), Path(sys.argv[4]), "sqnr_db: 42", emit=dies_at(int(sys.argv[5])))
"""


def dies_at(count: int) -> Any:
    seen = Counter[str]()

    def emit(event: Event) -> None:
        if isinstance(event, StageProgress) and event.text.startswith("mix "):
            seen["mix"] += 1
            if seen["mix"] == count:
                os.kill(os.getpid(), signal.SIGKILL)

    return emit


def chosen(
    folder: Path, store: Path, budget: str, *overrides: str, emit: Any = lambda _: None
) -> dict[str, Entry]:
    """Run the stages of a recipe with this budget as far as the typed graph."""
    changes = (f"precision.budget={{{budget}}}", *overrides)
    options = BuildOptions(store=store, overrides=changes)
    job = job_of(folder / "budget.yaml", options, emit)
    stages = [stage for stage in stages_of(job.recipe) if stage.kind in UP_TO_PRECISION]
    entries, _ = run_stages(job, stages, options)
    return entries


def pareto(entries: dict[str, Entry]) -> dict[str, Any]:
    table: dict[str, Any] = entries["budget"].json("pareto.json")
    return table


def point(entries: dict[str, Entry]) -> dict[str, Any]:
    (found,) = [one for one in pareto(entries)["points"] if one["chosen"]]
    assert found["meets"]
    return dict(found)


def settled(entries: dict[str, Entry]) -> Precision:
    return Precision.model_validate(entries["budget"].json("settled.json")["precision"])


def sqnr_of(entries: dict[str, Entry], arrays: np.ndarray) -> float:
    """The typed graph that was stored against the original, sample by sample."""
    candidate = Session(emulate(Model.load(entries["precision"].file("model.onnx"))))
    reference = Session(Model.load(Path(__file__).parents[2] / "recipes/digits/model.onnx"))
    signal_, noise = 0.0, 0.0
    for index in range(len(arrays)):
        feeds = {"image": arrays[index : index + 1]}
        expected = reference.run(feeds)["logits"].astype(np.float64)
        signal_ += float((expected**2).sum())
        noise += float(((expected - candidate.run(feeds)["logits"]) ** 2).sum())
    return 10 * math.log10(signal_ / noise)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all tests here: the digits network is optimized and calibrated once."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def folder(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recipe, its data, and metrics beside it."""
    folder = tmp_path_factory.mktemp("recipe")
    for name in ("model.onnx", "calib.npz"):
        shutil.copy(digits / name, folder / name)
    with np.load(digits / "test.npz") as data:
        np.savez(folder / "test.npz", **{name: data[name][:HELD] for name in data.files})
    recipe = (digits / "budget.yaml").read_text()
    for old, new in (
        ("  attest: {min_quantized_macs: 0.5}\n", ""),
        ("samples: 256", "samples: 64"),
    ):
        assert old in recipe
        recipe = recipe.replace(old, new)
    (folder / "budget.yaml").write_text(recipe)
    (folder / "scores.py").write_text(
        "import numpy as np\n"
        "def agreement(reference, candidate):\n"
        "    pairs = zip(reference, candidate, strict=True)\n"
        "    return np.mean([a['logits'].argmax() == b['logits'].argmax() for a, b in pairs])\n"
        "def nearness(reference, candidate, labels):\n"
        "    assert labels is None or len(labels) == len(candidate)\n"
        "    worst = max(abs(a['logits'] - b['logits']).max() "
        "for a, b in zip(reference, candidate))\n"
        "    return -float(worst)\n"
        "def accuracy(reference, candidate, labels):\n"
        "    found = [one['logits'].argmax() for one in candidate]\n"
        "    return float(np.mean(np.array(found) == labels))\n"
        "def fails(reference, candidate):\n"
        "    return 1 / 0\n"
        "def text(reference, candidate):\n"
        "    return 'good'\n"
        "def nothing(reference, candidate):\n"
        "    return float('nan')\n"
        "def writes(reference, candidate):\n"
        "    reference[0]['logits'][:] = 0\n"
        "    return 1.0\n"
        "threshold = 3\n"
    )
    return folder


def test_where_int8_everywhere_will_do_it_is_taken(folder: Path, store: Path) -> None:
    entries = chosen(folder, store, "sqnr_db: 30")
    table = pareto(entries)
    assert (table["schema"], table["measure"], table["bound"]) == (
        "trtforge.budget/1",
        "sqnr_db",
        30,
    )
    assert table["evaluations"] == len(table["points"]) == 1
    assert point(entries)["layers"] == {"int8": 9, "fp16": 8}
    assert set(point(entries)["macs"]) == {"int8"}
    assert settled(entries).keep == ()
    assert settled(entries).quantize == "int8"


def test_layers_become_fp16_where_int8_is_not_enough(folder: Path, store: Path) -> None:
    entries = chosen(folder, store, "sqnr_db: 42")
    table = pareto(entries)
    assert table["reference_cost"] == 1.0
    assert table["searched_on"] == "calibration.data"
    assert 5 < table["evaluations"] == len(table["points"]) <= 40
    assert table["points"] == sorted(table["points"], key=lambda one: one["cost"])
    assert [one["meets"] for one in table["points"]] == [
        one["value"] >= 42 for one in table["points"]
    ]
    best = point(entries)
    dearer = [one["cost"] for one in table["points"] if one["value"] >= 42 + table["margin"]]
    assert best["cost"] <= min(dearer)
    assert 0.25 < best["cost"] < 0.4
    types = Counter(layer["type"] for layer in table["layers"])
    assert types == best["layers"]
    assert set(types) == {"int8", "fp16"}
    harmed = [layer["harm"] for layer in table["layers"] if layer["op"] in ("Conv", "Gemm")]
    assert all(0 < harm < 1 for harm in harmed)
    attested = entries["precision"].json("attest.json")
    batch = 32  # of the recipe's opt shape; mixes are counted for one sample
    assert attested["macs"] == {kind: count * batch for kind, count in best["macs"].items()}
    with np.load(folder / "calib.npz") as data:
        assert sqnr_of(entries, data["image"][:64]) == pytest.approx(best["value"], abs=0.01)
    with np.load(folder / "test.npz") as data:
        found = sqnr_of(entries, data["image"])
    assert found == pytest.approx(table["judged"]["value"], abs=0.01)
    assert (table["judged"]["on"], table["judged"]["samples"]) == ("verify.data", HELD)
    assert found >= 42, "the search went on for what was missing on other samples"
    assert table["judged"]["meets"]
    assert table["margin"] > 0
    text = entries["budget"].file("pareto.txt").read_text()
    assert text.count("<- chosen") == 1
    assert f"  - {{op: {settled(entries).keep[0].op}, name: " in text


def test_nodes_become_fp32_where_fp16_is_not_enough(folder: Path, store: Path) -> None:
    entries = chosen(folder, store, "sqnr_db: 66", "calibration=null", "precision.quantize=none")
    best = point(entries)
    assert best["value"] >= 66
    assert set(best["layers"]) == {"fp16", "fp32"}
    assert 0.5 < best["cost"] < 0.6
    assert {rule.type for rule in settled(entries).keep} == {"fp32"}
    assert pareto(entries)["searched_on"] == "verify.data"
    assert pareto(entries)["judged"] is None
    warnings = entries["precision"].json("precision.json")["warnings"]
    assert any("judged on no other samples" in text for text in warnings)


def test_the_base_may_be_bf16(folder: Path, store: Path) -> None:
    asked = ("precision.type=bf16", "precision.quantize=none", "calibration=null")
    entries = chosen(folder, store, "sqnr_db: 50", *asked)
    assert set(point(entries)["layers"]) == {"bf16", "fp32"}
    assert settled(entries).type == "bf16"


def test_fp8_in_place_of_int8(folder: Path, store: Path) -> None:
    entries = chosen(
        folder,
        store,
        "sqnr_db: 27",
        "precision.quantize=fp8",
        "calibration.method=minmax",
        "targets=[{name: cpu, backend: onnxruntime}]",
    )
    assert set(point(entries)["layers"]) == {"fp8", "fp16"}
    assert settled(entries).quantize == "fp8"


def test_what_cannot_be_met_is_a_failed_budget_with_the_best_mix(folder: Path, store: Path) -> None:
    with pytest.raises(BudgetError) as caught:
        chosen(folder, store, "sqnr_db: 200")
    error = caught.value
    assert (error.code, error.exit_status) == ("TF0560", 6)
    assert "no mix meets sqnr_db 200: the best of 3 has 1" in error.message
    assert "100.0% of the cost of FP32 (17 fp32)" in error.message
    assert "not even the widest types" in str(error.hint)
    assert "the best mix:\ntype: fp32\nquantize: none" in str(error.details)


def test_too_few_evaluations_say_so(folder: Path, store: Path) -> None:
    with pytest.raises(BudgetError, match=r"the best of 1 has 3\d.\d\d dB") as caught:
        chosen(folder, store, "sqnr_db: 42, evaluations: 1")
    assert "raise precision.budget.evaluations" in str(caught.value.hint)


def test_the_command_exits_with_6(folder: Path, store: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    more = ("--set", "precision.budget.sqnr_db=200", "--out", out, "--target", "cpu")
    run = trtforge("build", folder / "budget.yaml", *more, store=store)
    run.assert_clean_failure(6)
    assert "error[TF0560]: no mix meets sqnr_db 200" in run.stderr
    assert "100.00%" in run.stderr
    assert not out.exists()


def test_top1_is_searched_on_labels_of_verify_data(folder: Path, store: Path) -> None:
    entries = chosen(folder, store, "top1_drop: 0.2")
    table = pareto(entries)
    assert (table["measure"], table["searched_on"], table["samples"]) == (
        "top1_drop",
        "verify.data",
        HELD,
    )
    best = point(entries)
    assert best["value"] <= 0.2
    assert best["value"] * HELD / 100 == pytest.approx(round(best["value"] * HELD / 100))


def test_top1_is_searched_on_calibration_data_with_labels_and_judged_on_the_rest(
    folder: Path, store: Path, tmp_path: Path
) -> None:
    with np.load(folder / "test.npz") as data:
        arrays = {name: data[name] for name in data.files}
    np.savez(tmp_path / "labelled.npz", **{name: one[:64] for name, one in arrays.items()})
    np.savez(tmp_path / "held.npz", **{name: one[64:] for name, one in arrays.items()})
    shutil.copy(folder / "model.onnx", tmp_path / "model.onnx")
    shutil.copy(folder / "budget.yaml", tmp_path / "budget.yaml")
    files = ("calibration.data=labelled.npz", "verify.data=held.npz")
    entries = chosen(tmp_path, store, "top1_drop: 0", *files)
    table = pareto(entries)
    assert (table["searched_on"], table["samples"]) == ("calibration.data", 64)
    assert (table["judged"]["on"], table["judged"]["samples"]) == ("verify.data", 32)
    assert point(entries)["value"] <= 0


def test_top1_without_labels_says_where_they_are_looked_for(
    folder: Path, store: Path, tmp_path: Path
) -> None:
    for name in ("model.onnx", "budget.yaml", "calib.npz"):
        shutil.copy(folder / name, tmp_path / name)
    with np.load(folder / "test.npz") as data:
        np.savez(tmp_path / "test.npz", image=data["image"])
    with pytest.raises(DataError, match=r"no samples have any") as caught:
        chosen(tmp_path, store, "top1_drop: 1", "verify.tolerance={sqnr_db: 30}")
    assert (caught.value.code, caught.value.exit_status) == ("TF0563", 2)
    assert "calibration.data or verify.data" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("metric", "bound"),
    [("scores:agreement", 1.0), ("scores.py:agreement", 0.99), ("scores:nearness", -0.08)],
)
def test_a_metric_of_the_users_own(folder: Path, store: Path, metric: str, bound: float) -> None:
    entries = chosen(folder, store, f'metric: "{metric}", at_least: {bound}')
    assert pareto(entries)["measure"] == "metric"
    assert point(entries)["value"] >= bound
    if metric == "scores:nearness":
        assert len(pareto(entries)["points"]) > 2


def test_a_metric_is_given_the_labels(folder: Path, store: Path) -> None:
    asked = ("calibration=null", "precision.quantize=none")
    entries = chosen(folder, store, 'metric: "scores:accuracy", at_least: 0.99', *asked)
    right = point(entries)["value"] * HELD
    assert right == pytest.approx(round(right))


@pytest.mark.parametrize(
    ("metric", "code", "message"),
    [
        ("scores:fails", "TF0541", "the code that scores the outputs failed: ZeroDivisionError"),
        ("scores:writes", "TF0541", "read-only"),
        ("scores:text", "TF0562", "'scores:text' gave a str, not a number"),
        ("scores:nearly", "TF0542", "has nothing of the name 'nearly'"),
        ("scores:threshold", "TF0542", "has 'threshold', which is no function"),
        ("score:nearness", "TF0541", "No module named 'score'"),
        ("other.py:nearness", "TF0542", "there is no file"),
    ],
)
def test_what_is_wrong_with_a_metric_is_one_clear_error(
    folder: Path, store: Path, metric: str, code: str, message: str
) -> None:
    with pytest.raises(DataError) as caught:
        chosen(folder, store, f'metric: "{metric}", at_least: 0')
    assert caught.value.code == code
    assert message in caught.value.message
    assert caught.value.exit_status == 2


def test_a_metric_that_gives_nan_meets_nothing(folder: Path, store: Path) -> None:
    with pytest.raises(BudgetError, match="the best of 3 has nan"):
        chosen(folder, store, 'metric: "scores:nothing", at_least: 0')


@pytest.mark.parametrize("stopped_at", [4])
def test_a_killed_search_goes_on_and_ends_the_same(
    folder: Path, store: Path, tmp_path: Path, stopped_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calm = pareto(chosen(folder, store, "sqnr_db: 42"))
    other = tmp_path / "store"
    monkeypatch.setattr("trtforge.pipeline.stage.code_digest", lambda room: room)
    here = Path(__file__).parent
    arguments = [str(here), str(here.parent), str(folder), str(other), str(stopped_at)]
    run = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], env=environment(other))
    assert run.returncode == -signal.SIGKILL
    (log,) = (other / "unfinished").glob("*.budget.partial")
    with log.open("a") as file:  # what was being written when the power went
        file.write('\n{"mix": ["int8", "fp')
    runs = Counter[str]()
    real = Trial.value

    def counted(self: Trial, *arguments: Any) -> float:
        runs[self.data.role] += 1
        return real(self, *arguments)

    monkeypatch.setattr(Trial, "value", counted)
    assert pareto(chosen(folder, other, "sqnr_db: 42")) == calm
    assert runs["calibration.data"] == calm["evaluations"] - stopped_at
    assert list((other / "unfinished").iterdir()) == []


def test_an_interrupted_search_says_that_it_goes_on(folder: Path, tmp_path: Path) -> None:
    told: list[str] = []

    def emit(event: Event) -> None:
        if isinstance(event, Warned):
            told.append(event.text)
        if isinstance(event, StageProgress) and event.text.startswith("mix 2"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        chosen(folder, tmp_path, "sqnr_db: 42", emit=emit)
    assert any("in the store; the same command goes on from there" in text for text in told)


def test_progress_counts_mixes_and_tells_the_time_left(folder: Path, tmp_path: Path) -> None:
    told: list[StageProgress] = []

    def emit(event: Event) -> None:
        if isinstance(event, StageProgress) and event.stage == "budget":
            told.append(event)

    chosen(folder, tmp_path, "sqnr_db: 42, evaluations: 12", emit=emit)
    lines = [event.text for event in told if event.text.startswith("mix ")]
    assert lines[0].startswith("mix 1 of at most 12: 3")
    assert all(line.endswith(" s left") for line in lines)
    assert len(lines) <= 12


def test_another_bound_searches_again_and_calibrates_no_more(folder: Path, store: Path) -> None:
    chosen(folder, store, "sqnr_db: 30")
    options = BuildOptions(store=store, overrides=("precision.budget={sqnr_db: 31.5}",))
    rows = {row.name: row.outcome for row in plan(job_of(folder / "budget.yaml", options))}
    assert rows["calibrate"] == "hit"
    assert rows["budget"] == "run"
    assert rows["precision"] == "unknown"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("precision={type: auto}",), "type: auto chooses types by a budget, and there is none"),
        (("precision.budget={}",), "a budget needs 'sqnr_db', 'top1_drop' or 'metric'"),
        (
            ("precision.budget={sqnr_db: 3, top1_drop: 1}",),
            "a budget has one measure, this one has sqnr_db and top1_drop",
        ),
        (('precision.budget={metric: "a:b"}',), "a budget by metric needs 'at_least'"),
        (('precision.budget={metric: "ab", at_least: 1}',), "'ab' names no function"),
        (("precision.budget={sqnr_db: 3, at_least: 1}",), "at_least is the bound on a metric"),
        (("precision.quantize=int4_weight_only",), "not with int4_weight_only"),
        (
            ("precision={type: fp32, budget: {sqnr_db: 3}}",),
            "a budget chooses among types, and there is only fp32",
        ),
        (("precision.techniques=[rounding]",), "rounding changes the weights for one fixed set"),
        (
            ("calibration=null", "precision.quantize=none", "verify={}"),
            "a budget is met on samples, and there are none",
        ),
        (
            ("calibration={synthetic: true}", "verify={}", "precision.budget={top1_drop: 1}"),
            "top1_drop needs labels, and nothing here can have any",
        ),
        (("calibration=null",), "quantize: int8 needs activation ranges"),
    ],
)
def test_recipes_that_contradict_themselves(
    folder: Path, store: Path, overrides: tuple[str, ...], message: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        job_of(folder / "budget.yaml", BuildOptions(store=store, overrides=overrides))
    assert any(message in problem.message for problem in caught.value.problems), [
        problem.message for problem in caught.value.problems
    ]
    assert all(problem.hint for problem in caught.value.problems)


def test_editors_are_told_of_auto() -> None:
    assert "auto" in json_schema()["$defs"]["Precision"]["properties"]["type"]["enum"]


def test_auto_stands_for_fp16_and_int8() -> None:
    auto = Precision.model_validate({"type": "auto", "budget": {"sqnr_db": 30}})
    assert (auto.type, auto.quantize) == ("fp16", "int8")
    floats = Precision.model_validate(
        {"type": "auto", "quantize": "none", "budget": {"top1_drop": 1}}
    )
    assert (floats.type, floats.quantize) == ("fp16", "none")
    assert json.loads(auto.model_dump_json())["budget"]["sqnr_db"] == 30
    assert issubclass(BudgetError, ForgeError)
