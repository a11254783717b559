"""Tensors whose channels a technique scaled: told from errors, and never instead of them."""

import math

import numpy as np
import onnx
import pytest
from models_precision import FLOAT
from onnx import helper, numpy_helper

from trtforge.graph.model import Model
from trtforge.verify.channels import ChannelFit, rescaled_db
from trtforge.verify.layers import compare_layers

RNG = np.random.default_rng(11)
SHAPES = ((4, 8, 5, 5), (6, 10, 8), (32, 8), (3, 8, 1, 1))


def fitted(reference: np.ndarray, candidate: np.ndarray) -> float | None:
    fit = ChannelFit()
    for left, right in zip(reference, candidate, strict=True):
        fit.add(left[None], right[None])
    noise = float(((reference - candidate) ** 2).sum())
    plain = 10 * math.log10(float((reference**2).sum()) / noise) if noise else math.inf
    return rescaled_db(plain, fit)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("axis", [1, -1])
def test_scaled_channels_are_seen_with_the_noise_beside_them(
    shape: tuple[int, ...], axis: int
) -> None:
    if shape[axis] == 1:
        axis = 1
    reference = RNG.standard_normal(shape).astype(np.float32)
    factors = np.expand_dims(
        np.exp(RNG.uniform(-3, 3, shape[axis])),
        [i for i in range(len(shape)) if i != axis % len(shape)],
    )
    noisy = (reference + RNG.standard_normal(shape) * 0.01) * factors
    assert fitted(reference, noisy.astype(np.float32)) == pytest.approx(40, abs=6)


@pytest.mark.parametrize("shape", SHAPES)
def test_errors_are_not_explained_away(shape: tuple[int, ...]) -> None:
    reference = RNG.standard_normal(shape).astype(np.float32)
    for wrong in (
        reference + RNG.standard_normal(shape),
        RNG.standard_normal(shape),
        -reference,
        np.zeros(shape),
        reference * 1.01,  # close enough, but no worse by GAIN_DB
    ):
        found = fitted(reference, wrong.astype(np.float32))
        assert found is None or np.allclose(wrong, reference * 1.01), wrong


def test_one_value_of_a_channel_fits_anything() -> None:
    assert fitted(np.float32([[1, 2, 3]]), np.float32([[9, 1, 4]])) is None
    assert rescaled_db(-math.inf, ChannelFit()) is None
    assert rescaled_db(5.0, None) is None


def two_layers(factors: np.ndarray, wrong: float = 1.0) -> Model:
    """x -> Conv -> Relu -> Conv, its channels multiplied in between."""
    rng = np.random.default_rng(2)
    first = rng.standard_normal((6, 3, 3, 3)) * factors[:, None, None, None]
    second = rng.standard_normal((4, 6, 3, 3)) / factors[None, :, None, None]
    second[:, 0] *= wrong
    weights = [
        numpy_helper.from_array(values.astype(np.float32), name)
        for name, values in (("w1", first), ("w2", second))
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], "first"),
        helper.make_node("Relu", ["a"], ["b"], "relu"),
        helper.make_node("Conv", ["b", "w2"], ["y"], "second"),
    ]
    ends = [
        helper.make_tensor_value_info("x", FLOAT, [1, 3, 9, 9]),
        helper.make_tensor_value_info("y", FLOAT, None),
    ]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    opset = [helper.make_opsetid("", 19)]
    return Model(onnx.shape_inference.infer_shapes(helper.make_model(graph, opset_imports=opset)))


def test_a_profile_finds_the_error_behind_channels_that_were_scaled() -> None:
    plain, factors = two_layers(np.ones(6)), np.array([0.1, 8, 1, 30, 0.5, 2])
    feeds = [{"x": RNG.standard_normal((1, 3, 9, 9)).astype(np.float32)} for _ in range(2)]
    scaled = compare_layers(plain, two_layers(factors), feeds)
    found = {layer.tensor: layer for layer in scaled.layers}
    assert found["a"].sqnr_db < 0
    assert found["a"].counted_db > 100
    assert found["b"].counted_db > 100
    assert found["y"].rescaled_db is None
    assert found["y"].sqnr_db > 100
    assert scaled.first_jump is None
    broken = compare_layers(plain, two_layers(factors, wrong=3.0), feeds)
    assert broken.first_jump is not None
    assert broken.first_jump.node == "second"
    assert broken.worst(1)[0].tensor == "y"
