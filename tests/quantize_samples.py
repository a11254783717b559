"""What the tests of Q/DQ placement share: calibrating, quantizing, questions about the result."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from precision_samples import check_typed, samples_for

from trtforge.graph.inputs import random_feeds
from trtforge.graph.model import Model
from trtforge.precision.cache import CalibrationCache
from trtforge.precision.calibrate import CalibrationRequest, calibrate
from trtforge.precision.quantize import QuantizeReport, candidate_tensors, quantize
from trtforge.recipe.schema import Precision

INT8 = Precision(quantize="int8")


def int8(**changes: object) -> Precision:
    return Precision.model_validate({"quantize": "int8"} | changes)


def feeds_of(model: Model, seed: int = 0) -> dict[str, np.ndarray]:
    shapes = {
        spec.name: tuple(size if isinstance(size, int) else 2 for size in spec.dims)
        for spec in model.contract.inputs
    }
    return random_feeds(model, shapes, seed)


def calibrated(
    model: Model, precision: Precision = INT8, feeds: Mapping[str, np.ndarray] | None = None
) -> CalibrationCache:
    data = samples_for(model, dict(feeds) if feeds is not None else feeds_of(model))
    return calibrate(model, data, CalibrationRequest(candidate_tensors(model, precision), "minmax"))


def quantized(
    model: Model, precision: Precision = INT8, feeds: Mapping[str, np.ndarray] | None = None
) -> tuple[Model, QuantizeReport]:
    """Quantize with ranges of the model itself; the result is valid and strictly typed."""
    result, report = quantize(model, calibrated(model, precision, feeds), precision)
    check_typed(model, result)
    return result, report


def pairs(model: Model) -> dict[str, float]:
    """Tensors that carry a pair, with their scales."""
    quantizers = [n for n in model.proto.graph.node if n.op_type == "QuantizeLinear"]
    names = [node.input[0] for node in quantizers]
    assert len(names) == len(set(names)), "a tensor is quantized twice"
    return {node.input[0]: float(model.initializer(node.input[1])) for node in quantizers}


def producers(model: Model) -> dict[str, onnx.NodeProto]:
    return {name: node for node in model.proto.graph.node for name in node.output}


def reads(model: Model, node: str) -> list[str]:
    return list(next(n for n in model.proto.graph.node if n.name == node).input)


def reason(report: QuantizeReport, node: str) -> str:
    return next(d.reason for d in report.explained if d.node == node)


def action(report: QuantizeReport, node: str) -> str:
    return next(d.action for d in report.explained if d.node == node)


def built(folder: Path, models: Mapping[str, Model]) -> dict[str, list[str]]:
    """Errors of the real TensorRT-RTX parser and builder, by model."""
    files = {str(folder / f"{name}.onnx"): name for name in models}
    for path, name in files.items():
        models[name].save(Path(path))
    program = Path(__file__).parent / "precision_build.py"
    done = subprocess.run(
        [sys.executable, str(program), *files], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    return {files[report["file"]]: report["errors"] for report in reports}
