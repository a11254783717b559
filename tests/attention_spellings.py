"""Attention as exporters spell it out, in many ways, written as ONNX."""

from dataclasses import dataclass, field, replace
from typing import Any

import models_graph as mg
import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto

from trtforge.graph.execute import Session
from trtforge.graph.model import Model
from trtforge.graph.passes import PassRequest, run_passes
from trtforge.graph.report import PassOutcome

HEADS, SIZE, LENGTH = 4, 8, 6
LOWEST = float(np.finfo(np.float32).min)


@dataclass(frozen=True)
class Spelling:
    """How an attention is written down."""

    scale: str = "mul"  # mul, div, query, both, first
    keys: str = "transposed"  # transposed: (B, S, H, D) by one Transpose; swapped; none
    mask: str = ""  # add, add-left, where, where-not
    mask_dims: tuple[Any, ...] = ("N", 1, "S", "S")
    fill: float = -np.inf
    shared: int = 1
    flat: bool = True
    merge: tuple[int, ...] | None = (0, 0, HEADS * SIZE)
    softmax: tuple[str, ...] = ()
    axis: int = -1
    dtype: Any = np.float32
    dims: tuple[Any, ...] = ("N", "S")
    constants: dict[str, Any] = field(default_factory=dict)
    opset: int = 18


class Writer:
    """Writes a spelling as ONNX."""

    def __init__(self, spelling: Spelling) -> None:
        self.spelling = spelling
        self.nodes: list[NodeProto] = []
        self.initializers: list[TensorProto] = []

    def add(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(mg.node(op, inputs, [output], **attributes))
        return output

    def const(self, name: str, values: Any, dtype: Any = np.int64) -> str:
        if all(one.name != name for one in self.initializers):
            self.initializers.append(mg.tensor(name, np.asarray(values).astype(dtype)))
        return name

    def model(self) -> ModelProto:
        one = self.spelling
        count = HEADS // one.shared
        query = self.heads("q", HEADS, "q.heads")
        value = self.heads("v", count, "v.heads")
        number = self.const("scale", SIZE**-0.5 if one.scale != "div" else SIZE**0.5, one.dtype)
        if one.scale in ("query", "both"):
            query = self.add("Mul", [query, number], "q.scaled")
        scores = self.add("MatMul", [query, self.keys(count, number)], "scores")
        if one.scale in ("mul", "div"):
            scores = self.add(one.scale.capitalize(), [scores, number], "scaled")
        scores = self.masked(scores)
        if one.scale == "first":
            scores = self.add("Mul", [scores, number], "scaled")
        weights = self.add("Softmax", [scores], "weights", axis=one.axis)
        for op in one.softmax:
            weights = self.after(op, weights)
        value = self.repeated(value, "v") if one.shared > 1 else value
        if one.merge is None:
            self.add("MatMul", [weights, value], "y")
        else:
            result = self.add("MatMul", [weights, value], "result")
            turned = self.add("Transpose", [result], "turned", perm=[0, 2, 1, 3])
            self.add("Reshape", [turned, self.const("merged", one.merge)], "y")
        return self.graph(count)

    def heads(self, source: str, count: int, output: str) -> str:
        if not self.spelling.flat:
            return source
        shape = self.const(f"{count}.apart", (0, 0, count, SIZE))
        apart = self.add("Reshape", [source, shape], f"{source}.apart")
        return self.add("Transpose", [apart], output, perm=[0, 2, 1, 3])

    def keys(self, count: int, number: str) -> str:
        one = self.spelling
        if one.keys == "transposed" and one.shared == 1:
            shape = self.const(f"{count}.apart", (0, 0, count, SIZE))
            apart = self.add("Reshape", ["k", shape], "k.apart")
            keys = self.add("Transpose", [apart], "keys", perm=[0, 2, 3, 1])
        else:
            key = self.heads("k", count, "k.heads")
            key = self.repeated(key, "k") if one.shared > 1 else key
            perm = [0, 1, 3, 2] if one.keys != "none" else [0, 1, 2, 3]
            keys = self.add("Transpose", [key], "keys", perm=perm)
        return self.add("Mul", [keys, number], "k.scaled") if one.scale == "both" else keys

    def repeated(self, tensor: str, name: str) -> str:
        shared = self.spelling.shared
        thin = self.add("Unsqueeze", [tensor, self.const("two", [2])], f"{name}.thin")
        times = self.const("times", [1, 1, shared, 1, 1])
        wide = self.add("Expand", [thin, times], f"{name}.wide")
        return self.add("Reshape", [wide, self.const("all", [0, HEADS, -1, SIZE])], f"{name}.all")

    def masked(self, scores: str) -> str:
        one = self.spelling
        if one.mask == "add":
            return self.add("Add", [scores, "mask"], "masked")
        if one.mask == "add-left":
            return self.add("Add", ["mask", scores], "masked")
        if not one.mask:
            return scores
        fill = self.const("fill", one.fill, one.dtype)
        branches = [scores, fill] if one.mask == "where" else [fill, scores]
        return self.add("Where", ["mask", *branches], "masked")

    def after(self, op: str, weights: str) -> str:
        dtype = self.spelling.dtype
        if op == "Cast":
            to = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
            return self.add("Cast", [weights], f"{weights}.cast", to=to)
        if op == "guard":
            test = self.add("IsNaN", [weights], "isnan")
            return self.add("Where", [test, self.const("zero", 0.0, dtype), weights], "safe")
        return self.add(op, [weights], op.lower())

    def graph(self, count: int) -> ModelProto:
        one = self.spelling
        batch, length = one.dims
        kinds = {"q": HEADS, "k": count, "v": count}
        shape = {
            name: [batch, length, n * SIZE] if one.flat else [batch, n, length, SIZE]
            for name, n in kinds.items()
        }
        if one.keys == "transposed" and one.shared == 1 and not one.flat:
            shape["k"] = [batch, length, count * SIZE]
        inputs = [mg.info(name, dims, one.dtype) for name, dims in shape.items()]
        if one.mask and "mask" not in one.constants:
            kind = one.dtype if not one.mask.startswith("where") else bool
            dims = [length if dim == "S" else batch if dim == "N" else dim for dim in one.mask_dims]
            inputs.append(mg.info("mask", dims, kind))
        for name, values in one.constants.items():
            self.initializers.append(mg.tensor(name, values))
        outputs = [mg.info("y", [None] * (len(one.merge) if one.merge else 4), one.dtype)]
        opset = one.opset
        return mg.model(self.nodes, inputs, outputs, self.initializers, opset=opset, ir_version=10)


def written(spelling: Spelling | None = None, **changes: Any) -> ModelProto:
    return Writer(replace(spelling or Spelling(), **changes)).model()


def feeds(proto: ModelProto, batch: int, length: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Random inputs; every query is left its own key."""
    generator = np.random.default_rng(seed)
    given = {}
    for value in proto.graph.input:
        kind = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        names = {"N": batch, "S": length}
        dims = [
            names[dim.dim_param] if dim.dim_param else dim.dim_value
            for dim in value.type.tensor_type.shape.dim
        ]
        if kind == np.dtype(bool):
            given[value.name] = generator.random(dims) < 0.6
            given[value.name] |= np.eye(*dims[-2:], dtype=bool) if len(dims) > 1 else True
        else:
            given[value.name] = generator.standard_normal(dims).astype(kind)
    return given


def applied(
    proto: ModelProto, name: str = "attention", **request: Any
) -> tuple[Model, PassOutcome]:
    onnx.checker.check_model(proto, full_check=True)
    use = (name, "dead-code")
    result = run_passes(Model(proto), PassRequest(use=use, prove=False, **request))
    onnx.checker.check_model(result.model.proto, full_check=True)
    return result.model, next(one for one in result.report.passes if one.name == name)


def refused(proto: ModelProto, why: str, name: str = "attention") -> None:
    model, outcome = applied(proto, name)
    assert outcome.rewrites == 0
    assert mg.ops(model) == mg.ops(proto)
    reasons = [note.reason for note in outcome.notes if note.kind == "refused"]
    assert any(why in reason for reason in reasons), outcome.notes


def sqnr_db(before: ModelProto, after: Model, given: dict[str, np.ndarray]) -> float:
    expected, found = Session(Model(before)).run(given)["y"], Session(after).run(given)["y"]
    assert expected.shape == found.shape
    assert expected.dtype == found.dtype
    wide = expected.astype(np.float64)
    assert np.isfinite(wide).all()
    noise = np.square(wide - found.astype(np.float64)).sum()
    return float(10 * np.log10(np.square(wide).sum() / max(float(noise), 1e-300)))
