"""Parity and benchmarks visit min, opt and max of every profile, values that decide shapes too.

Engines run on the simulator, ONNX files in ONNX Runtime: nothing here is a GPU result.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from engine_models import save
from shape_values import DECIDING
from simulator.simulation import Simulation

from trtforge.cli.main import cli
from trtforge.engine.measuring.scenarios import Load
from trtforge.errors import ForgeError, UsageError
from trtforge.graph.inputs import Values
from trtforge.pipeline.bench import BenchOptions
from trtforge.pipeline.bench_corners import bench_corners
from trtforge.pipeline.compare import VerifyOptions, verify
from trtforge.pipeline.run import BuildOptions, BuildResult, build_recipe

ON_ELEVEN = pytest.mark.parametrize("simulated", ["11"], indirect=True)
LOAD = Load(seconds=0.0, queries=4, warmup_seconds=0.0)
CORNERS = {
    "0.min": ((1, 20), (1,)),
    "0.opt": ((1, 20), (3,)),
    "0.max": ((2, 20), (4,)),
    "1.min": ((3, 20), (5,)),
    "1.opt": ((4, 20), (5,)),
    "1.max": ((9, 20), (9,)),
}


def built(folder: Path, backend: str, extra: str = "") -> BuildResult:
    save(DECIDING["topk"].graph, folder)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((12, 20)).astype(np.float32)
    np.savez(folder / "data.npz", x=x, k=np.repeat([[2], [7], [9]], 4, axis=0))
    recipe = folder / "recipe.yaml"
    recipe.write_text(
        "version: 1\nname: two\nmodel: {onnx: model.onnx}\nshapes:\n"
        "  - x: {min: [1, 20], opt: [1, 20], max: [2, 20]}\n"
        "    k: {min: [1], opt: [3], max: [4], values: true}\n"
        "  - x: {min: [3, 20], opt: [4, 20], max: [9, 20]}\n"
        "    k: {min: [5], opt: [5], max: [9], values: true}\n"
        f"targets: [{{name: one, backend: {backend}}}]\n{extra}"
    )
    return build_recipe(recipe, BuildOptions(folder / "out", store=folder / "store"))


@ON_ELEVEN
@pytest.mark.parametrize("data", ["", "verify: {data: data.npz}\n"])
def test_an_engine_is_judged_at_every_corner_and_on_data_of_all_profiles(
    data: str, simulated: Simulation, tmp_path: Path
) -> None:
    result = built(tmp_path, "tensorrt", data)
    for parity in (result.verdicts["graph_parity"], result.verdicts["engine_parity"]["one"]):
        assert parity["verdict"] == "pass"
        assert parity["cases"]["corner"] == len(CORNERS)
        # Four rows of each value: of 2 they fill two batches of the first profile.
        assert parity["cases"].get("data", 0) == (4 if data else 0)
    again = verify(result.bundle, VerifyOptions(data=tmp_path / "data.npz" if data else None))
    assert again.checks["engine:one"].verdict == "pass"
    assert again.checks["engine:one"].cases["corner"] == len(CORNERS)


def measured(bundle: Path, **more: Any) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
    found = bench_corners(bundle, BenchOptions(LOAD, **more))
    for one in found.corners:
        assert one.result.measurement.load.samples_per_query == one.shapes["x"][0]
        assert isinstance(one.shapes["k"], Values)
    return {one.name: (one.shapes["x"], tuple(one.shapes["k"])) for one in found.corners}


@ON_ELEVEN
def test_a_benchmark_visits_every_corner(simulated: Simulation, tmp_path: Path) -> None:
    bundle = built(tmp_path, "tensorrt").bundle
    assert measured(bundle) == CORNERS
    # Without corners it is the profile that takes the batch.
    more = ["--batch", "4", "--seconds", "0", "--warmup", "0", "--queries", "4", "--json"]
    shown = CliRunner().invoke(cli, ["bench", str(bundle), *more], standalone_mode=False)
    assert shown.exception is None
    assert json.loads(shown.stdout)["samples_per_query"] == 4


@pytest.fixture(scope="module")
def on_cpu(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle without engines, beside its data."""
    return built(tmp_path_factory.mktemp("two"), "onnxruntime").bundle


def test_corners_are_shown_and_limits_hold_at_each(on_cpu: Path) -> None:
    assert measured(on_cpu, backend="onnxruntime") == CORNERS
    asked = [
        str(on_cpu),
        "--backend",
        "onnxruntime",
        "--corners",
        "--seconds",
        "0",
        "--warmup",
        "0",
    ]
    asked += ["--queries", "4", "--limit", "p99_ms<=1e-9"]
    shown = CliRunner().invoke(cli, ["bench", *asked], standalone_mode=False)
    assert shown.return_value == 6
    for name in CORNERS:
        assert f"missed: {name}: p99_ms <= 1e-09: found" in shown.output
    document = CliRunner().invoke(cli, ["bench", *asked, "--json"], standalone_mode=False)
    found = json.loads(document.stdout)
    assert found["schema"] == "trtforge.bench_corners/1"
    assert [one["corner"] for one in found["corners"]] == list(CORNERS)
    assert (found["corners"][3]["shapes"], found["corners"][3]["values"]) == (
        {"x": [3, 20]},
        {"k": [5]},
    )


def test_data_with_values_and_values_by_hand_are_measured(on_cpu: Path) -> None:
    data = str(on_cpu.parents[1] / "data.npz")
    base = [
        str(on_cpu),
        "--backend",
        "onnxruntime",
        "--seconds",
        "0",
        "--warmup",
        "0",
        "--queries",
        "4",
        "--json",
    ]
    for more in (["--data", data, "--batch", "3"], ["--shape", "k=7"]):
        shown = CliRunner().invoke(cli, ["bench", *base, *more], standalone_mode=False)
        assert shown.exception is None, shown.output
    for text in ("k=7x7", "k=a", "k=99999999999", "k="):
        shown = CliRunner().invoke(cli, ["bench", *base, "--shape", text], standalone_mode=False)
        assert isinstance(shown.exception, ForgeError)
        assert shown.exception.code == "TF0106"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"data": Path("x.npz")}, "takes no --data"),
        ({"shapes": ("x=1x20",)}, "takes no --shape"),
        ({"against": Path("x.onnx")}, "takes no --against"),
    ],
)
def test_corners_take_no_other_shapes(more: dict[str, Any], words: str, on_cpu: Path) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        bench_corners(on_cpu, BenchOptions(LOAD, **more))
    assert caught.value.code == "TF0149"
    with pytest.raises(UsageError, match="takes no --batch"):
        bench_corners(on_cpu, BenchOptions(LOAD), others={"--batch": 2})
    with pytest.raises(UsageError, match="has no profiles"):
        bench_corners(on_cpu.parents[1] / "model.onnx", BenchOptions(LOAD))


def test_what_fails_at_a_corner_names_it(tmp_path: Path) -> None:
    save(DECIDING["topk"].graph, tmp_path)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "version: 1\nname: far\nmodel: {onnx: model.onnx}\nshapes:\n"
        "  x: {min: [1, 20], opt: [1, 20], max: [2, 20]}\n"
        "  k: {min: [1], opt: [3], max: [21], values: true}\n"
        "passes: {use: []}\n"
        "targets: [{name: one, backend: onnxruntime}]\n"
    )
    with pytest.raises(ForgeError, match=r"should not be greater .*\(case: corner max") as caught:
        build_recipe(recipe, BuildOptions(tmp_path / "out", store=tmp_path / "store"))
    assert caught.value.exit_status == 4
