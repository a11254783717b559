"""Profiles by position: a list of ranges in the order of the model's inputs."""

import json
import pickle
from pathlib import Path

import jsonschema
import pytest
from engine_models import model, save
from onnx import TensorProto, helper

from trtforge.errors import Problem, RecipeError
from trtforge.pipeline.input_names import with_input_names
from trtforge.pipeline.run import BuildOptions, build_recipe, job_of
from trtforge.recipe.load import dump_recipe, load_recipe
from trtforge.recipe.schema import ByPosition, Recipe, json_schema

FLOAT = TensorProto.FLOAT
TEXT = """\
version: 1
name: positions
model: {onnx: model.onnx}
shapes:
  - - {min: [1, 3], opt: [2, 3], max: [4, 3]}
    - ~
    - {min: [1], opt: [2], max: [4]}
targets: [{name: cpu, backend: onnxruntime}]
"""


def write(folder: Path, text: str = TEXT) -> Path:
    nodes = [
        helper.make_node("Add", ["image", "bias"], ["s"]),
        helper.make_node("Mul", ["s", "1"], ["y"]),
    ]
    inputs = {"image": (FLOAT, ["N", 3]), "bias": (FLOAT, [3]), "1": (FLOAT, ["N"])}
    nodes.insert(1, helper.make_node("Unsqueeze", ["1", "axes"], ["u"]))
    nodes[2].input[1] = "u"
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [1])
    save(model(nodes, inputs, {"y": (FLOAT, ["N", 3])}, [axes]), folder)
    path = folder / "recipe.yaml"
    path.write_text(text)
    return path


def problems(folder: Path, text: str) -> list[Problem]:
    with pytest.raises(RecipeError) as caught:
        build_recipe(write(folder, text), BuildOptions(folder / "out", store=folder / "store"))
    return list(caught.value.problems)


def place(problem: Problem) -> str:
    assert problem.where is not None
    return f"{problem.where.line}:{problem.where.column}"


def test_positions_get_the_names_of_the_inputs(tmp_path: Path) -> None:
    loaded = load_recipe(write(tmp_path))
    assert isinstance(loaded.recipe.shapes[0], ByPosition)
    assert set(loaded.recipe.shapes[0]) == {"0", "2"}
    named = with_input_names(loaded)
    (profile,) = named.recipe.shapes
    assert not isinstance(profile, ByPosition)
    assert {name: one.max for name, one in profile.items()} == {"image": (4, 3), "1": (4,)}
    assert place(named.problem(("shapes", 0, "1", "opt"), "TF0231", "m")) == "7:23"
    assert place(named.problem(("shapes", 0, "image"), "TF0231", "m")) == "5:7"


def test_a_recipe_by_name_is_left_as_it_is(tmp_path: Path) -> None:
    by_name = TEXT.replace("- - {min", "- image: {min").replace("    - ~\n    - {", '    "1": {')
    loaded = load_recipe(write(tmp_path, by_name))
    assert with_input_names(loaded) is loaded
    by_position = with_input_names(load_recipe(write(tmp_path))).recipe
    assert by_position == loaded.recipe


def test_a_recipe_by_position_is_written_as_one(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path)).recipe
    text = dump_recipe(recipe)
    again = load_recipe(write(tmp_path, text)).recipe
    assert again == recipe
    assert isinstance(again.shapes[0], ByPosition)
    for copied in (pickle.loads(pickle.dumps(recipe)), Recipe.model_validate(dict(recipe))):
        assert isinstance(copied.shapes[0], ByPosition)
    document = json.loads(recipe.model_dump_json())
    assert document["shapes"][0][1] is None
    jsonschema.validate(document, json_schema())
    document["shapes"] = document["shapes"][0]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, json_schema())


def test_a_bundle_names_the_inputs(tmp_path: Path) -> None:
    result = build_recipe(write(tmp_path), BuildOptions(tmp_path / "out", store=tmp_path / "s"))
    assert result.verdicts["graph_parity"]["verdict"] == "pass"
    manifest = json.loads((result.bundle / "manifest.json").read_text())
    assert set(manifest["profiles"][0]) == {"image", "1"}
    again = load_recipe(result.bundle / "recipe.yaml", check_files=False).recipe
    assert set(again.shapes[0]) == {"image", "1"}


def test_a_profile_by_position_can_be_set(tmp_path: Path) -> None:
    options = BuildOptions(overrides=("shapes.0.2.max=[9]",), store=tmp_path / "store")
    assert job_of(write(tmp_path), options).recipe.shapes[0]["1"].max == (9,)


LAST = "    - {min: [1], opt: [2], max: [4]}\n"


@pytest.mark.parametrize(
    ("old", "new", "code", "where", "words"),
    [
        (LAST, LAST * 2, "TF0231", "8:7", "profile 0 has 4 ranges, the model's inputs are 3: 'im"),
        (LAST, "", "TF0231", "5:5", "input '1' has dynamic dimensions [N] and needs a range"),
        ("- ~", "- {min: [1], opt: [3], max: [3]}", "TF0231", "6:13", "dimension 0 of 'bias' is 3"),
        ("- ~\n    ", "", "TF0231", "6:13", "dimension 0 of 'bias' is 3"),
        ("opt: [2]", "opt: [5]", "TF0203", "7:18", "opt is outside min..max for input 2 (from 0)"),
        ("opt: [2]", "opt: [2, 2]", "TF0203", "7:18", "input 2 (from 0) differ in rank: 1, 2"),
        ("opt: [2]", "opt: [-2]", "TF0212", "7:24", "opt of input 2 (from 0) is -2"),
        ("opt: [2]", "opd: [2]", "TF0209", "7:18", "unknown key 'opd' in shapes[0][2]"),
        ("    - ~\n", "    - 5\n", "TF0211", "6:7", "shapes[0][1] must be a mapping"),
        ("  - - {min: [1, 3], opt: [2, 3], max: [4, 3]}\n    - ~\n" + LAST, "  - []\n", "TF0212",
         "5:5", "shapes[0]"),
        ("  - - {min: [1, 3], opt: [2, 3], max: [4, 3]}\n    - ~\n" + LAST,
         "  - {min: [1], opt: [1], max: [1]}\n", "TF0211", "5:6", "'min' stands where the name"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_at_its_place(
    old: str, new: str, code: str, where: str, words: str, tmp_path: Path
) -> None:
    assert old in TEXT
    found = problems(tmp_path, TEXT.replace(old, new))
    said = [(one.code, place(one)) for one in found if words in one.message]
    assert said[:1] == [(code, where)], found
