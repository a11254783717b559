"""Each technique on a network that it must help, judged on samples that it did not see."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from models_precision import Net
from precision_samples import Samples, check_typed, sqnr_db

from trtforge.graph.execute import Session
from trtforge.graph.model import Model
from trtforge.precision.calibrate import CalibrationRequest
from trtforge.precision.cast import quantized_only
from trtforge.precision.prepare import Prepared, prepare
from trtforge.recipe.schema import Precision

INT8 = Precision(quantize="int8")


def data(shape: Sequence[int], seed: int, outliers: float = 0.0) -> np.ndarray:
    random = np.random.default_rng(seed)
    values = random.standard_normal(shape)
    return (values * (1 + outliers * (random.random(shape) < 1e-4))).astype(np.float32)


def uneven_channels() -> Model:
    """Convolutions whose channels differ by factors up to 100, before a depthwise one."""
    n = Net(1)
    x = n.input("x", ["N", 8, 12, 12])
    spread = 10 ** np.linspace(-1, 1, 16)[:, None, None, None]
    first = n.const("w1", n.random.standard_normal((16, 8, 1, 1)) * spread)
    a = n.op("Relu", [n.op("Conv", [x, first], "a")], "ar")
    second = n.const("w2", n.random.standard_normal((16, 1, 3, 3)) / spread)
    n.op("Relu", [n.op("Conv", [a, second], "b", group=16)], "br")
    n.op("Conv", ["br", n.weight("w3", 8, 16, 1, 1)], "y")
    n.output("y", ["N", 8, 10, 10])
    return n.model()


def outlier_channels() -> Model:
    """A normalization with two channels of fifty times the others, read by two products."""
    n = Net(2)
    x = n.input("x", ["N", 10, 32])
    gains = np.ones(32)
    gains[[3, 17]] = 50
    h = n.op("LayerNormalization", [x, n.const("g", gains), n.const("b", np.zeros(32))], "h")
    q = n.op("MatMul", [h, n.weight("wq", 32, 32, fan_in=32)], "q")
    k = n.op("MatMul", [h, n.weight("wk", 32, 32, fan_in=32)], "k")
    n.op("Add", [q, k], "y")
    n.output("y", ["N", 10, 32])
    return n.model()


def lasting_errors() -> Model:
    """Positive activations all alike: what rounding their weights does, it does to all samples."""
    n = Net(3)
    x = n.input("x", ["N", 16, 8, 8])
    a = n.op("Conv", [x, n.weight("w1", 32, 16, 1, 1), n.const("b1", np.full(32, 4.0))], "a")
    a = n.op("Relu", [a], "ar")
    b = n.op("Relu", [n.op("Conv", [a, n.weight("w2", 32, 32, 3, 3)], "b")], "br")
    p = n.op("Flatten", [n.op("GlobalAveragePool", [b], "p")], "f")
    n.op("MatMul", [p, n.weight("w3", 32, 8, fan_in=32)], "y")
    n.output("y", ["N", 8])
    return n.model()


def short_rows() -> Model:
    """A depthwise convolution: of nine weights, some step other than the largest's fits better."""
    n = Net(4)
    x = n.input("x", ["N", 64, 8, 8])
    n.op("Conv", [x, n.weight("w", 64, 1, 3, 3)], "y", group=64)
    n.output("y", ["N", 64, 6, 6])
    return n.model()


def plain() -> Model:
    n = Net(5)
    x = n.input("x", ["N", 64])
    h = n.op("Relu", [n.op("MatMul", [x, n.weight("w1", 64, 48, fan_in=64)], "a")], "h")
    n.op("Gemm", [h, n.weight("w2", 48, 24, fan_in=48)], "y")
    n.output("y", ["N", 24])
    return n.model()


def correlated(rows: int, seed: int) -> np.ndarray:
    mixing = np.random.default_rng(9).standard_normal((6, 64))
    random = np.random.default_rng(seed)
    values = random.standard_normal((rows, 6)) @ mixing + 0.02 * random.standard_normal((rows, 64))
    return values.astype(np.float32)


def prepared(
    model: Model, seen: np.ndarray, techniques: Sequence[str], method: str = "minmax"
) -> Prepared:
    precision = INT8.model_copy(update={"techniques": tuple(techniques)})
    return prepare(model, Samples({"x": seen}), precision, CalibrationRequest((), method))


def sqnr(model: Model, found: Prepared, other: np.ndarray) -> float:
    quantized = quantized_only(found.model, found.cache, INT8)[0]
    check_typed(model, quantized)
    feeds = {"x": other}
    return sqnr_db(Session(model).run(feeds)["y"], Session(quantized).run(feeds)["y"])


CASES: dict[str, tuple[Callable[[], Model], Sequence[int], float]] = {
    "equalize": (uneven_channels, (8, 12, 12), 6.0),
    "smoothquant": (outlier_channels, (10, 32), 6.0),
    "bias-correction": (lasting_errors, (16, 8, 8), 2.0),
}


@pytest.mark.parametrize("name", CASES)
def test_it_helps_where_it_must(name: str) -> None:
    make, shape, gain = CASES[name]
    model, seen, other = make(), data((64, *shape), 1), data((64, *shape), 2)
    without, found = prepared(model, seen, ()), prepared(model, seen, (name,))
    assert sqnr(model, found, other) > sqnr(model, without, other) + gain
    assert len(found.notes) == 1
    assert found.notes[0].startswith(name)


def test_scales_of_least_error_help_short_rows() -> None:
    """The inputs are whole numbers up to 127, which INT8 holds exactly: all noise is of weights."""
    model = short_rows()
    seen, other = (np.clip(np.rint(40 * data((16, 64, 8, 8), s)), -127, 127) for s in (1, 2))
    seen[0, 0, 0, 0] = 127
    without, found = prepared(model, seen, ()), prepared(model, seen, ("mse-weights",))
    assert sqnr(model, found, other) > sqnr(model, without, other) + 0.5


def test_rounding_helps_where_inputs_are_correlated() -> None:
    model, seen, other = plain(), correlated(512, 1), correlated(256, 2)
    without, found = prepared(model, seen, ()), prepared(model, seen, ("rounding",))
    noise = {}
    for key, one in (("plain", without), ("rounded", found)):
        quantized = quantized_only(one.model, one.cache, INT8)[0]
        weights = quantized.initializer("w1_quantized") * quantized.initializer("w1_scale")
        noise[key] = float(((other @ (weights - model.initializer("w1"))) ** 2).sum())
    assert noise["rounded"] < 0.5 * noise["plain"]
    assert sqnr(model, found, other) > sqnr(model, without, other)
    stored = found.model.initializer("w1")
    assert found.cache is not None
    levels = stored / np.asarray(found.cache.weight_scales["w1"], np.float32)
    assert np.abs(levels - np.rint(levels)).max() < 1e-4


def test_rounding_of_convolutions_sees_what_they_see() -> None:
    """A 3 by 3 kernel, strides, pads, dilations: the second moment of its patches is exact."""
    from trtforge.precision.constants import editable_graph
    from trtforge.precision.techniques.patches import unfold

    n = Net(6)
    x = n.input("x", ["N", 3, 9, 8])
    n.op(
        "Conv",
        [x, n.weight("w", 5, 3, 3, 2)],
        "y",
        strides=[2, 1],
        pads=[1, 0, 2, 1],
        dilations=[1, 2],
    )
    n.output("y", ["N", 5, "h", "w"])
    model, values = n.model(), data((2, 3, 9, 8), 3)
    node = editable_graph(model).nodes[0]
    rows = unfold(node, values, 10_000, 0)
    expected = Session(model).run({"x": values})["y"]
    got = rows @ model.initializer("w").reshape(5, -1).T
    np.testing.assert_allclose(got, np.moveaxis(expected, 1, -1).reshape(-1, 5), atol=1e-5)


def test_ranges_are_widened_where_clipping_spoils_the_outputs() -> None:
    n = Net(7)
    x = n.input("x", ["N", 64, 4])
    # Only the largest of all values matters to the output.
    h = n.op("ReduceMax", [n.op("MatMul", [x, n.const("w", np.eye(4))], "a")], "y", keepdims=0)
    n.output(h, [])
    model = n.model()
    seen = data((40, 64, 4), 1, outliers=30)
    clipped = prepared(model, seen, (), "percentile")
    refined = prepared(model, seen, ("refine-scales",), "percentile")
    assert clipped.cache is not None
    assert refined.cache is not None
    assert refined.cache.ranges["x"].amax > 1.2 * clipped.cache.ranges["x"].amax
    assert "observed" in refined.notes[0]


def test_defaults_together_keep_what_each_gains() -> None:
    model, shape = lasting_errors(), (16, 8, 8)
    seen, other = data((64, *shape), 1), data((64, *shape), 2)
    precision = INT8
    found = prepare(model, Samples({"x": seen}), precision, CalibrationRequest((), "minmax"))
    assert sqnr(model, found, other) > sqnr(model, prepared(model, seen, ()), other) + 2
