"""Scales: grids, rounding up, weights on the quantized grid."""

import ml_dtypes
import numpy as np
import pytest

from trtforge.precision.scales import NUMPY_TYPE, quantize_values, round_up, scale_of


@pytest.mark.parametrize("kind", ["fp16", "bf16", "fp32"])
def test_rounded_scales_are_exact_in_the_type_and_never_smaller(kind: str) -> None:
    values = np.geomspace(1e-6, 1e4, 997)
    rounded = round_up(values, kind)
    assert (rounded.astype(np.float64) >= values).all()
    assert (rounded.astype(NUMPY_TYPE[kind]).astype(np.float32) == rounded).all()


def test_rounding_up_goes_to_the_very_next_number() -> None:
    above_one = 1 + 2.0**-10
    assert round_up(1.0, "fp16") == 1.0
    assert round_up(1.0 + 1e-9, "fp16") == above_one
    assert round_up(1.0 + 1e-9, "bf16") == 1 + 2.0**-7


@pytest.mark.parametrize("kind", ["fp16", "bf16", "fp32"])
@pytest.mark.parametrize("quantize", ["int8", "fp8"])
def test_a_channel_without_weights_gets_a_harmless_scale(kind: str, quantize: str) -> None:
    weights = np.zeros((3, 4), np.float32)
    weights[1] = 1e-42  # a denormal number
    scale = scale_of(np.abs(weights).max(axis=1), quantize, kind)
    assert np.isfinite(scale).all()
    assert (scale.astype(NUMPY_TYPE[kind]) > 0).all()
    stored = quantize_values(weights, scale[:, None], quantize)
    assert not stored[0].astype(np.float32).any()


def test_int8_weights_are_rounded_to_even_and_stay_symmetric() -> None:
    values = np.array([0.5, 1.5, 2.5, -0.5, -127.6, 500.0], np.float32)
    stored = quantize_values(values, np.float32(1), "int8")
    assert stored.dtype == np.int8
    assert stored.tolist() == [0, 2, 2, 0, -127, 127]


def test_fp8_weights_saturate_at_448() -> None:
    stored = quantize_values(np.array([447.0, 1e6, -1e6], np.float32), np.float32(1), "fp8")
    assert stored.dtype == ml_dtypes.float8_e4m3fn
    assert stored.astype(np.float32).tolist() == [448.0, 448.0, -448.0]


def test_int4_has_sixteen_levels() -> None:
    values = np.array([0.5, 1.5, -7.6, -9.0, 7.4, 9.0], np.float32)
    stored = quantize_values(values, np.float32(1), "int4")
    assert stored.dtype == ml_dtypes.int4
    assert stored.astype(np.int8).tolist() == [0, 2, -8, -8, 7, 7]
    assert scale_of(14.0, "int4") == 2.0
