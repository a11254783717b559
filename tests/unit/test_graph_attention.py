"""Attention: read from every spelling, refused when it is something else, and the same numbers."""

from dataclasses import replace
from typing import Any

import ml_dtypes
import models_graph as mg
import numpy as np
import onnx
import pytest
from attention_spellings import (
    HEADS,
    LENGTH,
    LOWEST,
    SIZE,
    Spelling,
    Writer,
    applied,
    feeds,
    refused,
    sqnr_db,
    written,
)

from trtforge.graph import passes
from trtforge.graph.catalog import OPTIONAL
from trtforge.graph.execute import Session
from trtforge.graph.model import Model


def attributes(model: Model) -> dict[str, Any]:
    node = next(n for n in model.proto.graph.node if n.op_type == "Attention")
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}


SPELLINGS = {
    "plain": Spelling(),
    "divided": Spelling(scale="div"),
    "scaled queries": Spelling(scale="query"),
    "no scale": Spelling(scale=""),
    "scaled queries and keys": Spelling(scale="both"),
    "swapped keys": Spelling(keys="swapped"),
    "added mask": Spelling(mask="add"),
    "mask first": Spelling(mask="add-left"),
    "mask per head": Spelling(mask="add", mask_dims=("N", HEADS, "S", "S")),
    "mask of two axes": Spelling(mask="add", mask_dims=("S", "S")),
    "chosen mask": Spelling(mask="where"),
    "chosen mask, inverted": Spelling(mask="where-not"),
    "cast": Spelling(softmax=("Cast", "Cast")),
    "guarded": Spelling(softmax=("guard",), mask="where"),
    "shared heads": Spelling(shared=2, keys="swapped", mask="add"),
    "one shared head": Spelling(shared=4, keys="swapped"),
    "first axes": Spelling(flat=False, keys="swapped", merge=None, mask="add"),
    "axis 3": Spelling(axis=3),
    "static": Spelling(dims=(2, LENGTH), mask="add", mask_dims=(2, 1, LENGTH, LENGTH)),
}


@pytest.mark.parametrize("name", SPELLINGS)
@pytest.mark.parametrize(("batch", "length"), [(2, LENGTH), (1, 1), (3, 17)])
def test_every_spelling_becomes_attention(name: str, batch: int, length: int) -> None:
    spelling = SPELLINGS[name]
    if isinstance(spelling.dims[0], int):
        batch, length = spelling.dims
    proto = written(spelling)
    model, outcome = applied(proto)
    assert outcome.rewrites == 1
    assert "Softmax" not in mg.ops(model)
    assert "MatMul" not in mg.ops(model)
    assert model.opset == 23
    assert model.contract == Model(proto).contract
    given = feeds(proto, batch, length)
    if spelling.mask == "where-not":
        given["mask"] = ~given["mask"]
    assert sqnr_db(proto, model, given) > 110
    again, outcome = applied(model.proto)
    assert outcome.rewrites == 0
    assert mg.ops(again) == mg.ops(model)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_float_types(dtype: Any) -> None:
    proto = written(mask="add", dtype=dtype)
    model, outcome = applied(proto)
    assert outcome.rewrites == 1
    if dtype == np.float16:  # ONNX Runtime's kernel has no double
        assert sqnr_db(proto, model, feeds(proto, 2, LENGTH)) > 55


def test_bfloat16_is_rewritten() -> None:
    model, outcome = applied(written(mask="add", dtype=ml_dtypes.bfloat16))
    assert outcome.rewrites == 1
    assert mg.ops(model) == ["Attention"]


def test_heads_side_by_side_need_no_reshape_or_transpose() -> None:
    model, _ = applied(written(mask="add"))
    assert mg.ops(model) == ["Attention"]
    given = attributes(model)
    assert (given["q_num_heads"], given["kv_num_heads"]) == (HEADS, HEADS)
    assert given["scale"] == pytest.approx(SIZE**-0.5)


def test_scales_are_multiplied() -> None:
    assert attributes(applied(written(scale="both"))[0])["scale"] == pytest.approx(1 / SIZE)
    assert attributes(applied(written(scale=""))[0])["scale"] == 1.0


def test_shared_heads_are_handed_over_once() -> None:
    model, _ = applied(written(shared=2, keys="swapped"))
    assert "Expand" not in mg.ops(model)
    assert attributes(model)["kv_num_heads"] == HEADS // 2


def test_a_result_that_is_reshaped_further_keeps_its_reshape() -> None:
    proto = written(merge=(-1, HEADS * SIZE))
    model, outcome = applied(proto)
    assert outcome.rewrites == 1
    assert mg.ops(model) == ["Attention", "Reshape"]
    assert sqnr_db(proto, model, feeds(proto, 2, LENGTH)) > 110


def test_a_reshape_that_copies_the_heads_keeps_them_first() -> None:
    proto = written(merge=(-1, SIZE, 0, 1), dims=(2, LENGTH))
    model, outcome = applied(proto)
    assert outcome.rewrites == 1
    assert mg.ops(model)[-3:] == ["Attention", "Transpose", "Reshape"]
    assert sqnr_db(proto, model, feeds(proto, 2, LENGTH)) > 110


@pytest.mark.parametrize("fill", [-np.inf, LOWEST])
def test_a_constant_causal_mask_is_an_attribute(fill: float) -> None:
    table = np.where(np.tril(np.ones((LENGTH, LENGTH), bool)), 0, fill).astype(np.float32)
    proto = written(mask="add", dims=("N", LENGTH), constants={"mask": table[None, None]})
    model, outcome = applied(proto)
    assert outcome.rewrites == 1
    assert attributes(model)["is_causal"] == 1
    assert sqnr_db(proto, model, feeds(proto, 2, LENGTH)) > 110


def test_a_constant_condition_may_be_causal() -> None:
    table = np.triu(np.ones((LENGTH, LENGTH), bool), 1)
    proto = written(mask="where-not", dims=("N", LENGTH), constants={"mask": table})
    model, _ = applied(proto)
    assert mg.ops(model) == ["Attention"]
    assert attributes(model)["is_causal"] == 1
    assert sqnr_db(proto, model, feeds(proto, 2, LENGTH)) > 110


@pytest.mark.parametrize(
    "table",
    [
        np.tril(np.ones((LENGTH, LENGTH)), -1) * LOWEST,
        np.tril(np.ones((LENGTH, LENGTH))),
        np.triu(np.ones((LENGTH, LENGTH)), 1) * -1e4,
    ],
    ids=["anti-causal", "weights", "mild"],
)
def test_other_constant_masks_stay_masks(table: np.ndarray) -> None:
    constants = {"mask": table.astype(np.float32)}
    proto = written(mask="add", dims=("N", LENGTH), constants=constants)
    model, outcome = applied(proto)
    assert outcome.rewrites == 1
    assert "is_causal" not in attributes(model)
    assert sqnr_db(proto, model, feeds(proto, 2, LENGTH)) > 110


def test_a_mask_of_zeros_is_none() -> None:
    constants = {"mask": np.zeros((1, 1, LENGTH, LENGTH), np.float32)}
    model, _ = applied(written(mask="add", dims=("N", LENGTH), constants=constants))
    assert len(model.proto.graph.node[0].input) == 3


@pytest.mark.parametrize("dims", [("N", 1, 1, "S"), (1, "S"), ("S",)])
def test_one_row_for_all_queries_is_expanded(dims: tuple[Any, ...]) -> None:
    proto = written(mask="add", mask_dims=dims, dims=("N", LENGTH))
    model, outcome = applied(proto)
    assert outcome.rewrites == 1
    assert mg.ops(model) == ["Expand", "Attention"]
    assert sqnr_db(proto, model, feeds(proto, 2, LENGTH)) > 110


def test_a_guarded_query_without_keys_gives_zeros() -> None:
    proto = written(mask="where", softmax=("guard",))
    model, _ = applied(proto)
    given = feeds(proto, 1, LENGTH)
    given["mask"][0, 0, 2] = False
    expected, found = Session(Model(proto)).run(given)["y"], Session(model).run(given)["y"]
    assert not expected[0, 2].any()
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("fill", [LOWEST, -1e9])
def test_a_query_without_keys_attends_to_all_alike(fill: float) -> None:
    proto = written(mask="add")
    mask = next(one for one in proto.graph.input if one.name == "mask")
    mask.name, mask.type.tensor_type.elem_type = "kept", onnx.TensorProto.BOOL
    proto.graph.initializer.append(mg.tensor("fill", np.float32(fill)))
    proto.graph.initializer.append(mg.tensor("nothing", np.float32(0)))
    proto.graph.node.insert(0, mg.node("Where", ["kept", "nothing", "fill"], ["mask"]))
    model, outcome = applied(proto)
    assert outcome.rewrites == 1
    assert mg.ops(model) == ["Where", "Attention"]
    given = feeds(proto, 2, LENGTH)
    given["kept"][0, 0, 2] = False
    assert sqnr_db(proto, model, given) > 110


REFUSALS = {
    "along the last axis": Spelling(axis=1),
    "transposed on the last two axes": Spelling(keys="none", dims=("N", SIZE)),
    "have two masks": Spelling(mask="twice"),
    "scaled after the mask": Spelling(mask="add", scale="first"),
    "masked scores become -1e+04": Spelling(mask="where", fill=-1e4),
    "must be expanded": Spelling(mask="add", mask_dims=("N", 1, 1, "S")),
    "not known to fit": Spelling(mask="add", mask_dims=("M", 1, "S", "S")),
    "no constant number": Spelling(scale="vector"),
    "a soft cap": Spelling(scale="tanh"),
    "go through Clip": Spelling(scale="clip"),
}


class OddWriter(Writer):
    """Writes what looks like attention and is another formula."""

    def masked(self, scores: str) -> str:
        kind = self.spelling.scale
        if self.spelling.mask == "twice":
            scores = self.add("Add", [scores, "mask"], "masked once")
            return self.add("Add", [scores, "mask"], "masked twice")
        if kind == "vector":
            numbers = self.const("numbers", np.arange(1, LENGTH + 1), np.float32)
            return self.add("Mul", [scores, numbers], "weighted")
        if kind in ("tanh", "clip"):
            return self.add(kind.capitalize(), [scores], "capped")
        return super().masked(scores)


@pytest.mark.parametrize("why", REFUSALS)
def test_near_misses_are_refused(why: str) -> None:
    spelling = REFUSALS[why]
    if spelling.scale == "vector":
        spelling = replace(spelling, dims=("N", LENGTH))
    refused(OddWriter(spelling).model(), why)


@pytest.mark.parametrize("tensor", ["weights", "scaled", "scores", "masked"])
def test_parts_that_are_outputs_stay(tensor: str) -> None:
    proto = written(mask="add")
    proto.graph.output.append(mg.info(tensor, ["N", HEADS, "S", "S"]))
    model, outcome = applied(proto)
    assert outcome.rewrites == 0
    assert mg.ops(model) == mg.ops(proto)


def test_unknown_heads_are_refused() -> None:
    proto = written(flat=False, keys="swapped", merge=None)
    for value in proto.graph.input:
        value.type.tensor_type.shape.dim[1].dim_param = "H"
    refused(proto, "the number of heads is not known")


def test_unlike_lengths_of_keys_and_values_are_refused() -> None:
    proto = written(flat=False, keys="swapped", merge=None)
    proto.graph.input[2].type.tensor_type.shape.dim[2].dim_param = "T"
    refused(proto, "agree in their sizes")


def test_cross_attention_has_a_length_of_its_own() -> None:
    proto = written()
    for value in proto.graph.input[1:]:
        value.type.tensor_type.shape.dim[1].dim_param = "T"
    model, outcome = applied(proto)
    assert outcome.rewrites == 1
    given = (
        feeds(proto, 2, 5)
        if False
        else {
            "q": mg.weights(2, 5, HEADS * SIZE),
            "k": mg.weights(2, 9, HEADS * SIZE, seed=1),
            "v": mg.weights(2, 9, HEADS * SIZE, seed=2),
        }
    )
    assert sqnr_db(proto, model, given) > 110


def test_a_softmax_without_products_is_no_near_miss() -> None:
    proto = mg.model(
        [mg.node("Softmax", ["x"], ["y"], axis=-1)], [mg.info("x", [2, 3])], [mg.info("y", [2, 3])]
    )
    model, outcome = applied(proto)
    assert mg.ops(model) == ["Softmax"]
    assert not outcome.notes


def test_the_operator_set_limit_is_kept() -> None:
    proto = written()
    model, outcome = applied(proto, opset_limit=22)
    assert outcome.rewrites == 0
    assert model.opset == 18
    assert mg.ops(model) == mg.ops(proto)


def test_attention_runs_on_request_only() -> None:
    assert "attention" in OPTIONAL
    assert "attention" not in passes.DEFAULT_PASSES
    assert {"attention-scale", "softmax-guard"} <= set(passes.DEFAULT_PASSES)


def test_attentions_in_any_order_share_what_their_mask_needs() -> None:
    proto = written(mask="add", mask_dims=("N", 1, 1, "S"), dims=("N", LENGTH))
    copies = [onnx.NodeProto.FromString(n.SerializeToString()) for n in proto.graph.node]
    made = {name for one in copies for name in one.output}
    for one in copies:
        one.name += "2"
        one.input[:] = [f"{name}2" if name in made else name for name in one.input]
        one.output[:] = [f"{name}2" for name in one.output]
    place = next(i for i, n in enumerate(proto.graph.node) if n.op_type == "Softmax") + 1
    for one in reversed(copies):  # all of the second between softmax and result of the first
        proto.graph.node.insert(place, one)
    proto.graph.output.append(mg.info("y2", [None] * 3))
    model, outcome = applied(proto)
    assert outcome.rewrites == 2
    assert mg.ops(model) == ["Expand", "Attention", "Attention"]
    assert sqnr_db(proto, model, feeds(proto, 2, LENGTH)) > 110
