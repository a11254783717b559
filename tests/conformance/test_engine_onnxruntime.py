"""The ONNX Runtime backend: numbers, options, external weights, refusals."""

import re

import numpy as np
import onnx
import pytest
from engine_models import conv_net, custom_operator, fp8_matmul, matmul, save
from onnx import numpy_helper

from trtforge.engine.backend import BuildRequest, get_backend
from trtforge.engine.onnxruntime import OnnxRuntimeRunner
from trtforge.errors import BuildError, MissingError
from trtforge.graph.model import Model


def weight(proto: onnx.ModelProto, name: str) -> np.ndarray:
    return next(numpy_helper.to_array(t) for t in proto.graph.initializer if t.name == name)


def request_for(path, folder) -> BuildRequest:
    return BuildRequest(path, folder / "none.engine", folder / "build.log", "onnxruntime")


def test_it_computes_the_matrix_product(tmp_path):
    x = np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32)
    with OnnxRuntimeRunner(save(matmul(), tmp_path)) as runner:
        outputs = runner.infer({"x": x})
    assert list(outputs) == ["y"]
    np.testing.assert_allclose(outputs["y"], x @ weight(matmul(), "v"), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("batch", [1, 4, 8])
def test_a_file_and_a_model_in_memory_give_the_same(tmp_path, batch):
    path = save(conv_net(), tmp_path)
    image = np.random.default_rng(1).standard_normal((batch, 3, 16, 16)).astype(np.float32)
    found = []
    for model in (path, Model.load(path)):
        with OnnxRuntimeRunner(model, name="reference") as runner:
            assert runner.name == "reference"
            found.append(runner.infer({"image": image})["scores"])
    np.testing.assert_array_equal(found[0], found[1])
    assert found[0].shape == (batch, 5)


def test_external_weights_are_found_for_files_and_for_models(tmp_path):
    onnx.save(
        matmul(), tmp_path / "m.onnx", save_as_external_data=True, location="w", size_threshold=0
    )
    x = np.ones((4, 8), np.float32)
    for model in (tmp_path / "m.onnx", Model.load(tmp_path / "m.onnx")):
        with OnnxRuntimeRunner(model) as runner:
            expected = x @ weight(matmul(), "v")
            np.testing.assert_allclose(runner.infer({"x": x})["y"], expected, rtol=1e-5)


def test_nothing_is_optimized_unless_asked_for(tmp_path):
    """With optimization this FP8 graph does not even load (ONNX Runtime 1.31)."""
    levels = []
    for optimize in (False, True):
        with OnnxRuntimeRunner(save(matmul(), tmp_path), optimize=optimize, threads=1) as runner:
            options = runner._runner.sess.get_session_options()
            levels.append(options.graph_optimization_level.name)
            assert options.intra_op_num_threads == 1
    assert levels == ["ORT_DISABLE_ALL", "ORT_ENABLE_ALL"]
    with OnnxRuntimeRunner(save(fp8_matmul(), tmp_path)) as runner:
        assert np.isfinite(runner.infer({"x": np.ones((16, 32), np.float32)})["y"]).all()


def test_the_backend_builds_nothing_and_reports_so(tmp_path):
    seen = []
    report = get_backend("onnxruntime").build(
        request_for(save(conv_net(), tmp_path), tmp_path), lambda *step: seen.append(step)
    )
    assert (report.engine_bytes, report.engine_sha256) == (0, "")
    assert not (tmp_path / "none.engine").exists()
    assert "model.onnx loads" in (tmp_path / "build.log").read_text()
    assert [share for share, _ in seen] == [0.0, 1.0]


@pytest.mark.parametrize("content", [b"", b"hello world", None])
def test_what_cannot_be_loaded_is_a_build_error(tmp_path, content):
    path = tmp_path / "model.onnx"
    if content is None:
        save(custom_operator(), tmp_path)
    else:
        path.write_bytes(content)
    with pytest.raises(BuildError) as caught:
        get_backend("onnxruntime").build(request_for(path, tmp_path))
    assert (caught.value.code, caught.value.exit_status) == ("TF0615", 4)
    assert "ONNXRuntimeError" not in caught.value.message


def test_an_opset_to_come_is_told_with_the_newest_that_it_takes(tmp_path):
    proto = matmul()
    proto.opset_import[0].version = 99
    with pytest.raises(BuildError) as caught:
        get_backend("onnxruntime").build(request_for(save(proto, tmp_path), tmp_path))
    assert ".h:" not in caught.value.message
    assert "Opset 99 is under development" in caught.value.message
    assert re.fullmatch(r"export the model with opset \d+ or older", caught.value.hint)


@pytest.mark.parametrize(
    "feeds",
    [
        {},
        {"x": np.zeros((4, 9), np.float32)},
        {"x": np.zeros((4, 8), np.float64)},
        {"z": np.zeros((4, 8), np.float32)},
    ],
)
def test_feeds_that_do_not_fit_are_refused(tmp_path, feeds):
    with (
        OnnxRuntimeRunner(save(matmul(), tmp_path)) as runner,
        pytest.raises(BuildError, match=r"cannot run model\.onnx") as caught,
    ):
        runner.infer(feeds)
    assert caught.value.code == "TF0616"


def test_a_log_that_cannot_be_written_is_missing(tmp_path):
    request = request_for(save(matmul(), tmp_path), tmp_path / "none")
    with pytest.raises(MissingError):
        get_backend("onnxruntime").build(request)
