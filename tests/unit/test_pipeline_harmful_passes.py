"""Passes that are left out where activations are quantized: what they would cost."""

import numpy as np
import pytest
from models_precision import Net
from pair_metrics import sqnr_db
from precision_samples import Samples

from trtforge.graph.execute import Session
from trtforge.graph.model import Model
from trtforge.graph.passes import PASSES, PassRequest, run_passes
from trtforge.pipeline.passes import HARMFUL_TO_QUANTIZATION, dropped_passes
from trtforge.precision.calibrate import CalibrationRequest, calibrate
from trtforge.precision.cast import typed
from trtforge.precision.quantize import candidate_tensors
from trtforge.recipe.schema import Precision

INT8 = Precision(quantize="int8")
CHANNELS = 32


def network(kind: str) -> Model:
    """Channels of different size, evened out before the second convolution."""
    net = Net(3)
    x = net.input("x", ["N", 3, 8, 8])
    sizes = np.exp(net.random.normal(0, 1, CHANNELS)).astype(np.float32)
    first = net.random.normal(0, 0.3, (CHANNELS, 3, 3, 3)) * sizes[:, None, None, None]
    wide = net.op("Conv", [x, net.const("first", first)], "wide", pads=[1, 1, 1, 1])
    wide = net.op("Relu", [wide], "relu")
    shift = net.random.normal(0, 0.5, CHANNELS)
    if kind == "BatchNormalization":
        given = {"g": np.ones(CHANNELS), "b": shift, "m": np.zeros(CHANNELS), "v": 2.4 * sizes**2}
        even = net.op(kind, [wide, *(net.const(*one) for one in given.items())], "even")
    else:
        scale = net.const("scale", (1 / sizes).reshape(1, -1, 1, 1))
        even = net.op("Mul", [wide, scale], "scaled")
        even = net.op("Add", [even, net.const("shift", shift.reshape(1, -1, 1, 1))], "even")
    net.op("Conv", [even, net.weight("second", CHANNELS, CHANNELS, 1, 1)], "y")
    net.output("y", ["N", CHANNELS, 8, 8])
    return net.model()


def quality_db(model: Model, drop: tuple[str, ...]) -> float:
    images = np.random.default_rng(5).standard_normal((48, 3, 8, 8), np.float32)
    cleaned = run_passes(model, PassRequest(prove=False, drop=drop)).model
    request = CalibrationRequest(candidate_tensors(cleaned, INT8), "mse")
    cache = calibrate(cleaned, Samples({"x": images}), request)
    both = [
        Session(one).run({"x": images})["y"] for one in (model, typed(cleaned, cache, INT8).model)
    ]
    return sqnr_db(*both)


@pytest.mark.parametrize("kind", ["BatchNormalization", "Mul and Add"])
def test_folding_a_scale_per_input_channel_costs_most_of_the_signal(kind: str) -> None:
    model = network(kind)
    assert quality_db(model, ()) < 20 < 30 < quality_db(model, HARMFUL_TO_QUANTIZATION)


def test_they_are_left_out_where_activations_are_quantized_only() -> None:
    assert set(HARMFUL_TO_QUANTIZATION) <= PASSES.keys()
    for kind in ("int8", "fp8"):
        assert dropped_passes(kind) == HARMFUL_TO_QUANTIZATION
    for kind in ("none", "int8_weight_only", "int4_weight_only"):
        assert dropped_passes(kind) == ()
