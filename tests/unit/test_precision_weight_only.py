"""Weight-only INT8 and INT4: forms, reasons, sizes, numbers, real builds with TensorRT-RTX."""

import json
import subprocess
import sys
from functools import lru_cache
from itertools import product
from pathlib import Path

import numpy as np
import onnx
import pytest
from models_precision import FLOAT, INT64, Net
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from precision_samples import SHAPES, Samples, check_typed, fidelity, initializer_types, net, ops

from trtforge.engine.onnxruntime import OnnxRuntimeRunner
from trtforge.graph.inputs import random_feeds
from trtforge.graph.model import Model
from trtforge.precision.attest import attest, declared_precision
from trtforge.precision.calibrate import CalibrationRequest, calibrate
from trtforge.precision.cast import TypedModel, typed
from trtforge.precision.quantize import Decision, candidate_tensors
from trtforge.recipe.schema import Precision

TYPES = ("fp32", "fp16", "bf16")
KINDS = ("int8_weight_only", "int4_weight_only")
SQNR_DB = {"int8_weight_only": 33, "int4_weight_only": 15}
"""BF16's own rounding leaves about 38 dB on these nets; INT4's 16 levels about 20 dB a weight."""


@lru_cache
def make(name: str, kind: str, quantize: str) -> TypedModel:
    precision = Precision(type=kind, quantize=quantize, block_size=32)
    return typed(net(name), None, precision)


def linear(*shape: int, transposed: bool = False, opset: int = 21) -> Model:
    """A matrix product over a weight of the given shape."""
    model = Net(5, opset)
    inner = shape[1] if transposed else shape[-2]
    width = shape[0] if transposed else shape[-1]
    x = model.input("x", [*shape[:-2], 4, inner])
    weight = model.weight("w", *shape)
    if transposed:
        model.op("Gemm", [x, weight], "y", transB=1)
    else:
        model.op("MatMul", [x, weight], "y")
    model.output("y", [*shape[:-2], 4, width])
    return model.model()


def decide(model: Model, **precision: object) -> tuple[Model, Decision]:
    wanted = Precision.model_validate({"quantize": "int4_weight_only", **precision})
    result = typed(model, None, wanted)
    (decision,) = result.quantize.decisions
    check_typed(model, result.model)
    return result.model, decision


def stored(model: Model) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t) for t in model.proto.graph.initializer}


@pytest.mark.parametrize(("name", "kind", "quantize"), list(product(SHAPES, TYPES, KINDS)))
def test_every_combination_is_valid_runs_and_stays_close(
    name: str, kind: str, quantize: str
) -> None:
    result = make(name, kind, quantize)
    check_typed(net(name), result.model)
    assert result.warnings == ()
    feeds = random_feeds(net(name), SHAPES[name], seed=0)
    assert fidelity(net(name), result.model, feeds) > SQNR_DB[quantize]
    counted = attest(result.model, SHAPES[name])
    assert counted.quantized_macs_share == 0.0
    assert max(counted.macs, key=lambda key: counted.macs[key]) == kind
    assert ops(result.model)["QuantizeLinear"] == 0
    assert ops(result.model)["DequantizeLinear"] > 0
    json.dumps(result.as_json(), allow_nan=False)


def test_tensorrt_rtx_parses_and_builds_all_of_them(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    files = []
    for name, kind, quantize in product(SHAPES, TYPES, KINDS):
        files.append(str(tmp_path / f"{name}.{kind}.{quantize}.onnx"))
        make(name, kind, quantize).model.save(Path(files[-1]))
    for shape, transposed in (((64, 24), False), ((24, 64), True), ((3, 64, 8), False)):
        files.append(str(tmp_path / f"linear{len(files)}.onnx"))
        decide(linear(*shape, transposed=transposed), block_size=32)[0].save(Path(files[-1]))
    program = Path(__file__).parent.parent / "precision_build.py"
    done = subprocess.run(
        [sys.executable, str(program), *files], capture_output=True, text=True, timeout=300
    )
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(reports) == len(files) == 21
    assert [report for report in reports if report["errors"]] == []


@pytest.mark.parametrize(
    ("shape", "transposed", "axis", "scales"),
    [
        ((64, 24), False, 0, (2, 24)),
        ((24, 64), True, 1, (24, 2)),
        ((3, 64, 8), False, 1, (3, 2, 8)),
    ],
)
@pytest.mark.parametrize("kind", TYPES)
def test_int4_blocks_lie_along_the_axis_that_is_summed_over(
    shape: tuple[int, ...], transposed: bool, axis: int, scales: tuple[int, ...], kind: str
) -> None:
    source = linear(*shape, transposed=transposed)
    model, decision = decide(source, block_size=32, type=kind)
    assert decision.reason == f"INT4 in blocks of 32 along axis {axis}"
    assert decision.tensor == "w"
    (node,) = [n for n in model.proto.graph.node if n.op_type == "DequantizeLinear"]
    assert {a.name: a.i for a in node.attribute} == {"axis": axis, "block_size": 32}
    values = stored(model)
    quantized, scale = values[node.input[0]], values[node.input[1]]
    assert scale.shape == scales
    assert initializer_types(model)[node.input[0]] == TensorProto.INT4
    wide = np.repeat(scale.astype(np.float32), 32, axis)
    error = quantized.astype(np.float32) * wide - stored(source)["w"]
    # Half a step where nothing clips; what clips is at most 0.7 amax beyond.
    assert np.abs(error).max() < wide.max() * 5
    assert 10 * np.log10((stored(source)["w"] ** 2).sum() / (error**2).sum()) > 20


def test_int4_takes_half_a_byte_in_the_file_and_in_the_attestation(tmp_path: Path) -> None:
    source = linear(256, 128)
    model, _ = decide(source, type="fp16")
    bytes_of = attest(model, {}).weights_bytes
    assert bytes_of == {"int4": 256 * 128 // 2, "fp16": 2 * 128 * 2}
    model.save(tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx").stat().st_size < sum(bytes_of.values()) + 1000
    halves = helper.make_tensor("odd", TensorProto.INT4, [3], [1, 2, 3])
    source.proto.graph.initializer.append(halves)
    assert attest(Model(source.proto), {}).weights_bytes["int4"] == 2


@pytest.mark.parametrize(
    ("inner", "reason", "kind"),
    [
        (192, "INT4 in blocks of 64 along axis 0, as 128 does not divide it", TensorProto.INT4),
        (96, "INT4 in blocks of 32 along axis 0, as 128 does not divide it", TensorProto.INT4),
        (
            100,
            "INT8 per output channel (axis 1); INT4 needs blocks of 32 or more, and 32 does not "
            "divide 100",
            TensorProto.INT8,
        ),
    ],
)
def test_a_length_that_the_block_does_not_divide(inner: int, reason: str, kind: int) -> None:
    model, decision = decide(linear(inner, 16))
    assert decision.reason == reason
    assert initializer_types(model)["w_quantized"] == kind


def test_int8_has_a_scale_per_output_channel_even_over_batched_weights() -> None:
    model, decision = decide(linear(3, 20, 8), quantize="int8_weight_only")
    assert decision.reason == "INT8 per output channel (axis 2)"
    assert stored(model)["w_scale"].shape == (8,)
    assert model.opset == 21


def test_convolutions_are_int8_and_the_opset_rises_as_far_as_needed() -> None:
    for quantize, opset in zip(KINDS, (19, 21), strict=True):
        result = make("cnn", "fp32", quantize)
        assert result.model.opset == opset
        reasons = {d.node: d.reason for d in result.quantize.decisions if d.action == "quantized"}
        wanted = "INT8 per output channel (axis 0)"
        why = "; INT4 blocks are for matrix products" if opset == 21 else ""
        assert reasons["n_dw"] == wanted + why
        assert reasons["n_up"] == "INT8 per output channel (axis 1)" + why
        assert "n_sum1" not in reasons  # residual Adds have no weights


def test_embeddings_and_products_of_activations_stay_float() -> None:
    result = make("transformer", "fp16", "int4_weight_only")
    assert initializer_types(result.model)["table"] == TensorProto.FLOAT16
    kept = {d.node for d in result.quantize.decisions if d.action == "kept"}
    assert kept == {"n_scores", "n_context"}


def tied(second: str) -> Model:
    model = Net(6, 21)
    x = model.input("x", [4, 64])
    weight = model.weight("w", 64, 64)
    model.op("MatMul", [x, weight], "y")
    if second == "MatMul":
        model.op("MatMul", ["y", weight], "z")
    elif second == "Gather":
        model.op("Gather", [weight, model.input("ids", [4], INT64)], "rows")
        model.op("Add", ["y", "rows"], "z")
    else:
        branch = [
            helper.make_graph(
                [helper.make_node("MatMul", ["y", weight], [out], f"n_{out}")],
                out,
                [],
                [helper.make_tensor_value_info(out, FLOAT, [4, 64])],
            )
            for out in ("a", "b")
        ]
        flag = model.input("flag", [], TensorProto.BOOL)
        model.op("If", [flag], "z", then_branch=branch[0], else_branch=branch[1])
    model.output("z", [4, 64])
    return model.model()


def test_a_weight_of_two_products_is_stored_once() -> None:
    source = tied("MatMul")
    result = typed(source, None, Precision(quantize="int4_weight_only", block_size=32))
    check_typed(source, result.model)
    assert ops(result.model)["DequantizeLinear"] == 1
    assert set(stored(result.model)) == {"w_quantized", "w_scale"}


def test_a_weight_that_is_read_as_float_too_is_left_alone() -> None:
    _, decision = decide(tied("Gather"))
    assert decision.action == "kept"
    assert decision.reason == (
        "Gather 'n_rows' reads the float weight too: a second copy would save nothing"
    )


def test_a_weight_that_a_body_reads_stays_there() -> None:
    source = tied("If")
    result = typed(source, None, Precision(quantize="int8_weight_only"))
    onnx.checker.check_model(result.model.proto, full_check=True)
    feeds = random_feeds(source, {}, seed=0)
    assert fidelity(source, result.model, feeds) > 35


def test_weights_that_cannot_be_stored_are_kept_with_the_reason() -> None:
    source = linear(64, 8)
    values = np.array(stored(source)["w"])
    for bad, type_, reason in (
        (np.nan, "fp32", "it holds values that are not finite"),
        (-np.inf, "fp32", "it holds values that are not finite"),
        (-1e5, "fp16", "its largest weight, 1e+05, is beyond FP16"),
    ):
        values[3, 3] = bad
        source.proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(values, "w"))
        _, decision = decide(Model(source.proto), type=type_)
        assert (decision.action, decision.reason) == ("kept", reason)


def test_keep_rules_hold() -> None:
    keep = [{"name": "n_y", "type": "fp16"}]
    model, decision = decide(linear(64, 8), type="fp16", keep=keep)
    assert decision.reason == "keep rule {name: n_y, type: fp16}"
    assert initializer_types(model) == {"w": TensorProto.FLOAT16}


def test_a_model_with_nothing_to_quantize_is_warned_about() -> None:
    keep = [{"op": "MatMul"}]
    precision = Precision.model_validate({"quantize": "int4_weight_only", "keep": keep})
    (warning,) = typed(linear(64, 8), None, precision).warnings
    assert warning.startswith("nothing is quantized to int4_weight_only: keep rule")


def test_it_is_deterministic_and_leaves_its_input_alone() -> None:
    source = linear(64, 8)
    before = source.proto.SerializeToString()
    first, second = (decide(source)[0].digest() for _ in range(2))
    assert first == second
    assert source.proto.SerializeToString() == before


def test_declared_precision_tells_weight_only() -> None:
    for quantize, kind in product(KINDS, TYPES):
        declared = declared_precision(make("transformer", kind, quantize).model)
        assert (declared.quantize, declared.type) == (quantize, kind)


def test_smaller_blocks_are_closer() -> None:
    source = linear(256, 64)
    feeds = random_feeds(source, {}, seed=0)
    fine, coarse = (fidelity(source, decide(source, block_size=b)[0], feeds) for b in (32, 128))
    assert fine > coarse + 0.5


@pytest.mark.parametrize("quantize", ["int8_weight_only", "int4_weight_only", "fp8"])
def test_the_runner_computes_what_the_stored_numbers_say(quantize: str) -> None:
    source = linear(64, 24)
    feeds = random_feeds(source, {}, seed=0)
    data = Samples(feeds, static_batch=4)
    precision = Precision(quantize=quantize, block_size=32)
    tensors = candidate_tensors(source, precision) if quantize == "fp8" else ()
    cache = calibrate(source, data, CalibrationRequest(tensors, "minmax", grid="fp8"))
    model = typed(source, cache, precision).model
    expected = ReferenceEvaluator(model.proto).run(None, feeds)[0]
    with OnnxRuntimeRunner(model) as runner:
        got = runner.infer(feeds)["y"]
    assert np.allclose(got, expected, rtol=1e-4, atol=1e-4)
