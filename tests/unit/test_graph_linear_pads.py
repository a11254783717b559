"""Pad that becomes the padding of a convolution or a pool."""

from typing import Any

import models_graph as mg
import numpy as np
import pytest
from onnx import ModelProto, TensorProto
from test_graph_linear import proven, unchanged

LOWEST = float(np.finfo(np.float32).min)


def padded(
    op: str,
    around: list[int],
    /,
    *,
    rank: int = 4,
    value: float | None = None,
    opset: int = mg.OPSET,
    before: str | None = None,
    weight: tuple[int, ...] = (6, 4, 3, 3),
    mode: str | None = None,
    axes: list[int] | None = None,
    **attributes: Any,
) -> ModelProto:
    """x (2, 4, 8, ..) -> [before] -> Pad -> op -> y."""
    source, nodes = "x", []
    initializers: list[TensorProto] = []
    if before is not None:
        nodes.append(mg.node(before, ["x"], ["r"]))
        source = "r"
    if opset < 11:
        given = {} if value is None else {"value": value}
        nodes.append(mg.node("Pad", [source], ["p"], pads=around, **given))
    else:
        names = [source, "pads", "" if value is None else "value", "axes"]
        initializers.append(mg.tensor("pads", around, np.int64))
        if value is not None:
            initializers.append(mg.tensor("value", value, np.float32))
        if axes is not None:
            initializers.append(mg.tensor("axes", axes, np.int64))
        names = names[: 4 if axes is not None else 3 if value is not None else 2]
        nodes.append(mg.node("Pad", names, ["p"], **({} if mode is None else {"mode": mode})))
    if op.startswith("Conv"):
        nodes.append(mg.node(op, ["p", "W", "b"], ["y"], **attributes))
        initializers.append(mg.tensor("W", mg.weights(*weight)))
        outputs = weight[0] if op == "Conv" else weight[1]
        initializers.append(mg.tensor("b", mg.weights(outputs, seed=4)))
    else:
        nodes.append(mg.node(op, ["p"], ["y"], **attributes))
    x = mg.info("x", [2, 4, *[8] * (rank - 2)])
    return mg.model(nodes, [x], [mg.info("y", [None] * rank)], initializers, opset=opset)


def pads_of(model: Any) -> list[int]:
    node = model.proto.graph.node[-1]
    return next(list(a.ints) for a in node.attribute if a.name == "pads")


@pytest.mark.parametrize("opset", [9, 10, 11, 13, 18, 21])
@pytest.mark.parametrize("value", [None, 0.0])
def test_zeros_before_a_convolution(value: float | None, opset: int) -> None:
    proto = padded("Conv", [0, 0, 1, 2, 0, 0, 3, 4], value=value, opset=opset, pads=[1, 0, 0, 1])
    model = proven(proto, ("pad-conv",), ["Conv"])
    assert pads_of(model) == [2, 2, 3, 5]


@pytest.mark.parametrize(
    ("rank", "weight", "pads", "attributes"),
    [
        (3, (6, 4, 3), [0, 0, 1, 0, 0, 2], {"strides": [2]}),
        (4, (6, 2, 3, 3), [0, 0, 1, 1, 0, 0, 1, 1], {"group": 2, "auto_pad": "VALID"}),
        (4, (6, 4, 3, 3), [0, 0, 5, 5, 0, 0, 5, 5], {"dilations": [2, 2]}),
        (5, (6, 4, 3, 3, 3), [0, 0, 1, 0, 1, 0, 0, 0, 2, 0], {}),
    ],
)
def test_zeros_before_convolutions_of_all_kinds(
    rank: int, weight: tuple[int, ...], pads: list[int], attributes: dict[str, Any]
) -> None:
    proto = padded("Conv", pads, rank=rank, weight=weight, **attributes)
    proven(proto, ("pad-conv",), ["Conv"])


def test_pad_that_names_its_axes() -> None:
    model = proven(padded("Conv", [1, 2, 3, 4], value=0.0, axes=[-1, 2]), ("pad-conv",), ["Conv"])
    assert pads_of(model) == [2, 1, 4, 3]


@pytest.mark.parametrize("strides", [[1, 1], [2, 1]])
def test_zeros_before_a_transposed_convolution(strides: list[int]) -> None:
    pads = [0, 0, 1, 1, 0, 0, 0, 1]
    proto = padded(
        "ConvTranspose",
        pads,
        weight=(4, 6, 5, 5),
        pads=[2, 2, 1, 2],
        strides=strides,
        output_padding=[strides[0] - 1, 0],
    )
    model = proven(proto, ("pad-conv",), ["ConvTranspose"])
    assert pads_of(model) == [2 - strides[0], 1, 1, 1]


def test_transposed_convolution_that_cuts_off_less_stays() -> None:
    proto = padded("ConvTranspose", [0, 0, 1, 1, 0, 0, 1, 1], weight=(4, 6, 3, 3))
    unchanged(proto, "pad-conv", "cuts off less")


@pytest.mark.parametrize(
    ("pads", "changes", "why"),
    [
        ([0, 0, 1, 1, 0, 0, 1, 1], {"value": 0.5}, "pads with 0.5"),
        ([0, 0, 1, 1, 0, 0, 1, 1], {"mode": "reflect"}, "repeats the image (reflect)"),
        ([0, 0, -1, 1, 0, 0, 1, 1], {}, "cuts off"),
        ([0, 1, 1, 1, 0, 0, 1, 1], {"weight": (6, 5, 3, 3)}, "the batch or the channels"),
        ([0, 0, 1, 1, 0, 0, 1, 1], {"auto_pad": "SAME_LOWER"}, "chooses its padding itself"),
    ],
)
def test_other_padding_stays(pads: list[int], changes: dict[str, Any], why: str) -> None:
    unchanged(padded("Conv", pads, **changes), "pad-conv", why)


def test_padded_image_that_others_read_stays() -> None:
    proto = padded("Conv", [0, 0, 1, 1, 0, 0, 1, 1])
    proto.graph.output.append(mg.info("p", [2, 4, 10, 10]))
    unchanged(proto, "pad-conv", "used elsewhere")


def test_padding_that_is_computed_stays() -> None:
    proto = padded("Conv", [0, 0, 1, 1, 0, 0, 1, 1])
    pads = next(t for t in proto.graph.initializer if t.name == "pads")
    proto.graph.initializer.remove(pads)
    proto.graph.input.append(mg.info("pads", [8], np.int64))
    unchanged(proto, "pad-conv", "is not constant")


# Pools

AROUND = [0, 0, 1, 1, 0, 0, 0, 1]


@pytest.mark.parametrize("opset", [9, 12, 18])
@pytest.mark.parametrize("value", [-np.inf, LOWEST])
def test_lowest_before_a_max_pool(value: float, opset: int) -> None:
    proto = padded("MaxPool", AROUND, value=value, opset=opset, kernel_shape=[3, 3], strides=[2, 2])
    model = proven(proto, ("pad-pool",), ["MaxPool"])
    assert pads_of(model) == [1, 1, 0, 1]


@pytest.mark.parametrize("before", ["Relu", "Sigmoid", "Abs"])
def test_zeros_before_a_max_pool_of_what_is_never_negative(before: str) -> None:
    proto = padded("MaxPool", AROUND, before=before, kernel_shape=[3, 3], strides=[2, 2])
    proven(proto, ("pad-pool",), [before, "MaxPool"])


@pytest.mark.parametrize(("least", "fits"), [(0.0, True), (-1.0, False), (None, False)])
def test_zeros_before_a_max_pool_of_what_is_clipped(least: float | None, fits: bool) -> None:
    proto = padded("MaxPool", AROUND, before="Relu", kernel_shape=[3, 3])
    clip = proto.graph.node[0]
    clip.op_type = "Clip"
    clip.input.extend(["least" if least is not None else "", "most"])
    proto.graph.initializer.append(mg.tensor("most", 6.0, np.float32))
    if least is not None:
        proto.graph.initializer.append(mg.tensor("least", least, np.float32))
    if fits:
        proven(proto, ("pad-pool",), ["Clip", "MaxPool"])
    else:
        unchanged(proto, "pad-pool", "pads with 0")


def test_padding_that_counts_in_an_average() -> None:
    for own in ({}, {"pads": [1, 0, 1, 0], "count_include_pad": 1}):
        proto = padded("AveragePool", AROUND, kernel_shape=[3, 3], **own)
        model = proven(proto, ("pad-pool",), ["AveragePool"])
        assert pads_of(model) == [1 + bool(own), 1, 0 + bool(own), 1]
        attributes = {a.name: a.i for a in model.proto.graph.node[0].attribute}
        assert attributes["count_include_pad"] == 1


@pytest.mark.parametrize(
    ("op", "changes", "why"),
    [
        ("MaxPool", {}, "pads with 0"),
        ("MaxPool", {"value": -1.0}, "pads with -1"),
        ("MaxPool", {"value": -np.inf, "ceil_mode": 1}, "rounds up"),
        ("MaxPool", {"value": -np.inf, "dilations": [2, 1]}, "outside the image"),
        ("MaxPool", {"value": -np.inf, "auto_pad": "SAME_UPPER"}, "chooses its padding itself"),
        ("MaxPool", {"value": -np.inf, "kernel_shape": [1, 3]}, "outside the image"),
        ("AveragePool", {"value": 1.0}, "pads with 1"),
        ("AveragePool", {"ceil_mode": 1}, "rounds up"),
        ("AveragePool", {"pads": [1, 1, 1, 1]}, "do not count"),
    ],
)
def test_padding_that_a_pool_would_do_otherwise_stays(
    op: str, changes: dict[str, Any], why: str
) -> None:
    changes = {"kernel_shape": [3, 3], **changes}
    unchanged(padded(op, AROUND, **changes), "pad-pool", why)


def test_max_pool_whose_indices_are_used_keeps_its_pad() -> None:
    proto = padded("MaxPool", AROUND, value=-np.inf, kernel_shape=[3, 3])
    proto.graph.node[1].output.append("i")
    proto.graph.output.append(mg.info("i", [2, 4, 7, 8], np.int64))
    unchanged(proto, "pad-pool", "count in the padded image")
