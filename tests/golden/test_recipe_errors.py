"""Every bad recipe: code, place, message and hint, and the whole text as a golden file.

`TRTFORGE_UPDATE_GOLDENS=1 pytest tests/golden/test_recipe_errors.py` writes the files anew.
"""

import os
from pathlib import Path

import pytest
from recipe_error_cases import CASES, GOOD, Case

from trtforge.errors import EXIT_USAGE, RecipeError
from trtforge.recipe.load import load_recipe
from trtforge.recipe.render import render_problem

GOLDENS = Path(__file__).parent / "recipe_errors"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the files that the good recipe names; the current one."""
    for name in ("model.onnx", "calib.npz", "test.npz"):
        (tmp_path / name).write_bytes(b"here")
    (tmp_path / "folder.onnx").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load_bad(case: Case) -> RecipeError:
    content = case.text if isinstance(case.text, bytes) else case.text.encode()
    Path("recipe.yaml").write_bytes(content)
    with pytest.raises(RecipeError) as caught:
        load_recipe(Path("recipe.yaml"), case.overrides)
    return caught.value


def test_the_good_recipe_is_good(folder):
    Path("recipe.yaml").write_text(GOOD)
    assert load_recipe(Path("recipe.yaml")).recipe.name == "digits-int8"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_recipe(case, folder):
    error = load_bad(case)
    assert error.exit_status == EXIT_USAGE
    assert len(error.problems) == case.count, [p.message for p in error.problems]
    problem = next(p for p in error.problems if p.code == case.code)
    assert case.message in problem.message
    assert problem.hint is not None
    assert case.hint in problem.hint
    where = problem.where
    at = f"{where.line}:{where.column}" if where.line is not None else ""
    assert at == case.at
    named = f"--set {case.overrides[0]}" if case.overrides else "recipe.yaml"
    assert where.file == named


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_text_of_bad_recipe(case, folder):
    text = "\n\n".join(render_problem(problem) for problem in load_bad(case).problems) + "\n"
    golden = GOLDENS / f"{case.name}.txt"
    if os.environ.get("TRTFORGE_UPDATE_GOLDENS"):
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")


def test_no_golden_without_a_case():
    assert {path.stem for path in GOLDENS.glob("*.txt")} == {case.name for case in CASES}


def test_case_names_are_unique():
    assert len({case.name for case in CASES}) == len(CASES) >= 45


def test_all_errors_at_once(folder):
    text = (
        GOOD.replace("version: 1", "version: 2")
        .replace("quantize:", "quantise:")
        .replace("opt: [32,", "opt: [512,")
        .replace("model.onnx", "modell.onnx")
        .replace("{name: cpu,", "{name: rtx,")
        .replace("sqnr_db: 20", "sqnr_db: high")
        + "name: twice\n"
    )
    error = load_bad(Case("all", text, "", "", "", ""))
    lines = [problem.where.line for problem in error.problems]
    codes = [problem.code for problem in error.problems]
    assert lines == [1, 3, 5, 8, 12, 15, 16]
    assert codes == ["TF0212", "TF0214", "TF0203", "TF0209", "TF0207", "TF0211", "TF0207"]
