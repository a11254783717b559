"""Made-up inputs, profile checks, and running models."""

import copy
import zlib
from pathlib import Path
from typing import Any

import models_graph as mg
import numpy as np
import onnx
import pytest
from shape_values import DECIDING

from trtforge.errors import GraphError
from trtforge.graph.contract import IoContract, TensorSpec
from trtforge.graph.execute import Session
from trtforge.graph.inputs import (
    Values,
    check_profiles,
    index_limits,
    random_feeds,
    resolve_shapes,
)
from trtforge.graph.model import Model
from trtforge.precision.attest import attest
from trtforge.recipe.schema import ShapeRange


def embedding() -> Model:
    """Token ids through a Cast into a table of 11 rows, positions into 5, and a mask."""
    proto = mg.model(
        [
            mg.node("Cast", ["ids"], ["ids64"], to=onnx.TensorProto.INT64),
            mg.node("Gather", ["table", "ids64"], ["e"]),
            mg.node("Gather", ["places", "at"], ["p"]),
            mg.node("Gather", ["wide", "at"], ["w"], axis=1),
            mg.node("Add", ["e", "p"], ["y"]),
            mg.node("Cast", ["mask"], ["m"], to=1),
        ],
        [
            mg.info("ids", ["N", "T"], np.int32),
            mg.info("at", ["N", "T"], np.int64),
            mg.info("mask", ["N", "T"], np.int64),
            mg.info("pixel", [200], np.uint8),
            mg.info("flag", [64], bool),
            mg.info("h", [3], np.float16),
        ],
        [mg.info("y", ["N", "T", 4]), mg.info("m", ["N", "T"]), mg.info("w", [2, "N", "T"])],
        [
            mg.tensor("table", mg.weights(11, 4)),
            mg.tensor("places", mg.weights(5, 4)),
            mg.tensor("wide", mg.weights(2, 7)),
        ],
    )
    return Model(proto)


SHAPES = {"ids": (40, 30), "at": (40, 30), "mask": (40, 30)}


def test_indices_stay_inside_their_tables() -> None:
    model = embedding()
    assert index_limits(model) == {"ids": 11, "at": 5}
    feeds = random_feeds(model, SHAPES, 3)
    assert set(np.unique(feeds["ids"])) == set(range(11))
    assert set(np.unique(feeds["at"])) == set(range(5))
    assert set(np.unique(feeds["mask"])) == {0, 1}
    assert feeds["pixel"].max() > 200
    assert feeds["flag"].dtype == np.bool_
    assert feeds["h"].dtype == np.float16
    assert [feeds[name].dtype for name in ("ids", "at")] == [np.int32, np.int64]
    model_outputs = Session(model).run(feeds)
    assert model_outputs["y"].shape == (40, 30, 4)


def test_values_depend_on_seed_and_name_alone() -> None:
    model = Model(mg.conv_bn())
    one, two = (random_feeds(model, {"x": (2, 3, 6, 6)}, 1)["x"] for _ in range(2))
    assert np.array_equal(one, two)
    assert not np.array_equal(one, random_feeds(model, {"x": (2, 3, 6, 6)}, 2)["x"])
    # The documented recipe, so that other tools can make the same inputs.
    generator = np.random.default_rng([1, zlib.crc32(b"x")])
    assert np.array_equal(one, generator.standard_normal((2, 3, 6, 6)).astype(np.float32))
    assert abs(float(random_feeds(model, {"x": (99, 3, 9, 9)}, 1)["x"].std()) - 1) < 0.02


def test_a_dynamic_input_without_a_shape() -> None:
    with pytest.raises(GraphError, match=r"dynamic dimensions \[N, 3, 6, 6\]") as caught:
        random_feeds(Model(mg.conv_bn()), {}, 0)
    assert caught.value.code == "TF0412"


def test_strings_cannot_be_made_up() -> None:
    spec = onnx.helper.make_tensor_value_info("s", onnx.TensorProto.STRING, [2])
    model = Model(mg.model([], [spec], [spec]))
    assert model.contract.inputs[0].dtype == "string"
    with pytest.raises(GraphError, match="string"):
        random_feeds(model, {}, 0)


CONTRACT = IoContract(
    (TensorSpec("image", "float32", ("N", 3, "H", "H")), TensorSpec("scale", "float32", (1,))), ()
)


def span(*shapes: tuple[int, ...]) -> ShapeRange:
    return ShapeRange(min=shapes[0], opt=shapes[1], max=shapes[2])


GOOD = span((1, 3, 8, 8), (4, 3, 16, 16), (8, 3, 32, 32))


def test_shapes_at_each_end() -> None:
    assert resolve_shapes(CONTRACT, {"image": GOOD}, "opt") == {
        "image": (4, 3, 16, 16),
        "scale": (1,),
    }
    with pytest.raises(GraphError, match="'image' has dynamic"):
        resolve_shapes(CONTRACT, {}, "min")


def test_good_profiles() -> None:
    assert (
        check_profiles(CONTRACT, [{"image": GOOD}, {"image": GOOD, "scale": span(*[(1,)] * 3)}])
        == []
    )


def test_every_problem_of_the_profiles_at_once() -> None:
    profiles = [
        {"imgae": GOOD, "image": span((1, 4, 8, 8), (1, 4, 8, 8), (1, 4, 8, 8))},
        {"image": span((1, 3), (1, 3), (1, 3))},
        {"scale": span((1,), (1,), (2,))},
    ]
    found = check_profiles(CONTRACT, profiles)
    assert [path for path, _, _ in found] == [
        ("shapes", 0, "imgae"),
        ("shapes", 0, "image", "min"),
        ("shapes", 0, "image", "opt"),
        ("shapes", 0, "image", "max"),
        ("shapes", 1, "image"),
        ("shapes", 2, "scale", "max"),
        ("shapes", 2),
    ]
    assert found[0][2] == "did you mean 'image'?"
    assert found[1][1] == "dimension 1 of 'image' is 3 in the model, 4 here"
    assert found[4][1] == "'image' has 4 dimensions in the model, 2 here"
    assert "needs a range" in found[6][1]
    assert [path for path, _, _ in check_profiles(CONTRACT, [])] == [("shapes",)]


def test_dimensions_of_one_name_must_be_equal_in_each_bound() -> None:
    contract = IoContract(
        (TensorSpec("ids", "int64", ("N", "S")), TensorSpec("mask", "int64", ("N", None))), ()
    )
    ids = span((1, 4), (4, 16), (8, 64))
    assert check_profiles(contract, [{"ids": ids, "mask": span((1, 9), (4, 9), (8, 9))}]) == []
    found = check_profiles(contract, [{"ids": ids, "mask": span((1, 4), (2, 16), (8, 64))}])
    assert [path for path, _, _ in found] == [("shapes", 0, "mask", "opt")]
    assert found[0][1] == (
        "dimension 0 of 'mask' is 2 and dimension 0 of 'ids' is 4, but the model calls both 'N'"
    )
    crooked = check_profiles(CONTRACT, [{"image": span((1, 3, 8, 8), (1, 3, 8, 9), (1, 3, 9, 9))}])
    assert [path for path, _, _ in crooked] == [("shapes", 0, "image", "opt")]


# Values that decide shapes


def values(low: tuple[int, ...], high: tuple[int, ...]) -> ShapeRange:
    return ShapeRange(min=low, opt=low, max=high, values=True)


def test_values_are_fed_as_the_input_declares_them() -> None:
    for case, dtype in ((DECIDING["range"], np.int64), (DECIDING["slice"], np.int32)):
        model = Model(case.graph)
        (spec,) = [spec for spec in model.contract.inputs if spec.name == "k"]
        for low, high in ((1, 8), (2, 5)):
            shapes = resolve_shapes(model.contract, {"k": values((low,), (high,))}, "max")
            assert shapes["k"] == (high,)
            assert isinstance(shapes["k"], Values)
            for seed in (0, 1):
                fed = random_feeds(model, shapes, seed)["k"]
                assert (fed.dtype, fed.shape, int(fed.ravel()[0])) == (dtype, spec.dims, high)


def test_a_count_at_values_that_decide_shapes() -> None:
    model = Model(DECIDING["expand"].graph)
    macs = copy.deepcopy(model.proto)
    macs.graph.node.append(onnx.helper.make_node("MatMul", ["y", "w"], ["z"], name="mm"))
    macs.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((6, 3), np.float32), "w"))
    del macs.graph.output[:]
    macs.graph.output.append(onnx.helper.make_tensor_value_info("z", 1, ["a", 3]))
    for rows in (1, 4, 8):
        shapes = {"x": (1, 6), "k": Values((rows, 6))}
        assert attest(Model(macs), shapes).macs == {"fp32": rows * 6 * 3}


@pytest.mark.parametrize(
    ("spec", "message", "hint"),
    [
        (
            ("float32", (2,)),
            "'k' is float32; values that decide shapes are int32 or",
            "shape",
        ),
        (("int64", ("N",)), "'k' is [N] in the model; values that decide", "give its length"),
        (("int64", (1, 2)), "'k' is [1, 2] in the model; values that decide", "`values: true`"),
        (("int64", (3,)), "'k' has 3 values in the model, 2 here", "declares [3]"),
        (("int32", ()), "'k' has 1 value in the model, 2 here", "declares []"),
    ],
)
def test_values_that_do_not_fit_their_input(
    spec: tuple[str, tuple[Any, ...]], message: str, hint: str
) -> None:
    contract = IoContract((TensorSpec("k", *spec),), ())
    found = check_profiles(contract, [{"k": values((1, 1), (4, 4))}])
    assert found[0][0] == ("shapes", 0, "k")
    assert found[0][1].startswith(message)
    assert hint in str(found[0][2])
    good = IoContract((TensorSpec("k", "int64", (2,)),), ())
    assert check_profiles(good, [{"k": values((1, 1), (4, 4))}]) == []


# Running


def test_inner_tensors_can_be_exposed() -> None:
    model = Model(mg.conv_bn())
    session = Session(model, outputs=["c", "y"], threads=1)
    assert session.output_names == ("y", "c")
    assert session.input_names == ("x",)
    feeds = random_feeds(model, {"x": (2, 3, 6, 6)}, 0)
    assert list(session.run(feeds, ["c"])) == ["c"]
    assert session.run(feeds)["c"].shape == (2, 4, 6, 6)
    assert len(model.proto.graph.output) == 1


@pytest.mark.parametrize("external", [False, True])
def test_running_from_a_file(tmp_path: Path, external: bool) -> None:
    model = Model(mg.conv_bn())
    path = tmp_path / "m.onnx"
    if external:
        mg.save_external(model.proto, path)
    else:
        model.save(path)
    feeds = random_feeds(model, {"x": (2, 3, 6, 6)}, 0)
    expected = Session(model).run(feeds)["y"]
    for source in (path, Model.load(path)):
        for outputs in (None, ["c"]):
            found = Session(source, outputs=outputs).run(feeds)["y"]
            assert np.array_equal(found, expected)
    optimized = Session(path, optimize=True).run(feeds)["y"]
    assert np.allclose(optimized, expected, atol=1e-5)


def test_weights_by_reference_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    from trtforge.graph import execute

    proto = mg.model(
        [mg.node("MatMul", ["x", "W"], ["y"])],
        [mg.info("x", [2, 64])],
        [mg.info("y", [2, 64])],
        [mg.tensor("W", mg.weights(64, 64))],
    )
    feeds = random_feeds(Model(proto), {}, 0)
    expected = Session(Model(proto)).run(feeds)["y"]
    monkeypatch.setattr(execute, "_PASS_BY_REFERENCE_BYTES", 10)
    session = Session(Model(proto))
    assert session._weights
    assert np.array_equal(session.run(feeds)["y"], expected)


def test_what_goes_wrong_while_running_is_said(capfd: pytest.CaptureFixture[str]) -> None:
    model = Model(mg.conv_bn())
    with pytest.raises(GraphError, match="computes no tensor 'd'"):
        Session(model, outputs=["d"])
    session = Session(model)
    x = np.zeros((1, 3, 6, 6), np.float32)
    for feeds, says in (
        ({}, "no value is given for input 'x'"),
        ({"x": x, "z": x}, "has no 'z'"),
        ({"x": x[:, :2]}, "cannot run"),
        ({"x": x.astype(np.float64)}, "cannot run"),
    ):
        with pytest.raises(GraphError, match=says):
            session.run(feeds)
    with pytest.raises(GraphError, match="has no 'q'"):
        session.run({"x": x}, ["q"])
    broken = mg.conv_bn()
    broken.graph.node[0].op_type = "Nonsense"
    with pytest.raises(GraphError, match="cannot load") as caught:
        Session(Model(broken))
    assert caught.value.code == "TF0408"
    assert capfd.readouterr() == ("", "")
