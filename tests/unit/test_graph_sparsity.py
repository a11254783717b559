"""2:4 sparsity: counted along input channels, as the tensor cores want it."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from trtforge.graph.model import Model
from trtforge.graph.sparsity import LayerSparsity, layer_sparsity


def model(op: str, weight: np.ndarray, quantized: bool = False, **attributes: Any) -> Model:
    initializers = [numpy_helper.from_array(weight, "w")]
    nodes = [helper.make_node(op, ["x", "w"], ["y"], name="layer", **attributes)]
    if quantized:
        stored = numpy_helper.from_array(weight.astype(np.int8), "stored")
        scale = numpy_helper.from_array(np.float32(0.5).reshape(()), "scale")
        initializers = [stored, scale]
        nodes.insert(0, helper.make_node("DequantizeLinear", ["stored", "scale"], ["w"]))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, None)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        initializers,
    )
    return Model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)]))


def pruned(weight: np.ndarray, axis: int) -> np.ndarray:
    """Zero the two smallest of every four along an axis: magnitude pruning to 2:4."""
    moved = np.moveaxis(weight.copy(), axis, -1)
    groups = moved.reshape(*moved.shape[:-1], -1, 4)
    smallest = np.argsort(np.abs(groups), axis=-1)[..., :2]
    np.put_along_axis(groups, smallest, 0, axis=-1)
    return np.moveaxis(groups.reshape(moved.shape), -1, axis)


@pytest.mark.parametrize(
    ("op", "shape", "axis", "attributes"),
    [
        ("Conv", (6, 8, 3, 3), 1, {}),
        ("Gemm", (8, 6), 0, {}),
        ("Gemm", (6, 8), 1, {"transB": 1}),
        ("MatMul", (2, 8, 6), 1, {}),
    ],
)
@pytest.mark.parametrize("quantized", [False, True])
def test_pruned_weights_are_eligible_along_the_input_channels_alone(
    op: str, shape: tuple[int, ...], axis: int, attributes: dict[str, int], quantized: bool
) -> None:
    dense = np.random.default_rng(0).integers(1, 9, shape).astype(np.float32)
    (found,) = layer_sparsity(model(op, dense, quantized, **attributes))
    assert (found.sparse, found.is_eligible) == (0, False)
    assert found.groups == dense.size // 4
    (found,) = layer_sparsity(model(op, pruned(dense, axis), quantized, **attributes))
    assert found.is_eligible
    other = dense.copy()
    other[..., ::2] = 0  # zeros, but along another axis
    if axis != len(shape) - 1:
        (found,) = layer_sparsity(model(op, other, quantized, **attributes))
        assert not found.is_eligible


@given(st.integers(1, 13), st.integers(1, 5), st.integers(0, 100))
@settings(max_examples=40, deadline=None)
def test_groups_are_counted_as_a_loop_counts_them(channels: int, rows: int, seed: int) -> None:
    weight = np.random.default_rng(seed).integers(0, 2, (rows, channels)).astype(np.float32)
    (found,) = layer_sparsity(model("Gemm", weight, transB=1))
    groups = [row[start : start + 4] for row in weight for start in range(0, channels, 4)]
    # Fewer than four channels have two zeros of four by padding alone: no kernel is faster for it.
    expected = sum(np.count_nonzero(group) <= 2 for group in groups) if channels >= 4 else 0
    assert found == LayerSparsity("layer", "Gemm", len(groups), expected)


def test_a_layer_without_constant_weights_is_left_out() -> None:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["a", "b"], ["y"])],
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 2]) for name in "ab"],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 2])],
    )
    assert list(layer_sparsity(Model(helper.make_model(graph)))) == []
