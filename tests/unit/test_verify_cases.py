"""Cases: data in batches, corners from its rows, seeded random inputs."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from trtforge.errors import UsageError
from trtforge.graph.data import ArrayData
from trtforge.graph.model import Model
from trtforge.verify.cases import cases_from, resized


def make_model(tmp_path, dims, dtype=TensorProto.FLOAT):
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "identity",
        [helper.make_tensor_value_info("x", dtype, dims)],
        [helper.make_tensor_value_info("y", dtype, dims)],
    )
    path = tmp_path / "model.onnx"
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(proto, path)
    return Model.load(path)


def make_data(tmp_path, model, array, labels=None):
    path = tmp_path / "data.npz"
    np.savez(path, x=array, **({} if labels is None else {"labels": labels}))
    return ArrayData.open(path, model.contract, labels=labels is not None)


@pytest.fixture
def rows():
    return np.arange(10 * 6, dtype=np.float32).reshape(10, 6)


def corners(**shapes):
    return [(name, {"x": shape}) for name, shape in shapes.items()]


def test_data_comes_in_batches_with_its_labels(tmp_path, rows):
    model = make_model(tmp_path, ["N", 6])
    data = make_data(tmp_path, model, rows, labels=np.arange(10) % 3)
    cases = list(cases_from(data, corners(opt=(4, 6)), model, batch=4))
    parts = [case for case in cases if case.group == "data"]
    assert [case.name for case in parts] == ["data 0..3", "data 4..7", "data 8..9"]
    assert [len(case.labels) for case in parts] == [4, 4, 2]
    np.testing.assert_array_equal(
        np.concatenate([case.labels for case in parts]), np.arange(10) % 3
    )
    counted = [case.counted(case.feeds["x"]) for case in parts]
    np.testing.assert_array_equal(np.concatenate(counted), rows)


def test_the_last_batch_is_filled_up_with_rows_that_do_not_count(tmp_path, rows):
    model = make_model(tmp_path, ["N", 6])
    data = make_data(tmp_path, model, rows)
    last = list(cases_from(data, corners(opt=(4, 6)), model, batch=4))[2]
    assert last.feeds["x"].shape == (4, 6)
    assert last.rows == 2
    np.testing.assert_array_equal(last.feeds["x"], rows[[8, 9, 8, 9]])
    assert last.counted(np.zeros((4, 3))).shape == (2, 3)
    assert last.counted(np.zeros((5, 3))).shape == (5, 3)
    assert last.counted(np.zeros(())).shape == ()


def test_a_limit_uses_the_first_samples(tmp_path, rows):
    model = make_model(tmp_path, ["N", 6])
    data = make_data(tmp_path, model, rows, labels=np.arange(10))
    parts = [case for case in cases_from(data, [], model, batch=4, limit=5) if case.group == "data"]
    assert sum(case.rows for case in parts) == 5
    np.testing.assert_array_equal(np.concatenate([case.labels for case in parts]), np.arange(5))


@pytest.mark.parametrize(
    ("low", "high", "asked", "given"), [(1, 8, 32, 8), (6, 8, 2, 6), (1, 256, 32, 10)]
)
def test_the_batch_is_brought_into_the_profile(tmp_path, rows, low, high, asked, given):
    model = make_model(tmp_path, ["N", 6])
    data = make_data(tmp_path, model, rows)
    found = cases_from(data, corners(min=(low, 6), max=(high, 6)), model, batch=asked)
    sizes = {case.feeds["x"].shape[0] for case in found if case.group == "data"}
    assert sizes == {given}


def test_corners_are_rows_of_the_data(tmp_path, rows):
    model = make_model(tmp_path, ["N", 6])
    data = make_data(tmp_path, model, rows)
    found = {
        case.name: case
        for case in cases_from(data, corners(min=(1, 6), opt=(4, 6), max=(25, 6)), model)
    }
    np.testing.assert_array_equal(found["corner min"].feeds["x"], rows[:1])
    np.testing.assert_array_equal(found["corner max"].feeds["x"], np.tile(rows, (3, 1))[:25])
    assert found["corner max"].group == "corner"
    assert found["corner max"].labels is None


def test_corners_crop_and_repeat_every_axis(tmp_path, rows):
    model = make_model(tmp_path, ["N", "S"])
    data = make_data(tmp_path, model, rows)
    found = {c.name: c.feeds["x"] for c in cases_from(data, corners(a=(2, 3), b=(1, 8)), model)}
    np.testing.assert_array_equal(found["corner a"], rows[:2, :3])
    np.testing.assert_array_equal(found["corner b"][0], [0, 1, 2, 3, 4, 5, 0, 1])


def test_corners_without_data_are_random_and_judged(tmp_path):
    model = make_model(tmp_path, ["N", 6])
    found = list(cases_from(None, corners(min=(1, 6), opt=(3, 6)), model))
    assert [(case.name, case.group) for case in found] == [
        ("corner min (random)", "corner"),
        ("corner opt (random)", "corner"),
        ("random", "random"),
    ]
    assert found[2].feeds["x"].shape == (3, 6)


def test_an_empty_corner_is_possible(tmp_path, rows):
    model = make_model(tmp_path, ["N", 6])
    data = make_data(tmp_path, model, rows)
    found = [case for case in cases_from(data, corners(min=(0, 6)), model) if "min" in case.name]
    assert found[0].feeds["x"].shape == (0, 6)


def test_random_inputs_depend_on_the_seed_alone(tmp_path):
    model = make_model(tmp_path, ["N", 6])

    def draw(seed):
        return [c.feeds["x"] for c in cases_from(None, corners(min=(2, 6)), model, seed=seed)]

    for first, again in zip(draw(3), draw(3), strict=True):
        np.testing.assert_array_equal(first, again)
    assert not np.array_equal(draw(3)[0], draw(4)[0])
    assert not np.array_equal(draw(3)[0], draw(3)[1])


def test_a_static_model_needs_no_shapes(tmp_path):
    model = make_model(tmp_path, [2, 6])
    (only,) = cases_from(None, [], model)
    assert only.feeds["x"].shape == (2, 6)


def test_a_static_batch_is_kept(tmp_path, rows):
    model = make_model(tmp_path, [5, 6])
    data = make_data(tmp_path, model, rows)
    parts = [c for c in cases_from(data, corners(opt=(5, 6)), model) if c.group == "data"]
    assert [case.feeds["x"].shape for case in parts] == [(5, 6), (5, 6)]


def test_a_dynamic_model_without_shapes_and_data_is_an_error(tmp_path):
    model = make_model(tmp_path, ["N", 6])
    with pytest.raises(UsageError, match="'x' is dynamic"):
        list(cases_from(None, [], model))


def test_a_dynamic_model_with_data_alone_is_compared_on_it(tmp_path, rows):
    model = make_model(tmp_path, ["N", 6])
    data = make_data(tmp_path, model, rows)
    assert {case.group for case in cases_from(data, [], model)} == {"data"}


def test_resizing_from_nothing_to_nothing():
    assert resized(np.zeros((0, 3)), (0, 2)).shape == (0, 2)


def test_a_batch_between_two_profiles_is_that_of_the_nearer_one(tmp_path, rows):
    model = make_model(tmp_path, ["N", 6])
    data = make_data(tmp_path, model, rows)
    where = [("0.min", 1), ("0.opt", 2), ("0.max", 3), ("1.min", 20), ("1.max", 30)]
    named = [(name, {"x": (size, 6)}) for name, size in where]
    parts = [case for case in cases_from(data, named, model) if case.group == "data"]
    assert {case.feeds["x"].shape for case in parts} == {(3, 6)}
    assert [case.rows for case in parts] == [3, 3, 3, 1]


def test_the_batch_is_that_of_a_profile_that_takes_the_other_axes(tmp_path, rows):
    model = make_model(tmp_path, ["N", "L"])
    data = make_data(tmp_path, model, rows)
    short, long = ({"x": (8, 3)}, {"x": (16, 3)}), ({"x": (1, 4)}, {"x": (2, 9)})
    named = list(zip(("0.min", "0.max", "1.min", "1.max"), (*short, *long), strict=True))
    parts = [case for case in cases_from(data, named, model) if case.group == "data"]
    assert {case.feeds["x"].shape for case in parts} == {(2, 6)}
