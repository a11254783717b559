"""Each planted fault breaks plain FP16; measured ranges repair it with few casts and wide MACs."""

import functools
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from planted_faults import BUILDERS, SAMPLES, Array, Planted

from trtforge.graph.execute import Session
from trtforge.graph.model import Model
from trtforge.graph.passes import PassRequest, run_passes
from trtforge.graph.sources import open_source
from trtforge.precision.attest import attest
from trtforge.precision.cast import TypedModel, typed
from trtforge.precision.emulate import emulate
from trtforge.precision.range_check import ranges_for_types, sqnr_db
from trtforge.recipe.calibration import Calibration
from trtforge.recipe.schema import Precision

LEAST_DB = {"fp16": 45.0, "bf16": 28.0}
MOST_WIDE_MACS = 0.05

AUTOCAST_CASTS = {
    "attention_logits": 5,
    "tiny_variance": 2,
    "large_mask": 5,
    "large_weight": 2,
    "loop_body": 2,
    "two_culprits": 4,
    "large_softmax": 4,
    "rms_norm": 2,
    "long_sum": 2,
    "log_sum_exp": 4,
    "positions": 4,
    "resize": 2,
    "small_divisor": 2,
    "embedding_sum": 3,
    "batch_norm": 2,
    "large_integers": 4,
    "deep_residual": 9,
    "cancellation": 5,
}
"""What ModelOpt AutoCast 0.47 adds to each, given the same samples (benchmarks/casting.py)."""

SAFE_WITHOUT_DATA = set(AUTOCAST_CASTS) - {
    "attention_logits",  # the graph does not tell how large activations get
    "deep_residual",
    "large_integers",
}

NAMES = [builder.__name__ for builder in BUILDERS]


@functools.cache
def planted(name: str) -> Planted:
    return next(builder for builder in BUILDERS if builder.__name__ == name)()


def as_model(fault: Planted) -> Model:
    return Model(fault.proto)


def cast_by_data(fault: Planted, kind: str, folder: Path) -> TypedModel:
    path = folder / "data.npz"
    np.savez(path, allow_pickle=False, **fault.data)
    model = as_model(fault)
    source = open_source(
        Calibration(data=str(path)), model.contract, Path, model=model, profiles=()
    )
    precision = Precision(type=kind)
    return typed(model, None, precision, ranges_for_types(model, source, precision))


def worst_db(fault: Planted, candidate: Model) -> float:
    """Of all samples, also those that were not measured."""
    reference, emulated = Session(as_model(fault)), Session(emulate(candidate))
    return min(
        sqnr_db(reference.run(feeds)["y"], emulated.run(feeds)["y"]) for feeds in runs(fault.data)
    )


def runs(data: Mapping[str, Array]) -> list[dict[str, Array]]:
    return [{name: values[i : i + 1] for name, values in data.items()} for i in range(SAMPLES)]


@pytest.mark.parametrize("name", NAMES)
def test_the_model_is_sound_and_its_fault_breaks_plain_fp16(name: str) -> None:
    fault = planted(name)
    onnx.checker.check_model(fault.proto, full_check=True)
    everything = Precision.model_validate(
        {"type": "fp16", "force": [{"name": "*", "type": "fp16"}, {"path": "*/*", "type": "fp16"}]}
    )
    plain = typed(as_model(fault), None, everything)
    assert set(plain.cast.nodes) <= {"fp16", "fp32"}
    assert worst_db(fault, plain.model) < LEAST_DB["fp16"]


@pytest.mark.parametrize("kind", ["fp16", "bf16"])
@pytest.mark.parametrize("name", NAMES)
def test_by_data_the_result_is_close_narrow_and_has_few_casts(
    name: str, kind: str, tmp_path: Path
) -> None:
    fault = planted(name)
    result = cast_by_data(fault, kind, tmp_path)
    result.model.save(tmp_path / "out.onnx")
    onnx.checker.check_model(str(tmp_path / "out.onnx"), full_check=True)
    assert worst_db(fault, result.model) > LEAST_DB[kind]
    shapes = {name: (1, *values.shape[1:]) for name, values in fault.data.items()}
    macs = attest(result.model, shapes).macs
    assert macs[kind] > 0
    assert macs.get("fp32", 0) <= MOST_WIDE_MACS * sum(macs.values())
    if kind == "fp16":
        assert result.cast.casts_added <= AUTOCAST_CASTS[name]
    assert all(decision.reason for decision in result.cast.decisions)


@pytest.mark.parametrize("kind", ["fp16", "bf16"])
def test_tensorrt_rtx_builds_all_of_them(kind: str, tmp_path: Path) -> None:
    files = []
    for name in NAMES:
        cast_by_data(planted(name), kind, tmp_path).model.save(tmp_path / f"{name}.onnx")
        files.append(str(tmp_path / f"{name}.onnx"))
    program = Path(__file__).parent.parent / "precision_build.py"
    done = subprocess.run(
        [sys.executable, str(program), *files], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(reports) == len(files)
    assert [report for report in reports if report["errors"]] == []


@pytest.mark.parametrize("name", sorted(SAFE_WITHOUT_DATA))
def test_without_data_what_the_graph_tells_is_enough(name: str) -> None:
    fault = planted(name)
    result = typed(as_model(fault), None, Precision(type="fp16"))
    assert worst_db(fault, result.model) > LEAST_DB["fp16"]


def test_cleaning_up_folds_no_scale_that_makes_weights_too_small_for_fp16(tmp_path: Path) -> None:
    fault = planted("large_integers")
    cleaned = run_passes(as_model(fault), PassRequest(prove=False)).model
    result = cast_by_data(replace(fault, proto=cleaned.proto), "fp16", tmp_path)
    assert "MatMul" not in {decision.op for decision in result.cast.decisions}
    assert worst_db(fault, result.model) > LEAST_DB["fp16"]


def test_two_culprits_are_both_named(tmp_path: Path) -> None:
    result = cast_by_data(planted("two_culprits"), "fp16", tmp_path)
    reasons = {decision.op: decision.reason for decision in result.cast.decisions}
    assert "beyond FP16" in reasons["Exp"]
    assert "too small for FP16" in reasons["Sqrt"]


def test_a_mask_becomes_small_where_data_allows_it(tmp_path: Path) -> None:
    fault = planted("large_mask")
    result = cast_by_data(fault, "fp16", tmp_path)
    assert "Softmax" not in {decision.op for decision in result.cast.decisions}
    without = typed(as_model(fault), None, Precision(type="fp16"))
    assert "Softmax" in {decision.op for decision in without.cast.decisions}
