"""`precision.compact`: what is left out, how scales are rounded, and how large engines become."""

import json
import math
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from models_precision import Net
from precision_samples import net, ranges
from quantize_samples import calibrated, int8, pairs, producers

from trtforge.graph.model import Model
from trtforge.precision.cache import CalibrationCache
from trtforge.precision.cast import typed
from trtforge.precision.compact import COSTLY, Weights, too_costly
from trtforge.precision.engine_size import Growth, engine_size
from trtforge.precision.quantize import QuantizeReport, candidate_tensors, quantize
from trtforge.precision.ranges import TensorRange
from trtforge.precision.scales import SCALE_STEPS, round_to_step, scale_of
from trtforge.precision.shortfall import quantize_shortfall
from trtforge.precision.techniques.layers import layers_of
from trtforge.recipe.schema import Precision

COMPACT = int8(compact=True, type="fp16")
PLAIN = int8(type="fp16")


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (Weights("Conv", (512, 1, 3, 3), 512, 196), "depthwise"),
        (Weights("Conv", (1024, 1, 7, 7), 512, 196), "depthwise"),
        (Weights("Conv", (512, 2, 3, 3), 256, 196), None),
        (Weights("Conv", (512, 1, 3, 3), 1, 196), None),
        (Weights("ConvTranspose", (512, 1, 3, 3), 512, None), None),
        (Weights("Conv", (511, 256, 1, 1), 1, 15), "fewer than 16 output positions"),
        (Weights("Conv", (512, 256, 1, 1), 1, 15), None),
        (Weights("Conv", (511, 256, 1, 1), 1, 16), None),
        (Weights("Conv", (511, 256, 1, 1), 1, None), None),
        (Weights("Conv", (3, 682, 1, 1), 1, 196), "fewer than 2048 weights"),
        (Weights("Conv", (2, 1024, 1, 1), 1, 196), None),
        (Weights("Gemm", (10, 204)), "fewer than 2048 weights"),
        (Weights("MatMul", (64, 32)), None),
    ],
)
def test_each_rule_at_its_bound(layer: Weights, reason: str | None) -> None:
    found = too_costly(layer)
    if reason is None:
        assert found is None
    else:
        assert found is not None
        assert reason in found
        assert found.startswith("compact: ")


def squeezing(batch: int | str = "N", size: int | str = 32) -> Model:
    """Pointwise, depthwise, squeeze-and-excitation, and two convolutions with many weights."""
    net = Net(4)
    x = net.input("image", [batch, 3, size, size])
    x = net.op("Conv", [x, net.weight("w_stem", 32, 3, 3, 3)], "stem", strides=[2, 2], pads=[1] * 4)
    x = net.op("Relu", [x], "stem_relu")
    x = net.op("Relu", [net.op("Conv", [x, net.weight("w_up", 512, 32, 1, 1)], "up")], "up_relu")
    for k in range(3):
        x = net.op(
            "Conv", [x, net.weight(f"w_dw{k}", 512, 1, 5, 5)], f"dw{k}", group=512, pads=[2] * 4
        )
        x = net.op("Relu", [x], f"dw{k}_relu")
        pooled = net.op("GlobalAveragePool", [x], f"pooled{k}")
        gate = net.op("Conv", [pooled, net.weight(f"w_squeeze{k}", 32, 512, 1, 1)], f"squeeze{k}")
        gate = net.op("Relu", [gate], f"squeeze{k}_relu")
        gate = net.op("Conv", [gate, net.weight(f"w_excite{k}", 512, 32, 1, 1)], f"excite{k}")
        x = net.op("Mul", [x, net.op("Sigmoid", [gate], f"gate{k}")], f"gated{k}")
    x = net.op("Conv", [x, net.weight("w_wide", 1024, 512, 1, 1)], "wide")
    x = net.op("Relu", [x], "wide_relu")
    x = net.op("Relu", [net.op("Conv", [x, net.weight("w_in", 512, 1024, 1, 1)], "in")], "in_relu")
    x = net.op("Flatten", [net.op("GlobalAveragePool", [x], "mean")], "flat")
    net.op("Gemm", [x, net.weight("w_head", 3, 512)], "head", transB=1)
    net.output("head", [batch, 3])
    return net.model()


FEW_POSITIONS = "a Conv with fewer than 16 output positions and 131072 weights"
LEFT = {
    "n_stem": "a layer with fewer than 2048 weights",
    **{f"n_dw{k}": "a depthwise Conv" for k in range(3)},
    **{f"n_squeeze{k}": FEW_POSITIONS for k in range(3)},
    **{f"n_excite{k}": FEW_POSITIONS for k in range(3)},
    "n_head": "a layer with fewer than 2048 weights",
}


@pytest.mark.parametrize(("batch", "size"), [("N", 32), (2, 32), ("N", "S")])
def test_what_is_left_says_why_and_the_rest_is_quantized(batch: int | str, size: int | str) -> None:
    model = squeezing(batch, size)
    assert set(candidate_tensors(model, PLAIN)) > set(candidate_tensors(model, COMPACT))
    feeds = {"image": np.random.default_rng(0).random((2, 3, 32, 32), np.float32)}
    _, report = quantize(model, calibrated(model, COMPACT, feeds), COMPACT)
    kept = {one.node: one.reason for one in report.decisions if one.action == "kept"}
    assert kept.keys() == LEFT.keys()
    for node, what in LEFT.items():
        assert kept[node].startswith(f"compact: {what}: ")
    assert {one.node for one in report.explained if one.action == "quantized"} == {
        "n_up", "n_wide", "n_in",
    }  # fmt: skip
    assert layers_of(model, COMPACT).keys() == {"up", "wide", "in"}, "techniques follow"


def test_every_rule_is_met_by_the_network() -> None:
    used = {rule.what for rule in COSTLY for reason in LEFT.values() if rule.what == reason}
    assert used == {rule.what for rule in COSTLY}


MAGNITUDES = st.floats(1e-30, 1e30)


@given(MAGNITUDES)
def test_a_step_is_near_and_stays_where_it_is(scale: float) -> None:
    found = round_to_step(scale)
    assert abs(math.log2(found / scale)) <= 1 / (2 * SCALE_STEPS) + 1e-9
    assert round_to_step(found) == found
    steps = math.log2(found) * SCALE_STEPS
    assert steps == pytest.approx(round(steps), abs=1e-6)


def test_an_octave_has_32_steps() -> None:
    assert SCALE_STEPS == 32
    found = {round_to_step(float(scale)) for scale in np.linspace(1, 2, 2000)}
    assert len(found) == SCALE_STEPS + 1


def cache_of(magnitudes: Mapping[str, float]) -> CalibrationCache:
    known = {name: TensorRange(min=-amax, max=amax, amax=amax) for name, amax in magnitudes.items()}
    return CalibrationCache(method="minmax", samples=1, graph_digest="", ranges=known)


@given(MAGNITUDES, MAGNITUDES, st.sampled_from(["fp32", "bf16", "fp16"]))
def test_scales_of_a_cache_are_near_the_exact_ones_and_in_their_order(
    one: float, other: float, float_type: str
) -> None:
    if float_type == "fp16":  # within the normal numbers of the type
        one, other = (min(max(amax, 1e-2), 1e6) for amax in (one, other))
    cache = cache_of({"one": one, "other": other})
    found = {name: cache.scale(name, "int8", float_type, compact=True) for name in cache.ranges}
    grid = {"fp32": 2.0**-23, "fp16": 2.0**-10, "bf16": 2.0**-7}[float_type]
    for name, scale in found.items():
        exact = cache.range_of(name).amax / 127
        assert 2 ** (-1 / 64) * (1 - 1e-9) <= scale / exact <= 2 ** (1 / 64) * (1 + grid) + 1e-9
        assert scale == float(np.asarray(scale_of(scale * 127, "int8", "fp32")))
    assert (one <= other) <= (found["one"] <= found["other"])
    assert cache.range_of("one").amax == one, "the cache keeps what was measured"


def test_a_tensor_of_zeros_has_a_scale_all_the_same() -> None:
    assert cache_of({"x": 0.0}).scale("x", "int8", compact=True) > 0


def test_pairs_of_a_graph_stand_on_steps() -> None:
    model = net("cnn")
    result, _ = quantize(model, ranges("cnn"), int8(compact=True))
    exact = pairs(quantize(model, ranges("cnn"), int8())[0])
    found = pairs(result)
    assert found
    for name, scale in found.items():
        assert scale == pytest.approx(round_to_step(scale), rel=1e-6)
        if name in exact:
            assert abs(math.log2(scale / exact[name])) <= 1 / 64 + 1e-6
    makers = producers(result)
    assert makers, "weights keep their own scales"
    weights = [name for name in result.initializers if name.endswith("_scale") and "w_" in name]
    plain = quantize(model, ranges("cnn"), int8())[0]
    for name in weights:
        np.testing.assert_array_equal(result.initializer(name), plain.initializer(name))


def chain(layers: int, channels: int = 256) -> tuple[Model, CalibrationCache]:
    """Equal convolutions whose ranges differ by less than a step."""
    net = Net(6)
    x = net.input("x", [1, channels, 16, 16])
    names = [x]
    for index in range(layers):
        weight = net.weight(f"w{index}", channels, channels, 1, 1)
        names.append(
            net.op("Relu", [net.op("Conv", [names[-1], weight], f"c{index}")], f"r{index}")
        )
    net.output(names[-1], [1, channels, 16, 16])
    return net.model(), cache_of({name: 1.0 + index * 0.001 for index, name in enumerate(names)})


def engine_bytes(folder: Path, models: Mapping[str, Model]) -> dict[str, int]:
    """Sizes of real TensorRT-RTX engines, by model."""
    files = {str(folder / f"{name}.onnx"): name for name in models}
    for path, name in files.items():
        models[name].save(Path(path))
    program = Path(__file__).parent.parent / "precision_build.py"
    done = subprocess.run(
        [sys.executable, str(program), *files], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    assert [report["errors"] for report in reports] == [[]] * len(files)
    return {files[report["file"]]: report["bytes"] for report in reports}


def three_forms(model: Model, cache: CalibrationCache) -> dict[str, Model]:
    return {
        "fp16": typed(model, None, Precision(type="fp16")).model,
        "plain": typed(model, cache, PLAIN).model,
        "compact": typed(model, cache, COMPACT).model,
    }


def test_depthwise_and_squeezing_layers_no_longer_make_the_engine_larger(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    model = squeezing(1)
    cache = calibrated(model, PLAIN)
    found = engine_bytes(tmp_path, three_forms(model, cache))
    assert found["compact"] < found["fp16"] < found["plain"]
    (warning,) = typed(model, cache, PLAIN).warnings
    assert warning.startswith(
        "the INT8 engine of TensorRT-RTX is expected to be larger than the FP16 one"
    )
    assert "`precision.compact: true` leaves 11 of 14 layers in floats and lets" in warning
    assert typed(model, cache, COMPACT).warnings == ()
    assert engine_growth(model, cache, PLAIN).least_bytes > 0
    assert engine_growth(model, cache, COMPACT).most_bytes < 0


def test_layers_of_one_scale_share_their_kernels(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    model, cache = chain(8)
    found = engine_bytes(tmp_path, three_forms(model, cache))
    assert found["compact"] < found["plain"] - 500_000
    assert found["compact"] < found["fp16"]
    assert engine_growth(model, cache, PLAIN).kernels == 8
    assert engine_growth(model, cache, COMPACT).kernels < 4


def engine_growth(model: Model, cache: CalibrationCache, precision: Precision) -> Growth:
    size = quantize(model, cache, precision)[1].engine
    assert size is not None
    return size.now


def warnings_of(kernels: int, saved: int, compact: Growth | None, left: int = 0) -> tuple[str, ...]:
    from trtforge.precision.engine_size import EngineSize

    size = EngineSize(20, Growth(kernels, saved), left, compact)
    one = quantize(net("cnn"), ranges("cnn"), PLAIN)[1].decisions
    return quantize_shortfall(QuantizeReport("int8", one, (), size))


def test_the_warning_names_what_helps_and_says_where_nothing_does() -> None:
    assert warnings_of(10, 700_000, None) == ()
    start = (
        "the INT8 engine of TensorRT-RTX is expected to be larger than the FP16 one "
        "(20 kernels, 1.0 MB or more)"
    )
    (one,) = warnings_of(20, 380_000, Growth(5, 900_000), 7)
    assert one == (
        f"{start}; `precision.compact: true` leaves 7 of 20 layers in floats and lets layers share "
        "kernels, which should make it smaller than FP16's"
    )
    (one,) = warnings_of(20, 380_000, Growth(10, 900_000), 0)
    assert one == (
        f"{start}; `precision.compact: true` lets layers share kernels, which may make it smaller "
        "than FP16's"
    )
    (one,) = warnings_of(20, 380_000, Growth(10, 380_000), 7)
    assert one == (
        f"{start}; its layers are too small for `precision.compact: true` to make up for it, FP16 "
        "alone gives the smallest"
    )
    (one,) = warnings_of(20, 380_000, None)
    assert one == (
        f"{start} even with `precision.compact`: its layers are too small, FP16 alone gives the "
        "smallest"
    )


def test_other_types_have_no_estimate() -> None:
    report = quantize(net("cnn"), ranges("cnn"), int8(quantize="fp8"))[1]
    assert report.engine is None
    assert engine_size.__doc__
