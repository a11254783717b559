"""Every type with every quantization: valid, close to FP32, and built by TensorRT-RTX."""

import json
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from models_precision import Net
from onnx import TensorProto
from precision_samples import SHAPES, check_typed, fidelity, net, ranges

from trtforge.errors import DataError, GraphError
from trtforge.graph.inputs import random_feeds
from trtforge.precision.attest import attest
from trtforge.precision.cast import TypedModel, typed
from trtforge.precision.quantize import QuantizeReport
from trtforge.precision.shortfall import quantize_shortfall
from trtforge.recipe.schema import Precision

TYPES, QUANTIZED = ("fp32", "fp16", "bf16"), ("none", "int8", "fp8")

SQNR_DB = {"fp32": 120.0, "fp16": 60.0, "bf16": 42.0, "int8": 25.0, "fp8": 20.0}
"""About 6 dB per bit of mantissa for one rounding, less what a chain of them adds up."""


def make(name: str, kind: str, quantize: str) -> TypedModel:
    cache = None if quantize == "none" else ranges(name)
    precision = Precision.model_validate({"type": kind, "quantize": quantize})
    return typed(net(name), cache, precision)


@pytest.mark.parametrize(("kind", "quantize"), list(product(TYPES, QUANTIZED)))
@pytest.mark.parametrize("name", SHAPES)
def test_typed_graphs_are_valid_and_close(name: str, kind: str, quantize: str) -> None:
    result = make(name, kind, quantize)
    check_typed(net(name), result.model)
    feeds = random_feeds(net(name), SHAPES[name], seed=0)
    bound = SQNR_DB[kind if quantize == "none" else quantize]
    assert fidelity(net(name), result.model, feeds) > bound
    macs = attest(result.model, SHAPES[name]).macs
    main = max(macs, key=lambda key: macs[key])
    assert main == (kind if quantize == "none" else quantize)
    json.dumps(result.as_json(), allow_nan=False)


def test_tensorrt_rtx_parses_and_builds_all_of_them(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    files = []
    for name, kind, quantize in product(SHAPES, TYPES, QUANTIZED):
        path = tmp_path / f"{name}.{kind}.{quantize}.onnx"
        make(name, kind, quantize).model.save(path)
        files.append(str(path))
    program = Path(__file__).parent.parent / "precision_build.py"
    done = subprocess.run(
        [sys.executable, str(program), *files], capture_output=True, text=True, timeout=300
    )
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(reports) == len(files) == 27
    assert [report for report in reports if report["errors"]] == []


def test_fp32_without_quantization_changes_nothing() -> None:
    result = make("cnn", "fp32", "none")
    assert result.model is net("cnn")
    assert result.cast.casts_added == 0


def test_the_result_is_deterministic() -> None:
    assert make("cnn", "fp16", "int8").model.digest() == make("cnn", "fp16", "int8").model.digest()


def test_quantizing_without_ranges_or_with_those_of_another_graph_is_refused() -> None:
    precision = Precision(quantize="int8")
    with pytest.raises(GraphError) as caught:
        typed(net("cnn"), None, precision)
    assert caught.value.code == "TF0532"
    with pytest.raises(DataError) as other:
        typed(net("cnn"), ranges("control_flow"), precision)
    assert other.value.code == "TF0521"


def test_a_keep_rule_that_selects_nothing_is_warned_about() -> None:
    keep = [{"op": "Softmax"}, {"name": "/haed/*"}]
    precision = Precision.model_validate({"type": "fp16", "keep": keep})
    warnings = typed(net("transformer"), None, precision).warnings
    assert warnings == ("the keep rule {name: /haed/*, type: fp32} selects no node",)


def test_a_type_that_no_node_got_is_warned_about() -> None:
    model = Net()
    x = model.input("x", [2, 8], TensorProto.FLOAT16)
    model.const("w", np.ones((8, 4)), np.float16)
    model.op("MatMul", [x, "w"], "y")
    model.output("y", [2, 4], TensorProto.FLOAT16)
    half = model.model()
    as_it_is = typed(half, None, Precision(type="fp32")).warnings
    assert len(as_it_is) == 1
    assert "1 node computes in fp16 in the model itself" in as_it_is[0]
    assert typed(half, None, Precision(type="fp16")).warnings == ()
    empty = ranges("cnn").model_copy(update={"ranges": {}, "warnings": ()})
    precision = Precision(type="fp16", quantize="int8")
    (nothing,) = typed(half, empty, precision).warnings
    assert nothing == ("nothing is quantized to int8: its operands are not FP32 (MatMul 'n_y')")
    (control,) = quantize_shortfall(QuantizeReport("int8", ()))
    assert "control flow" in control
    all_kept = Precision.model_validate({"type": "bf16", "keep": [{"name": "*"}]})
    (kept,) = typed(net("cnn"), None, all_kept).warnings
    assert kept.startswith("nothing computes in bf16: keep rule {name: *, type: fp32}")
    assert "more)" in kept


@pytest.mark.parametrize("kind", ["fp16", "bf16"])
@pytest.mark.parametrize("opset", [13, 17, 19])
def test_a_model_that_came_quantized_is_typed_too(kind: str, opset: int) -> None:
    """DequantizeLinear gives FP16 from opset 19 on; quantizers still write opset 13."""
    model = Net(opset=opset)
    x = model.input("x", [2, 8])
    model.const("scale", 0.05)
    model.const("zero", 0, np.int8)
    model.const("stored", np.arange(-16, 16).reshape(8, 4), np.int8)
    codes = model.op("QuantizeLinear", [x, "scale", "zero"], "codes")
    values = model.op("DequantizeLinear", [codes, "scale", "zero"], "values")
    weight = model.op("DequantizeLinear", ["stored", "scale", "zero"], "weight")
    model.op("MatMul", [values, weight], "y")
    model.output("y", [2, 4])
    source = model.model()
    result = typed(source, None, Precision.model_validate({"type": kind}))
    check_typed(source, result.model)
    assert attest(result.model, {}).macs == {"int8": 2 * 8 * 4}
    feeds = random_feeds(source, {"x": (2, 8)}, seed=0)
    assert fidelity(source, result.model, feeds) > SQNR_DB["bf16"] - 10
