"""Command lines of other tools become recipes; no flag of theirs is dropped in silence."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from migrate_cases import Case
from migrate_commands import CASES

from trtforge.errors import RecipeError, UsageError
from trtforge.pipeline.migrate import MigrateOptions, migrate
from trtforge.recipe.load import load_recipe
from trtforge.recipe.migration import polygraphy_flags
from trtforge.recipe.migration.arguments import split_command, words_of
from trtforge.recipe.migration.polygraphy import _HANDLERS as _POLYGRAPHY
from trtforge.recipe.migration.precision import SIMPLE
from trtforge.recipe.migration.trtexec import _HANDLERS, _WITHOUT_VALUE
from trtforge.recipe.migration.trtexec_flags import ELSEWHERE, REFUSED, SKIPPED
from trtforge.recipe.nodes import Source, plain

DIGITS = Path(__file__).parents[2] / "recipes" / "digits"


def read(text: str) -> Any:
    from trtforge.recipe.compose import compose

    root, problems = compose(Source("recipe.yaml", text))
    assert problems == []
    assert root is not None
    return plain(root)


def at(data: Any, place: str) -> Any:
    """The value at a dotted key; a key may hold dots itself, so the longest that fits is taken."""
    for key in place.split("."):
        data = data[int(key)] if isinstance(data, list) else data[key]
    return data


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.command[:60])
def test_a_command_becomes_a_recipe_or_is_refused_with_reasons(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if case.refused:
        with pytest.raises(RecipeError) as caught:
            migrate(case.command)
        flags = [
            problem.message.partition(": nothing does this")[0] for problem in caught.value.problems
        ]
        assert flags == list(case.refused)
        assert all(problem.hint for problem in caught.value.problems)
    result = migrate(case.command, MigrateOptions(partial=True))
    recipe = read(result.text)
    assert {place: at(recipe, place) for place in case.values} == case.values
    assert [finding.flag for finding in result.refused] == list(case.refused)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.command[:60])
def test_every_flag_is_accounted_for(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = migrate(case.command, MigrateOptions(partial=True))
    said = " ".join(finding.flag for finding in result.findings)
    program, arguments = split_command(case.command, ("trtexec", "tensorrt_rtx", "polygraphy"))
    for word in words_of(arguments[1:] if program == "polygraphy" else arguments):
        assert (word.name or word.text) in said
    for finding in result.findings:
        assert finding.action == "mapped" or finding.why


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.command[:60])
def test_the_recipe_loads_but_for_its_files(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    migrate(case.command, MigrateOptions(Path("recipe.yaml"), partial=True))
    with pytest.raises(RecipeError) as caught:
        load_recipe(tmp_path / "recipe.yaml")
    assert {problem.code for problem in caught.value.problems} == {"TF0214"}


def test_every_option_of_polygraphy_is_known_with_its_number_of_values() -> None:
    import argparse

    from polygraphy.tools.convert.convert import Convert
    from polygraphy.tools.run.run import Run

    known = {*_POLYGRAPHY, *polygraphy_flags.SKIPPED, *polygraphy_flags.REFUSED, *SIMPLE}
    for tool in (Convert(), Run()):
        commands = argparse.ArgumentParser().add_subparsers()
        tool.setup_parser(commands)
        (parser,) = commands.choices.values()
        for action in parser._actions:
            takes = 0 if action.nargs == 0 else 1 if action.nargs in (None, "?") else 2
            for flag in action.option_strings:
                assert flag in known, flag
                ours = 0 if flag in polygraphy_flags.WITHOUT_VALUE else 2
                ours = 1 if flag in polygraphy_flags.WITH_ONE_VALUE else ours
                assert ours == takes, flag


@given(
    st.lists(
        st.sampled_from(sorted({*SKIPPED, *ELSEWHERE, *REFUSED, *_WITHOUT_VALUE, "--nonsense"})),
        unique=True,
        max_size=12,
    )
)
@settings(max_examples=50, deadline=None)
def test_any_mix_of_flags_is_accounted_for(flags: list[str]) -> None:
    flags = [flag for flag in flags if flag != "--excludeLeanRuntime"]  # it needs another
    result = migrate(["trtexec", "--onnx=m.onnx", *flags], MigrateOptions(partial=True))
    assert sorted(one.flag for one in result.findings) == sorted(["--onnx=m.onnx", *flags])


def test_no_flag_stands_in_two_tables() -> None:
    tables = [set(_HANDLERS), set(SKIPPED), set(ELSEWHERE), set(REFUSED)]
    assert len(set.union(*tables)) == sum(map(len, tables))
    assert set(_HANDLERS) >= _WITHOUT_VALUE


def test_the_recipe_that_is_written_loads_and_its_cache_is_converted(tmp_path: Path) -> None:
    from trtforge.precision.cache import CalibrationCache

    (tmp_path / "old.cache").write_text("TRT-8601-EntropyCalibration2\nimage: 3c010a14\n")
    out = tmp_path / "new" / "recipe.yaml"
    out.parent.mkdir()
    command = (
        f"trtexec --onnx={DIGITS}/model.onnx --int8 --fp16 --calib={tmp_path}/old.cache "
        "--minShapes=image:1x1x8x8 --optShapes=image:8x1x8x8 --maxShapes=image:32x1x8x8"
    )
    result = migrate(command, MigrateOptions(out, name="digits"))
    assert result.written == (out, out.with_suffix(".calib.json"))
    recipe = load_recipe(out).recipe
    assert recipe.name == "digits"
    assert recipe.precision.quantize == "int8"
    assert recipe.shapes[0]["image"].max == (32, 1, 8, 8)
    partial = migrate(f"{command} --useDLACore=0", MigrateOptions(out, partial=True))
    assert partial.written == result.written, "also where another flag is refused"
    cache = CalibrationCache.load(out.with_suffix(".calib.json"))
    assert cache.range_of("image").amax == pytest.approx(1.00024, rel=1e-5)


def test_paths_are_relative_to_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").mkdir()
    result = migrate("trtexec --onnx=models/m.onnx", MigrateOptions(Path("recipes/r.yaml")))
    assert read(result.text)["model"] == {"onnx": "../models/m.onnx"}


def test_int8_on_a_float_model_needs_data(tmp_path: Path) -> None:
    command = f"trtexec --onnx={DIGITS}/model.onnx --int8"
    with pytest.raises(RecipeError, match="--int8: nothing does this here") as caught:
        migrate(command)
    assert "--data" in (caught.value.hint or "")
    recipe = read(migrate(command, MigrateOptions(data=f"{DIGITS}/calib.npz")).text)
    assert recipe["precision"] == {"quantize": "int8"}
    assert recipe["calibration"] == {"data": f"{DIGITS}/calib.npz"}


@pytest.mark.parametrize(
    ("command", "quantize"),
    [
        ("trtexec --onnx=m.onnx --int8 --fp16", "int8"),
        ("trtexec --onnx=m.onnx --best", "int8"),
        ("trtexec --onnx=m.onnx --fp8 --fp16", "fp8"),
        ("polygraphy convert m.onnx --int8 --data-loader-script old.py -o m.plan", "int8"),
    ],
)
def test_data_that_is_given_is_measured_whether_the_model_is_here_or_not(
    command: str, quantize: str
) -> None:
    recipe = read(migrate(command, MigrateOptions(data="/data/c.npz")).text)
    assert recipe["precision"]["quantize"] == quantize
    assert recipe["calibration"] == {"data": "/data/c.npz"}


def test_data_for_nothing_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"--data c\.npz: nothing does this"):
        migrate("trtexec --onnx=m.onnx --fp16", MigrateOptions(data="c.npz"))
    with pytest.raises(RecipeError, match=r"--calib=c\.cache: nothing does this"):
        migrate("trtexec --onnx=m.onnx --fp16 --calib=c.cache")


def test_a_backend_that_lacks_an_option_refuses_the_recipe() -> None:
    command = "trtexec --onnx=m.onnx --versionCompatible"
    migrate(command)
    with pytest.raises(RecipeError, match="--versionCompatible: nothing does this") as caught:
        migrate(command, MigrateOptions(backend="tensorrt_rtx"))
    assert "by the release that built it alone" in (caught.value.hint or "")
    partial = migrate(command, MigrateOptions(backend="tensorrt_rtx", partial=True))
    assert "options" not in read(partial.text)["targets"][0]


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("", "TF0120", "no command"),
        ("trtexec --onnx='m.onnx", "TF0120", "cannot read the command"),
        ("trtexec --onnx=$MODEL --fp16", "TF0121", "$MODEL"),
        ("trtexec --onnx=${D}/m.onnx", "TF0121", "${D}"),
        ("mo --onnx=m.onnx", "TF0122", "'mo' is no tool"),
        ("polygraphy inspect model m.onnx", "TF0122", "trtforge inspect"),
        ("polygraphy surgeon sanitize m.onnx --fold-constant -o n.onnx", "TF0122", "optimize"),
        ("polygraphy run m.onnx --onnxrt", "TF0122", "without --trt builds no engine"),
        ("polygraphy run m.plan --trt --model-type engine", "TF0123", "is an engine"),
        ("polygraphy", "TF0122", "builds no engine"),
        ("trtexec --uff=lenet.uff --uffInput=in,1,28,28 --output=out", "TF0123", "export to ONNX"),
        ("trtexec --deploy=net.prototxt --output=prob --batch=16", "TF0123", "export to ONNX"),
        ("trtexec --onnx=model.pb", "TF0123", "is a TensorFlow model"),
        ("trtexec --onnx=a.onnx && trtexec --onnx=b.onnx", "TF0120", "one by one"),
        ("trtexec --onnx=`pwd`/m.onnx", "TF0121", "`"),
        ("trtexec.exe --onnx=%DIR%/m.onnx", "TF0121", "%DIR%"),
        ("trtexec --onnx=m.onnx --minShapes=x:1 --minShapes=x:2", "TF0120", "once"),
        ("trtexec --onnx=m.onnx --shapes=x:1,x:2", "TF0120", "each input once"),
        ("trtexec --onnx=m.onnx --profile=999999999 --minShapes=x:1", "TF0120", "none left out"),
        ("trtexec --onnx=m.onnx --profile=-1 --minShapes=x:1", "TF0120", "none left out"),
        ("polygraphy convert m.onnx --data-loader-script --int8", "TF0120", "load.py"),
        ("trtexec --loadEngine=m.plan", "TF0123", "trtforge bench ENGINE"),
        ("trtexec --onnx=m.onnx --shapes=x:axb", "TF0120", "--shapes=x:axb"),
        ("trtexec --onnx=m.onnx --memPoolSize=workspace:lots", "TF0120", "memPoolSize"),
        ("trtexec --onnx=m.onnx --avgTiming=often", "TF0120", "whole number"),
        ("trtexec --onnx=m.onnx --hardwareCompatibilityLevel=all", "TF0120", "one of none"),
        ("trtexec --onnx=m.onnx --builderOptimizationLevel=9", "TF0125", "at most 5, not 9"),
        ("missing.yaml", "TF0120", "cannot read 'missing.yaml': No such"),
    ],
)
def test_what_cannot_be_read_is_one_error(command: str, code: str, said: str) -> None:
    with pytest.raises((UsageError, RecipeError)) as caught:
        migrate(command)
    assert caught.value.code == code
    assert said in f"{caught.value.message} {caught.value.hint}"
    assert len(caught.value.problems) == 1


def test_a_flag_cannot_leave_its_comment() -> None:
    text = migrate(["trtexec", "--onnx=m.onnx", "--saveEngine=a\nversion: 2"]).text
    assert read(text)["version"] == 1


def test_a_model_with_dynamic_inputs_and_no_shapes_gets_those_that_the_tool_takes() -> None:
    result = migrate(f"trtexec --onnx={DIGITS}/model.onnx --fp16")
    ones = [1, 1, 8, 8]
    assert read(result.text)["shapes"] == {"image": {"min": ones, "opt": ones, "max": ones}}
    assert "widen" in next(one.why for one in result.findings if one.where == "shapes")


def test_a_command_without_quotes_would_lose_flags(capsys: pytest.CaptureFixture[str]) -> None:
    from trtforge.cli.main import _run

    words = ["migrate", "polygraphy", "convert", "m.onnx", "--verbose", "-o", "m.plan"]
    assert _run(words) == 2
    assert "the command is not in quotes" in capsys.readouterr().err
    with pytest.raises(UsageError, match=r"'m\.plan' is no place for a recipe"):
        migrate("trtexec --onnx=m.onnx", MigrateOptions(Path("m.plan")))


def test_a_calibration_script_is_named_from_the_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("recipes").mkdir()
    command = "polygraphy convert m.onnx --int8 --data-loader-script load.py:batches -o m.plan"
    recipe = read(migrate(command, MigrateOptions(Path("recipes/r.yaml"))).text)
    assert recipe["calibration"] == {"data": "../load.py:batches"}


def test_without_a_file_the_recipe_stands_alone_on_stdout(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from trtforge.cli.main import _run

    assert _run(["migrate", "trtexec --onnx=m.onnx --fp16 --useSpinWait"]) == 0
    printed = capsys.readouterr().out
    assert read(printed)["precision"] == {"type": "fp16"}
    assert "# --useSpinWait: elsewhere" in printed
