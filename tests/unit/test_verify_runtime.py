"""The comparison with real models in ONNX Runtime: equal, rounded, broken."""

import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from trtforge.engine.onnxruntime import OnnxRuntimeRunner
from trtforge.errors import UsageError
from trtforge.graph.data import ArrayData
from trtforge.graph.model import Model
from trtforge.verify.cases import cases_from
from trtforge.verify.parity import compare
from trtforge.verify.tolerance import fallback_for
from trtforge.verify.types import Bounds, Tolerances

CORNERS = [
    ("min", {"image": (1, 1, 8, 8)}),
    ("opt", {"image": (32, 1, 8, 8)}),
    ("max", {"image": (256, 1, 8, 8)}),
]


def changed_weights(source, target, change):
    """Write the model with every float weight of two or more axes passed through `change`."""
    proto = onnx.load(source)
    for tensor in proto.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.ndim > 1:
            tensor.CopyFrom(numpy_helper.from_array(change(values).astype(np.float32), tensor.name))
    onnx.save(proto, target)
    return target


@pytest.fixture(scope="module")
def judge(digits):
    model = Model.load(digits / "model.onnx")
    data = ArrayData.open(digits / "test.npz", model.contract, labels=True)

    def run(candidate, *, precision="fp32", data=data, batch=32, **bounds):
        fallback, reason = fallback_for(precision)
        asked = Tolerances(default=Bounds(**bounds), fallback=fallback, fallback_reason=reason)
        return compare(
            OnnxRuntimeRunner(digits / "model.onnx", name="original"),
            OnnxRuntimeRunner(candidate, name="candidate"),
            cases_from(data, CORNERS, model, batch=batch),
            asked,
        )

    return run


def test_a_model_equals_itself(judge, digits):
    report = judge(digits / "model.onnx")
    assert report.verdict == "pass"
    (output,) = report.outputs.values()
    assert output.metrics.exact_agreement == 1
    assert report.accuracy.reference == report.accuracy.candidate > 0.9
    assert report.judged == ("data", "corner")
    assert [case.name for case in output.cases] == [
        "corner min",
        "corner opt",
        "corner max",
        "random",
    ]


def test_rounding_weights_to_fp16_passes_as_fp16_and_fails_as_fp32(judge, digits, tmp_path):
    rounded = changed_weights(
        digits / "model.onnx", tmp_path / "m.onnx", lambda values: values.astype(np.float16)
    )
    assert judge(rounded, precision="fp16").verdict == "pass"
    report = judge(rounded, precision="fp32")
    assert report.verdict == "fail"
    assert "below the bound 80 dB" in report.reason


def test_wrong_weights_lose_accuracy(judge, digits, tmp_path):
    broken = changed_weights(digits / "model.onnx", tmp_path / "m.onnx", np.negative)
    report = judge(broken, accuracy_drop=0.01, sqnr_db=20)
    assert report.verdict == "fail"
    (output,) = report.outputs.values()
    assert any("top-1 accuracy fell" in failure for failure in output.failures)
    assert any("'corner max'" in failure for failure in output.failures)


def test_overflow_to_infinity_fails_even_with_the_loosest_bounds(judge, digits, tmp_path):
    def overflow(values):
        return np.where(np.abs(values) == np.abs(values).max(), np.float32(3e38), values)

    broken = changed_weights(digits / "model.onnx", tmp_path / "m.onnx", overflow)
    report = judge(broken, sqnr_db=-1e9)
    assert report.verdict == "fail"
    assert "NaN or Inf where the reference is finite" in report.reason


def test_figures_do_not_depend_on_the_batch(judge, digits, tmp_path):
    rounded = changed_weights(
        digits / "model.onnx", tmp_path / "m.onnx", lambda values: np.round(values, 2)
    )
    found = [judge(rounded, batch=batch).outputs for batch in (7, 256)]
    (small,), (large,) = (outputs.values() for outputs in found)
    assert small.groups["data"].elements == large.groups["data"].elements
    assert small.groups["data"].sqnr_db == pytest.approx(large.groups["data"].sqnr_db, abs=0.01)
    assert small.accuracy == large.accuracy


def test_without_data_random_corners_are_judged(judge, digits):
    report = judge(digits / "model.onnx", data=None)
    assert report.verdict == "pass"
    assert report.judged == ("corner", "random")
    assert report.accuracy is None


def test_accuracy_without_labels_is_an_error(judge, digits):
    with pytest.raises(UsageError, match="accuracy_drop cannot be judged"):
        judge(digits / "model.onnx", data=None, accuracy_drop=0.01)


@pytest.mark.parametrize(
    "module", ["verify.types", "bundle.manifest", "bundle.read", "report.html", "report.junit"]
)
def test_report_types_import_no_numeric_library(module):
    heavy = ("numpy", "onnx", "onnxruntime", "polygraphy", "tensorrt_rtx", "tensorrt")
    code = f"import sys, trtforge.{module}\nprint(sorted(set({heavy!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
