"""TensorRT 10 and 11 through our own worker, on the simulator: builds, refusals, cancelling.

Nothing here is a GPU result: the simulator computes with ONNX Runtime over a fake GPU.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import pytest
from engine_models import CONV_PROFILE, conv_net, matmul, model, save, shape_input, weights
from engine_option_samples import EXAMPLES
from onnx import TensorProto, helper
from simulator import plan
from simulator.building import FAULT, STEP_MS
from simulator.simulation import Simulation

import trtforge
from trtforge.engine import options
from trtforge.engine.backend import BuildReport, BuildRequest, get_backend
from trtforge.engine.environment import driver
from trtforge.engine.supervisor import Job, run_worker
from trtforge.engine.views import parsed_network
from trtforge.errors import BuildError
from trtforge.recipe.engine_options import EngineOptions

OPTIONS: dict[str, Any] = EXAMPLES | {
    "runtime_platform": "windows_amd64",
    "profiling": "none",
    "timing_cache": "use",
}

ON_ONE = pytest.mark.parametrize("simulated", ["11"], indirect=True)
"""For what does not depend on the major version."""


def request(folder: Path, graph: onnx.ModelProto, **more: Any) -> BuildRequest:
    folder.mkdir(exist_ok=True)
    path = save(graph, folder)
    if more.pop("dynamic", True):
        more["profiles"] = (CONV_PROFILE,)
    return BuildRequest(path, folder / "m.plan", folder / "m.log", "tensorrt", **more)


def build(wanted: BuildRequest) -> BuildReport:
    return get_backend("tensorrt").build(wanted)


def facts(wanted: BuildRequest) -> Mapping[str, Any]:
    return plan.read(wanted.output.read_bytes()).facts


def refused(wanted: BuildRequest) -> BuildError:
    with pytest.raises(BuildError) as caught:
        build(wanted)
    assert sorted(path.suffix for path in wanted.output.parent.iterdir()) == [
        ".json", ".log", ".onnx",
    ]  # fmt: skip
    return caught.value


def test_a_build_leaves_a_plan_of_its_version(simulated: Simulation, tmp_path: Path) -> None:
    wanted = request(
        tmp_path,
        conv_net(),
        workspace_mib=64,
        inputs={"image": "float32"},
        outputs={"scores": "float32"},
    )
    heard: list[tuple[float, str]] = []
    report = get_backend("tensorrt").build(wanted, lambda *told: heard.append(told))
    assert report.version == simulated.version
    assert report.compute_capabilities == ("8.9",)
    assert report.profiles == (CONV_PROFILE,)
    assert report.activation_memory_bytes
    assert report.warnings == ()
    assert [layer["type"] for layer in report.layers if layer["onnx_nodes"]] == [
        "CONVOLUTION", "ACTIVATION", "REDUCE", "SHUFFLE", "MATRIX_MULTIPLY",
    ]  # fmt: skip
    assert report.engine_bytes == wanted.output.stat().st_size
    assert plan.version_of(wanted.output.read_bytes()) == simulated.version
    built = facts(wanted)
    assert built["pools"] == {"WORKSPACE": 64 << 20}
    assert built["strongly_typed"] is True  # ten makes weakly typed networks unless told otherwise
    assert built["flags"] == []  # no TF32
    assert built["settings"] == {"profiling_verbosity": "DETAILED"}
    assert built["profiles"] == [{"image": [list(shape) for shape in CONV_PROFILE["image"]]}]
    assert [share for share, _ in heard] == sorted(share for share, _ in heard)
    assert "Timing tactics" in {phase for _, phase in heard}
    assert driver().gpus[0].name == "Simulated GPU"


@pytest.mark.parametrize("simulated", ["oldest"], indirect=True)
def test_the_oldest_release_builds_alike(simulated: Simulation, tmp_path: Path) -> None:
    wanted = request(tmp_path, conv_net())
    assert build(wanted).version == simulated.version
    assert facts(wanted)["strongly_typed"] is True


def test_every_option_reaches_the_configuration(simulated: Simulation, tmp_path: Path) -> None:
    assert set(OPTIONS) == set(EngineOptions.model_fields)
    wanted = request(tmp_path, conv_net(), options=OPTIONS, tf32=True)
    build(wanted)
    built = facts(wanted)
    assert set(built["flags"]) == {"TF32", "REFIT", *options.FLAGS.values()}
    assert built["settings"] == {name: OPTIONS[key] for key, name in options.NUMBERS.items()} | {
        name: OPTIONS[key].upper() for key, (name, _) in options.CHOICES.items()
    }
    assert built["pools"] == {"TACTIC_SHARED_MEMORY": 40 << 10, "TACTIC_DRAM": 512 << 20}


@ON_ONE
def test_a_setting_that_the_library_drops_is_refused(simulated: Any, tmp_path: Path) -> None:
    error = refused(request(tmp_path, conv_net(), options={"optimization_level": 9}))
    assert (error.code, error.exit_status) == ("TF0619", 4)
    assert f"tensorrt {simulated.version} did not take optimization_level: 9" in error.message


@ON_ONE
def test_stripped_weights_are_refitted_with_the_very_same(simulated: Any, tmp_path: Path) -> None:
    wanted = request(tmp_path, conv_net(), options={"strip_weights": True})
    build(wanted)
    assert {"STRIP_PLAN", "REFIT_IDENTICAL"} <= set(facts(wanted)["flags"])


@ON_ONE
def test_compute_capabilities_are_refused(simulated: Simulation, tmp_path: Path) -> None:
    error = refused(request(tmp_path, conv_net(), compute_capabilities=("8.9",)))
    assert error.code == "TF0606"
    assert "builds for the GPU at hand" in error.message


@ON_ONE
@pytest.mark.parametrize(
    ("operator", "domain", "reason"),
    [
        ("Blur", "my.ops", "neither known to TensorRT nor a registered plugin"),
        ("Det", "", "is not supported by this version"),
    ],
)
def test_a_refused_node_is_named_with_operator_reason_and_remedy(
    simulated: Simulation, tmp_path: Path, operator: str, domain: str, reason: str
) -> None:
    graph = model(
        [
            helper.make_node("Relu", ["x"], ["r"], name="relu"),
            helper.make_node(operator, ["r"], ["y"], name="odd", domain=domain),
        ],
        {"x": (TensorProto.FLOAT, [2, 4, 4])},
        {"y": (TensorProto.FLOAT, None)},
        imports=[helper.make_opsetid(domain, 1)] if domain else [],
    )
    error = refused(request(tmp_path, graph, dynamic=False))
    assert (error.code, error.exit_status) == ("TF0604", 4)
    assert f"cannot take {operator} node 'odd'" in error.message
    assert reason in error.message
    assert error.where is not None
    assert (error.where.file, error.where.node) == ("model.onnx", "odd")
    assert error.hint is not None
    assert "rewrite" in error.hint


@ON_ONE
def test_garbage_that_the_parser_takes_is_refused(simulated: Simulation, tmp_path: Path) -> None:
    wanted = request(tmp_path, conv_net())
    wanted.onnx.write_bytes(b"")
    assert "has no outputs" in refused(wanted).message


@ON_ONE
@pytest.mark.parametrize(
    ("profiles", "reason"),
    [
        ((), "input 'image' is dynamic, but there is no optimization profile"),
        (({"image": ((1, 3, 9, 9),) * 3},), "dimension 2 is 16 in the model, 9..9 in the profile"),
        (({"images": ((1, 3, 16, 16),) * 3},), "names 'images', but the inputs are 'image'"),
    ],
)
def test_profiles_that_do_not_fit_are_refused_before_the_build(
    simulated: Simulation, tmp_path: Path, profiles: Any, reason: str
) -> None:
    error = refused(request(tmp_path, conv_net(), dynamic=False, profiles=profiles))
    assert error.code == "TF0605"
    assert reason in error.message


@ON_ONE
def test_an_input_that_decides_shapes_needs_its_values(
    simulated: Simulation, tmp_path: Path
) -> None:
    error = refused(request(tmp_path, shape_input(), dynamic=False))
    assert "input 'shape' decides shapes by its values" in error.message
    assert "`values: true`" in str(error.hint)


@ON_ONE
def test_another_interface_is_refused(simulated: Simulation, tmp_path: Path) -> None:
    graph = model(
        [
            helper.make_node("Cast", ["x"], ["f"], name="to", to=TensorProto.FLOAT),
            helper.make_node("MatMul", ["f", "v"], ["y"], name="fc"),
        ],
        {"x": (TensorProto.DOUBLE, [4, 8])},
        {"y": (TensorProto.FLOAT, [4, 16])},
        [weights("v", (8, 16))],
    )
    error = refused(request(tmp_path, graph, dynamic=False, inputs={"x": "float64"}))
    assert error.code == "TF0617"
    assert "the engine takes it as float32" in error.message


@ON_ONE
def test_an_error_in_the_log_fails_a_build_that_says_it_succeeded(
    simulated: Simulation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FAULT, "error_line")
    error = refused(request(tmp_path, matmul(), dynamic=False))
    assert (error.code, error.exit_status) == ("TF0608", 4)
    assert "Internal Error (Assertion x failed. simulated)" in error.message
    monkeypatch.setenv(FAULT, "skipped_tactic")  # the known noise
    wanted = request(tmp_path / "noise", matmul(), dynamic=False)
    assert build(wanted).engine_bytes
    assert "[E] Error Code 9: Skipping tactic" in wanted.log.read_text()


class _ImpatientError(Exception):
    pass


def test_leaving_a_build_cancels_it_by_the_progress_monitor(
    simulated: Simulation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(STEP_MS, "200")

    def leave(share: float, phase: str) -> None:
        if phase == "Timing tactics":
            raise _ImpatientError

    wanted = request(tmp_path, conv_net())
    with pytest.raises(_ImpatientError):
        get_backend("tensorrt").build(wanted, leave)
    assert "BuildCanceled" in wanted.log.read_text()
    assert not [path for path in tmp_path.iterdir() if "plan" in path.name]


@ON_ONE
def test_a_build_out_of_time_is_cancelled_too(
    simulated: Simulation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(STEP_MS, "700")
    error = refused(request(tmp_path, conv_net(), timeout_s=2.5))
    assert error.code == "TF0612"
    assert "BuildCanceled" in (error.details or "")


@ON_ONE
def test_a_library_that_another_machine_has_is_asked_by_probe(
    simulated: Simulation, tmp_path: Path
) -> None:
    command = {"command": "probe", "backend": "tensorrt"}
    found = run_worker(Job("probing", command, tmp_path / "probe.log", 60))
    assert found["version"] == simulated.version
    assert found["targets"] == []
    assert found["driver"]["gpus"] == [{"name": "Simulated GPU", "compute_capability": "8.9"}]


def test_the_simulator_shows_a_network_as_nvidias_parser_does(
    simulated: Simulation, digits: Path
) -> None:
    """Held against the real parser of TensorRT-RTX, but for its arithmetic on shapes."""
    shapes = {"image": [4, 1, 8, 8]}
    mine = parsed_network(digits / "model.onnx", "tensorrt", shapes)
    real = parsed_network(digits / "model.onnx", "tensorrt_rtx", shapes)

    def shown(layers: list[dict[str, Any]]) -> list[Any]:
        return [
            [
                *(layer["type"], layer["onnx_nodes"], layer.get("mode"), layer.get("weights")),
                *((tensor["dtype"], tensor["shape"]) for tensor in layer["outputs"]),
            ]
            for layer in layers
            if "ONNXTRT" not in layer["name"]
        ]

    assert shown(mine) == shown(real)


def test_nothing_that_a_user_gets_knows_the_simulator() -> None:
    package = Path(trtforge.__file__).parent
    sources = [*package.rglob("*.py"), package.parent / "pyproject.toml"]
    assert len(sources) > 100
    assert not [file for file in sources if re.search("tensorrt_simul|TRT_SIMUL", file.read_text())]
