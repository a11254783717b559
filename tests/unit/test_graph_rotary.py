"""Rotary embeddings: every spelling, near misses with their reasons, and the same numbers."""

from typing import Any

import models_graph as mg
import numpy as np
import onnx
import pytest
from onnx import ModelProto, NodeProto, TensorProto

from trtforge.graph.catalog import DEFAULT_PASSES, OPTIONAL
from trtforge.graph.execute import Session
from trtforge.graph.model import Model
from trtforge.graph.passes import PassRequest, run_passes
from trtforge.graph.report import PassOutcome

HEADS, SIZE = 3, 8
HALF = SIZE // 2


class Writer:
    """Writes x * cos + rotated(x) * sin."""

    def __init__(self, dtype: Any = np.float32) -> None:
        self.dtype = dtype
        self.nodes: list[NodeProto] = []
        self.initializers: list[TensorProto] = []
        self.inputs = [mg.info("x", ["N", HEADS, "S", SIZE], dtype)]

    def add(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(mg.node(op, inputs, [output], **attributes))
        return output

    def const(self, name: str, values: Any, dtype: Any = np.int64) -> str:
        if all(one.name != name for one in self.initializers):
            self.initializers.append(mg.tensor(name, np.asarray(values).astype(dtype)))
        return name

    def angles(self, positions: tuple[Any, ...] = ("N", "S")) -> None:
        """Cosines and sines from position ids, as Llama computes them: (B, 1, S, D)."""
        self.inputs.append(mg.info("positions", positions, np.int64))
        to = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(np.float32))
        wide = self.add("Unsqueeze", ["positions", self.const("last", [2])], "wide")
        number = self.add("Cast", [wide], "number", to=to)
        rates = self.const("rates", 10.0 ** -np.arange(HALF), np.float32)
        turns = self.add("Mul", [number, rates], "turns")
        twice = self.add("Concat", [turns, turns], "twice", axis=-1)
        kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(self.dtype))
        for op in ("Cos", "Sin"):
            one = self.add(op, [twice], f"{op}.pure")
            one = self.add("Mul", [one, self.const("gain", 1.25, np.float32)], f"{op}.gained")
            one = self.add("Cast", [one], f"{op}.cast", to=kind)
            self.add("Unsqueeze", [one, self.const("first", [1])], op.lower())

    def tables(self, *shape: int, interleaved: bool = False, paired: bool = True) -> None:
        """Constant cosines and sines."""
        for seed, name in enumerate(("cos", "sin")):
            half = mg.weights(*shape[:-1], shape[-1] // 2, seed=seed)
            table = np.repeat(half, 2, -1) if interleaved else np.concatenate([half, half], -1)
            if not paired:
                table = mg.weights(*shape, seed=seed)
            self.const(name, table, self.dtype)

    def cut(self, start: int, stop: int, output: str, step: int = 1) -> str:
        bounds = [
            self.const(f"at {value}", [value]) for value in (start, min(stop, 2**62), 3, step)
        ]
        return self.add("Slice", ["x", *bounds], output)

    def rotate(self, spelling: str = "slices") -> None:
        if spelling == "split":
            halves = self.const("halves", [HALF, HALF])
            self.nodes.append(mg.node("Split", ["x", halves], ["one", "two"], axis=-1))
        elif spelling == "slices":
            self.cut(0, HALF, "one")
            self.cut(HALF, 2**63 - 1, "two")
        elif spelling == "unequal":
            self.cut(0, HALF, "one")
            self.cut(HALF - 1, SIZE - 1, "two")
        else:
            self.cut(0, SIZE, "one", 2)
            self.cut(1, SIZE, "two", 2)
        self.add("Neg", ["two"], "minus")
        if spelling == "neighbours":
            axis = self.const("stack", [4])
            self.add("Unsqueeze", ["minus", axis], "minus.wide")
            self.add("Unsqueeze", ["one", axis], "one.wide")
            self.add("Concat", ["minus.wide", "one.wide"], "stacked", axis=-1)
            self.add("Reshape", ["stacked", self.const("joined", [0, 0, 0, SIZE])], "rotated")
        else:
            self.add("Concat", ["minus", "one"], "rotated", axis=-1)

    def model(self, *, swapped: bool = False) -> ModelProto:
        straight, turned = ["x", "cos"], ["rotated", "sin"]
        if swapped:
            straight, turned = straight[::-1], turned[::-1]
        self.add("Mul", straight, "straight")
        self.add("Mul", turned, "turned")
        self.add("Add", ["turned", "straight"] if swapped else ["straight", "turned"], "y")
        outputs = [mg.info("y", [None] * 4, self.dtype)]
        return mg.model(self.nodes, self.inputs, outputs, self.initializers, ir_version=10)


def applied(proto: ModelProto, **request: Any) -> tuple[Model, PassOutcome]:
    onnx.checker.check_model(proto, full_check=True)
    use = ("rotary-embedding", "dead-code")
    result = run_passes(Model(proto), PassRequest(use=use, prove=False, **request))
    onnx.checker.check_model(result.model.proto, full_check=True)
    return result.model, next(o for o in result.report.passes if o.name == "rotary-embedding")


def refused(proto: ModelProto, why: str) -> None:
    model, outcome = applied(proto)
    assert outcome.rewrites == 0
    assert mg.ops(model) == mg.ops(proto)
    assert any(why in note.reason for note in outcome.notes), outcome.notes


def sqnr_db(before: ModelProto, after: Model, batch: int, length: int, ids: int = 0) -> float:
    kind = onnx.helper.tensor_dtype_to_np_dtype(before.graph.input[0].type.tensor_type.elem_type)
    given = {"x": mg.weights(batch, HEADS, length, SIZE).astype(kind)}
    if len(before.graph.input) > 1:
        rows = ids or batch
        given["positions"] = np.arange(rows * length).reshape(rows, length)
    expected, found = Session(Model(before)).run(given)["y"], Session(after).run(given)["y"]
    assert expected.shape == found.shape
    wide = expected.astype(np.float64)
    noise = np.square(wide - found.astype(np.float64)).sum()
    return float(10 * np.log10(np.square(wide).sum() / max(float(noise), 1e-300)))


@pytest.mark.parametrize("spelling", ["slices", "split"])
@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize(("batch", "length"), [(1, 1), (2, 5)])
def test_halves_with_computed_angles(spelling: str, swapped: bool, batch: int, length: int) -> None:
    writer = Writer()
    writer.angles()
    writer.rotate(spelling)
    proto = writer.model(swapped=swapped)
    model, outcome = applied(proto)
    assert outcome.rewrites == 1
    assert model.opset == 23
    assert mg.ops(model).count("Slice") == 2
    assert not {"Neg", "Add", "Split"} & set(mg.ops(model))
    assert sqnr_db(proto, model, batch, length) > 110
    assert applied(model.proto)[1].rewrites == 0


def test_one_row_of_positions_is_expanded_to_the_batch() -> None:
    writer = Writer()
    writer.angles((1, "S"))
    writer.rotate()
    proto = writer.model()
    model, outcome = applied(proto)
    assert outcome.rewrites == 1
    assert mg.ops(model).count("Expand") == 2
    assert sqnr_db(proto, model, 3, 5, ids=1) > 110


@pytest.mark.parametrize("shape", [(5, SIZE), (1, 5, SIZE), (1, 1, 5, SIZE)])
@pytest.mark.parametrize("spelling", ["slices", "neighbours"])
def test_constant_tables(shape: tuple[int, ...], spelling: str) -> None:
    writer = Writer()
    writer.inputs = [mg.info("x", ["N", HEADS, 5, SIZE])]
    writer.tables(*shape, interleaved=spelling == "neighbours")
    writer.rotate(spelling)
    proto = writer.model()
    model, outcome = applied(proto)
    assert outcome.rewrites == 1
    node = next(n for n in model.proto.graph.node if n.op_type == "RotaryEmbedding")
    assert [a.i for a in node.attribute] == ([1] if spelling == "neighbours" else [])
    assert sqnr_db(proto, model, 2, 5) > 110


def test_a_static_batch_needs_no_shape() -> None:
    writer = Writer()
    writer.inputs = [mg.info("x", [2, HEADS, 5, SIZE])]
    writer.tables(5, SIZE)
    writer.rotate()
    proto = writer.model()
    model, _ = applied(proto)
    assert set(mg.ops(model)) == {"Expand", "RotaryEmbedding"}
    assert sqnr_db(proto, model, 2, 5) > 110


def test_half_precision() -> None:
    writer = Writer(np.float16)
    writer.angles()
    writer.rotate()
    proto = writer.model()
    model, outcome = applied(proto)
    assert outcome.rewrites == 1
    assert sqnr_db(proto, model, 2, 5) > 60


def test_queries_and_keys_share_what_is_made() -> None:
    writer = Writer()
    writer.angles((1, "S"))
    writer.rotate()
    proto = writer.model()
    again = [onnx.NodeProto.FromString(n.SerializeToString()) for n in proto.graph.node[-8:]]
    for n in again[-7:]:
        n.name += "2"
        n.input[:] = [
            f"{i}2" if i in ("one", "two", "minus", "rotated", "straight", "turned") else i
            for i in n.input
        ]
        n.output[:] = [f"{o}2" for o in n.output]
        proto.graph.node.append(n)
    proto.graph.output.append(mg.info("y2", [None] * 4))
    model, outcome = applied(proto)
    assert outcome.rewrites == 2
    assert mg.ops(model).count("Slice") == 2
    assert mg.ops(model).count("Expand") == 2


@pytest.mark.parametrize(
    ("why", "changes"),
    [
        ("for both of a pair", {"paired": False}),
        ("(batch, 1, length, size)", {"shape": (1, HEADS, 5, SIZE)}),
        ("for both of a pair", {"interleaved": True}),
    ],
)
def test_other_tables_are_refused(why: str, changes: dict[str, Any]) -> None:
    writer = Writer()
    writer.inputs = [mg.info("x", ["N", HEADS, 5, SIZE])]
    shape = changes.pop("shape", (5, SIZE))
    writer.tables(*shape, **changes)
    writer.rotate()
    refused(writer.model(), why)


def test_double_is_refused() -> None:
    writer = Writer(np.float64)
    writer.angles()
    writer.rotate()
    refused(writer.model(), "FP32, FP16 or BF16")


def test_unknown_positions_are_refused() -> None:
    writer = Writer()
    writer.angles(("N", "T"))
    writer.rotate()
    refused(writer.model(), "(batch, 1, length, size)")


def test_three_axes_are_refused() -> None:
    writer = Writer()
    writer.tables(5, SIZE)
    writer.rotate()
    proto = writer.model()
    del proto.graph.input[0].type.tensor_type.shape.dim[1]
    proto.graph.output[0].CopyFrom(mg.info("y", [None] * 3))
    for one in proto.graph.initializer:
        if one.name == "at 3":
            one.CopyFrom(mg.tensor("at 3", np.array([2])))
    refused(proto, "(batch, heads, length, size)")


@pytest.mark.parametrize("name", ["rotated", "turned", "minus"])
def test_parts_that_are_outputs_stay(name: str) -> None:
    writer = Writer()
    writer.angles()
    writer.rotate()
    proto = writer.model()
    dims = ["N", HEADS, "S", HALF if name == "minus" else SIZE]
    proto.graph.output.append(mg.info(name, dims))
    model, outcome = applied(proto)
    assert outcome.rewrites == 0
    assert mg.ops(model) == mg.ops(proto)


def test_other_halves_are_no_rotation() -> None:
    writer = Writer()
    writer.angles()
    writer.rotate("unequal")
    model, outcome = applied(writer.model())
    assert outcome.rewrites == 0
    assert "RotaryEmbedding" not in mg.ops(model)


def test_the_operator_set_limit_is_kept() -> None:
    writer = Writer()
    writer.angles()
    writer.rotate()
    model, outcome = applied(writer.model(), opset_limit=22)
    assert outcome.rewrites == 0
    assert model.opset == mg.OPSET


def test_it_runs_on_request_only() -> None:
    assert "rotary-embedding" in OPTIONAL
    assert "rotary-embedding" not in DEFAULT_PASSES
