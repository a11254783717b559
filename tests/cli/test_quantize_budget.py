"""`trtforge quantize --budget`: the mix of a recipe, without a recipe; and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pair_metrics import sqnr_db
from test_quantize import outputs, run

Capture = pytest.CaptureFixture[str]


def budgeted(capfd: Capture, digits: Path, out: Path, *more: object) -> dict[str, Any]:
    text, _ = run(
        capfd, "quantize", digits / "model.onnx", "-o", out, "--data", digits / "calib.npz",
        *more, "--json",
    )  # fmt: skip
    found: dict[str, Any] = json.loads(text)
    return found


def test_it_is_the_model_that_a_recipe_with_the_same_budget_ships(
    capfd: Capture, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRTFORGE_CACHE", str(tmp_path / "store"))
    recipe, more = digits / "budget.yaml", ("--target", "cpu", "--out", tmp_path / "bundles")
    run(capfd, "build", recipe, *more)
    (shipped,) = (tmp_path / "bundles").glob("*/model.onnx")
    out = tmp_path / "out.onnx"
    asked = ("--method", "entropy", "--samples", "256", "--budget", "sqnr_db=42")
    found = budgeted(capfd, digits, out, *asked, "--held-out", digits / "test.npz")
    assert out.read_bytes() == shipped.read_bytes()
    searched = json.loads((shipped.parent / "reports/pareto.json").read_text())
    names = {"searched_on": "calibration.data", "judged": searched["judged"]}
    assert found["budget"] | names == searched
    assert found["budget"]["searched_on"] == "--data"
    assert found["budget"]["judged"]["on"] == "--held-out"
    assert found["budget"]["judged"]["value"] == searched["judged"]["value"]
    judged = found["budget"]["judged"]
    text, _ = run(
        capfd, "quantize", digits / "model.onnx", "-o", out, "--data", digits / "calib.npz",
        *asked, "--held-out", digits / "test.npz",
    )  # fmt: skip
    said = f"judged on {judged['samples']} samples of --held-out: {judged['value']:.2f} dB"
    assert f"{said}, which meets the budget\n" in text
    lines = [line for line in found["budget"]["rules"] if line.startswith("  - ")]
    assert len(found["precision"]["keep"]) == len(lines) > 0
    facts = json.loads((shipped.parent / "manifest.json").read_text())["precision"]
    wanted = {name: found["precision"][name] for name in facts}
    assert facts == wanted
    assert {"force", "io_types"} <= set(facts)
    images = np.load(digits / "test.npz")["image"]
    reference = outputs(digits / "model.onnx", images)
    assert sqnr_db(reference, outputs(out, images)) > 42


def test_types_that_are_given_bound_the_choice(
    capfd: Capture, digits: Path, tmp_path: Path
) -> None:
    more = ("--budget", "sqnr_db=42,evaluations=30", "--type", "fp32")
    found = budgeted(capfd, digits, tmp_path / "out.onnx", *more)
    kinds = {kind for one in found["budget"]["points"] for kind in one["layers"]}
    assert kinds == {"int8", "fp32"}
    assert found["budget"]["judged"] is None


def test_people_read_the_table_and_the_rules_only_where_they_ask(
    capfd: Capture, digits: Path, tmp_path: Path
) -> None:
    asked = (
        "quantize", digits / "model.onnx", "-o", tmp_path / "out.onnx", "--budget", "top1_drop=1",
        "--data", digits / "calib.npz", "--held-out", digits / "test.npz",
    )  # fmt: skip
    text, err = run(capfd, *asked)
    assert "1 mix tried on 797 samples of --held-out" in err
    assert "warning: the budget is met on --held-out, and judged on no other samples" in err
    (chosen,) = [line for line in text.splitlines() if line.endswith("<- chosen")]
    assert "points lost  yes    9 int8, 8 fp16" in chosen
    assert "quantize: int8" not in text
    assert "quantize: int8" in run(capfd, *asked, "--explain")[0]


def test_a_metric_is_looked_for_here(
    capfd: Capture, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "score.py").write_text("def always(reference, candidate):\n    return 1.0\n")
    more = ("--budget", "metric=score.py:always,at_least=1")
    found = budgeted(capfd, digits, tmp_path / "out.onnx", *more)
    assert [one["value"] for one in found["budget"]["points"]] == [1.0]


@pytest.mark.parametrize(
    ("more", "status", "code", "said"),
    [
        (("--budget", "sqnr_db=199"), 6, "TF0560", "no mix meets sqnr_db 199"),
        (("--budget", "sqnr_db=-3"), 2, "TF0212", "must be more than 0, not -3"),
        (("--budget", "sqnr_db=1000"), 2, "TF0212", "must be at most 200, not 1000"),
        (("--budget", "sqnr_db=.nan"), 2, "TF0212", "must be a finite number"),
        (("--budget", "sqnr_db=nan"), 2, "TF0211", "must be a number, not the text 'nan'"),
        (("--budget", "sqrn_db=30"), 2, "TF0209", "did you mean 'sqnr_db'?"),
        (("--budget", "sqnr_db"), 2, "TF0107", "write sqnr_db=30, top1_drop=0.5"),
        (("--budget", "sqnr_db=3,sqnr_db=4"), 2, "TF0107", "is not a budget"),
        (("--budget", "evaluations=4"), 2, "TF0210", "needs 'sqnr_db', 'top1_drop' or 'metric'"),
        (("--budget", "metric=no.py:f,at_least=1"), 2, "TF0542", "there is no file 'no.py'"),
        (("--budget", "top1_drop=1"), 2, "TF0563", "of --data or --held-out"),
        (("--budget", "sqnr_db=30", "--held-out", "no.npz"), 2, "TF0501", "does not exist"),
        (
            ("--budget", "sqnr_db=30", "--quantize", "int8_weight_only"),
            2, "TF0213", "not with int8_weight_only",
        ),
        (("--held-out", "test.npz"), 2, "TF0110", "give --budget"),
    ],
)  # fmt: skip
def test_what_is_refused(
    capfd: Capture,
    digits: Path,
    tmp_path: Path,
    more: tuple[str, ...],
    status: int,
    code: str,
    said: str,
) -> None:
    out, data = tmp_path / "out.onnx", digits / "calib.npz"
    asked = ("quantize", digits / "model.onnx", "-o", out, "--data", data, *more)
    _, err = run(capfd, *asked, status=status)
    assert f"error[{code}]" in err
    assert said in err
    assert not out.exists()


def test_samples_are_needed_and_a_reused_cache_has_none(
    capfd: Capture, digits: Path, tmp_path: Path
) -> None:
    asked = ("quantize", digits / "model.onnx", "-o", tmp_path / "out.onnx", "--budget", "top1")
    _, err = run(capfd, *asked, "--reuse", "c.json", status=2)
    assert "error[TF0110]: --budget runs the model on samples" in err
    data = digits / "calib.npz"
    _, err = run(capfd, *asked, "--data", data, "--held-out", data, status=2)
    assert "error[TF0110]: --held-out names the very samples of --data" in err
