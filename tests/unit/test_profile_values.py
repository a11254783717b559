"""Profiles for recorded values that decide shapes, and traces as hostile users write them."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from engine_models import model, save
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from shape_values import DECIDING

from trtforge.cli.main import cli
from trtforge.engine.backend import ValueTriple
from trtforge.engine.profile_advice import assess, suggest
from trtforge.engine.profiles import profile_problems
from trtforge.errors import DataError, RecipeError, UsageError
from trtforge.pipeline.profiles import check_profiles, suggest_profiles
from trtforge.recipe.load import load_recipe

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def written(folder: Path, *lines: Any) -> Path:
    trace = folder / "trace.jsonl"
    trace.write_text("\n".join(one if isinstance(one, str) else json.dumps(one) for one in lines))
    return trace


def topk(folder: Path) -> Path:
    return save(DECIDING["topk"].graph, folder)


def line(rows: int, k: int, count: int = 1) -> dict[str, Any]:
    return {"shapes": {"x": [rows, 20]}, "values": {"k": [k]}, "count": count}


def recipe_of(folder: Path, lines: list[str]) -> Path:
    head = ["version: 1", "name: m", "model: {onnx: model.onnx}"]
    path = folder / "recipe.yaml"
    path.write_text("\n".join([*head, *lines, "targets: [{name: t, backend: onnxruntime}]"]))
    return path


def test_values_are_proposed_and_checked(tmp_path: Path) -> None:
    trace = written(tmp_path, line(1, 1, 90), line(1, 2, 10), line(4, 16, 50), line(4, 20))
    result = suggest_profiles(topk(tmp_path), trace)
    assert result.recipe_lines() == [
        "shapes:",
        "  - x: {min: [1, 20], opt: [1, 20], max: [1, 20]}",
        "    k: {min: [1], opt: [1], max: [2], values: true}",
        "  - x: {min: [4, 20], opt: [4, 20], max: [4, 20]}",
        "    k: {min: [16], opt: [16], max: [20], values: true}",
    ]
    recipe = recipe_of(tmp_path, result.recipe_lines())
    found = check_profiles(recipe, trace)
    assert found.assessment.covered == 1
    assert found.as_json()["profiles"][1]["k"]["values"] is True
    wide = recipe_of(
        tmp_path,
        [
            "shapes:",
            "  x: {min: [1, 20], opt: [1, 20], max: [8, 20]}",
            "  k: {min: [1], opt: [2], max: [16], values: true}",
        ],
    )
    judged = check_profiles(wide, trace).assessment
    assert judged.covered == pytest.approx(150 / 151)
    assert judged.uncovered == ((("x", (4, 20)), ("k", (20,))),)
    assert judged.profiles[0].gaps == (("x", 0, 1, 4), ("x", 0, 4, 8), ("k", 0, 2, 16))


def test_opt_is_a_request_that_was_seen(tmp_path: Path) -> None:
    path = save(DECIDING["reshape"].graph, tmp_path)
    pairs = [(1, [2, 12]), (2, [6, 8]), (2, [24, 2]), (4, [8, 12])]
    seen = [{"shapes": {"x": [rows, 24]}, "values": {"k": k}} for rows, k in pairs]
    (profile,) = suggest_profiles(path, written(tmp_path, *seen), 1).profiles
    assert (profile["x"][1][0], list(profile["k"][1])) in pairs
    assert (profile["k"][0], profile["k"][2]) == ((2, 2), (24, 12))


REQUESTS = st.dictionaries(
    st.tuples(st.integers(1, 64), st.integers(-3, 300), st.integers(0, 9)).map(
        lambda one: (("x", (one[0],)), ("k", one[1:]))
    ),
    st.integers(1, 50),
    min_size=1,
    max_size=30,
)


@given(REQUESTS, st.one_of(st.none(), st.integers(1, 4)))
@settings(max_examples=40, deadline=None)
def test_proposed_values_are_lawful_and_cover_all(seen: dict[Any, int], count: int | None) -> None:
    profiles = suggest(seen, count, ("k",))
    assert all(isinstance(profile["k"], ValueTriple) for profile in profiles)
    assert all(tuple((n, t[1]) for n, t in profile.items()) in seen for profile in profiles)
    assert profile_problems({"x": (-1,), "k": (2,)}, profiles, ("k",)) == ()
    assert assess(profiles, seen).covered == 1


def test_arrays_of_requests_hold_their_values(tmp_path: Path) -> None:
    path, folder = topk(tmp_path), tmp_path / "requests"
    folder.mkdir()
    for index, k in enumerate((3, 7)):
        x = np.zeros((2, 20), np.float32)
        np.savez(folder / f"{index}.npz", x=x, k=np.array([k]), labels=np.zeros(2, np.int64))
    (profile,) = suggest_profiles(path, folder, 1).profiles
    assert profile["k"][::2] == ((3,), (7,))
    (folder / "2.npz").write_bytes(b"PK\3\4 nothing of the kind")
    with pytest.raises(DataError) as caught:
        suggest_profiles(path, folder)
    assert caught.value.code == "TF0502"


def test_the_table_tells_values_from_shapes(tmp_path: Path) -> None:
    trace = written(tmp_path, line(1, 1, 9), line(1, 12))
    path = topk(tmp_path)
    shown = CliRunner().invoke(
        cli, ["profiles", "suggest", str(path), "--trace", str(trace), "-k1"]
    )
    assert shown.exit_code == 0, shown.output
    assert "[1]" in shown.output
    assert "1x20" in shown.output
    assert "profile 0, 'k', value 0: nothing between 1 and 12" in shown.output


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ({"x": [1, 20]}, "the values of input 'k', which decide shapes, are missing"),
        ({"x": [1, 20], "k": [1]}, "the values of input 'k', which decide shapes, are missing"),
        ({"shapes": {"x": [1, 20]}, "values": {"k": [1, 2]}}, "'k' has 1 values, not 2"),
        ({"shapes": {"x": [1, 20]}, "values": {"k": [1.0]}}, "no list of whole numbers of 32"),
        ({"shapes": {"x": [1, 20]}, "values": {"k": [2**31]}}, "no list of whole numbers of 32"),
        ({"shapes": {"x": [1, 20]}, "values": {"x": [1]}}, "values of input 'x' decide no shapes"),
        ({"shapes": {"x": [1, 20]}, "values": 5}, "'shapes' and 'values' are mappings"),
        ({"shapes": {"x": [1, 20]}, "cuont": 7}, "'cuont' is none of shapes, values, count"),
        ({"shapes": {"x": [1, 20]}, "count": 10**40}, "'count' is 1000"),
        ({"shapes": {"x": [1, 20]}, "count": True}, "'count' is True"),
        ('{"x": [NaN, 20]}', "no list of whole numbers below 2^31"),
        ('{"x": [-1, 20]}', "no list of whole numbers below 2^31"),
        ('{"x": [99999999999, 20]}', "no list of whole numbers below 2^31"),
        ('{"x": "1x20"}', "no list of whole numbers below 2^31"),
        ('{"x": [[1], 20]}', "no list of whole numbers below 2^31"),
        ('{"x": [1, 20, 1]}', "'x' is [N, 20] in the model, not [1, 20, 1]"),
        ('{"x": [1, 20]} {"x": [1, 20]}', "it is no JSON: Extra data"),
        ("[" * 100_000, "it is no JSON: "),
        ("null", "it is no mapping"),
    ],
)
def test_a_line_that_is_wrong_is_named(text: Any, words: str, tmp_path: Path) -> None:
    trace = written(tmp_path, line(1, 1), "", text)
    with pytest.raises(DataError) as caught:
        suggest_profiles(topk(tmp_path), trace)
    assert caught.value.code == "TF0571"
    assert words in caught.value.message
    assert caught.value.where is not None
    assert caught.value.where.line == 3


def test_a_trace_that_is_no_text_is_one_error(tmp_path: Path) -> None:
    for content in (b"\xff\xfe{", b""):
        (tmp_path / "trace").write_bytes(content)
        with pytest.raises(DataError) as caught:
            suggest_profiles(topk(tmp_path), tmp_path / "trace")
        assert caught.value.code == "TF0570"


def test_marks_and_ends_of_lines_of_other_systems_are_read(tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    trace.write_bytes(b"\xef\xbb\xbf" + json.dumps(line(2, 3)).encode() + b"\r\n\r\n")
    assert suggest_profiles(topk(tmp_path), trace).assessment.requests == 1


def test_dimensions_of_one_name_are_one_size(tmp_path: Path) -> None:
    inputs = {"a": (FLOAT, ["N", 4]), "b": (FLOAT, ["N", 4])}
    node = helper.make_node("Add", ["a", "b"], ["y"])
    path = save(model([node], inputs, {"y": (FLOAT, ["N", 4])}), tmp_path)
    trace = written(tmp_path, {"a": [2, 4], "b": [2, 4]}, {"a": [2, 4], "b": [1, 4]})
    with pytest.raises(DataError, match="dimension 'N' is 2 in input 'a' and 1 in 'b'") as caught:
        suggest_profiles(path, trace)
    assert caught.value.code == "TF0571"


@pytest.mark.parametrize("name", ["1", "yes", "a: b", "x#1", "-", "null", 'quo"te', "ü", "'", "~"])
def test_lines_of_a_recipe_keep_any_name(name: str, tmp_path: Path) -> None:
    graph = model(
        [helper.make_node("Relu", [name], ["out"])], {name: (FLOAT, ["N"])}, {"out": (FLOAT, ["N"])}
    )
    found = suggest_profiles(save(graph, tmp_path), written(tmp_path, {name: [3]}, {name: [900]}))
    assert len(found.profiles) == 2
    recipe = recipe_of(tmp_path, found.recipe_lines())
    assert [set(profile) for profile in load_recipe(recipe).recipe.shapes] == [{name}, {name}]


def test_a_recipe_that_does_not_fit_its_model_is_refused(tmp_path: Path) -> None:
    topk(tmp_path)
    trace = written(tmp_path, line(1, 1))
    bad = [
        "shapes:",
        "  - x: {min: [1, 20], opt: [1, 20], max: [8, 20]}",
        "  - x: {min: [1], opt: [1], max: [8]}",
        "  - z: {min: [1], opt: [1], max: [8]}",
    ]
    with pytest.raises(RecipeError) as caught:
        check_profiles(recipe_of(tmp_path, bad), trace)
    said = [one.message for one in caught.value.problems]
    assert any("'x' has 2 dimensions in the model, 1 here" in one for one in said)
    assert any("the model has no input 'z'" in one for one in said)
    assert {one.code for one in caught.value.problems} == {"TF0231"}
    with pytest.raises(UsageError, match="has no shapes"):
        check_profiles(recipe_of(tmp_path, []), trace)


def test_a_profile_given_twice_overlaps_itself(tmp_path: Path) -> None:
    topk(tmp_path)
    one = "  - {{{}}}".format(
        "x: {min: [1, 20], opt: [1, 20], max: [8, 20]}, "
        "k: {min: [1], opt: [1], max: [9], values: true}"
    )
    found = check_profiles(
        recipe_of(tmp_path, ["shapes:", one, one]), written(tmp_path, line(1, 1))
    )
    assert found.assessment.overlaps == ((0, 1),)
    assert [use.requests for use in found.assessment.profiles] == [1, 0]


def test_a_long_trace_takes_no_memory(tmp_path: Path) -> None:
    names = [f"in{index}" for index in range(10)]
    inputs = {one: (FLOAT, ["N", "L"]) for one in names}
    graph = model([helper.make_node("Sum", names, ["y"])], inputs, {"y": (FLOAT, ["N", "L"])})
    path = save(graph, tmp_path)
    rng = np.random.default_rng(0)
    with (tmp_path / "trace").open("w") as file:
        for rows, size in zip(rng.integers(1, 9, 3000), rng.integers(1, 50, 3000), strict=True):
            request = {key: [int(rows), int(size)] for key in names}
            file.write(json.dumps(request) + " " * 5000 + "\n")
    tracemalloc.start()
    found = suggest_profiles(path, tmp_path / "trace", 2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (found.assessment.covered, len(found.profiles)) == (1, 2)
    assert peak < 8 << 20, f"{peak >> 20} MiB for 16 MB of lines, 400 of them distinct"
