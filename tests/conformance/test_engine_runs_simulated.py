"""Engines of TensorRT 10 and 11 loaded, run, inspected and refitted, on the simulator.

Sessions run them, over a fake CUDA runtime: nothing here is a GPU result.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from engine_models import CONV_PROFILE, conv_net, fp16_conv, matmul, model, save, weights
from onnx import TensorProto, helper, numpy_helper
from simulator import running
from simulator.simulation import Simulation

from trtforge.engine.backend import BuildRequest, get_backend
from trtforge.engine.engine_worker import EngineSource
from trtforge.engine.inspector import engine_layers, engine_types
from trtforge.engine.measuring.meter import EngineLoad, EngineMeter
from trtforge.engine.onnxruntime import OnnxRuntimeRunner
from trtforge.engine.runner import EngineRunner
from trtforge.engine.views import engine_information
from trtforge.errors import BuildError

# For what does not depend on the major version.
ON_TEN = pytest.mark.parametrize("simulated", ["10"], indirect=True)
ON_ELEVEN = pytest.mark.parametrize("simulated", ["11"], indirect=True)

WIDE = {"image": ((9, 3, 16, 16), (16, 3, 16, 16), (32, 3, 16, 16))}
DIGITS = {"image": ((1, 1, 8, 8), (32, 1, 8, 8), (64, 1, 8, 8))}


def int8_conv() -> onnx.ModelProto:
    """A convolution with INT8 Q/DQ on both operands."""
    scale = numpy_helper.from_array(np.float32(0.05), "s")
    zero = numpy_helper.from_array(np.int8(0), "z")
    return model(
        [
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"], name="q"),
            helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"], name="dq"),
            helper.make_node("QuantizeLinear", ["w", "s", "z"], ["wq"], name="wq"),
            helper.make_node("DequantizeLinear", ["wq", "s", "z"], ["wd"], name="wdq"),
            helper.make_node("Conv", ["xd", "wd"], ["y"], name="conv"),
        ],
        {"x": (TensorProto.FLOAT, [1, 8, 8, 8])},
        {"y": (TensorProto.FLOAT, [1, 16, 6, 6])},
        [weights("w", (16, 8, 3, 3)), scale, zero],
    )


def built(folder: Path, graph: onnx.ModelProto | Path, **more: Any) -> tuple[Path, Path]:
    """Build an engine; returns the model and the engine."""
    folder.mkdir(exist_ok=True)
    path = graph if isinstance(graph, Path) else save(graph, folder)
    engine = folder / "m.plan"
    get_backend("tensorrt").build(BuildRequest(path, engine, folder / "m.log", "tensorrt", **more))
    return path, engine


def images(batch: int, *shape: int) -> dict[str, Any]:
    drawn = np.random.default_rng(batch).standard_normal((batch, *shape))
    return {"image": drawn.astype(np.float32)}


def test_an_engine_computes_what_onnxruntime_does_in_each_profile(
    simulated: Simulation, tmp_path: Path
) -> None:
    path, engine = built(tmp_path, conv_net(), profiles=(CONV_PROFILE, WIDE))
    with (
        OnnxRuntimeRunner(path) as reference,
        EngineRunner(EngineSource(engine, "tensorrt")) as candidate,
    ):
        for batch in (1, 8, 9, 32, 2):  # 9 and 32 lie in the second profile alone
            feeds = images(batch, 3, 16, 16)
            found = candidate.infer(feeds)
            assert list(found) == ["scores"]
            np.testing.assert_allclose(
                found["scores"], reference.infer(feeds)["scores"], rtol=1e-5, atol=1e-5
            )
        with pytest.raises(BuildError, match="no optimization profile of the engine covers") as no:
            candidate.infer(images(33, 3, 16, 16))
        assert (no.value.code, no.value.exit_status) == ("TF0614", 4)
        assert candidate.infer(images(3, 3, 16, 16))["scores"].shape == (3, 5)


@ON_TEN
def test_typed_and_static_networks_run(simulated: Simulation, tmp_path: Path, digits: Path) -> None:
    _, half = built(tmp_path / "half", fp16_conv())
    drawn = np.random.default_rng(0).standard_normal((1, 8, 8, 8)).astype(np.float32)
    with (
        OnnxRuntimeRunner(half.parent / "model.onnx") as reference,
        EngineRunner(EngineSource(half, "tensorrt")) as candidate,
    ):
        found = candidate.infer({"x": drawn})["y"]
        np.testing.assert_allclose(found, reference.infer({"x": drawn})["y"], rtol=1e-3)
    model, engine = built(tmp_path / "digits", digits / "model.onnx", profiles=(DIGITS,))
    feeds = images(7, 1, 8, 8)
    with (
        OnnxRuntimeRunner(model) as reference,
        EngineRunner(EngineSource(engine, "tensorrt")) as candidate,
    ):
        found = candidate.infer(feeds)["logits"]
        np.testing.assert_allclose(found, reference.infer(feeds)["logits"], rtol=1e-4, atol=1e-5)


@ON_TEN
def test_feeds_of_another_type_or_name_are_one_clear_error(
    simulated: Simulation, tmp_path: Path
) -> None:
    _, engine = built(tmp_path, matmul())
    feed = np.zeros((4, 8), np.float32)
    with EngineRunner(EngineSource(engine, "tensorrt")) as candidate:
        for wrong in ({"x": feed.astype(np.float64)}, {"y": feed}, {}):
            with pytest.raises(BuildError, match=r"is float32|inputs are x") as caught:
                candidate.infer(wrong)
            assert (caught.value.code, caught.value.exit_status) == ("TF0616", 4)
        assert candidate.infer({"x": feed})["y"].shape == (4, 16)  # the worker is alive


@ON_TEN
def test_a_failed_execution_is_told_in_the_librarys_words(
    simulated: Simulation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, engine = built(tmp_path, matmul())
    monkeypatch.setenv(running.FAULT, "failed")
    with EngineRunner(EngineSource(engine, "tensorrt")) as candidate:
        expected = pytest.raises(BuildError, match=r"did not run: .*Cuda Runtime \(simulated\)")
        with expected as caught:
            candidate.infer({"x": np.zeros((4, 8), np.float32)})
    assert (caught.value.code, caught.value.exit_status) == ("TF0626", 4)


@ON_TEN
def test_an_engine_whose_plugin_is_missing_says_what_to_do(
    simulated: Simulation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, engine = built(tmp_path, matmul())
    monkeypatch.setenv(running.FAULT, "plugin")
    with pytest.raises(BuildError, match="Cannot deserialize plugin") as caught:
        EngineRunner(EngineSource(engine, "tensorrt")).__enter__()
    assert (caught.value.code, caught.value.exit_status) == ("TF0613", 4)
    assert "LD_PRELOAD" in (caught.value.hint or "")


@ON_TEN
@pytest.mark.parametrize("doing", [EngineRunner, lambda source: EngineMeter(source, ())])
def test_a_stripped_engine_says_that_it_lacks_its_weights(
    simulated: Simulation, tmp_path: Path, doing: Any
) -> None:
    _, engine = built(tmp_path, matmul(), options={"strip_weights": True})
    with pytest.raises(BuildError, match=r"m\.plan' was built without its weights") as caught:
        doing(EngineLoad(engine, "tensorrt")).__enter__()
    assert (caught.value.code, caught.value.exit_status) == ("TF0629", 4)
    assert "--weights" in (caught.value.hint or "")


@ON_TEN
def test_weights_for_an_engine_that_takes_none_are_refused(
    simulated: Simulation, tmp_path: Path
) -> None:
    path, engine = built(tmp_path, matmul())
    with pytest.raises(BuildError, match="takes no other weights") as caught:
        EngineRunner(EngineSource(engine, "tensorrt", weights=path)).__enter__()
    assert caught.value.code == "TF0628"


@ON_ELEVEN
def test_the_gpu_holds_as_many_weights_as_the_budget_says(
    simulated: Simulation, tmp_path: Path
) -> None:
    _, engine = built(tmp_path, matmul(), options={"weight_streaming": True})
    for budget, held in ((2**-12, 256), ("auto", 256), (1000, 512), (None, 512)):
        with EngineMeter(EngineLoad(engine, "tensorrt", weight_budget=budget), ()) as meter:
            assert meter.facts["weight_budget_bytes"] == held
            assert meter.facts["streamable_weights_bytes"] == 512
    _, engine = built(tmp_path / "whole", matmul())
    with pytest.raises(BuildError, match="streams no weights") as caught:
        EngineMeter(EngineLoad(engine, "tensorrt", weight_budget="auto"), ()).__enter__()
    assert (caught.value.code, caught.value.exit_status) == ("TF0630", 4)


@ON_ELEVEN
def test_a_damaged_engine_is_one_clear_error(simulated: Simulation, tmp_path: Path) -> None:
    _, engine = built(tmp_path, matmul())
    held = engine.read_bytes()
    for damaged in (
        held[:-40],
        held[:200] + b"\xff" + held[201:],
        b"",
        b"no engine at all, but long enough for a header",
    ):
        engine.write_bytes(damaged)
        with pytest.raises(BuildError, match=r"cannot load m\.plan") as caught:
            EngineRunner(EngineSource(engine, "tensorrt")).__enter__()
        assert (caught.value.code, caught.value.exit_status) == ("TF0613", 4)
        assert "rebuild it here" in (caught.value.hint or "")


@ON_TEN
def test_an_engine_of_another_version_or_device_is_refused_with_the_librarys_words(
    simulated: Simulation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, engine = built(tmp_path, matmul())
    held = bytearray(engine.read_bytes())
    held[25] = 13
    other = tmp_path / "other.plan"
    other.write_bytes(held)
    with pytest.raises(BuildError, match=r"version .* 10\.13\.1\.11 got 10\.16\.1\.11"):
        EngineRunner(EngineSource(other, "tensorrt")).__enter__()
    monkeypatch.setenv("TRT_SIMULATED_CAPABILITY", "8.6")
    with pytest.raises(BuildError, match=r"expecting compute 8\.6 got compute 8\.9"):
        EngineRunner(EngineSource(engine, "tensorrt")).__enter__()
    level = {"hardware_compatibility": "ampere_plus"}
    _, portable = built(tmp_path / "portable", matmul(), options=level)
    monkeypatch.setenv("TRT_SIMULATED_CAPABILITY", "12.0")
    with EngineRunner(EngineSource(portable, "tensorrt")) as candidate:
        assert candidate.infer({"x": np.zeros((4, 8), np.float32)})


@ON_ELEVEN
def test_host_code_runs_only_when_it_is_allowed(simulated: Simulation, tmp_path: Path) -> None:
    _, engine = built(tmp_path, matmul(), options={"version_compatible": True})
    with pytest.raises(BuildError, match="host code, which is not allowed"):
        EngineRunner(EngineSource(engine, "tensorrt")).__enter__()
    feeds = {"x": np.ones((4, 8), np.float32)}
    with EngineRunner(EngineSource(engine, "tensorrt", allow_host_code=True)) as candidate:
        assert candidate.infer(feeds)["y"].shape == (4, 16)


def test_the_inspector_tells_types_in_the_form_of_its_version(
    simulated: Simulation, tmp_path: Path
) -> None:
    _, engine = built(tmp_path, int8_conv())
    document = engine_information(engine, "tensorrt")
    if simulated.major == "10":
        assert document["Bindings"] == ["x", "y"]
        assert "Format/Datatype" in document["Layers"][0]["Inputs"][0]
    else:
        assert [tensor["IOMode"] for tensor in document["I/O Tensors"]] == ["Input", "Output"]
        assert "Datatype" in document["Layers"][0]["Inputs"][0]
    found = engine_types(engine_layers(document) or ())
    assert found.products == {"conv": "int8"}
    _, silent = built(tmp_path / "silent", matmul(), options={"profiling": "layer_names_only"})
    assert engine_information(silent, "tensorrt")["Layers"] == ["fc"]


REFIT = """
import json, sys
import numpy as np
import tensorrt as trt
said = []
class Logger(trt.ILogger):
    def __init__(self): trt.ILogger.__init__(self)
    def log(self, severity, msg): said.append([severity.name, msg])
logger = Logger()
runtime = trt.Runtime(logger)
engine = runtime.deserialize_cuda_engine(open(sys.argv[1], "rb").read())
context = engine.create_execution_context()
x, y = np.ones((4, 8), np.float32), np.zeros((4, 16), np.float32)
context.set_tensor_address("x", x.ctypes.data)
context.set_tensor_address("y", y.ctypes.data)
found = {"refittable": engine.refittable, "stripped runs": context.execute_async_v3(0)}
refitter = trt.Refitter(engine, logger)
found["missing"] = refitter.get_missing_weights()
found["early"] = refitter.refit_cuda_engine()
found["wrong size"] = refitter.set_named_weights("v", trt.Weights(np.ones(3, np.float32)))
found["wrong type"] = refitter.set_named_weights("v", trt.Weights(np.ones((8, 16), np.float16)))
found["unknown"] = refitter.set_named_weights("w", trt.Weights(np.ones((8, 16), np.float32)))
found["right"] = refitter.set_named_weights("v", trt.Weights(np.full((8, 16), 2, np.float32)))
found["refit"] = refitter.refit_cuda_engine()
found["runs"] = context.execute_async_v3(0)
print(json.dumps([found, y.tolist()]))
"""


def test_stripped_weights_come_back_by_a_refit(simulated: Simulation, tmp_path: Path) -> None:
    _, engine = built(tmp_path, matmul(), options={"strip_weights": True, "refit": "all"})
    found, result = json.loads(simulated.python(REFIT, str(engine)))
    assert found == {
        "refittable": True, "stripped runs": False, "missing": ["v"], "early": False,
        "wrong size": False, "wrong type": False, "unknown": False,
        "right": True, "refit": True, "runs": True,
    }  # fmt: skip
    assert result == np.full((4, 16), 16.0).tolist()


def test_a_stripped_engine_runs_with_the_weights_of_its_model(
    simulated: Simulation, tmp_path: Path
) -> None:
    path, engine = built(
        tmp_path, conv_net(), profiles=(CONV_PROFILE,), options={"strip_weights": True}
    )
    feeds = images(4, 3, 16, 16)
    with (
        OnnxRuntimeRunner(path) as reference,
        EngineRunner(EngineSource(engine, "tensorrt", weights=path)) as candidate,
    ):
        expected = reference.infer(feeds)["scores"]
        np.testing.assert_allclose(candidate.infer(feeds)["scores"], expected, rtol=1e-5, atol=1e-5)
    other = save(matmul(), tmp_path, "other.onnx")
    with pytest.raises(BuildError, match=r"weights of other\.onnx: .*no weights w") as caught:
        EngineRunner(EngineSource(engine, "tensorrt", weights=other)).__enter__()
    assert (caught.value.code, caught.value.exit_status) == ("TF0628", 4)
