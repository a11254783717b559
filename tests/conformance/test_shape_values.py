"""Inputs whose values decide shapes: recipes built with the real TensorRT-RTX, engines that run.

The engines run on the simulator: nothing here is a GPU result.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from engine_models import save
from shape_values import DECIDING, Deciding, gathered
from simulator.simulation import Simulation

from trtforge.engine.backend import (
    BuildRequest,
    ProfileShapes,
    get_backend,
    profiles_from_json,
)
from trtforge.engine.engine_worker import EngineSource
from trtforge.engine.measuring.meter import EngineLoad, EngineMeter
from trtforge.engine.measuring.scenarios import Load
from trtforge.engine.onnxruntime import OnnxRuntimeRunner
from trtforge.engine.runner import EngineRunner
from trtforge.errors import BuildError
from trtforge.graph.inputs import Feeds, Values, random_feeds
from trtforge.graph.model import Model
from trtforge.pipeline.attest import attest_path
from trtforge.pipeline.compare import VerifyOptions, verify
from trtforge.pipeline.corners import corner_shapes
from trtforge.pipeline.run import BuildOptions, BuildResult, build_recipe
from trtforge.recipe.load import load_recipe
from trtforge.verify.cases import cases_from

RTX = "tensorrt_rtx"
BOUNDS = ("min", "opt", "max")
ON_ELEVEN = pytest.mark.parametrize("simulated", ["11"], indirect=True)


def built(case: Deciding, folder: Path, text: str) -> BuildResult:
    save(case.graph, folder)
    recipe = folder / "recipe.yaml"
    recipe.write_text(text)
    return build_recipe(recipe, BuildOptions(folder / "out", store=folder / "store"))


def profiles(case: Deciding, values: str = "k") -> ProfileShapes:
    written = [
        {
            name: dict(zip(BOUNDS, bounds, strict=True)) | {"values": name == values}
            for name, bounds in case.shapes.items()
        }
    ]
    return profiles_from_json(written)


def feeds(case: Deciding, which: int) -> Feeds:
    shapes = {name: tuple(bounds[which]) for name, bounds in case.shapes.items()}
    return random_feeds(Model(case.graph), shapes | {"k": Values(shapes["k"])}, 0)


def request(folder: Path, case: Deciding, backend: str, shapes: ProfileShapes) -> BuildRequest:
    path = save(case.graph, folder)
    return BuildRequest(path, folder / "m.engine", folder / "m.log", backend, shapes)


@pytest.mark.parametrize("name", DECIDING)
def test_a_recipe_is_built_and_judged_at_every_corner(name: str, tmp_path: Path) -> None:
    case = DECIDING[name]
    result = built(case, tmp_path, case.recipe(RTX))
    assert result.verdicts["graph_parity"]["verdict"] == "pass"
    manifest = json.loads((result.bundle / "manifest.json").read_text())
    low, mid, high = case.shapes["k"]
    assert manifest["profiles"][0]["k"] == {"min": low, "opt": mid, "max": high, "values": True}
    assert next((result.bundle / "engines").rglob("*.engine")).stat().st_size > 0

    model = Model(case.graph)
    loaded = load_recipe(tmp_path / "recipe.yaml").recipe
    corners = corner_shapes(model.contract, loaded.shapes)
    found = {}
    with OnnxRuntimeRunner(tmp_path / "model.onnx") as reference:
        for one in cases_from(None, list(corners.items()), model):
            found[one.name] = reference.infer(one.feeds)["y"].shape
    expected = dict(zip(BOUNDS, case.outputs, strict=True))
    assert found == {f"corner {which} (random)": at for which, at in expected.items()} | {
        "random": expected["opt"]
    }


def test_a_bundle_is_judged_again_at_its_values(tmp_path: Path) -> None:
    case = DECIDING["expand"]
    bundle = built(case, tmp_path, case.recipe(RTX)).bundle
    options = VerifyOptions(against=tmp_path / "model.onnx", layers=True)
    found = verify(bundle, options)
    assert found.checks["graph"].verdict == "pass"
    assert found.layers is not None
    assert {layer.tensor for layer in found.layers.layers} >= {"r", "y"}
    attested = attest_path(bundle).as_json()
    assert (attested["verdict"], attested["shapes"]) == ("pass", {"x": [1, 6]})
    assert attested["values"] == {"k": [4, 6]}
    assert attested["views"][0]["reason"] is None, "all activations are counted"


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ((), "input 'k' decides shapes by its values, but there is no profile of them"),
        (({"x": ((1, 6),) * 3},), "profile 0 lacks the values of input 'k'"),
        (({"k": ((2,),) * 3},), "profile 0 gives the shape of input 'k'"),
    ],
)
def test_values_that_are_not_given_are_asked_for(
    shapes: ProfileShapes, words: str, tmp_path: Path
) -> None:
    wanted = request(tmp_path, DECIDING["expand"], RTX, shapes)
    with pytest.raises(BuildError, match=words) as caught:
        get_backend(RTX).build(wanted)
    assert (caught.value.code, caught.value.exit_status) == ("TF0605", 4)
    assert "give 'k' min, opt and max of its values and `values: true`" in str(caught.value.hint)


def test_values_that_decide_nothing_are_refused(tmp_path: Path) -> None:
    text = """
version: 1
name: values
model: {onnx: model.onnx}
shapes: {k: {min: [0], opt: [1], max: [3], values: true}}
targets: [{name: engine, backend: tensorrt_rtx}]
"""
    case = Deciding(gathered(), {}, ())
    with pytest.raises(BuildError, match="its values are given, but they decide no shapes") as no:
        built(case, tmp_path, text)
    assert no.value.code == "TF0605"
    assert "`values: true`" not in str(no.value.hint)


@ON_ELEVEN
@pytest.mark.parametrize("name", [name for name in DECIDING if name != "range"])
def test_an_engine_takes_values_within_its_profile(
    name: str, simulated: Simulation, tmp_path: Path
) -> None:
    case = DECIDING[name]
    wanted = request(tmp_path, case, "tensorrt", profiles(case))
    report = get_backend("tensorrt").build(wanted)
    assert report.profiles == wanted.profiles
    with (
        OnnxRuntimeRunner(wanted.onnx) as reference,
        EngineRunner(EngineSource(wanted.output, "tensorrt")) as candidate,
    ):
        for which in (1, 0, 2, 1):
            given = feeds(case, which)
            found, expected = candidate.infer(given)["y"], reference.infer(given)["y"]
            assert found.shape == case.outputs[which]
            np.testing.assert_allclose(found, expected, rtol=1e-5)
        given = feeds(case, 2)
        given["k"] = given["k"] + 1
        with pytest.raises(BuildError, match=r"no optimization profile .* k = ") as caught:
            candidate.infer(given)
        assert caught.value.code == "TF0614"


@ON_ELEVEN
def test_values_choose_the_profile_and_random_batches_have_them(
    simulated: Simulation, tmp_path: Path
) -> None:
    case = DECIDING["expand"]
    (small,) = profiles(case)
    large = profiles_from_json(
        [{"k": {"min": [9, 6], "opt": [10, 6], "max": [12, 6], "values": True}}]
    )
    wanted = request(tmp_path, case, "tensorrt", (small, *large))
    get_backend("tensorrt").build(wanted)
    given = feeds(case, 1)
    with EngineRunner(EngineSource(wanted.output, "tensorrt")) as candidate:
        for rows in (12, 1, 9, 8):
            given["k"] = np.array([rows, 6])
            assert candidate.infer(given)["y"].shape == (rows, 6)
    load = Load("offline", 1, streams=1, seconds=0.0, queries=4, warmup_seconds=0.0)
    with EngineMeter(EngineLoad(wanted.output, "tensorrt"), [], 1) as meter:
        assert len(meter.measure(load).times) == 4  # with the values of opt, in pinned memory
    with (
        pytest.raises(BuildError, match="k = \\[13, 6\\]"),
        EngineMeter(EngineLoad(wanted.output, "tensorrt"), [given | {"k": np.array([13, 6])}]),
    ):
        pass


@pytest.mark.parametrize("simulated", ["10"], indirect=True)
def test_an_engine_is_judged_at_its_values(simulated: Simulation, tmp_path: Path) -> None:
    case = DECIDING["topk"]
    verdicts = built(case, tmp_path, case.recipe("tensorrt")).verdicts
    assert verdicts["engine_parity"]["engine"]["verdict"] == "pass"
