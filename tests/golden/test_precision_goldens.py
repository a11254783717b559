"""Texts that users and other tools read: decisions, our cache, TensorRT's cache.

`TRTFORGE_UPDATE_GOLDENS=1 pytest tests/golden/test_precision_goldens.py` rewrites them.
"""

import os
from pathlib import Path

import pytest
from precision_samples import net, ranges

from trtforge.precision.cache import CalibrationCache, DataUse, TensorRange
from trtforge.precision.cast import typed
from trtforge.precision.trt_text import write_trt_text
from trtforge.recipe.schema import Precision

FOLDER = Path(__file__).parent / "precision"


def matches(name: str, text: str) -> bool:
    path = FOLDER / name
    if os.environ.get("TRTFORGE_UPDATE_GOLDENS"):
        path.write_text(text)
    return path.read_text() == text


@pytest.mark.parametrize("name", ["cnn", "transformer"])
@pytest.mark.parametrize("kind", ["fp16", "bf16"])
def test_decisions(name: str, kind: str) -> None:
    precision = Precision.model_validate({"type": kind, "quantize": "int8"})
    result = typed(net(name), ranges(name), precision)
    lines = [f"{d.action:9} {d.op} {d.node}: {d.reason}" for d in result.quantize.decisions]
    lines += [f"{d.type:9} {d.op} {d.node}: {d.reason}" for d in result.cast.decisions]
    lines += [f"{count:4} nodes in {of}" for of, count in result.cast.nodes.items()]
    lines += [f"{result.cast.casts_added:4} casts added"]
    assert matches(f"{name}.{kind}.txt", "\n".join(lines) + "\n")


def test_the_typed_graph() -> None:
    precision = Precision(type="fp16", quantize="int8")
    graph = typed(net("cnn"), ranges("cnn"), precision).model.proto.graph
    lines = [
        f"{node.op_type}({', '.join(node.input)}) -> {', '.join(node.output)}"
        for node in graph.node
    ]
    assert matches("cnn.fp16.int8.graph.txt", "\n".join(lines) + "\n")


def test_caches(tmp_path: Path) -> None:
    cache = CalibrationCache(
        method="entropy",
        options={"bins": 2048, "levels": 128},
        samples=256,
        graph_digest="sha256:00",
        data=(DataUse(digest="sha256:11", source="calib.npz", spans=((0, 256),)),),
        versions={"numpy": "2.4.6", "onnxruntime": "1.31.1"},
        warnings=("tensor 'dead' was 0 throughout; is the data representative?",),
        ranges={
            "input_1:0": TensorRange(min=-1.0, max=1.0, amax=1.0),
            "dead": TensorRange(min=0.0, max=0.0, amax=0.0),
        },
    )
    assert matches("cache.json", cache.as_text())
    write_trt_text(cache, tmp_path / "calib")
    assert matches("tensorrt.calib", (tmp_path / "calib").read_text())
    assert CalibrationCache.load(FOLDER / "cache.json") == cache


def test_a_cache_of_the_first_version_opens() -> None:
    """Written by the first release; it had no histograms and named one file of data."""
    cache = CalibrationCache.load(FOLDER / "cache.1.json")
    assert cache.data == (DataUse(digest="sha256:11", spans=((0, 256),)),)
    assert cache.ranges["input_1:0"] == TensorRange(min=-1.0, max=1.0, amax=1.0)
    assert cache.options == {"bins": 2048, "levels": 128}
