"""Loading a recipe: values, places, overrides, the resolved text, the JSON Schema, rendering."""

import copy
import json
import pickle
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
from pydantic import ValidationError
from ruamel.yaml import YAML

from trtforge.errors import Place, Problem, RecipeError
from trtforge.recipe import codes
from trtforge.recipe.load import dump_recipe, load_recipe
from trtforge.recipe.render import render_problem
from trtforge.recipe.schema import ModelSource, Recipe, ShapeRange, Target, json_schema

SHIPPED = sorted((Path(__file__).parents[2] / "recipes").glob("*/*.yaml"))
INT8 = Path(__file__).parents[2] / "recipes" / "digits" / "int8.yaml"

SMALL = """\
version: 1
name: small
model: {onnx: model.onnx}
shapes:
  input.1: {min: [1, 3], opt: [2, 3], max: [4, 3]}
targets:
  - {name: cpu, backend: onnxruntime}
"""


def write(folder: Path, text: str = SMALL) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    (folder / "model.onnx").write_bytes(b"here")
    return path


def load_small(folder: Path, *overrides: str, text: str = SMALL):
    return load_recipe(write(folder, text), overrides)


def problems_of(folder: Path, text: str, *overrides: str) -> list[Problem]:
    with pytest.raises(RecipeError) as caught:
        load_small(folder, *overrides, text=text)
    return list(caught.value.problems)


# --- values and places


def test_shipped_recipes_are_there():
    assert len([path for path in SHIPPED if path.parent.name == "digits"]) == 5


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_shipped_recipes_load(path):
    loaded = load_recipe(path, check_files=path.parent.name == "digits")
    assert loaded.recipe.name == f"{path.parent.name}-{path.stem}"


def test_a_single_profile_becomes_a_list_of_one(tmp_path):
    recipe = load_small(tmp_path).recipe
    assert recipe.shapes[0]["input.1"].max == (4, 3)


def test_paths_are_relative_to_the_recipe(tmp_path):
    loaded = load_small(tmp_path)
    assert loaded.resolve(loaded.recipe.model.onnx) == tmp_path / "model.onnx"


def test_place_of_a_value_in_a_single_profile(tmp_path):
    problem = load_small(tmp_path).problem(("shapes", 0, "input.1", "max"), "TF0231", "m", "h")
    assert problem.where.text[problem.where.column - 1 :][: problem.where.length] == "[4, 3]"
    assert str(problem.where) == f"{tmp_path}/recipe.yaml:5:44"


def test_place_of_a_mapping_is_its_key(tmp_path):
    where = load_small(tmp_path).problem(("shapes", 0, "input.1"), "TF0231", "m").where
    assert where.text[where.column - 1 :][: where.length] == "input.1"


def test_place_of_a_value_that_is_not_written_is_the_nearest_key(tmp_path):
    where = load_small(tmp_path).problem(("targets", 0, "tf32"), "TF0231", "m").where
    assert (where.line, where.text) == (7, "  - {name: cpu, backend: onnxruntime}")


def test_yaml_is_1_2_whatever_1_1_would_say(tmp_path):
    text = SMALL + "verify: {outputs: {on: {max_abs: 1e-3}, 012: {max_abs: 1}, y: {max_abs: .5}}}\n"
    outputs = load_small(tmp_path, text=text.replace("012", '"012"')).recipe.verify.outputs
    assert {name: bound.max_abs for name, bound in outputs.items()} == {
        "on": 1e-3,
        "012": 1.0,
        "y": 0.5,
    }


def test_aliases_may_stand_for_values(tmp_path):
    text = SMALL.replace("opt: [2, 3], max: [4, 3]", "opt: &s [4, 3], max: *s")
    assert load_small(tmp_path, text=text).recipe.shapes[0]["input.1"].max == (4, 3)


def test_windows_line_ends_and_byte_order_mark(tmp_path):
    path = write(tmp_path)
    path.write_bytes(b"\xef\xbb\xbf" + SMALL.replace("\n", "\r\n").encode())
    assert load_recipe(path).recipe.name == "small"
    path.write_bytes(SMALL.replace("small", "sm all").replace("\n", "\r\n").encode())
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert (caught.value.where.line, caught.value.where.text) == (2, "name: sm all")


def test_calibration_without_quantize_is_allowed():
    loaded = load_recipe(INT8, ["precision.quantize=none", "verify.attest.min_quantized_macs=null"])
    assert loaded.recipe.precision.quantize == "none"


def test_missing_file_folder_and_device(tmp_path):
    write(tmp_path)
    for path, part in (
        (tmp_path / "recipy.yaml", "does not exist"),
        (tmp_path, "is a folder"),
        (Path("/dev/zero"), "is not a regular file"),
        (tmp_path / "nul\0.yaml", "cannot be read"),
        (tmp_path / ("x" * 5000), "cannot be read: File name too long"),
    ):
        with pytest.raises(RecipeError) as caught:
            load_recipe(path)
        assert caught.value.code == codes.UNREADABLE
        assert part in caught.value.message
        assert caught.value.hint


def test_misspelt_recipe_file_is_suggested(tmp_path):
    write(tmp_path)
    with pytest.raises(RecipeError) as caught:
        load_recipe(tmp_path / "recipy.yaml")
    assert caught.value.hint == f"did you mean '{tmp_path / 'recipe.yaml'}'?"


def test_a_mistyped_key_breaks_no_law_on_top(tmp_path):
    text = INT8.read_text().replace("quantize: int8", "quantise: int8")
    for name in ("calib.npz", "test.npz"):
        (tmp_path / name).write_bytes(b"here")
    assert [problem.code for problem in problems_of(tmp_path, text)] == [codes.UNKNOWN_KEY]


def test_a_flood_of_problems_is_capped(tmp_path):
    text = SMALL + "".join(f"key{n}: 1\n" for n in range(500))
    problems = problems_of(tmp_path, text)
    assert len(problems) == 101
    assert problems[-1].message == "400 more problems are not shown"


# --- overrides


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("targets.0.timeout_s=60", ("targets", 0, "timeout_s"), 60.0),
        ("targets.cpu.timeout_s=0.5", ("targets", 0, "timeout_s"), 0.5),
        ("precision.type=bf16", ("precision", "type"), "bf16"),
        ("verify.tolerance.sqnr_db=1e1", ("verify", "tolerance", "sqnr_db"), 10.0),
        ("shapes.input.1.opt=[3, 3]", ("shapes", 0, "input.1", "opt"), (3, 3)),
        ('shapes."input.1".opt=[3,3]', ("shapes", 0, "input.1", "opt"), (3, 3)),
        ("shapes.0.input.1.opt=[3,3]", ("shapes", 0, "input.1", "opt"), (3, 3)),
        ("passes={drop: [identity]}", ("passes", "drop"), ("identity",)),
        ("name=a=b", None, None),
    ],
)
def test_override(tmp_path, override, path, value):
    if path is None:
        assert problems_of(tmp_path, SMALL, override)[0].where == Place(f"--set {override}")
        return
    got = load_small(tmp_path, override).recipe
    for key in path:
        got = got[key] if isinstance(got, dict | tuple) else getattr(got, key)
    assert got == value


def test_overrides_are_recorded_and_the_last_one_wins(tmp_path):
    loaded = load_small(tmp_path, "name=first", "name=second", "targets.0.timeout_s=5")
    assert loaded.recipe.name == "second"
    assert loaded.overrides == {"name": "second", "targets.0.timeout_s": 5}
    assert json.dumps(loaded.overrides)


def test_override_mends_what_the_file_lacks(tmp_path):
    text = SMALL.replace("model: {onnx: model.onnx}\n", "")
    assert load_small(tmp_path, "model.onnx=model.onnx", text=text).recipe.model.onnx


def test_override_is_the_place_of_what_it_breaks(tmp_path):
    problems = problems_of(tmp_path, SMALL, "shapes.input.1.opt=[9,3]", "targets.0.timeout_s=-1")
    assert {str(problem.where) for problem in problems} == {
        "--set shapes.input.1.opt=[9,3]",
        "--set targets.0.timeout_s=-1",
    }


# --- the resolved text


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_resolved_text_loads_to_the_same_recipe(tmp_path, path):
    loaded = load_recipe(path, ["verify.seed=7"], check_files=False)
    (tmp_path / "resolved.yaml").write_text(loaded.as_yaml())
    again = load_recipe(tmp_path / "resolved.yaml", check_files=False)
    assert again.recipe == loaded.recipe
    assert again.as_yaml() == loaded.as_yaml()


@pytest.mark.parametrize("name", ["010", "true", "null", "1e3", "8.9", ":0", "a: b", "- x", "on #"])
def test_resolved_text_quotes_what_would_not_be_read_back(tmp_path, name):
    recipe = load_small(tmp_path).recipe
    recipe = recipe.model_copy(update={"model": ModelSource(onnx=name)})
    (tmp_path / name).write_bytes(b"here")
    assert f'onnx: "{name}"' in dump_recipe(recipe)
    (tmp_path / "resolved.yaml").write_text(dump_recipe(recipe))
    assert load_recipe(tmp_path / "resolved.yaml").recipe == recipe


def test_resolved_text_is_plain_yaml_for_others(tmp_path):
    loaded = load_recipe(INT8)
    assert YAML(typ="safe", pure=True).load(loaded.as_yaml())["shapes"][0]["image"]["opt"] == [
        32,
        1,
        8,
        8,
    ]


# --- immutability and the schema in code


def test_recipes_are_immutable_to_their_leaves(tmp_path):
    recipe = load_small(tmp_path).recipe
    with pytest.raises(ValidationError, match="frozen"):
        recipe.name = "other"
    with pytest.raises(ValidationError, match="frozen"):
        recipe.targets[0].tf32 = True
    with pytest.raises(TypeError, match="cannot be changed"):
        recipe.shapes[0]["x"] = recipe.shapes[0]["input.1"]
    with pytest.raises(TypeError, match="cannot be changed"):
        recipe.verify.outputs.clear()
    with pytest.raises(TypeError):
        recipe.targets[0:1] = ()


def test_equal_recipes_have_equal_hashes_and_survive_copy_and_pickle(tmp_path):
    one, two = load_small(tmp_path).recipe, load_small(tmp_path).recipe
    assert one == two
    assert hash(one) == hash(two)
    assert copy.deepcopy(one) == pickle.loads(pickle.dumps(one)) == one


def test_laws_hold_for_recipes_made_in_code():
    with pytest.raises(ValidationError, match="opt is outside"):
        ShapeRange(min=(1,), opt=(9,), max=(4,))
    with pytest.raises(ValidationError, match="builds no engine"):
        Target(name="cpu", backend="onnxruntime", workspace_mib=5)
    with pytest.raises(ValidationError, match="there is no calibration"):
        Recipe(
            version=1,
            name="x",
            model={"onnx": "m.onnx"},
            precision={"quantize": "int8"},
            targets=({"name": "cpu", "backend": "onnxruntime"},),
        )


def test_json_schema_is_valid_and_accepts_the_shipped_recipes():
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for path in SHIPPED:
        validator.validate(YAML(typ="safe", pure=True).load(path))
    assert not validator.is_valid({"version": 1})
    bad = YAML(typ="safe", pure=True).load(INT8)
    bad["precision"]["quantise"] = "int8"
    assert not validator.is_valid(bad)


def test_every_code_is_documented_once():
    named = {value for name, value in vars(codes).items() if name.isupper() and name != "CODES"}
    assert named <= set(codes.CODES)
    assert all(text and not text.endswith(".") for text in codes.CODES.values())


def test_this_room_imports_no_heavy_library():
    code = (
        "import sys, trtforge.recipe.load, trtforge.recipe.render\n"
        "heavy = {'numpy', 'onnx', 'onnxruntime', 'polygraphy', 'tensorrt_rtx', 'click', 'rich'}\n"
        "print(*(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "\n", "")


# --- rendering


def test_rendering_is_the_documented_block():
    problem = Problem(
        "TF0203",
        "opt is outside min..max for input 'image'",
        "opt must lie between min and max in every dimension; did you mean max: [64, 1, 8, 8]?",
        Place(
            "recipes/digits/int8.yaml",
            5,
            30,
            18,
            "  image: {min: [1, 1, 8, 8], opt: [64, 1, 8, 8], max: [32, 1, 8, 8]}",
        ),
    )
    assert render_problem(problem).splitlines() == [
        "error[TF0203]: opt is outside min..max for input 'image'",
        "  --> recipes/digits/int8.yaml:5:30",
        "   |",
        " 5 |   image: {min: [1, 1, 8, 8], opt: [64, 1, 8, 8], max: [32, 1, 8, 8]}",
        "   |                              ^^^^^^^^^^^^^^^^^^",
        "hint: opt must lie between min and max in every dimension; "
        "did you mean max: [64, 1, 8, 8]?",
    ]


def test_rendering_without_place_or_hint():
    assert render_problem(Problem("TF0100", "no")) == "error[TF0100]: no"
    where = Place("model.onnx", node="conv1")
    assert render_problem(Problem("TF0400", "no", None, where)).splitlines()[1:] == [
        "  --> model.onnx (node 'conv1')"
    ]


def test_rendering_keeps_the_carets_under_wide_characters():
    text = "name: 数字 x"
    shown = render_problem(Problem("TF0212", "m", None, Place("r.yaml", 2, 7, 2, text)))
    assert shown.splitlines()[-1] == "   |       ^^^^"


def test_rendering_shows_no_control_characters():
    text = "name: \x1b[31mred\u202e"
    shown = render_problem(Problem("TF0212", "\x1b[2J", "\r\n", Place("r\x07.yaml", 1, 1, 4, text)))
    assert not any(ord(character) < 32 and character != "\n" for character in shown)
    assert "\u202e" not in shown


def test_rendering_cuts_long_lines_around_the_carets():
    text = "x" * 500 + "HERE" + "y" * 500
    lines = render_problem(Problem("TF0212", "m", None, Place("r", 1, 501, 4, text))).splitlines()
    assert len(lines[3]) < 120
    start = lines[4].index("^")
    assert lines[3][start : start + 4] == "HERE"
    assert lines[4].count("^") == 4


def test_rendering_joins_what_a_library_wrote_in_several_lines():
    problem = Problem("TF0404", "it says:\n\n  first \r\n\tsecond\n", "try\nthis")
    assert render_problem(problem) == "error[TF0404]: it says: first second\nhint: try this"
