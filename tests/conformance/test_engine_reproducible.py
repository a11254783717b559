"""The same build gives the same bytes, wherever the model lies and however the process starts."""

import os
from pathlib import Path

import pytest
from running import layout_can_be_fixed

from trtforge.cli.main import _run
from trtforge.engine.backend import BuildRequest, get_backend

PROFILE = {"image": ((1, 1, 8, 8), (32, 1, 8, 8), (256, 1, 8, 8))}


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory, digits: Path) -> Path:
    """The INT8 model of the quickstart: depthwise, residual, FP32 input with FP16 inside."""
    folder = tmp_path_factory.mktemp("typed")
    patch = pytest.MonkeyPatch()
    patch.setenv("TRTFORGE_CACHE", str(folder / "store"))
    try:
        args = [
            "build",
            str(digits / "int8.yaml"),
            "--target",
            "cpu",
            "-q",
            "--out",
            str(folder / "out"),
        ]
        assert _run(args) == 0
    finally:
        patch.undo()
    return next((folder / "out").iterdir()) / "model.onnx"


@pytest.mark.skipif(
    not layout_can_be_fixed(), reason="not run: this system does not let a process fix its layout"
)
def test_a_quantized_network_gives_the_same_bytes_in_every_process(
    quantized: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = set()
    for number in range(5):
        folder = tmp_path / ("x" * (1 + 30 * number))
        folder.mkdir()
        model = folder / "model.onnx"
        model.write_bytes(quantized.read_bytes())
        monkeypatch.setenv("SOME_VARIABLE", "y" * 2000 * number)
        request = BuildRequest(
            model, folder / "model.engine", folder / "build.log", "tensorrt_rtx", (PROFILE,)
        )
        digests.add(get_backend("tensorrt_rtx").build(request).engine_sha256)
    assert len(digests) == 1
    assert os.environ["SOME_VARIABLE"]
