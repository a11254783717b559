"""Small models for the graph room's tests, written as ONNX, seeded, and ways to run them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from trtforge.graph.execute import Session
from trtforge.graph.inputs import Shapes, random_feeds
from trtforge.graph.model import Model

OPSET = 18


def weights(*shape: int, seed: int = 0, dtype: Any = np.float32) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def tensor(name: str, values: Any, dtype: Any = None) -> TensorProto:
    return numpy_helper.from_array(np.asarray(values, dtype=dtype), name)


def info(name: str, dims: Sequence[int | str | None] | None, dtype: Any = np.float32) -> Any:
    return helper.make_tensor_value_info(
        name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), dims
    )


def node(op: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> NodeProto:
    name = attributes.pop("name", f"/{op}_{outputs[0]}")
    return helper.make_node(op, inputs, outputs, name=name, **attributes)


def model(
    nodes: Sequence[NodeProto],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    initializers: Sequence[TensorProto] = (),
    *,
    opset: int = OPSET,
    ir_version: int = 9,
    **fields: Any,
) -> ModelProto:
    graph = helper.make_graph(nodes, "g", inputs, outputs, initializers, **fields)
    imports = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=imports, ir_version=ir_version)


def batchnorm_parameters(prefix: str, channels: int, seed: int = 7) -> list[TensorProto]:
    generator = np.random.default_rng(seed)
    return [
        tensor(f"{prefix}.scale", generator.uniform(0.5, 2, channels), np.float32),
        tensor(f"{prefix}.B", generator.standard_normal(channels), np.float32),
        tensor(f"{prefix}.mean", generator.standard_normal(channels), np.float32),
        tensor(f"{prefix}.var", generator.uniform(0.1, 2, channels), np.float32),
    ]


def batchnorm(source: str, result: str, prefix: str, **attributes: Any) -> NodeProto:
    names = [source, *(f"{prefix}.{role}" for role in ("scale", "B", "mean", "var"))]
    return node("BatchNormalization", names, [result], **attributes)


def conv_bn(**changes: Any) -> ModelProto:
    """x -> Conv -> BatchNormalization -> Relu -> y with C = 4."""
    conv = node("Conv", ["x", "W", "b"], ["c"], pads=[1, 1, 1, 1])
    return model(
        [conv, batchnorm("c", "n", "bn"), node("Relu", ["n"], ["y"])],
        [info("x", ["N", 3, 6, 6])],
        [info("y", ["N", 4, 6, 6])],
        [tensor("W", weights(4, 3, 3, 3)), tensor("b", weights(4)), *batchnorm_parameters("bn", 4)],
        **changes,
    )


def largest_difference(before: Model, after: Model, shapes: Shapes, seed: int = 0) -> float:
    """Run both without optimizations; return the largest difference over the largest value."""
    feeds = random_feeds(before, shapes, seed)
    expected, found = Session(before).run(feeds), Session(after).run(feeds)
    assert list(expected) == list(found)
    worst = 0.0
    for name, reference in expected.items():
        assert reference.shape == found[name].shape, name
        assert reference.dtype == found[name].dtype, name
        if not np.array_equal(reference, found[name], equal_nan=True):
            wide = reference.astype(np.float64)
            error = np.abs(wide - found[name].astype(np.float64)).max()
            worst = max(worst, float(error / max(np.abs(wide).max(), 1e-30)))
    return worst


def ops(model_: Model | ModelProto) -> list[str]:
    proto = model_.proto if isinstance(model_, Model) else model_
    return [n.op_type for n in proto.graph.node]


def save_external(proto: ModelProto, path: Path, data: str = "w.data") -> Path:
    """Write a model with every initializer in one external file."""
    copy = ModelProto()
    copy.CopyFrom(proto)
    onnx.save(
        copy,
        str(path),
        save_as_external_data=True,
        all_tensors_to_one_file=True,
        location=data,
        size_threshold=0,
    )
    return path
