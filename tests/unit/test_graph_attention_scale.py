"""The scale of a masked attention, and the guard behind its softmax."""

from typing import Any

import models_graph as mg
import numpy as np
import pytest
from attention_spellings import LENGTH, Spelling, applied, feeds, refused, sqnr_db, written

# The guard behind a softmax


@pytest.mark.parametrize(
    ("spelling", "fits"),
    [
        (Spelling(softmax=("guard",)), True),
        (Spelling(softmax=("guard",), mask="where", fill=-1e4), True),
        (Spelling(softmax=("guard",), mask="where"), False),
        (Spelling(softmax=("guard",), mask="add"), False),
    ],
)
def test_a_guard_goes_where_no_row_is_empty(spelling: Spelling, fits: bool) -> None:
    proto = written(spelling)
    if not fits:
        refused(proto, "may leave a query without any key", "softmax-guard")
        return
    model, outcome = applied(proto, "softmax-guard")
    assert outcome.rewrites == 1
    assert not {"IsNaN", "Where"} & set(mg.ops(model)) or spelling.mask
    assert "IsNaN" not in mg.ops(model)
    assert sqnr_db(proto, model, feeds(proto, 2, LENGTH)) > 300


@pytest.mark.parametrize(("rows", "fits"), [(0, True), (1, False)])
def test_a_guard_and_a_constant_mask(rows: int, fits: bool) -> None:
    table = np.triu(np.full((LENGTH, LENGTH), -np.inf, np.float32), 1)
    table[:rows] = -np.inf
    constants = {"mask": table}
    proto = written(softmax=("guard",), mask="add", dims=("N", LENGTH), constants=constants)
    _, outcome = applied(proto, "softmax-guard")
    assert outcome.rewrites == int(fits)


def test_a_guard_of_another_number_stays() -> None:
    proto = written(softmax=("guard",))
    zero = next(one for one in proto.graph.initializer if one.name == "zero")
    zero.CopyFrom(mg.tensor("zero", np.float32(0.5)))
    _, outcome = applied(proto, "softmax-guard")
    assert outcome.rewrites == 0


# The scale before a chosen mask


@pytest.mark.parametrize("scale", ["mul", "div"])
@pytest.mark.parametrize("mask", ["where", "where-not"])
def test_the_scale_goes_to_the_queries(scale: str, mask: str) -> None:
    proto = written(scale=scale, mask=mask)
    model, outcome = applied(proto, "attention-scale")
    assert outcome.rewrites == 1
    assert len(mg.ops(model)) == len(mg.ops(proto))
    nodes = {n.output[0]: n for n in model.proto.graph.node}
    assert nodes["scaled"].op_type == "MatMul"
    given = feeds(proto, 2, LENGTH)
    if mask == "where-not":
        given["mask"] = ~given["mask"]
    assert sqnr_db(proto, model, given) > 110
    _, outcome = applied(model.proto, "attention-scale")
    assert outcome.rewrites == 0


@pytest.mark.parametrize("changes", [{"mask": "add"}, {"mask": "where", "fill": -1e4}, {}])
def test_other_masks_leave_the_scale(changes: dict[str, Any]) -> None:
    _, outcome = applied(written(**changes), "attention-scale")
    assert outcome.rewrites == 0


def test_half_queries_are_not_scaled_up() -> None:
    proto = written(mask="where", dtype=np.float16)
    scale = next(one for one in proto.graph.initializer if one.name == "scale")
    scale.CopyFrom(mg.tensor("scale", np.float16(3)))
    refused(proto, "leave the range", "attention-scale")
