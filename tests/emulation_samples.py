"""Typed models written as text, and the check that emulation computes what they mean."""

import re
from collections.abc import Mapping

import ml_dtypes
import numpy as np
import onnx.parser
from onnx import NodeProto, numpy_helper
from per_operator import INT4, PerOperator, same_bits

from trtforge.graph.execute import Session
from trtforge.graph.model import Model
from trtforge.precision.emulate import emulate

TYPES = {"float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
SHAPE = (2, 4, 6, 6)


STAY = ("f32", "scales")
"""FP32 in every model: the exponent of another type, and what Resize takes in FP32 alone."""


def written(text: str, kind: str, opset: int = 22, **weights: np.ndarray) -> Model:
    """A model from ONNX text.

    Args:
        text: `(inputs) => (outputs) <locals> {nodes}` and functions; T stands for the type.
        kind: float16 or bfloat16.
        opset: the version of the standard operator set.
        **weights: initializers; FP32 values get the type, but for those of `STAY`.
    """
    head = f'<ir_version: 10, opset_import: ["": {opset}, "own": 1]> g '
    proto = onnx.parser.parse_model(head + re.sub(r"\bT\b", kind, text))
    for name, values in weights.items():
        typed = values if name in STAY or values.dtype != np.float32 else values.astype(TYPES[kind])
        proto.graph.initializer.append(numpy_helper.from_array(typed, name))
    return Model(proto)


UNSHOWN = (INT4, np.dtype(ml_dtypes.float8_e5m2))


def values(*shape: int, seed: int = 0, size: float = 2.0) -> np.ndarray:
    """FP32 numbers around 0."""
    return (np.random.default_rng(seed).standard_normal(shape) * size).astype(np.float32)


def run_twin(model: Model) -> Model:
    """The twin in which BF16 inputs and outputs are FP32: ONNX Runtime gives no BF16 arrays."""
    ends = (*model.contract.inputs, *model.contract.outputs)
    return emulate(model, wide_ends=[spec.name for spec in ends if spec.dtype == "bfloat16"])


def differing(
    model: Model, feeds: Mapping[str, np.ndarray], twin: Model | None = None
) -> list[str]:
    """The tensors of the main graph in which emulation differs from the per-operator model.

    All are compared but sequences, and types of which ONNX Runtime hands out no arrays; those
    are seen by what they are converted to.

    Args:
        model: typed.
        feeds: in the types of the model's inputs; given as FP32 where the twin wants that.
        twin: what is judged, None for `run_twin(model)`.
    """
    expected = PerOperator(model).run(dict(feeds))
    twin = twin or run_twin(model)
    made = {name for node in twin.proto.graph.node for name in node.output}
    shown = {n for n, v in expected.items() if isinstance(v, np.ndarray) and v.dtype not in UNSHOWN}
    names = [n for n in expected if n in shown & (made | set(_output_names(model)))]
    wide = {spec.name for spec in twin.contract.inputs if spec.dtype == "float32"}
    fed = {n: v.astype(np.float32) if n in wide else v for n, v in feeds.items()}
    got = Session(twin, outputs=names).run(fed, names)
    assert set(_output_names(model)) <= set(names)
    return [name for name in names if not same_bits(got[name], expected[name])]


def _output_names(model: Model) -> list[str]:
    return [value.name for value in model.proto.graph.output]


def nodes(model: Model, op: str) -> list[NodeProto]:
    """The main graph's nodes of one operator."""
    return [node for node in model.proto.graph.node if node.op_type == op]
