"""Attention in FP16 and BF16: types, emulation, masks beyond the range, multiply-accumulates."""

from typing import Any

import numpy as np
import onnx
import pytest
from attention_spellings import HEADS, LENGTH, SIZE
from models_graph import info, model, node, ops, tensor, weights
from onnx import ModelProto, TensorProto
from precision_samples import check_typed, samples_for

from trtforge.graph.execute import Session
from trtforge.graph.model import Model
from trtforge.precision.attention import without_wide_masks
from trtforge.precision.calibrate import CalibrationRequest, calibrate
from trtforge.precision.cast import typed
from trtforge.precision.emulate import emulate
from trtforge.precision.macs import MACS
from trtforge.precision.quantize import candidate_tensors
from trtforge.recipe.schema import Precision

FP16 = Precision(type="fp16")
WIDTH = HEADS * SIZE
BEYOND = -1e38
"""Of FP16's range, and not FP32's lowest number, which ONNX Runtime takes for minus infinity."""


def attention(
    *,
    flat: bool = True,
    shared: int = 1,
    fill: float = BEYOND,
    cross: bool = False,
    **attributes: Any,
) -> ModelProto:
    """x -> projections -> Attention with a mask of 0 and `fill` -> projection."""
    count = HEADS // shared
    names = {"q": HEADS, "k": count, "v": count}
    nodes = [node("MatMul", ["x", f"W{name}"], [f"{name}0"]) for name in names]
    initializers = [
        tensor(f"W{name}", weights(WIDTH, n * SIZE, seed=i) / WIDTH**0.5)
        for i, (name, n) in enumerate(names.items())
    ]
    operands = [f"{name}0" for name in names]
    if flat:
        attributes |= {"q_num_heads": HEADS, "kv_num_heads": count}
    else:
        for name, n in names.items():
            initializers.append(tensor(f"{name}.shape", np.array([0, 0, n, SIZE])))
            nodes.append(node("Reshape", [f"{name}0", f"{name}.shape"], [f"{name}1"]))
            nodes.append(node("Transpose", [f"{name}1"], [f"{name}2"], perm=[0, 2, 1, 3]))
        operands = [f"{name}2" for name in names]
    initializers += [tensor("no", np.float32(0)), tensor("fill", np.float32(fill))]
    nodes.append(node("Where", ["kept", "no", "fill"], ["mask"]))
    nodes.append(node("Attention", [*operands, "mask"], ["a"], name="/attention", **attributes))
    result = "a"
    if not flat:
        initializers.append(tensor("joined", np.array([0, 0, WIDTH])))
        nodes.append(node("Transpose", ["a"], ["a1"], perm=[0, 2, 1, 3]))
        nodes.append(node("Reshape", ["a1", "joined"], ["a2"]))
        result = "a2"
    nodes.append(node("MatMul", [result, "Wq"], ["y"]))
    return model(
        nodes,
        [info("x", [2, LENGTH, WIDTH]), info("kept", [2, 1, LENGTH, LENGTH], bool)],
        [info("y", [2, LENGTH, WIDTH])],
        initializers,
        opset=23,
        ir_version=11,
    )


def run(one: Model) -> np.ndarray:
    kept = np.tril(np.ones((2, 1, LENGTH, LENGTH), bool))
    kept[1, 0, 0] = False  # a query without keys attends to all alike
    return Session(one).run({"x": weights(2, LENGTH, WIDTH, seed=9), "kept": kept})["y"]


def sqnr_db(expected: np.ndarray, found: np.ndarray) -> float:
    wide = expected.astype(np.float64)
    assert np.isfinite(wide).all()
    noise = np.square(wide - found.astype(np.float64)).sum()
    return float(10 * np.log10(np.square(wide).sum() / max(float(noise), 1e-300)))


@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("shared", [1, 2, HEADS])
@pytest.mark.parametrize("scale", [None, 0.25])
def test_a_mask_beyond_the_range_is_spelled_out(
    flat: bool, shared: int, scale: float | None
) -> None:
    given = {"scale": scale} if scale is not None else {}
    proto = attention(flat=flat, shared=shared, **given)
    spelled = without_wide_masks(Model(proto), FP16)
    onnx.checker.check_model(spelled.proto, full_check=True)
    assert "Attention" not in ops(spelled)
    assert spelled.contract == Model(proto).contract
    assert sqnr_db(run(Model(proto)), run(spelled)) > 110


@pytest.mark.parametrize("kind", ["fp16", "bf16"])
def test_products_are_narrow_and_the_mask_is_not(kind: str) -> None:
    result = typed(Model(attention()), None, Precision(type=kind))
    onnx.checker.check_model(result.model.proto, full_check=True)
    if kind == "bf16":  # BF16 has the range of FP32
        assert "Attention" in ops(result.model)
        return
    assert "Attention" not in ops(result.model)
    wide = {one.op for one in result.cast.decisions}
    assert "Softmax" in wide
    assert "MatMul" not in wide
    assert sqnr_db(run(Model(attention())), run(emulate(result.model))) > 50


@pytest.mark.parametrize("kind", ["fp16", "bf16"])
@pytest.mark.parametrize("flat", [True, False])
def test_other_masks_leave_the_operator_in_the_wanted_type(kind: str, flat: bool) -> None:
    proto = attention(flat=flat, fill=-1e4)
    result = typed(Model(proto), None, Precision(type=kind))
    onnx.checker.check_model(result.model.proto, full_check=True)
    assert ops(result.model).count("Attention") == 1
    assert result.cast.nodes.get("fp32", 0) <= 1
    floor = 50 if kind == "fp16" else 35
    assert sqnr_db(run(Model(proto)), run(emulate(result.model))) > floor


@pytest.mark.parametrize(
    "attributes", [{"is_causal": 1}, {"softcap": 5.0}], ids=["causal", "soft cap"]
)
def test_what_is_special_stays(attributes: dict[str, Any]) -> None:
    proto = attention(**attributes)
    assert without_wide_masks(Model(proto), FP16).proto == proto


def test_a_keep_rule_leaves_the_operator() -> None:
    keep = [{"op": "Attention", "type": "fp32"}]
    rules = Precision.model_validate({"type": "fp16", "keep": keep})
    assert "Attention" in ops(without_wide_masks(Model(attention()), rules))


def test_fp32_changes_nothing() -> None:
    proto = attention()
    assert without_wide_masks(Model(proto), Precision(type="fp32")).proto is proto


def test_boolean_masks_have_no_range() -> None:
    proto = attention()
    place = next(i for i, n in enumerate(proto.graph.node) if n.op_type == "Where")
    del proto.graph.node[place]
    next(n for n in proto.graph.node if n.op_type == "Attention").input[3] = "kept"
    result = typed(Model(proto), None, FP16)
    assert "Attention" in ops(result.model)
    types = {v.name: v.type.tensor_type.elem_type for v in result.model.proto.graph.input}
    assert types["kept"] == TensorProto.BOOL


def test_int8_projections_around_the_operator() -> None:
    original = Model(attention(fill=-1e4))
    precision = Precision(type="fp16", quantize="int8")
    feeds = {"x": weights(2, LENGTH, WIDTH, seed=3), "kept": np.ones((2, 1, 6, 6), bool)}
    data = samples_for(original, feeds)
    tensors = candidate_tensors(original, precision)
    cache = calibrate(original, data, CalibrationRequest(tensors, "minmax"))
    result = typed(original, cache, precision)
    check_typed(original, result.model)
    assert ops(result.model).count("Attention") == 1
    assert ops(result.model).count("QuantizeLinear") == 2  # x, and the result of the operator
    assert sqnr_db(run(original), run(emulate(result.model))) > 20


@pytest.mark.parametrize("shared", [1, 2])
def test_multiply_accumulates_do_not_depend_on_the_form(shared: int) -> None:
    count = HEADS // shared
    apart = MACS["Attention"]([(2, HEADS, 5, SIZE), (2, count, 7, SIZE)], (2, HEADS, 5, SIZE), {})
    joined = MACS["Attention"](
        [(2, 5, WIDTH), (2, 7, count * SIZE)],
        (2, 5, WIDTH),
        {"q_num_heads": HEADS, "kv_num_heads": count},
    )
    assert apart == joined == 2 * (2 * HEADS * 5 * 7 * SIZE)
