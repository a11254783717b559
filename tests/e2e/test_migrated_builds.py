"""Commands of other tools, migrated and built: the engine is what the command meant."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from models_precision import cnn
from onnx import parser
from quantize_samples import quantized

from trtforge.pipeline.migrate import MigrateOptions, migrate
from trtforge.pipeline.run import BuildOptions, build_recipe
from trtforge.recipe.schema import Precision

EMBED = """<ir_version: 10, opset_import: ["": 19]>
embed (int64[N, L] ids, float[N, L] mask) => (float[N, L] y) {
  f = Cast<to=1> (ids)
  y = Mul (f, mask)
}"""
RANKING = """<ir_version: 10, opset_import: ["": 19]>
ranking (float[N, 100] scores, int64[1] k) => (float[N, K] best, int64[N, K] places) {
  best, places = TopK (scores, k)
}"""
CNN_SHAPES = "--minShapes=image:1x3x16x16 --maxShapes=image:4x3x16x16"


def built(command: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Migrate a command in the current folder, build its recipe, return the bundle's manifest."""
    monkeypatch.setenv("TRTFORGE_CACHE", "store")
    migrate(command, MigrateOptions(Path("recipe.yaml"), backend="tensorrt_rtx"))
    result = build_recipe(Path("recipe.yaml"), BuildOptions(out=Path("bundles")))
    assert result.bundle is not None
    manifest: dict[str, Any] = json.loads((result.bundle / "manifest.json").read_text())
    return manifest


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_model_with_pairs_of_its_own_keeps_them_whatever_cache_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All its products are INT8, so none is FP16: that is what the command meant."""
    model, _ = quantized(cnn(), Precision(quantize="int8", techniques="none"))
    onnx.save(model.proto, "qat.onnx")
    command = f"trtexec --onnx=qat.onnx --int8 --fp16 --calib=no.cache {CNN_SHAPES}"
    manifest = built(command, monkeypatch)
    shares = manifest["verdicts"]["attest"]["figures"]["shares"]
    assert shares["macs"]["int8"] > 0.9
    assert "fp16" in shares["nodes"]
    assert manifest["precision"]["quantize"] == "none"


def test_inputs_and_outputs_in_fp16(monkeypatch: pytest.MonkeyPatch) -> None:
    onnx.save(parser.parse_model(EMBED), "m.onnx")
    command = (
        "trtexec --onnx=m.onnx --fp16 --inputIOFormats=int64:chw,fp16:chw "
        "--outputIOFormats=fp16:chw --profile=0 --minShapes=ids:1x1,mask:1x1 "
        "--optShapes=ids:1x16,mask:1x16 --maxShapes=ids:1x32,mask:1x32 --profile=1 "
        "--minShapes=ids:8x1,mask:8x1 --maxShapes=ids:16x32,mask:16x32"
    )
    manifest = built(command, monkeypatch)
    types = [one["dtype"] for side in ("inputs", "outputs") for one in manifest["model"][side]]
    assert types == ["int64", "float16", "float16"]
    assert [one["mask"]["max"] for one in manifest["profiles"]] == [[1, 32], [16, 32]]


def test_values_of_an_input_that_decides_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    onnx.save(parser.parse_model(RANKING), "m.onnx")
    command = (
        "trtexec --onnx=m.onnx --minShapes=scores:1x100,k:1 --optShapes=scores:8x100,k:5 "
        "--maxShapes=scores:32x100,k:100 --shapes=scores:8x100,k:5"
    )
    k = built(command, monkeypatch)["profiles"][0]["k"]
    assert k == {"min": [1], "opt": [5], "max": [100], "values": True}


def test_polygraphy_calibrates_where_its_cache_is_not_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    onnx.save(cnn().proto, "m.onnx")
    np.save("x.npy", np.random.default_rng(0).normal(size=(8, 3, 16, 16)).astype(np.float32))
    Path("load.py").write_text(
        "import numpy as np\n\n\ndef load_data():\n    for one in np.load('x.npy'):\n"
        "        yield {'image': one[None]}\n"
    )
    command = (
        "polygraphy convert m.onnx --int8 --fp16 --data-loader-script load.py "
        "--calibration-cache new.cache --trt-min-shapes image:[1,3,16,16] "
        "--trt-opt-shapes image:[2,3,16,16] --trt-max-shapes image:[4,3,16,16] -o m.plan"
    )
    manifest = built(command, monkeypatch)
    assert manifest["precision"]["quantize"] == "int8"
    assert manifest["calibration"]["samples"] == 8
    assert manifest["verdicts"]["attest"]["figures"]["quantized_macs_share"] > 0.5
