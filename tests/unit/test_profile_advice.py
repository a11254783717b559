"""Profiles for recorded shapes: they cover all, split where it pays, and say what does not fit."""

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from trtforge.cli.main import _run
from trtforge.engine.profile_advice import Shapes, assess, suggest
from trtforge.engine.profiles import profile_problems
from trtforge.errors import DataError, UsageError
from trtforge.pipeline.profiles import check_profiles, suggest_profiles


def requests(*shapes: tuple[int, ...], times: int = 1) -> Counter[Shapes]:
    return Counter({(("x", one),): times for one in shapes})


def test_one_shape_is_one_profile() -> None:
    assert suggest(requests((4, 3))) == ({"x": ((4, 3), (4, 3), (4, 3))},)


def test_two_far_groups_are_two_profiles_and_opt_is_where_most_requests_are() -> None:
    seen = requests((1, 16)) + requests((1, 20), times=10)
    seen += requests((1, 400), (1, 500), times=5)
    low, high = suggest(seen)
    assert low == {"x": ((1, 16), (1, 20), (1, 20))}
    assert high["x"][0] == (1, 400)
    assert high["x"][2] == (1, 500)


def test_near_shapes_stay_together_unless_more_are_asked_for() -> None:
    seen = requests(*((1, size) for size in (100, 101, 102, 103)))
    assert len(suggest(seen, 1)) == 1
    assert len(suggest(seen, 4)) == 4
    assert len(suggest(seen, 8)) == 4, "there are no more than four shapes"


SHAPES = st.dictionaries(
    st.tuples(st.integers(0, 64), st.integers(1, 600)).map(lambda dims: (("x", dims),)),
    st.integers(1, 50),
    min_size=1,
    max_size=40,
)


@given(SHAPES, st.one_of(st.none(), st.integers(1, 5)))
@settings(max_examples=40, deadline=None)
def test_every_request_is_covered_by_lawful_profiles(
    seen: dict[Shapes, int], count: int | None
) -> None:
    profiles = suggest(seen, count)
    found = assess(profiles, seen)
    assert found.covered == 1
    assert found.requests == sum(seen.values())
    assert sum(use.requests for use in found.profiles) == found.requests
    assert profile_problems({"x": (-1, -1)}, profiles) == ()
    assert count is None or len(profiles) <= count


@given(SHAPES)
@settings(max_examples=20, deadline=None)
def test_more_profiles_never_fit_worse(seen: dict[Shapes, int]) -> None:
    # The first profile that covers a shape is used, so an overlap can undo a little.
    costs = [assess(suggest(seen, count), seen) for count in (1, 2, 3)]
    for fewer, more in pairwise(costs):
        assert more.distance <= fewer.distance + 1e-9 or more.overlaps


def test_thousands_of_shapes_take_a_moment_and_stay_covered() -> None:
    rng = np.random.default_rng(0)
    seen = Counter(
        (("x", (int(batch), int(size))),)
        for batch, size in zip(rng.integers(1, 65, 6000), rng.integers(1, 2000, 6000), strict=True)
    )
    assert assess(suggest(seen, 3), seen).covered == 1


def test_what_profiles_miss_is_said() -> None:
    profiles = ({"x": ((1, 8), (1, 64), (1, 512))}, {"x": ((1, 256), (1, 300), (1, 1024))})
    found = assess(profiles, requests((1, 8), (1, 512), (1, 4096), (2, 8)))
    assert found.covered == 0.5
    assert {dict(one)["x"] for one in found.uncovered} == {(1, 4096), (2, 8)}
    assert found.overlaps == ((0, 1),)
    assert ("x", 1, 8, 512) in found.profiles[0].gaps
    assert found.profiles[1].requests == 0


@pytest.fixture
def model(tmp_path: Path) -> Path:
    graph = helper.make_graph(
        [helper.make_node("Add", ["ids", "bias"], ["out"])],
        "g",
        [
            helper.make_tensor_value_info("ids", TensorProto.FLOAT, ["N", "L"]),
            helper.make_tensor_value_info("bias", TensorProto.FLOAT, [1, 1]),
        ],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["N", "L"])],
    )
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)]), path)
    return path


def test_a_trace_becomes_lines_of_a_recipe(model: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    lines = [{"ids": [1, 8]}, {"ids": [1, 9], "bias": [1, 1]}]
    lines.append({"shapes": {"ids": [4, 300]}, "count": 9})
    trace.write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    result = suggest_profiles(model, trace)
    assert result.assessment.requests == 11
    assert result.recipe_lines() == [
        "shapes:",
        "  - ids: {min: [1, 8], opt: [1, 8], max: [1, 9]}",
        "  - ids: {min: [4, 300], opt: [4, 300], max: [4, 300]}",
    ]
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "version: 1\nname: m\nmodel: {onnx: m.onnx}\n"
        + "\n".join(result.recipe_lines())
        + "\ntargets: [{name: t, backend: onnxruntime}]\n"
    )
    assert check_profiles(recipe, trace).assessment.covered == 1


def test_a_quiet_check_still_answers(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "trace.jsonl").write_text('{"ids": [1, 8]}\n{"ids": [9, 8]}\n')
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "version: 1\nname: m\nmodel: {onnx: m.onnx}\n"
        "shapes: {ids: {min: [1, 8], opt: [1, 8], max: [1, 8]}}\n"
        "targets: [{name: t, backend: onnxruntime}]\n"
    )
    words = ["profiles", "check", str(recipe), "--trace", str(tmp_path / "trace.jsonl"), "-q"]
    assert _run(words) == 5
    found = "50 % of 2 requests are covered; mean distance from opt: 0.00 doublings\n"
    assert capsys.readouterr().out == found


def test_a_folder_of_arrays_is_a_trace(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "requests"
    folder.mkdir()
    for index, size in enumerate((5, 7)):
        np.savez(folder / f"{index}.npz", ids=np.zeros((1, size), np.float32))
    result = suggest_profiles(model, folder, 1)
    assert result.profiles == ({"ids": ((1, 5), (1, 5), (1, 7))},)


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("", "TF0570", "no shapes"),
        ("{", "TF0571", "line"),
        ("[1, 2]", "TF0571", "no mapping"),
        ('{"ids": [1, 2.5]}', "TF0571", "whole numbers"),
        ('{"ids": [1]}', "TF0571", "not [1]"),
        ('{"ids": [1, 2], "bias": [2, 1]}', "TF0571", "not [2, 1]"),
        ('{"ids": [1, 2], "else": [1]}', "TF0571", "no input 'else'"),
        ('{"shapes": {"ids": [1, 2]}, "count": 0}', "TF0571", "'count' is 0"),
    ],
)
def test_a_trace_that_is_wrong(
    model: Path, tmp_path: Path, text: str, code: str, said: str
) -> None:
    trace = tmp_path / "trace.jsonl"
    trace.write_text(text)
    with pytest.raises(DataError) as caught:
        suggest_profiles(model, trace)
    assert caught.value.code == code
    assert said in f"{caught.value.message} {caught.value.where}"


def test_a_model_of_fixed_shapes_needs_none(tmp_path: Path, model: Path) -> None:
    proto = onnx.load(model)
    for value in (proto.graph.input[0], proto.graph.output[0]):
        for dim, size in zip(value.type.tensor_type.shape.dim, (1, 8), strict=True):
            dim.dim_value = size
    onnx.save(proto, model)
    with pytest.raises(UsageError, match="no dynamic input"):
        suggest_profiles(model, tmp_path / "missing.jsonl")
