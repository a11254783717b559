"""Options of `trtforge quantize` become the sections that a recipe would have."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trtforge.errors import ForgeError, RecipeError, UsageError
from trtforge.pipeline.settings import Asked, sections
from trtforge.recipe.calibration import Calibration, PythonData, ScriptData
from trtforge.recipe.schema import KeepRule, Precision

DATA = "calib.npz"


def test_nothing_given_is_what_a_recipe_has_by_default() -> None:
    precision, calibration = sections(Asked(data=DATA))
    assert precision == Precision(quantize="int8")
    assert calibration == Calibration(data=DATA)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("op=Softmax", KeepRule(op="Softmax")),
        ("op=Softmax:fp16", KeepRule(op="Softmax", type="fp16")),
        ("name=/head/*", KeepRule(name="/head/*")),
        ("name=/head/*:bf16", KeepRule(name="/head/*", type="bf16")),
        ("name=scope:layer", KeepRule(name="scope:layer")),
        ("name=a=b:fp32", KeepRule(name="a=b")),
        ("name=scope:0:fp16", KeepRule(name="scope:0", type="fp16")),
    ],
)
def test_keep_rules(text: str, rule: KeepRule) -> None:
    precision, _ = sections(Asked(data=DATA, keep=(text,)))
    assert precision.keep == (rule,)


def outcome(asked: Asked) -> tuple[Precision, Calibration | None] | ForgeError:
    try:
        return sections(asked)
    except ForgeError as error:
        return error


@given(st.sampled_from(["", "op=", "name=", "op"]), st.text(max_size=30))
def test_any_text_is_a_keep_rule_or_one_clear_error(key: str, text: str) -> None:
    found = outcome(Asked(data=DATA, keep=(key + text,)))
    if isinstance(found, ForgeError):
        assert found.exit_status == 2
        assert found.hint
    else:
        (rule,) = found[0].keep
        assert (key + text).startswith(("op=", "name="))
        assert (rule.op or rule.name or "") in text


@given(st.sampled_from(["", "{", "{images: ", "a:"]), st.text(max_size=40))
def test_any_text_is_data_or_one_clear_error(start: str, text: str) -> None:
    found = outcome(Asked(data=start + text))
    if isinstance(found, ForgeError):
        assert found.exit_status == 2
    else:
        assert found[1] is not None
        assert found[1].data is not None


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("folder/calib.npy", "folder/calib.npy"),
        ("loading:samples", PythonData(python="loading:samples")),
        ("package.loading:samples", PythonData(python="package.loading:samples")),
        ("C:samples", "C:samples"),
        ("C:\\data\\calib.npz", "C:\\data\\calib.npz"),
        ("odd:name.npz", "odd:name.npz"),
        (" {script: loader.py}", ScriptData(script="loader.py")),
    ],
)
def test_what_data_may_be(text: str, data: object) -> None:
    _, calibration = sections(Asked(data=text))
    assert calibration is not None
    assert calibration.data == data


def test_a_file_that_is_there_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loading:samples").write_text("")
    _, calibration = sections(Asked(data="loading:samples"))
    assert calibration is not None
    assert calibration.data == "loading:samples"


@pytest.mark.parametrize(
    ("text", "techniques"),
    [
        ("default", "default"),
        ("none", "none"),
        ("gptq", ("gptq",)),
        ("one, two", ("one", "two")),
    ],
)
def test_techniques(text: str, techniques: object) -> None:
    asked = Asked(quantize="int4_weight_only", data=DATA, techniques=text)
    assert sections(asked)[0].techniques == techniques


def test_weights_alone_need_no_data() -> None:
    precision, calibration = sections(Asked(quantize="int4_weight_only", block_size=32))
    assert calibration is None
    assert precision.block_size == 32


@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_activations_need_some(kind: str) -> None:
    with pytest.raises(RecipeError) as caught:
        sections(Asked(quantize=kind))
    assert [problem.code for problem in caught.value.problems] == ["TF0108"]
    assert sections(Asked(quantize=kind, synthetic=True))[1] == Calibration(synthetic=True)
    assert sections(Asked(quantize=kind, reuse=Path("c.json")))[1] == Calibration(reuse="c.json")


def test_all_problems_come_at_once_without_a_place() -> None:
    with pytest.raises(RecipeError) as caught:
        sections(Asked(data="{imags: a}", percentile=200.0, allow_stale=True))
    problems = caught.value.problems
    assert sorted(problem.code for problem in problems) == ["TF0209", "TF0212", "TF0213"]
    assert {problem.where for problem in problems} == {None}


def test_a_broken_mapping_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="given twice"):
        sections(Asked(data="{images: a, images: b}"))
