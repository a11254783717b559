"""The forms of `calibration.data` in a recipe: read, written, refused with their place."""

from pathlib import Path

import pytest

from trtforge.errors import RecipeError
from trtforge.recipe.calibration import Calibration, ImageData, PythonData, ScriptData
from trtforge.recipe.load import LoadedRecipe, load_recipe

RECIPE = """version: 1
name: a
model: {onnx: model.onnx}
precision: {quantize: int8}
calibration: %s
targets: [{name: cpu, backend: onnxruntime}]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model.onnx").write_bytes(b"")
    (tmp_path / "load.py").write_text("")
    (tmp_path / "photos").mkdir()
    return tmp_path


def load(folder: Path, calibration: str, *overrides: str) -> LoadedRecipe:
    path = folder / "recipe.yaml"
    path.write_text(RECIPE % calibration)
    return load_recipe(path, overrides)


FULL = (
    "{images: photos, resize: 256, crop: [224, 200], filter: bicubic, colour: bgr, scale: 0.1, "
    "mean: [1, 2, 3.5], std: [2], layout: nhwc}"
)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        ("load.py", str),
        ("photos", str),
        ("{images: photos}", ImageData),
        (FULL, ImageData),
        ('{python: "my.data:samples"}', PythonData),
        ("{script: load.py}", ScriptData),
        ("{script: load.py, function: mine}", ScriptData),
    ],
)
def test_a_form_is_read_and_written(folder: Path, data: str, kind: type) -> None:
    loaded = load(folder, f"{{data: {data}}}")
    assert isinstance(loaded.recipe.calibration, Calibration)
    assert isinstance(loaded.recipe.calibration.data, kind)
    hash(loaded.recipe)
    (folder / "again.yaml").write_text(loaded.as_yaml())
    assert load_recipe(folder / "again.yaml").recipe == loaded.recipe


def test_values_of_a_form_can_be_set(folder: Path) -> None:
    loaded = load(folder, f"{{data: {FULL}}}", "calibration.data.resize=300")
    assert loaded.recipe.calibration is not None
    assert isinstance(loaded.recipe.calibration.data, ImageData)
    assert loaded.recipe.calibration.data.resize == 300
    synthetic = load(folder, "{synthetic: true}").recipe.calibration
    assert synthetic is not None
    assert (synthetic.data, synthetic.synthetic) == (None, True)


@pytest.mark.parametrize(
    ("calibration", "code", "column", "message", "hint"),
    [
        ("{method: mse}", "TF0210", 1, "'data' is missing in calibration", "synthetic: true"),
        ("{data: photos, synthetic: true}", "TF0213", 29, "and there is data", "remove one"),
        ("{synthetic: yes}", "TF0211", 26, "must be true or false", "write true"),
        ("{data: 5}", "TF0211", 21, "calibration.data must be text", "quotes"),
        ("{data: {foo: 1}}", "TF0210", 15, "needs one of the keys 'images'", "{script: file}"),
        ("{data: {image: photos}}", "TF0209", 22, "unknown key 'image'", "did you mean 'images'?"),
        (
            "{data: {images: photos, resiz: 3}}",
            "TF0209",
            38,
            "'resiz' in calibration.data",
            "resize",
        ),
        ("{data: {images: photos, script: load.py}}", "TF0209", 38, "unknown key 'script'", ""),
        ("{data: {images: no}}", "TF0214", 30, "data.images: 'no' does not exist", "relative"),
        ("{data: {images: load.py}}", "TF0214", 30, "'load.py' is no folder", "the folder"),
        ("{data: {script: photos}}", "TF0214", 30, "'photos' is a folder", "the file itself"),
        ("{data: {script: lod.py}}", "TF0214", 30, "'lod.py' does not exist", "'load.py'"),
        ("{data: nothing/}", "TF0214", 21, "'nothing/' does not exist", ""),
        ("{data: {images: photos, resize: [1, 2, 3]}}", "TF0212", 46, "resize has 3 numbers", "[h"),
        (
            "{data: {images: photos, resize: [1, 0]}}",
            "TF0212",
            50,
            "resize[1] must be at least",
            "",
        ),
        ("{data: {images: photos, crop: 1.5}}", "TF0211", 44, "crop must be a whole number", ""),
        ("{data: {images: photos, mean: 3}}", "TF0211", 44, "mean must be a list", "[3]"),
        ("{data: {images: photos, std: [0]}}", "TF0212", 44, "std[0] must be more than 0", ""),
        ("{data: {images: photos, scale: 0}}", "TF0212", 45, "scale must be more than 0", ""),
        ("{data: {images: photos, mean: [1, 2]}}", "TF0213", 38, "has 2 numbers", "or 3"),
        (
            "{data: {images: photos, colour: grey, std: [1, 2, 3]}}",
            "TF0213",
            52,
            "1 channel",
            "one",
        ),
        ("{data: {images: photos, colour: red}}", "TF0212", 46, "cannot be the text 'red'", "rgb"),
        ("{data: {images: photos, resize: 9, crop: 10}}", "TF0213", 49, "crop: 10 is larger", ""),
        (
            "{data: {images: photos, resize: [9, 20], crop: 10}}",
            "TF0213",
            55,
            "is larger",
            "within",
        ),
        ("{data: {python: foo}}", "TF0212", 30, "must be a module and a name", "data:samples"),
        (
            "{data: {script: load.py, function: a b}}",
            "TF0212",
            49,
            "name of a function",
            "load_data",
        ),
    ],
)
def test_what_is_wrong_has_its_place(
    folder: Path, calibration: str, code: str, column: int, message: str, hint: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        load(folder, calibration)
    (problem,) = caught.value.problems
    assert problem.where is not None
    assert (problem.code, problem.where.line, problem.where.column) == (code, 5, column)
    assert message in problem.message
    assert hint in str(problem.hint)


def test_several_mistakes_are_told_together(folder: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        load(folder, "{data: {images: no, mean: [1, 2], std: [0], filtr: nearest}}")
    codes = [problem.code for problem in caught.value.problems]
    assert codes == ["TF0214", "TF0213", "TF0212", "TF0209"]


def test_the_json_schema_knows_the_forms() -> None:
    import jsonschema

    from trtforge.recipe.schema import json_schema

    calibration = {"$defs": json_schema()["$defs"], "$ref": "#/$defs/Calibration"}
    for data in ("a.npz", {"images": "p", "resize": 3}, {"python": "a:b"}, {"script": "s.py"}):
        jsonschema.validate({"data": data}, calibration)
    for data in (5, {"images": "p", "resiz": 3}, {"python": "ab"}, {"function": "f"}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({"data": data}, calibration)
