"""A short way to write a graph of a few nodes, run passes on it, and compare the numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

import models_graph as mg
import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper

from trtforge.graph.model import Model
from trtforge.graph.passes import PassRequest, run_passes
from trtforge.graph.report import PassOutcome

SIZES = {"N": 2, "M": 3, "H": 4}
"""What the names of dynamic dimensions stand for when a case is run."""


def graph(
    nodes: Sequence[NodeProto],
    inputs: Mapping[str, Sequence[int | str]],
    constants: Mapping[str, Any] | None = None,
    outputs: Sequence[str] = ("y",),
    *,
    dtype: Any = np.float32,
    opset: int = mg.OPSET,
) -> ModelProto:
    """Make a model; the outputs' types and dimensions are what onnx infers."""
    held = [mg.tensor(name, values) for name, values in (constants or {}).items()]
    made = mg.model(
        nodes,
        [mg.info(name, dims, dtype) for name, dims in inputs.items()],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        held,
        opset=opset,
    )
    inferred = onnx.shape_inference.infer_shapes(made, data_prop=True)
    for output in made.graph.output:
        found = next(o for o in inferred.graph.output if o.name == output.name)
        output.type.CopyFrom(found.type)
        if not output.type.tensor_type.elem_type:
            output.type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return made


def apply(proto: ModelProto, *names: str) -> tuple[Model, PassOutcome]:
    """Run passes without the built-in proof; the first pass' outcome is given back."""
    onnx.checker.check_model(proto, full_check=True)
    result = run_passes(Model(proto), PassRequest(use=names, prove=False))
    for outcome in result.report.passes:
        assert not outcome.rolled_back, outcome.reason
    onnx.checker.check_model(result.model.proto, full_check=True)
    assert result.model.contract == Model(proto).contract
    again = run_passes(result.model, PassRequest(use=names, prove=False))
    assert again.model is result.model, "a second run changes something"
    return result.model, result.report.passes[0]


def becomes(
    proto: ModelProto, names: str | Sequence[str], expected: Sequence[str], close: float = 1e-6
) -> Model:
    """Run passes and dead-code; demand these operators, in any order, and the same numbers."""
    chosen = (names,) if isinstance(names, str) else tuple(names)
    model, outcome = apply(proto, *chosen, "dead-code")
    assert sorted(mg.ops(model)) == sorted(expected), (mg.ops(model), outcome.notes)
    assert difference(proto, model) <= close
    return model


def refused(proto: ModelProto, name: str, why: str) -> None:
    """Demand that a pass leaves a model as it is, and says why."""
    model, outcome = apply(proto, name)
    assert outcome.rewrites == 0
    assert mg.ops(model) == mg.ops(proto)
    reasons = [note.reason for note in outcome.notes if note.kind == "refused"]
    assert any(why in reason for reason in reasons), reasons


def untouched(proto: ModelProto, name: str) -> None:
    """Demand that a pass leaves a model as it is; no near miss, so nothing need be said."""
    model, outcome = apply(proto, name)
    assert outcome.rewrites == 0
    assert mg.ops(model) == mg.ops(proto)


def difference(proto: ModelProto, after: Model) -> float:
    """Return the largest difference of the outputs over several seeds."""
    before = Model(proto)
    shapes = {
        spec.name: tuple(SIZES[dim] if isinstance(dim, str) else dim or 1 for dim in spec.dims)
        for spec in before.contract.inputs
    }
    return max(mg.largest_difference(before, after, shapes, seed) for seed in (0, 1))


def initializer(model: Model, name: str) -> TensorProto:
    """Return an initializer of a model by its name."""
    return next(t for t in model.proto.graph.initializer if t.name == name)
