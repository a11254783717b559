"""Which operators get no casts: proven over every FP16 and BF16 value there is."""

import ml_dtypes
import numpy as np
import onnx.parser
import pytest

from trtforge.graph.execute import Session
from trtforge.graph.model import Model
from trtforge.precision.emulation.exact import EXACT, is_exact
from trtforge.precision.opgroups import CONTROL_FLOW, SEQUENCES

TYPES = {"float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}

ONE = {
    **{op: f"y = {op}(x)" for op in ("Identity", "Relu", "Neg", "Abs", "Sign", "Floor", "Ceil")},
    **{op: f"y = {op}(x)" for op in ("Round", "Flatten", "Dropout", "Hardmax")},
    "Reshape": "s = Constant<value_ints = [-1]>() y = Reshape(x, s)",
    "Transpose": "y = Transpose<perm = [1, 0]>(x)",
    "Squeeze": "a = Constant<value_ints = [0]>() b = Unsqueeze(x, a) y = Squeeze(b, a)",
    "Unsqueeze": "a = Constant<value_ints = [0]>() y = Unsqueeze(x, a)",
    "Slice": "y = Slice(x, two, k)",
    "Gather": "i = Constant<value_ints = [5, 0, 5]>() y = Gather(x, i)",
    "GatherElements": "v, i = TopK(x, k) y = GatherElements<axis = 1>(x, i)",
    "GatherND": "i = Constant<value_ints = [7]>() y = GatherND(x, i)",
    "Concat": "y = Concat<axis = 0>(x, other, x)",
    "Split": "y, z = Split<num_outputs = 2>(x)",
    "Expand": "s = Constant<value_ints = [2, 1, 1]>() y = Expand(x, s)",
    "Tile": "s = Constant<value_ints = [1, 2]>() y = Tile(x, s)",
    "Pad": "p = Constant<value_ints = [0, 1, 2, 0]>() y = Pad(x, p, bound)",
    "DepthToSpace": "y = DepthToSpace<blocksize = 2>(image)",
    "SpaceToDepth": "y = SpaceToDepth<blocksize = 2>(image)",
    "ReverseSequence": "s = Constant<value_ints = [3]>() t = Expand(s, rows) "
    "y = ReverseSequence<batch_axis = 0, time_axis = 1>(x, t)",
    "Trilu": "y = Trilu(x)",
    "Where": "c = Less(x, other) y = Where(c, x, other)",
    "ScatterND": "i = Constant<value = int64[1, 1] {2}>() u = Slice(x, zero, one) "
    'y = ScatterND<reduction = "max">(x, i, u)',
    "ScatterElements": "v, i = TopK(x, k) y = ScatterElements<axis = 1>(x, i, v)",
    "Compress": "c = Constant<value = bool[3] {1, 0, 1}>() y = Compress<axis = 0>(x, c)",
    "Max": "y = Max(x, other, bound)",
    "Min": "y = Min(other, x, bound)",
    "Clip": "n = Neg(bound) y = Clip(x, n, bound)",
    "ThresholdedRelu": "y = ThresholdedRelu<alpha = 0.3>(x)",
    "TopK": "y, i = TopK(x, k)",
    "ReduceMax": "y = ReduceMax(x, one) z = ReduceMax<keepdims = 0>(x, zero)",
    "ReduceMin": "y = ReduceMin(x, one) z = ReduceMin(x)",
    "OneHot": "i = Constant<value_ints = [3, 1]>() v = Slice(flat, zero, two) y = OneHot(i, k, v)",
    "EyeLike": "y = EyeLike(x)",
    "Constant": "y = Constant<value_float = 1.5>()",
    "ConstantOfShape": "s = Constant<value_ints = [2]>() y = ConstantOfShape(s)",
    "Unique": "y = Unique(x)",
    "CenterCropPad": "s = Constant<value_ints = [255, 300]>() y = CenterCropPad(x, s)",
    "Resize": 'y = Resize<mode = "nearest">(image, , scales)',
}
"""Texts by operator, of `x`: all values of the type, 256 x 256; `other`: the same, elsewhere."""
OPSET = {"EyeLike": 21, "Unique": 21, "ThresholdedRelu": 21}


def results(op: str, kind: str) -> dict[str, np.ndarray]:
    text = (
        f'<ir_version: 10, opset_import: ["": {OPSET.get(op, 22)}]> g '
        "(float[256, 256] x, float[256, 256] other, float[1, 4, 128, 128] image, float bound, "
        "float[65536] flat) => () "
        "<int64[1] k = {7}, int64[1] zero = {0}, int64[1] one = {1}, int64[1] two = {2}, "
        "int64[1] rows = {256}, float[4] scales = {1, 1, 1.7, 0.6}> { " + ONE[op] + " }"
    )
    proto = onnx.parser.parse_model(text)
    every = np.arange(65536, dtype=np.uint16).view(TYPES[kind]).astype(np.float32)
    feeds = {
        "x": every.reshape(256, 256),
        "other": every[::-1].reshape(256, 256),
        "image": np.random.default_rng(0).permutation(every).reshape(1, 4, 128, 128),
        "bound": np.float32(TYPES[kind].type(1.1)),
        "flat": every,
    }
    names = list(proto.graph.node[-1].output)
    names += [n for node in proto.graph.node for n in node.output if n in "yz" and n not in names]
    for name in names:
        proto.graph.output.append(onnx.ValueInfoProto(name=name))
    with np.errstate(all="ignore"):
        return Session(Model(proto)).run({n: np.asarray(v) for n, v in feeds.items()})


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("op", ONE)
def test_rounding_its_results_would_change_nothing(op: str, kind: str) -> None:
    for values in results(op, kind).values():
        if values.dtype != np.float32:
            continue
        with np.errstate(all="ignore"):
            rounded = values.astype(TYPES[kind]).astype(np.float32)
        assert ((rounded == values) | np.isnan(values)).all()
        assert (np.isnan(rounded) == np.isnan(values)).all()
        assert (np.signbit(rounded) == np.signbit(values))[~np.isnan(values)].all()


def test_every_operator_without_casts_is_proven() -> None:
    passed_on = CONTROL_FLOW | SEQUENCES | {"Upsample"}  # Upsample: Resize of opsets 7 to 9
    assert set(ONE) == EXACT - passed_on


def test_what_only_resembles_them_is_rounded() -> None:
    """The same operators with attributes that compute."""

    def exact(text: str, opset: int = 22) -> bool:
        node = onnx.parser.parse_node(text)
        return is_exact(node, opset)

    assert not exact('y = Resize<mode = "linear">(x, , s)')
    assert not exact('y = Resize<coordinate_transformation_mode = "tf_crop_and_resize">(x, r, s)')
    assert not exact('y = ScatterND<reduction = "add">(x, i, u)')
    assert not exact("y = Clip<max = 6.1>(x)", 10)
    assert exact("y = Clip(x)", 10)
    assert not exact("y = Pad<pads = [0, 1], value = 0.1>(x)", 10)
    assert not exact("y = Dropout(x, ratio, training)")
    assert not exact("y = Add(x, z)")
    assert not exact("y = own.Relu(x)")


def test_pooling_is_rounded_since_minus_infinity_comes_back_finite() -> None:
    """The reason why MaxPool is not among them: this holds for ONNX Runtime's FP32 kernel."""
    proto = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 22]> g (float[1, 1, 4, 4] x) => '
        "(float[1, 1, 4, 4] y) { y = MaxPool<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(x) }"
    )
    y = Session(Model(proto)).run({"x": np.full((1, 1, 4, 4), -np.inf, np.float32)})["y"]
    assert not is_exact(proto.graph.node[0], 22)
    assert np.isfinite(y[0, 0, 0, 0])
