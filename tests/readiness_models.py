"""Models for the readiness tests: quantized by ONNX Runtime's own quantizers, or written in its own
operators."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import models_graph as mg
import numpy as np
import onnx
from onnx import ModelProto, NodeProto, helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

from trtforge.graph.model import Model
from trtforge.graph.passes import PassRequest, run_passes
from trtforge.graph.report import OptimizeReport, PassOutcome

SYMMETRIC = {"ActivationSymmetric": True, "WeightSymmetric": True}
IMAGE = [2, 3, 16, 16]


class Samples(CalibrationDataReader):
    """A few seeded images."""

    def __init__(self) -> None:
        self._seeds = iter(range(4))

    def get_next(self) -> dict[str, np.ndarray] | None:
        seed = next(self._seeds, None)
        return None if seed is None else {"x": mg.weights(*IMAGE, seed=seed)}


def float_net(softmax: bool = False) -> ModelProto:
    """All operators that ONNX Runtime has a quantized form of."""
    nodes = [
        mg.node("Conv", ["x", "W1", "b1"], ["c1"], pads=[1, 1, 1, 1]),
        mg.node("MaxPool", ["c1"], ["p1"], kernel_shape=[2, 2], strides=[2, 2]),
        mg.node("Conv", ["p1", "W2", "b2"], ["c2"], pads=[1, 1, 1, 1]),
        mg.node("Add", ["c2", "p1"], ["a"]),
        mg.node("Sigmoid", ["a"], ["s"]),
        mg.node("Mul", ["a", "s"], ["m"]),
        mg.node("Concat", ["m", "p1"], ["k"], axis=1),
        mg.node("AveragePool", ["k"], ["p2"], kernel_shape=[2, 2], strides=[2, 2]),
        mg.node("LeakyRelu", ["p2"], ["l"], alpha=0.1),
        mg.node("GlobalAveragePool", ["l"], ["g"]),
        mg.node("Flatten", ["g"], ["f"]),
        mg.node("Gemm", ["f", "W3", "b3"], ["h"]),
        mg.node("MatMul", ["h", "W4"], ["z" if softmax else "y"]),
    ]
    if softmax:
        nodes.append(mg.node("Softmax", ["z"], ["y"], axis=-1))
    initializers = [
        mg.tensor("W1", mg.weights(8, 3, 3, 3)),
        mg.tensor("b1", mg.weights(8)),
        mg.tensor("W2", mg.weights(8, 8, 3, 3, seed=1) * 0.2),
        mg.tensor("b2", mg.weights(8, seed=2)),
        mg.tensor("W3", mg.weights(16, 10, seed=3)),
        mg.tensor("b3", mg.weights(10, seed=4)),
        mg.tensor("W4", mg.weights(10, 6, seed=5)),
    ]
    return mg.model(nodes, [mg.info("x", IMAGE)], [mg.info("y", [2, 6])], initializers, opset=17)


def quantized(
    folder: Path,
    form: QuantFormat = QuantFormat.QDQ,
    types: tuple[QuantType, QuantType] = (QuantType.QInt8, QuantType.QInt8),
    **options: Any,
) -> ModelProto:
    """What `quantize_static` makes of `float_net`."""
    source, result = folder / "float.onnx", folder / "quantized.onnx"
    onnx.save(float_net(options.pop("softmax", False)), source)
    quantize_static(
        source,
        result,
        Samples(),
        quant_format=form,
        activation_type=types[0],
        weight_type=types[1],
        **options,
    )
    return onnx.load(result)


def dynamically_quantized(folder: Path, weight_type: QuantType, per_channel: bool) -> ModelProto:
    """What `quantize_dynamic` makes of `float_net`."""
    source, result = folder / "float.onnx", folder / "dynamic.onnx"
    onnx.save(float_net(softmax=True), source)
    quantize_dynamic(source, result, weight_type=weight_type, per_channel=per_channel)
    return onnx.load(result)


def ms_node(op: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> NodeProto:
    return mg.node(op, inputs, outputs, domain="com.microsoft", **attributes)


def ms_model(*args: Any, **options: Any) -> ModelProto:
    """A model that imports ONNX Runtime's own operators."""
    proto = mg.model(*args, **options)
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return proto


def ready(
    proto: ModelProto, *names: str, prove: bool = True, opset_limit: int = 23
) -> tuple[Model, OptimizeReport]:
    """Run passes with the built-in proof, which must hold at all that was rewritten."""
    onnx.checker.check_model(proto)
    request = PassRequest(use=names or "default", prove=prove, opset_limit=opset_limit)
    result = run_passes(Model(proto), request)
    onnx.checker.check_model(result.model.proto, full_check=True)
    assert result.model.contract == Model(proto).contract
    for outcome in result.report.passes:
        assert outcome.name not in names or not outcome.rolled_back, outcome.reason
    if prove:
        assert result.report.proof.verdict == "pass", result.report.proof
    return result.model, result.report


def outcome_of(report: OptimizeReport, name: str) -> PassOutcome:
    return next(outcome for outcome in report.passes if outcome.name == name)


def refusals(report: OptimizeReport, name: str) -> list[str]:
    notes = outcome_of(report, name).notes
    return [note.reason for note in notes if note.kind == "refused"]


def stays(proto: ModelProto, name: str, why: str) -> None:
    """A pass leaves a model alone and says why."""
    model, report = ready(proto, name, prove=False)
    assert outcome_of(report, name).rewrites == 0
    assert mg.ops(model) == mg.ops(proto)
    assert any(why in reason for reason in refusals(report, name)), refusals(report, name)
