"""Laws of precision: round trips, merging, grids, and typing of random graphs."""

import struct

import ml_dtypes
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from models_precision import Net
from precision_samples import check_typed, fidelity, samples_for

from trtforge.graph.model import Model
from trtforge.precision.calibrate import CalibrationRequest, calibrate
from trtforge.precision.cast import typed
from trtforge.precision.quantize import candidate_tensors
from trtforge.precision.scales import NUMPY_TYPE, quantize_values, round_up, scale_of
from trtforge.precision.trt_text import TrtTable, format_trt_text, parse_trt_text
from trtforge.recipe.schema import Precision

names = st.text(min_size=1, max_size=30).filter(
    lambda text: text.splitlines() == [text] and text.strip() == text
)
float32 = st.floats(0, allow_infinity=False, allow_nan=False, width=32)


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(names, float32, max_size=8),
    st.integers(1, 10**7),
    st.sampled_from(["EntropyCalibration2", "MinMaxCalibration"]),
)
def test_tensorrt_text_comes_back(scales: dict[str, float], version: int, kind: str) -> None:
    table = TrtTable(f"TRT-{version}-{kind}", scales)
    text = format_trt_text(table)
    again = parse_trt_text(text)
    assert again.header == table.header
    assert dict(again.scales) == scales
    unpadded = "\n".join(
        f"{head}: {int(digits, 16):x}" if head else digits
        for head, _, digits in (line.rpartition(": ") for line in text.splitlines())
    )
    assert dict(parse_trt_text(unpadded).scales) == scales


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_crash_the_reader(data: bytes) -> None:
    from trtforge.errors import DataError

    text = "TRT-8205-EntropyCalibration2\n" + data.decode("latin-1")
    try:
        table = parse_trt_text(text)
    except DataError:
        return
    assert all(np.isfinite(scale) and scale >= 0 for scale in table.scales.values())


@settings(max_examples=200, deadline=None)
@given(st.floats(1e-30, 1e30), st.sampled_from(["fp32", "fp16", "bf16"]))
def test_rounding_up_is_the_least_number_above(value: float, kind: str) -> None:
    if kind == "fp16" and not 2.0**-24 <= value <= 65504:
        return
    rounded = float(round_up(value, kind))
    narrow = np.asarray(rounded).astype(NUMPY_TYPE[kind])
    assert float(narrow) == rounded >= value
    below = struct.pack("<f", rounded)
    if kind != "fp16":
        step = 1 if kind == "fp32" else 1 << 16
        (bits,) = struct.unpack("<I", below)
        assert struct.unpack("<f", struct.pack("<I", bits - step))[0] < value
    else:
        assert float(np.nextafter(narrow, np.float16(0))) < value


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.floats(1e-3, 1e3),
    st.sampled_from(["int8", "fp8"]),
    st.sampled_from(["fp32", "fp16", "bf16"]),
)
def test_weights_never_clip(seed: int, size: float, quantize: str, kind: str) -> None:
    weights = np.random.default_rng(seed).standard_normal((4, 16)).astype(np.float32) * size
    weights = weights.astype(np.float32)
    scale = scale_of(np.abs(weights).max(axis=1), quantize, kind)[:, None]
    back = quantize_values(weights, scale, quantize).astype(np.float32) * scale
    if quantize == "int8":
        assert (np.abs(back - weights) <= scale * 0.5001).all()
    else:
        # Half a unit in the last place of 3 mantissa bits, or of the smallest subnormal.
        smallest = float(ml_dtypes.finfo(ml_dtypes.float8_e4m3fn).smallest_subnormal)
        bound = np.maximum(np.abs(weights) * 2.0**-4, scale * smallest / 2)
        assert (np.abs(back - weights) <= bound * 1.001).all()


UNARY = ["Relu", "Sigmoid", "Tanh", "Softmax", "Neg", "Identity", "Transpose", "Conv", "MatMul"]
BINARY = ["Add", "Mul", "Sub", "Max"]


@st.composite
def graphs(draw: st.DrawFn) -> Model:
    """A random graph over tensors of one square shape, with several outputs."""
    net = Net(draw(st.integers(0, 1000)))
    tensors = [net.input("x", [2, 4, 6, 6]), net.input("y", [2, 4, 6, 6])]
    for index in range(draw(st.integers(1, 9))):
        name = f"t{index}"
        a, b = draw(st.sampled_from(tensors)), draw(st.sampled_from(tensors))
        op = draw(st.sampled_from(UNARY + BINARY))
        if op in BINARY:
            net.op(op, [a, b], name)
        elif op == "Conv":
            net.op(op, [a, net.weight(f"w{index}", 4, 4, 3, 3)], name, pads=[1, 1, 1, 1])
        elif op == "MatMul":
            net.op(op, [a, net.weight(f"w{index}", 6, 6)], name)
        elif op == "Transpose":
            net.op(op, [a], name, perm=[0, 1, 3, 2])
        else:
            net.op(op, [a], name)
        tensors.append(name)
    made = tensors[2:]
    for name in draw(st.lists(st.sampled_from(made), min_size=1, max_size=3, unique=True)):
        net.output(name, [2, 4, 6, 6])
    return net.model()


keeps = st.lists(
    st.sampled_from([{"op": "Softmax"}, {"op": "Conv"}, {"name": "n_t[0-3]"}]), max_size=2
)


@settings(max_examples=60, deadline=None)
@given(
    graphs(),
    keeps,
    st.sampled_from(["fp32", "fp16", "bf16"]),
    st.sampled_from(["none", "int8", "fp8"]),
)
def test_typing_keeps_contract_types_and_numbers(
    model: Model, keep: list[dict[str, str]], kind: str, quantize: str
) -> None:
    precision = Precision.model_validate({"type": kind, "quantize": quantize, "keep": keep})
    random = np.random.default_rng(0)
    feeds = {name: random.standard_normal((2, 4, 6, 6)).astype(np.float32) for name in ("x", "y")}
    request = CalibrationRequest(candidate_tensors(model, precision), "minmax")
    cache = calibrate(model, samples_for(model, feeds), request) if request.tensors else None
    if cache is None and quantize != "none":
        return
    result = typed(model, cache, precision)
    check_typed(model, result.model)
    assert fidelity(model, result.model, feeds) > {"none": 25, "int8": 12, "fp8": 8}[quantize]
