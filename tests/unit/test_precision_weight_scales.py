"""Scales of weights: never worse than amax, exact in the float type, blocks as ONNX has them."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from trtforge.precision.scales import NUMPY_TYPE, quantize_values
from trtforge.precision.weight_scales import _to_e4m3, block_scales, weight_scales

FLOATS = st.floats(-1e4, 1e4, width=32)


def error(values: np.ndarray, scale: np.ndarray, grid: str) -> np.ndarray:
    """Squared error of each row, in float64."""
    stored = quantize_values(values, scale[:, None], grid).astype(np.float64)
    return ((stored * scale[:, None].astype(np.float64) - values) ** 2).sum(axis=1)


@settings(max_examples=60, deadline=None)
@given(
    arrays(np.float32, st.tuples(st.integers(1, 6), st.integers(1, 40)), elements=FLOATS),
    st.sampled_from(["int8", "int4", "fp8"]),
    st.sampled_from(["fp32", "fp16", "bf16"]),
)
def test_mse_is_never_worse_than_amax_and_exact_in_the_type(
    values: np.ndarray, grid: str, kind: str
) -> None:
    scales = {how: weight_scales(values, 0, grid, how, kind) for how in ("mse", "amax")}
    for scale in scales.values():
        assert (scale.astype(NUMPY_TYPE[kind]).astype(np.float32) == scale).all()
        assert (scale > 0).all()
        assert np.isfinite(scale).all()
    worse = error(values, scales["mse"], grid) - error(values, scales["amax"], grid)
    assert (worse <= 0).all()


@pytest.mark.parametrize(("grid", "gain_db"), [("int4", 1.5), ("int8", 0.05)])
def test_an_outlier_no_longer_decides_the_step(grid: str, gain_db: float) -> None:
    values = np.random.default_rng(0).standard_t(4, (64, 768)).astype(np.float32)
    gain = error(values, weight_scales(values, 0, grid, "amax"), grid).sum()
    gain /= error(values, weight_scales(values, 0, grid), grid).sum()
    assert 10 * np.log10(gain) > gain_db


@pytest.mark.parametrize("axis", [0, 1, 2, 3])
@pytest.mark.parametrize("method", ["mse", "amax"])
def test_a_channel_s_scale_depends_on_the_channel_alone(axis: int, method: str) -> None:
    values = np.random.default_rng(1).standard_normal((5, 6, 3, 4)).astype(np.float32)
    scale = weight_scales(values, axis, "int8", method)
    assert scale.shape == (values.shape[axis],)
    for channel in range(values.shape[axis]):
        alone = weight_scales(values.take(channel, axis), None, "int8", method)
        assert alone.shape == ()
        assert alone == pytest.approx(scale[channel], rel=1e-6)


def test_large_weights_are_cut_into_pieces_with_the_same_result() -> None:
    values = np.random.default_rng(2).standard_normal((300, 700)).astype(np.float32)
    whole = weight_scales(values, 1, "int8")
    assert (whole[650:] == weight_scales(values[:, 650:], 1, "int8")).all()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_blocks_lie_along_their_axis(axis: int) -> None:
    values = np.random.default_rng(3).standard_normal((8, 12, 4)).astype(np.float32)
    scale = block_scales(values, axis, 4, "int4")
    shape = list(values.shape)
    shape[axis] //= 4
    assert scale.shape == tuple(shape)
    parts = np.split(values, values.shape[axis] // 4, axis)
    for index, part in enumerate(parts):
        rows = np.moveaxis(part, axis, -1).reshape(-1, 4)
        expected = weight_scales(rows, 0, "int4")
        assert np.allclose(scale.take(index, axis).ravel(), expected, rtol=1e-6)


def test_zeros_get_a_harmless_scale() -> None:
    assert (weight_scales(np.zeros((3, 8)), 0, "int4", float_type="fp16") > 0).all()


def test_rounding_to_e4m3_is_that_of_the_type() -> None:
    random = np.random.default_rng(4)
    values = np.concatenate([random.standard_normal(5000) * s for s in (1e-3, 1e-2, 1.0, 90.0)])
    values = np.clip(values, -448, 448).astype(np.float32)
    expected = values.astype(ml_dtypes.float8_e4m3fn).astype(np.float32)
    _to_e4m3(values)
    assert (values == expected).all()


@pytest.mark.parametrize("kind", ["fp32", "fp16", "bf16"])
def test_weights_that_stand_on_an_int4_grid_keep_it(kind: str) -> None:
    random = np.random.default_rng(5)
    levels = random.integers(-8, 8, (4, 32, 6)).astype(np.float32)
    levels[0] = np.clip(levels[0], -3, 2)  # the top level is not always used
    scale = random.uniform(1e-3, 1e-2, (4, 1, 6)).astype(NUMPY_TYPE[kind]).astype(np.float32)
    values = (levels * scale).reshape(128, 6)
    found = block_scales(values, 0, 32, "int4", float_type=kind)
    stored = quantize_values(values, np.repeat(found, 32, 0), "int4").astype(np.float32)
    assert np.allclose(stored * np.repeat(found, 32, 0), values, rtol=1e-6)
