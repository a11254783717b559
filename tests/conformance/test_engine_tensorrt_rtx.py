"""The TensorRT-RTX backend with the real library: what it builds, refuses, reports, repeats."""

import hashlib
import itertools
import json
import os
import shlex
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import onnx
import pytest
import tensorrt_rtx as trt
from engine_models import (
    CONV_PROFILE,
    asymmetric,
    attention,
    bf16_conv,
    conv,
    conv_net,
    custom_operator,
    double_matmul,
    fp8_matmul,
    fp16_conv,
    image_bytes,
    light_densenet,
    matmul,
    output_is_input,
    save,
    shape_input,
    suppression,
    unnamed_unsupported,
    unsupported_operator,
)

from trtforge.engine import layers, targets, tensorrt
from trtforge.engine.backend import BuildReport, BuildRequest, get_backend
from trtforge.engine.builder import build_job
from trtforge.engine.environment import driver
from trtforge.engine.supervisor import Job, Worker, run_worker
from trtforge.errors import BuildError, MissingError


def request_for(path: Path, folder: Path, **options: Any) -> BuildRequest:
    folder.mkdir(exist_ok=True)
    return BuildRequest(
        onnx=path,
        output=folder / "model.engine",
        log=folder / "build.log",
        backend="tensorrt_rtx",
        **options,
    )


def build(proto: onnx.ModelProto, folder: Path, **options: Any) -> BuildReport:
    request = request_for(save(proto, folder), folder, **options)
    return get_backend("tensorrt_rtx").build(request)


def refused(proto: onnx.ModelProto, folder: Path, **options: Any) -> BuildError:
    with pytest.raises(BuildError) as caught:
        build(proto, folder, **options)
    assert not (folder / "model.engine").exists()
    assert not list(folder.glob(".*partial"))
    assert caught.value.exit_status == 4
    return caught.value


class QuietLogger(trt.ILogger):
    def __init__(self) -> None:
        trt.ILogger.__init__(self)

    def log(self, severity: Any, msg: str) -> None:
        pass


LOGGER = QuietLogger()


def bare_build(path: Path) -> bytes:
    """The engine as NVIDIA's API alone makes it."""
    builder = trt.Builder(LOGGER)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, LOGGER)
    assert parser.parse_from_file(str(path))
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    return bytes(builder.build_serialized_network(network, config))


def test_the_engine_is_the_one_that_the_bare_api_builds(tmp_path):
    report = build(matmul(), tmp_path)
    engine = (tmp_path / "model.engine").read_bytes()
    assert engine == bare_build(tmp_path / "model.onnx")
    assert report.engine_sha256 == f"sha256:{hashlib.sha256(engine).hexdigest()}"
    assert report.engine_bytes == len(engine)


def test_an_engine_written_piece_by_piece_is_the_same(tmp_path, monkeypatch):
    whole = build(matmul(), tmp_path)
    monkeypatch.setattr(tensorrt, "_STREAMED_BYTES", 0)
    request = BuildRequest(
        tmp_path / "model.onnx", tmp_path / "pieces.engine", tmp_path / "log", "tensorrt_rtx"
    )
    reporting = tensorrt.Reporting(lambda line: None, lambda share, phase: None, threading.Event())
    pieces = tensorrt.build_engine(request, reporting)
    assert pieces.engine_sha256 == whole.engine_sha256
    assert (tmp_path / "pieces.engine").read_bytes() == (tmp_path / "model.engine").read_bytes()


def test_the_same_request_gives_the_same_bytes_and_the_same_report(tmp_path):
    options = {"profiles": (CONV_PROFILE,), "compute_capabilities": ("8.6", "12.0")}
    reports = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        reports.append(build(conv_net(), tmp_path / name, **options).as_json())
    for measured in ("parse_seconds", "build_seconds", "peak_rss_bytes"):
        assert all(report.pop(measured) > 0 for report in reports)
    assert reports[0] == reports[1]
    assert reports[0]["engine_sha256"].startswith("sha256:")


def test_the_report_shows_the_parsed_network(tmp_path):
    report = build(conv_net(), tmp_path, profiles=(CONV_PROFILE,))
    layers = {layer["name"]: layer for layer in report.layers}
    assert layers["conv"] == {
        "name": "conv",
        "type": "CONVOLUTION",
        "onnx_nodes": ["conv"],
        "inputs": [{"name": "image", "dtype": "float32", "shape": [-1, 3, 16, 16]}],
        "outputs": [{"name": "c", "dtype": "float32", "shape": [-1, 8, 16, 16]}],
        "weights": [{"dtype": "float32", "count": 8 * 3 * 3 * 3}],
    }
    assert layers["pool"]["mode"] == "AVG"
    assert layers["fc"]["type"] == "MATRIX_MULTIPLY"
    assert report.version == trt.__version__
    assert report.activation_memory_bytes > 0
    assert 50e6 < report.peak_rss_bytes < 2e9
    assert BuildReport.from_json(json.loads(json.dumps(report.as_json()))) == report


def test_a_convolution_of_dynamic_channels_tells_no_kernel(tmp_path):
    proto = conv()
    proto.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "C"
    network = trt.Builder(LOGGER).create_network(0)
    parser = trt.OnnxParser(network, LOGGER)
    assert parser.parse_from_file(str(save(proto, tmp_path)))
    (found,) = (one for one in layers.describe(trt, network) if one["type"] == "CONVOLUTION")
    assert found["inputs"][0]["shape"][1] == -1
    assert "weights" not in found


def test_types_come_from_the_graph(tmp_path):
    by_type = {}
    for name, proto in (("half", fp16_conv()), ("bf16", bf16_conv()), ("single", conv())):
        (tmp_path / name).mkdir()
        layers = build(proto, tmp_path / name).layers
        found = next(layer for layer in layers if layer["type"] == "CONVOLUTION")
        by_type[name] = found["outputs"][0]["dtype"]
    assert by_type == {"half": "float16", "bf16": "bfloat16", "single": "float32"}


def test_several_profiles_are_built_in(tmp_path):
    small = {"image": ((1, 3, 16, 16), (1, 3, 16, 16), (1, 3, 16, 16))}
    for name, profiles in (("one", (CONV_PROFILE,)), ("two", (CONV_PROFILE, small))):
        (tmp_path / name).mkdir()
        report = build(conv_net(), tmp_path / name, profiles=profiles)
        assert report.profiles == profiles
    sizes = [(tmp_path / name / "model.engine").stat().st_size for name in ("one", "two")]
    assert sizes[1] > sizes[0]


@pytest.mark.parametrize("option", [{"tf32": True}, {"compute_capabilities": ("8.9",)}])
def test_options_reach_the_builder(tmp_path, option):
    digests = set()
    for name, options in (("plain", {}), ("with", option)):
        (tmp_path / name).mkdir()
        digests.add(build(matmul(), tmp_path / name, **options).engine_sha256)
    assert len(digests) == 2


def test_the_workspace_limit_is_honoured_and_its_remedy_named(tmp_path):
    error = refused(conv(), tmp_path, workspace_mib=1)
    assert error.code == "TF0608"
    assert "workspace" in error.message
    assert error.hint.startswith("raise workspace_mib")


def test_no_targets_is_said_in_the_report(tmp_path):
    assert "no compute capabilities given" in build(matmul(), tmp_path).warnings[-1]


def test_an_unknown_target_lists_what_there_is(tmp_path):
    error = refused(matmul(), tmp_path, compute_capabilities=("8.6", "9.0"))
    assert error.code == "TF0606"
    assert "compute capability 9.0 is unknown to tensorrt_rtx 1.7" in error.message
    assert "7.5, 8.0, 8.6, 8.9, 12.0, 12.1; for GPUs of data centres use" in error.hint


REFUSED = [
    (fp8_matmul, "8.0", "float8_e4m3fn"),
    (fp8_matmul, "8.6", "float8_e4m3fn"),
    (bf16_conv, "7.5", "bfloat16"),
    (matmul, "7.5", "float32"),
]


@pytest.mark.parametrize(("make", "capability", "dtype"), REFUSED)
def test_types_that_a_target_lacks_are_refused_before_the_build(tmp_path, make, capability, dtype):
    error = refused(make(), tmp_path, compute_capabilities=("8.9", capability))
    assert error.code == "TF0607"
    assert f"computes in {dtype}, which compute capability {capability} cannot" in error.message
    assert "Optimizing" not in (tmp_path / "build.log").read_text()


@pytest.mark.parametrize(("make", "capability", "dtype"), REFUSED)
def test_the_builder_refuses_the_same_without_our_table(tmp_path, make, capability, dtype):
    """The table must not be stricter than the library; without it the message still helps."""
    without = (
        "import trtforge.engine.targets as t; t.check_types = lambda *a: None\n"
        "import runpy; runpy.run_module('trtforge.engine.worker', run_name='__main__')"
    )
    job = build_job(
        request_for(save(make(), tmp_path), tmp_path, compute_capabilities=(capability,))
    )
    script = tmp_path / "program.py"
    script.write_text(without)
    python = job.program[0]
    with pytest.raises(BuildError) as caught:
        run_worker(Job(job.subject, job.command, job.log, 60, (python, str(script))))
    assert caught.value.code == "TF0608"
    assert "compute_capabilities" in caught.value.hint


def test_a_setting_that_the_library_drops_with_an_error_fails_the_build(tmp_path):
    """TensorRT-RTX logs an ERROR, ignores the setting and builds all the same."""
    script = tmp_path / "program.py"
    script.write_text(
        "import trtforge.engine.tensorrt as t\n"
        "original = t._configure\n"
        "def configure(*arguments):\n"
        "    config = original(*arguments)\n"
        "    config.builder_optimization_level = -1\n"
        "    return config\n"
        "t._configure = configure\n"
        "import runpy; runpy.run_module('trtforge.engine.worker', run_name='__main__')"
    )
    job = build_job(request_for(save(matmul(), tmp_path), tmp_path))
    with pytest.raises(BuildError, match="builder optimization level") as caught:
        run_worker(Job(job.subject, job.command, job.log, 60, (job.program[0], str(script))))
    assert caught.value.code == "TF0608"
    assert "cudaError" not in f"{caught.value.message} {caught.value.details}"
    assert not (tmp_path / "model.engine").exists()


def test_each_other_target_builds_what_the_table_allows(tmp_path):
    allowed = [capability for capability in targets.target_names(trt) if capability != "7.5"]
    assert build(bf16_conv(), tmp_path, compute_capabilities=tuple(allowed)).engine_bytes > 0


def test_fp32_attention_is_decomposed(tmp_path):
    assert build(attention(), tmp_path).engine_bytes > 0


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (custom_operator, ["Frobnicate node 'head/frob'", "INVALID_NODE", "plugin"]),
        (unsupported_operator, ["Det node 'det'", "UNSUPPORTED_NODE", "not supported"]),
        (asymmetric, ["'q'", "zero point other than 0"]),
    ],
)
def test_parser_errors_name_node_operator_reason_and_remedy(tmp_path, make, words):
    error = refused(make(), tmp_path)
    assert error.code == "TF0604"
    assert all(word in error.message for word in words), error.message
    assert error.where.node in ("head/frob", "det", "q")
    assert error.hint
    assert "cudaError" not in str(error.message)


@pytest.mark.parametrize(
    ("make", "words", "hint"),
    [
        (unnamed_unsupported, "NonZero node that makes 'places': the operator is not", "rewrite"),
        (image_bytes, "Transpose node 'planes': TensorRT converts UINT8", "put the Cast"),
        (suppression, "it has no implementation of layer 'nms", "end the model before"),
    ],
)
def test_what_the_library_says_is_told_in_one_plain_line(tmp_path, make, words, hint):
    error = refused(make(), tmp_path)
    assert words in error.message
    assert error.hint.startswith(hint)
    assert "\n" not in error.message
    assert "cudaError" not in error.message


def interface(proto: onnx.ModelProto) -> dict[str, dict[str, str]]:
    """Names and numpy dtypes of a model's inputs and outputs, as the pipeline states them."""
    return {
        side: {
            value.name: str(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))
            for value in values
        }
        for side, values in (("inputs", proto.graph.input), ("outputs", proto.graph.output))
    }


@pytest.mark.parametrize(
    ("make", "words", "hint"),
    [
        (double_matmul, "input 'x' is float64, but the engine takes it as float32", "with a Cast"),
        (output_is_input, "output 'x' is the input of that name itself", "Identity"),
    ],
)
def test_an_engine_with_another_interface_than_the_model_is_refused(tmp_path, make, words, hint):
    """The parser takes FP64 for FP32 and renames an input that is an output, without a word."""
    proto = make()
    error = refused(proto, tmp_path, **interface(proto))
    assert error.code == "TF0617"
    assert words in error.message
    assert hint in error.hint


def test_an_engine_with_the_models_interface_is_built(tmp_path):
    proto = conv_net()
    report = build(proto, tmp_path, profiles=(CONV_PROFILE,), **interface(proto))
    assert report.engine_bytes > 0


@pytest.mark.parametrize("content", [b"", b"hello world", bytes(4096)])
def test_what_is_no_model_has_no_outputs(tmp_path, content):
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(BuildError) as caught:
        get_backend("tensorrt_rtx").build(request_for(tmp_path / "model.onnx", tmp_path))
    assert caught.value.code == "TF0604"


BAD_PROFILES = [
    ((), "dynamic"),
    (({"image": ((4, 3, 16, 16), (1, 3, 16, 16), (8, 3, 16, 16))},), "min <= opt <= max"),
    (({"image": ((1, 3, 9, 16), (1, 3, 9, 16), (1, 3, 9, 16))},), "dimension 2 is 16"),
    (({"image": ((1, 3), (1, 3), (1, 3))},), "4 dimensions"),
    (({"imgae": CONV_PROFILE["image"]},), "names 'imgae'"),
    ((CONV_PROFILE, {}), "profile 1 lacks the dynamic input 'image'"),
]


@pytest.mark.parametrize(("profiles", "words"), BAD_PROFILES)
def test_profiles_that_do_not_fit_are_refused(tmp_path, profiles, words):
    error = refused(conv_net(), tmp_path, profiles=profiles)
    assert error.code == "TF0605"
    assert words in error.message


def test_an_input_that_is_a_shape_is_refused_with_its_name(tmp_path):
    error = refused(shape_input(), tmp_path)
    assert error.code == "TF0605"
    assert "input 'shape'" in error.message


def test_external_data_is_found_beside_the_model(tmp_path):
    proto = matmul()
    inline = build(proto, tmp_path).engine_sha256
    onnx.save(
        proto, tmp_path / "ext.onnx", save_as_external_data=True, location="w", size_threshold=0
    )
    request = request_for(tmp_path / "ext.onnx", tmp_path / "out")
    assert get_backend("tensorrt_rtx").build(request).engine_sha256 == inline
    (tmp_path / "w").unlink()
    with pytest.raises(BuildError, match="import initializer"):
        get_backend("tensorrt_rtx").build(request)


def test_progress_never_falls_and_ends_at_one(tmp_path):
    seen: list[tuple[float, str]] = []
    request = request_for(save(conv_net(), tmp_path), tmp_path, profiles=(CONV_PROFILE,))
    get_backend("tensorrt_rtx").build(request, lambda share, phase: seen.append((share, phase)))
    shares = [share for share, _ in seen]
    assert seen[0] == (0.0, "parsing model.onnx")
    assert len(seen) > 20
    assert all(a <= b for a, b in itertools.pairwise(shares))
    assert shares[-1] == pytest.approx(1.0)


def test_the_log_has_the_builders_lines_and_no_path_of_this_machine(tmp_path):
    build(conv_net(), tmp_path, profiles=(CONV_PROFILE,))
    log = (tmp_path / "build.log").read_text()
    assert "[I] Input filename:   model.onnx" in log
    assert "Total Activation Memory" in log
    assert str(tmp_path) not in log
    assert not (tmp_path / "build.job.json").exists()


def test_a_failed_build_can_be_repeated_by_the_command_in_its_hint(tmp_path):
    error = refused(custom_operator(), tmp_path)
    command = error.hint.partition("by hand: ")[2]
    again = subprocess.run(
        [*shlex.split(command), "--verbose"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert again.returncode == 4
    assert json.loads(again.stdout.splitlines()[-1])["code"] == "TF0604"
    assert "[V] " in again.stderr
    assert "[V] " not in (tmp_path / "build.log").read_text()


def test_a_module_in_the_current_folder_does_not_stand_in_for_the_library(tmp_path, monkeypatch):
    (tmp_path / "tensorrt_rtx.py").write_text("raise SystemExit('wrong module')")
    monkeypatch.chdir(tmp_path)
    assert build(matmul(), tmp_path).engine_bytes > 0


def test_available_says_what_is_missing():
    facts = get_backend("tensorrt_rtx").available()
    assert (facts.installed, facts.version, facts.can_build) == (True, trt.__version__, True)
    assert facts.can_run == (facts.reason is None)


def test_a_backend_that_is_not_installed_says_what_to_install():
    try:
        import tensorrt  # noqa: F401
    except ImportError:
        with pytest.raises(MissingError, match="'tensorrt' is not installed") as caught:
            get_backend("tensorrt")
        assert "pip install" in caught.value.hint
    else:
        assert get_backend("tensorrt").name == "tensorrt"


def probe(folder: Path, engine: Path | None) -> dict[str, Any]:
    command = {
        "command": "probe",
        "backend": "tensorrt_rtx",
        "engine": None if engine is None else str(engine),
    }
    return run_worker(Job("probing", command, folder / "probe.log", 60))


def test_probe_tells_versions_targets_and_files_that_are_no_engines(tmp_path):
    build(matmul(), tmp_path)
    facts = probe(tmp_path, tmp_path / "model.engine")
    assert facts["version"] == trt.__version__
    assert facts["targets"] == ["7.5", "8.0", "8.6", "8.9", "12.0", "12.1"]
    if facts["driver"]["reason"] is not None:
        assert facts["engine"] == {"validity": "not_known", "diagnostics": []}
    (tmp_path / "no.engine").write_bytes(b"no engine at all" * 100)
    assert probe(tmp_path, tmp_path / "no.engine")["engine"]["validity"] == "malformed"


def test_sigterm_cancels_at_the_next_step(tmp_path):
    job = build_job(request_for(light_densenet(), tmp_path))
    sent = []
    with Worker(job) as worker:

        def on_progress(share: float, phase: str) -> None:
            if share > 0.1 and not sent:
                sent.append(os.kill(worker.process_id, signal.SIGTERM))

        with pytest.raises(BuildError, match="cancelled") as caught:
            worker.answer(on_progress)
    assert caught.value.code == "TF0611"
    assert not list(tmp_path.glob("*.engine")) + list(tmp_path.glob(".*partial"))


def test_options_that_it_takes_change_the_engine(tmp_path):
    engines = [
        build(conv_net(), tmp_path, profiles=(CONV_PROFILE,), options=options).engine_sha256
        for options in ({}, {"weight_streaming": True}, {"profiling": "none"})
    ]
    assert len(set(engines)) == 3


def test_an_option_that_needs_a_driver_is_refused_before_the_build(tmp_path):
    if driver().reason is None:
        pytest.skip("not run: this machine has a driver")
    with pytest.raises(MissingError, match="builds with refit only on a machine with a GPU"):
        build(conv_net(), tmp_path, profiles=(CONV_PROFILE,), options={"refit": "all"})
