"""Normalizations in the spellings of exporters: fused, equal in numbers, or refused with reason."""

from collections.abc import Callable
from typing import Any

import ml_dtypes
import models_graph as mg
import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto
from pair_metrics import sqnr_db

from trtforge.graph.catalog import OPTIONAL
from trtforge.graph.execute import Session
from trtforge.graph.inputs import random_feeds
from trtforge.graph.model import Model
from trtforge.graph.passes import PassRequest, run_passes
from trtforge.precision.cast import typed
from trtforge.precision.emulate import emulate
from trtforge.recipe.schema import Precision

D = 8
NORMS = ("instance-norm", "layer-norm", "rms-norm", "group-norm")


class Writer:
    """Writes nodes one after the other; a number becomes a constant."""

    def __init__(self, opset: int = 17, dtype: Any = np.float32) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[TensorProto] = []
        self.opset, self.dtype = opset, dtype

    def constant(self, values: Any, dtype: Any = None) -> str:
        name = f"k{len(self.initializers)}"
        array = np.asarray(values).astype(dtype or self.dtype)
        self.initializers.append(onnx.numpy_helper.from_array(array, name))
        return name

    def __call__(self, op: str, *inputs: Any, **attributes: Any) -> str:
        name = f"t{len(self.nodes)}"
        names = [one if isinstance(one, str) else self.constant(one) for one in inputs]
        self.nodes.append(mg.node(op, names, [name], **attributes))
        return name

    def mean(self, tensor: str, axes: list[int], keepdims: int = 1) -> str:
        if self.opset >= 18:
            where = self.constant(axes, np.int64)
            return self("ReduceMean", tensor, where, keepdims=keepdims)
        return self("ReduceMean", tensor, axes=axes, keepdims=keepdims)

    def model(self, result: str, dims: list[Any], dtype: Any = None, out: Any = None) -> ModelProto:
        given = dtype or self.dtype
        self.nodes.append(mg.node("Identity", [result], ["y"]))
        return mg.model(
            self.nodes,
            [mg.info("x", dims, given)],
            [mg.info("y", [None] * len(dims), out or given)],
            self.initializers,
            opset=self.opset,
            ir_version=10,
        )


def fused(proto: ModelProto, *use: str, limit: int = 23) -> tuple[list[str], Model, str]:
    """Run the passes (the clean-up, too); return operators, model and all that was refused."""
    onnx.checker.check_model(proto, full_check=True)
    names = ("identity", "common-subexpressions", *(use or NORMS), "dead-code")
    result = run_passes(Model(proto), PassRequest(use=names, prove=False, opset_limit=limit))
    onnx.checker.check_model(result.model.proto, full_check=True)
    again = run_passes(result.model, PassRequest(use=names, prove=False, opset_limit=limit))
    assert not any(outcome.rewrites for outcome in again.report.passes)
    refused = [n.reason for o in result.report.passes for n in o.notes if n.kind == "refused"]
    return mg.ops(result.model), result.model, "\n".join(refused)


def quality(before: Model, after: Model, shapes: dict[str, tuple[int, ...]]) -> float:
    feeds = random_feeds(before, shapes, 3)
    expected, found = Session(before).run(feeds), Session(after).run(feeds)
    return min(sqnr_db(expected[name], found[name]) for name in expected)


SQUARES: dict[str, Callable[[Writer, str], str]] = {
    "pow": lambda w, d: w("Pow", d, 2.0),
    "mul": lambda w, d: w("Mul", d, d),
}
QUOTIENTS: dict[str, Callable[[Writer, str, str], str]] = {
    "div-sqrt": lambda w, d, v: w("Div", d, w("Sqrt", v)),
    "div-pow": lambda w, d, v: w("Div", d, w("Pow", v, 0.5)),
    "mul-reciprocal": lambda w, d, v: w("Mul", w("Reciprocal", w("Sqrt", v)), d),
    "mul-one-over": lambda w, d, v: w("Mul", d, w("Div", 1.0, w("Sqrt", v))),
    "mul-pow": lambda w, d, v: w("Mul", d, w("Pow", v, -0.5)),
}


def layer_norm(
    w: Writer,
    x: str = "x",
    *,
    square: str = "pow",
    quotient: str = "div-sqrt",
    axes: tuple[int, ...] = (-1,),
    centre_twice: bool = False,
) -> str:
    centred = w("Sub", x, w.mean(x, list(axes)))
    variance = w.mean(SQUARES[square](w, centred), list(axes))
    if centre_twice:
        centred = w("Sub", x, w.mean(x, list(axes)))
    return QUOTIENTS[quotient](w, centred, w("Add", 1e-3, variance))


def rms_norm(w: Writer, x: str = "x", *, square: str = "pow", quotient: str = "div-sqrt") -> str:
    return QUOTIENTS[quotient](w, x, w("Add", w.mean(SQUARES[square](w, x), [-1]), 1e-3))


# LayerNormalization


@pytest.mark.parametrize("opset", [13, 17, 18])
@pytest.mark.parametrize("quotient", QUOTIENTS)
@pytest.mark.parametrize("square", SQUARES)
def test_layer_norm_spellings(square: str, quotient: str, opset: int) -> None:
    w = Writer(opset)
    n = layer_norm(w, square=square, quotient=quotient, centre_twice=opset == 13)
    y = w("Add", mg.weights(D, seed=2), w("Mul", n, mg.weights(1, 1, D)))
    proto = w.model(y, ["N", 5, D])
    operators, model, _ = fused(proto)
    assert operators == ["LayerNormalization"]
    assert model.opset == max(opset, 17)
    assert len(model.proto.graph.node[0].input) == 3
    assert quality(Model(proto), model, {"x": (2, 5, D)}) > 110


def test_two_axes_and_a_scale_without_bias() -> None:
    w = Writer()
    y = w("Mul", mg.weights(5, D), layer_norm(w, axes=(1, 2)))
    proto = w.model(y, ["N", 5, D])
    operators, model, _ = fused(proto)
    assert operators == ["LayerNormalization"]
    assert onnx.helper.get_node_attr_value(model.proto.graph.node[0], "axis") == -2
    assert quality(Model(proto), model, {"x": (2, 5, D)}) > 110


@pytest.mark.parametrize("has_scale", [True, False])
def test_tensorflow_multiplies_out(has_scale: bool) -> None:
    w = Writer()
    mean = w.mean("x", [2])
    centred = w("Sub", "x", mean)
    inverse = w("Reciprocal", w("Sqrt", w("Add", w.mean(w("Mul", centred, centred), [2]), 1e-3)))
    s = w("Mul", inverse, mg.weights(D)) if has_scale else inverse
    shift = w("Sub", mg.weights(D, seed=4), w("Mul", mean, s))
    proto = w.model(w("Add", w("Mul", "x", s), shift), [2, 5, D])
    operators, model, _ = fused(proto, "layer-norm-unscaled")
    assert operators == ["LayerNormalization"]
    assert quality(Model(proto), model, {"x": (2, 5, D)}) > 110


def test_a_norm_without_scale_is_fused_only_when_asked() -> None:
    w = Writer()
    proto = w.model(layer_norm(w), ["N", 5, D])
    assert "LayerNormalization" not in fused(proto)[0]
    assert "engines are larger" in fused(proto)[2]
    operators, model, _ = fused(proto, "layer-norm-unscaled")
    assert operators == ["LayerNormalization"]
    assert quality(Model(proto), model, {"x": (2, 5, D)}) > 110
    assert {"layer-norm-unscaled", "rms-norm-unscaled"} <= OPTIONAL


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("kind", ["layer", "rms"])
def test_casts_around_go_in_where_the_scale_is_narrow(kind: str, dtype: Any) -> None:
    narrow = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    w = Writer()
    wide = w("Cast", "x", to=TensorProto.FLOAT)
    n = layer_norm(w, wide) if kind == "layer" else rms_norm(w, wide)
    y = w("Mul", w.constant(mg.weights(D), dtype), w("Cast", n, to=narrow))
    proto = w.model(y, [2, 5, D], dtype)
    operators, model, _ = fused(proto)
    assert operators == [f"{'Layer' if kind == 'layer' else 'RMS'}Normalization"]
    if dtype is np.float16:  # ONNX Runtime has no BF16 Mul to compare with
        assert quality(Model(proto), model, {"x": (2, 5, D)}) > 60


def test_a_cast_after_the_difference_as_torchscript_has_it() -> None:
    w = Writer()
    wide = w("Cast", w("Sub", "x", w.mean("x", [-1])), to=TensorProto.FLOAT)
    variance = w("Add", w.mean(w("Pow", wide, 2.0), [-1]), 1e-3)
    n = w("Div", wide, w("Sqrt", variance))
    narrow = w("Cast", n, to=TensorProto.FLOAT16)
    proto = w.model(w("Mul", narrow, w.constant(mg.weights(D), np.float16)), [2, 5, D], np.float16)
    operators, model, _ = fused(proto)
    assert operators == ["LayerNormalization"]
    assert quality(Model(proto), model, {"x": (2, 5, D)}) > 60
    w.nodes[-2:] = []
    y = w("Mul", n, mg.weights(D))
    proto = w.model(y, [2, 5, D], np.float16, out=np.float32)
    operators, _, refused = fused(proto)
    assert "LayerNormalization" not in operators
    assert "another type than x, float16" in refused


def test_casts_stay_where_the_scale_is_wide() -> None:
    w = Writer()
    n = w("Mul", rms_norm(w, w("Cast", "x", to=TensorProto.FLOAT)), mg.weights(D))
    proto = w.model(w("Cast", n, to=TensorProto.FLOAT16), [2, 5, D], np.float16)
    operators, model, _ = fused(proto)
    assert operators == ["Cast", "RMSNormalization", "Cast"]
    assert quality(Model(proto), model, {"x": (2, 5, D)}) > 60


def _wrong_axis(w: Writer) -> str:
    return w("Mul", layer_norm(w, axes=(1,)), mg.weights(5, 1))


def _epsilon_outside(w: Writer) -> str:
    centred = w("Sub", "x", w.mean("x", [-1]))
    root = w("Sqrt", w.mean(w("Mul", centred, centred), [-1]))
    return w("Mul", w("Div", centred, w("Add", root, 1e-3)), mg.weights(D))


def _unbiased(w: Writer) -> str:
    centred = w("Sub", "x", w.mean("x", [-1]))
    mean = w.mean(w("Mul", centred, centred), [-1])
    variance = w("Div", w("Mul", mean, float(D)), float(D - 1))
    return w("Mul", w("Div", centred, w("Sqrt", w("Add", variance, 1e-3))), mg.weights(D))


def _used_elsewhere(w: Writer) -> str:
    n = w("Mul", layer_norm(w), mg.weights(D))
    return w("Add", n, w.nodes[1].output[0])  # x - mean(x)


def _other_numerator(w: Writer) -> str:
    centred = w("Sub", "x", w.mean("x", [-1]))
    variance = w.mean(w("Mul", centred, centred), [-1])
    return w("Mul", w("Div", "x", w("Sqrt", w("Add", variance, 1e-3))), mg.weights(D))


def _scale_elsewhere(w: Writer) -> str:
    return w("Mul", layer_norm(w), mg.weights(5, D))


@pytest.mark.parametrize(
    ("spelled", "why"),
    [
        (_wrong_axis, "are not the last ones"),
        (_epsilon_outside, "epsilon is added to the root"),
        (_unbiased, "not the mean of the squares"),
        (_used_elsewhere, "is used by"),
        (_other_numerator, "what the root divides"),
        (_scale_elsewhere, "has not one value for each of [8]"),
    ],
)
def test_near_misses_of_layer_norm_stay(spelled: Callable[[Writer], str], why: str) -> None:
    w = Writer()
    proto = w.model(spelled(w), ["N", 5, D])
    operators, model, refused = fused(proto)
    assert not {"LayerNormalization", "InstanceNormalization"} & set(operators)
    assert why in refused
    assert quality(Model(proto), model, {"x": (2, 5, D)}) == np.inf


def test_unknown_sizes_and_outputs_and_fp64_stay() -> None:
    w = Writer()
    assert "sizes of its axes" in fused(w.model(layer_norm(w), ["N", 5, "D"]))[2]
    w = Writer(dtype=np.float64)
    proto = w.model(w("Mul", layer_norm(w), mg.weights(D)), ["N", 5, D])
    assert "its type is float64" in fused(proto)[2]
    w = Writer()
    proto = w.model(w("Mul", layer_norm(w), mg.weights(D)), ["N", 5, D])
    proto.graph.output.append(mg.info(w.nodes[1].output[0], ["N", 5, D]))
    assert "is an output" in fused(proto)[2]


def test_an_opset_that_the_targets_lack_is_said() -> None:
    w = Writer(13)
    proto = w.model(w("Mul", layer_norm(w), mg.weights(D)), ["N", 5, D])
    operators, _, refused = fused(proto, limit=16)
    assert "LayerNormalization" not in operators
    assert "this needs opset 17" in refused


# RMSNormalization


@pytest.mark.parametrize("opset", [17, 18])
@pytest.mark.parametrize("quotient", QUOTIENTS)
@pytest.mark.parametrize("square", SQUARES)
def test_rms_norm_spellings(square: str, quotient: str, opset: int) -> None:
    w = Writer(opset)
    y = w("Mul", mg.weights(D), rms_norm(w, square=square, quotient=quotient))
    proto = w.model(w("Add", y, mg.weights(D, seed=1)), ["N", 5, D])
    operators, model, _ = fused(proto)
    assert operators == ["RMSNormalization", "Add"]
    assert model.opset == 23
    assert quality(Model(proto), model, {"x": (2, 5, D)}) > 110


def test_rms_norm_with_the_scale_at_the_root() -> None:
    w = Writer()
    inverse = w("Reciprocal", w("Sqrt", w("Add", w.mean(w("Mul", "x", "x"), [-1]), 1e-3)))
    proto = w.model(w("Mul", "x", w("Mul", inverse, mg.weights(D))), ["N", 5, D])
    operators, model, _ = fused(proto)
    assert operators == ["RMSNormalization"]
    assert quality(Model(proto), model, {"x": (2, 5, D)}) > 110


def test_rms_near_misses_stay() -> None:
    w = Writer()
    root = w("Add", w("Sqrt", w.mean(w("Mul", "x", "x"), [-1])), 1e-3)
    proto = w.model(w("Mul", w("Div", "x", root), mg.weights(D)), ["N", 5, D])
    assert "epsilon is added to the root" in fused(proto)[2]
    w = Writer()
    proto = w.model(rms_norm(w), ["N", 5, D])
    assert "engines are larger" in fused(proto)[2]
    assert fused(proto, "rms-norm-unscaled")[0] == ["RMSNormalization"]
    w = Writer()
    proto = w.model(w("Mul", rms_norm(w), mg.weights(D)), ["N", 5, D])
    assert "this needs opset 23" in fused(proto, limit=22)[2]


# InstanceNormalization and GroupNormalization


@pytest.mark.parametrize("has_scale", [True, False])
@pytest.mark.parametrize("quotient", QUOTIENTS)
def test_instance_norm_spellings(quotient: str, has_scale: bool) -> None:
    w = Writer()
    y = layer_norm(w, quotient=quotient, axes=(2, 3), square="mul")
    if has_scale:
        y = w("Add", w("Mul", y, mg.weights(D, 1, 1)), mg.weights(1, D, 1, 1, seed=1))
    proto = w.model(y, ["N", D, "H", "W"])
    operators, model, _ = fused(proto)
    assert operators == ["InstanceNormalization"]
    assert quality(Model(proto), model, {"x": (2, D, 4, 6)}) > 110


def group_norm(w: Writer, *, groups: int = 4, affine: bool = True, shape: Any = None) -> str:
    grouped = w("Reshape", "x", w.constant([0, groups, -1], np.int64))
    inner = w("InstanceNormalization", grouped, mg.weights(groups), mg.weights(groups, seed=1))
    y = w("Reshape", inner, shape or w("Shape", "x"))
    if affine:
        y = w("Mul", y, mg.weights(D, 1, 1, seed=2))
        y = w("Add", y, mg.weights(D, 1, 1, seed=3))
    return y


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("opset", [17, 18, 21])
def test_group_norm_as_pytorch_writes_it(opset: int, affine: bool) -> None:
    w = Writer(opset)
    proto = w.model(group_norm(w, affine=affine), ["N", D, "H", 6])
    operators, model, _ = fused(proto)
    assert operators == ["GroupNormalization"]
    assert model.opset == 21
    assert quality(Model(proto), model, {"x": (2, D, 4, 6)}) > 110


def test_group_norm_with_a_written_shape() -> None:
    w = Writer()
    shape = w.constant([2, D, 4, 6], np.int64)
    proto = w.model(group_norm(w, shape=shape), [2, D, 4, 6])
    assert fused(proto)[0] == ["GroupNormalization"]


def test_group_norm_near_misses_stay() -> None:
    w = Writer()
    other = w.constant([2, D, 6, 4], np.int64)
    refused = fused(w.model(group_norm(w, shape=other), [2, D, 4, 6]))[2]
    assert "may have another shape" in refused
    w = Writer()
    proto = w.model(group_norm(w), ["N", D, 4, 6])
    proto.graph.output.append(mg.info(w.nodes[0].output[0], [None, 4, None]))
    assert "is an output" in fused(proto)[2]
    w = Writer()
    assert "this needs opset 21" in fused(w.model(group_norm(w), ["N", D, 4, 6]), limit=20)[2]


# What precision makes of them


def _normalized(kind: str) -> tuple[ModelProto, tuple[int, ...]]:
    w = Writer()
    if kind in ("layer", "rms"):
        n = layer_norm(w) if kind == "layer" else rms_norm(w)
        y = w("Mul", n, mg.weights(D))
        return w.model(w("MatMul", y, mg.weights(D, D)), ["N", 5, D]), (2, 5, D)
    y = group_norm(w) if kind == "group" else layer_norm(w, axes=(2, 3))
    return w.model(w("Conv", y, mg.weights(D, D, 3, 3)), ["N", D, 6, 6]), (2, D, 6, 6)


@pytest.mark.parametrize("type_", ["fp16", "bf16"])
@pytest.mark.parametrize("kind", ["layer", "rms", "group", "instance"])
def test_fused_norms_are_typed_and_no_worse(kind: str, type_: str) -> None:
    proto, dims = _normalized(kind)
    model = fused(proto)[1]
    feeds = random_feeds(Model(proto), {"x": dims}, 1)
    expected = Session(Model(proto)).run(feeds)["y"]
    found = []
    for one in (Model(proto), model):
        result = typed(one, None, Precision(type=type_))
        found.append(sqnr_db(expected, Session(emulate(result.model)).run(feeds)["y"]))
    assert set(result.cast.nodes) == {type_}
    # Spelled out, the sum of squares stays FP32 without data: worth 1.5 dB in FP16.
    assert found[1] > found[0] - 2.0


@pytest.mark.parametrize("kind", ["layer", "rms", "group", "instance"])
def test_the_whole_table_fuses_and_proves_them(kind: str) -> None:
    proto, dims = _normalized(kind)
    request = PassRequest(shapes=({"x": dims},))
    result = run_passes(Model(proto), request)
    name = {"layer": "Layer", "rms": "RMS", "group": "Group", "instance": "Instance"}[kind]
    assert f"{name}Normalization" in mg.ops(result.model)
    assert len(mg.ops(result.model)) == 2
    assert result.report.proof.verdict == "pass"
