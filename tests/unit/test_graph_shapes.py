"""Sizes that are followed through the graph, rule by rule, are those that ONNX Runtime computes."""

from collections.abc import Sequence
from typing import Any

import models_graph as mg
import numpy as np
import onnx_graphsurgeon as gs
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper

from trtforge.graph.edit import Editor
from trtforge.graph.execute import Session
from trtforge.graph.facts import Dims, Facts
from trtforge.graph.fresh_names import Names
from trtforge.graph.model import Model
from trtforge.graph.nodes import bodies
from trtforge.graph.shape_values import MAX_ELEMENTS, Value, value_of
from trtforge.graph.shapes import walk
from trtforge.graph.symbols import Size

SIZES = ({"N": 2, "M": 3}, {"N": 5, "M": 4})
"""What the dynamic dimensions are in the first and in the second run."""

Known = dict[str, tuple[Dims | None, Value | None]]


def walked(proto: ModelProto, *, forget: bool = True) -> Known:
    """Walk all graphs of a model; what onnx inferred is forgotten, so that our rules must do."""
    model = Model(proto)
    graph = model.to_graph()
    facts, names = Facts.of(graph, model.proto, model.files), Names(graph)
    editors = [Editor(graph, facts, names)]
    editors += [Editor(b, facts, names) for n in graph.nodes for b in bodies(n)]
    known: Known = {}
    for editor in editors:
        if forget:
            for node in editor.nodes():
                for tensor in node.outputs:
                    facts.learn(tensor, editor.dtype(tensor), None)
        walk(editor)
        for node in editor.nodes():
            known.update((t.name, (editor.dims(t), value_of(t))) for t in node.outputs if t.name)
    return known


def integers(name: str, *values: int) -> TensorProto:
    return mg.tensor(name, values, np.int64)


def scalar(name: str, value: int) -> TensorProto:
    return mg.tensor(name, value, np.int64)


def built(
    nodes: Sequence[NodeProto], *constants: TensorProto, dims: Any = None, opset: int = 18
) -> ModelProto:
    """A model with the inputs x [N, 4, M] and z [M, 3] that gives back its last tensor."""
    result = nodes[-1].output[0]
    inputs = [mg.info("x", dims or ["N", 4, "M"]), mg.info("z", ["M", 3])]
    output = helper.make_empty_tensor_value_info(result)
    return mg.model(nodes, inputs, [output], constants, opset=opset)


def checked(proto: ModelProto) -> Known:
    """Compare all that is known with what is computed, at two sets of sizes."""
    known = walked(proto)
    names = list(known)
    graph_inputs = {info.name: info for info in proto.graph.input}
    for sizes in SIZES:
        feeds = {}
        for name, info in graph_inputs.items():
            dims = [d.dim_value or sizes[d.dim_param] for d in info.type.tensor_type.shape.dim]
            feeds[name] = mg.weights(*dims)
        found = Session(Model(proto), outputs=names).run(feeds)
        for name, (dims, value) in known.items():
            _check(name, dims, value, found[name], sizes)
    return known


def _check(
    name: str, dims: Dims | None, value: Value | None, found: np.ndarray, sizes: dict[str, int]
) -> None:
    if dims is not None:
        assert len(dims) == found.ndim, name
        for dim, size in zip(dims, found.shape, strict=True):
            assert dim is None or Size.of(dim).at(sizes) == size, (name, dims, found.shape)
    if value is not None:
        assert value.rank == found.ndim, name
        for size, number in zip(value.elements, found.reshape(-1).tolist(), strict=True):
            assert size is None or size.at(sizes) == number, (name, value, found)


def dims_of(proto: ModelProto) -> Dims | None:
    return checked(proto)[proto.graph.output[0].name][0]


def texts_of(proto: ModelProto) -> list[str | None] | None:
    value = checked(proto)[proto.graph.output[0].name][1]
    return None if value is None else [None if s is None else s.text for s in value.elements]


# Values


def shape_then(op: str, *more: str, **attrs: Any) -> list[NodeProto]:
    return [mg.node("Shape", ["x"], ["s"]), mg.node(op, ["s", *more], ["r"], **attrs)]


@pytest.mark.parametrize(
    ("attrs", "expected"),
    [
        ({}, ["N", "4", "M"]),
        ({"start": 1}, ["4", "M"]),
        ({"end": -1}, ["N", "4"]),
        ({"start": -2, "end": 99}, ["4", "M"]),
        ({"start": 2, "end": 1}, []),
        ({"start": -99, "end": 1}, ["N"]),
    ],
)
def test_shape(attrs: dict[str, int], expected: list[str]) -> None:
    assert texts_of(built([mg.node("Shape", ["x"], ["s"], **attrs)])) == expected


def test_size() -> None:
    assert texts_of(built([mg.node("Size", ["x"], ["s"])])) == ["4*M*N"]


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        (scalar("i", -1), ["M"]),
        (integers("i", 2, 0), ["M", "N"]),
        (integers("i", -3), ["N"]),
        (integers("i"), []),
        (mg.tensor("i", 1, np.int32), ["4"]),
    ],
)
@pytest.mark.parametrize("axis", [0, -1])
def test_gather(index: TensorProto, expected: list[str], axis: int) -> None:
    assert texts_of(built(shape_then("Gather", "i", axis=axis), index)) == expected


BIG = 2**63 - 1


@pytest.mark.parametrize(
    ("start", "end", "step", "expected"),
    [
        (0, 2, 1, ["N", "4"]),
        (-2, BIG, 1, ["4", "M"]),
        (0, -1, 1, ["N", "4"]),
        (-99, 99, 2, ["N", "M"]),
        (2, 1, 1, []),
        (2, -BIG, -1, ["M", "4", "N"]),
        (-1, 0, -1, ["M", "4"]),
        (99, -99, -2, ["M", "N"]),
        (-1, -3, -1, ["M", "4"]),
        (0, 2, -1, []),
        (-99, -99, -1, ["N"]),  # a start before the first is the first, unlike in Python
        (1, 9, -1, []),
        (BIG, -BIG, -99, ["M"]),
    ],
)
def test_slice(start: int, end: int, step: int, expected: list[str]) -> None:
    nodes = shape_then("Slice", "a", "e", "x0", "st")
    constants = (integers("a", start), integers("e", end), integers("x0", 0), integers("st", step))
    assert texts_of(built(nodes, *constants)) == expected


def test_slice_of_nothing_and_without_steps() -> None:
    none = shape_then("Slice", "e", "e")
    none = [*none, mg.node("Slice", ["r", "b", "c", "x0", "st"], ["t"])]
    constants = (integers("e", 3), integers("b", 9), integers("c", -9), integers("x0", -1))
    assert texts_of(built(none, *constants, integers("st", -1))) == []
    assert texts_of(built(shape_then("Slice", "o", "e"), integers("o", 1), integers("e", 3))) == [
        "4",
        "M",
    ]


def test_concat_with_parts_of_unknown_values() -> None:
    nodes = [
        mg.node("Shape", ["x"], ["s"]),
        mg.node("Shape", ["z"], ["s2"]),
        mg.node("Abs", ["s2"], ["s3"]),
        mg.node("Concat", ["s", "s3", "two", "s2"], ["r"], axis=0),
    ]
    assert texts_of(built(nodes, integers("two", -1, 0))) == [
        "N",
        "4",
        "M",
        None,
        None,
        "-1",
        "0",
        "M",
        "3",
    ]


def test_concat_of_unknown_length_and_of_too_many() -> None:
    nodes = [
        mg.node("Shape", ["x"], ["s"]),
        mg.node("NonZero", ["z"], ["nz"]),
        mg.node("Flatten", ["nz"], ["f"], axis=0),
        mg.node("Squeeze", ["f", "o"], ["v"]),
        mg.node("Concat", ["s", "v"], ["r"], axis=0),
    ]
    assert texts_of(built(nodes, integers("o", 0))) is None
    nodes = [mg.node("Shape", ["x"], ["s"]), mg.node("Concat", ["s"] * 22, ["r"], axis=-1)]
    assert MAX_ELEMENTS < 66
    assert texts_of(built(nodes)) is None


def test_between_scalars_and_vectors() -> None:
    to_scalar = [*shape_then("Gather", "i"), mg.node("Squeeze", ["r", "o"], ["q"])]
    first = checked(built(to_scalar, integers("i", 2), integers("o", 0)))["q"][1]
    assert first == Value((Size.of("M"),), 0)
    for axes, rank in (((0,), 1), ((-1,), 1), ((0, 1), None)):
        nodes = [mg.node("Size", ["x"], ["s"]), mg.node("Unsqueeze", ["s", "o"], ["q"])]
        found = checked(built(nodes, integers("o", *axes)))["q"]
        assert found[1] == (None if rank is None else Value((Size.of("4*M*N"),), rank))
        assert found[0] == (1,) * len(axes)
    old = [mg.node("Size", ["x"], ["s"]), mg.node("Unsqueeze", ["s"], ["q"], axes=[0])]
    assert texts_of(built(old, opset=11)) == ["4*M*N"]


@pytest.mark.parametrize(("target", "rank"), [((-1,), 1), ((1,), 1), ((), 0)])
def test_reshape_of_a_value(target: tuple[int, ...], rank: int) -> None:
    nodes = [mg.node("Size", ["x"], ["s"]), mg.node("Reshape", ["s", "t"], ["r"])]
    found = checked(built(nodes, integers("t", *target)))["r"]
    assert found == ((1,) * rank, Value((Size.of("4*M*N"),), rank))
    nodes = [mg.node("Size", ["x"], ["s"]), mg.node("Reshape", ["s", "t"], ["r"])]
    assert checked(built(nodes, integers("t", 1, 1)))["r"] == ((1, 1), None)


@pytest.mark.parametrize("to", [np.int32, np.int64])
def test_cast(to: type) -> None:
    data_type = helper.np_dtype_to_tensor_dtype(np.dtype(to))
    assert texts_of(built(shape_then("Cast", to=data_type))) == ["N", "4", "M"]


def test_casts_that_lose_values() -> None:
    assert texts_of(built(shape_then("Cast", to=TensorProto.FLOAT))) is None
    known = [mg.node("Shape", ["z"], ["s"], start=1), mg.node("Cast", ["s"], ["r"], to=9)]
    assert texts_of(built(known)) == ["1"]
    assert texts_of(built(shape_then("Cast", to=TensorProto.BOOL))) is None
    big = [*shape_then("Mul", "big"), mg.node("Cast", ["r"], ["q"], to=TensorProto.INT32)]
    assert texts_of(built(big, integers("big", 0, 2**33, 1))) == ["0", None, "M"]


@pytest.mark.parametrize(
    ("op", "other", "expected"),
    [
        ("Add", (1,), ["1+N", "5", "1+M"]),
        ("Add", (1, 2, 3), ["1+N", "6", "3+M"]),
        ("Sub", (1,), ["-1+N", "3", "-1+M"]),
        ("Mul", (-2,), ["-2*N", "-8", "-2*M"]),
        ("Mul", (0, 2**62, 1), ["0", None, "M"]),  # it wraps around
        ("Div", (2,), ["(N)//(2)", "2", "(M)//(2)"]),
        ("Div", (-3,), [None, "-1", None]),
        ("Div", (1, -4, 3), ["N", "-1", "(M)//(3)"]),
        ("Equal", (-1,), ["0", "0", "0"]),
        ("Equal", (4,), [None, "1", None]),
        ("Less", (5,), [None, "1", None]),
        ("Greater", (5,), [None, "0", None]),
        ("Max", (5,), [None, "5", None]),
        ("Min", (5,), [None, "4", None]),
    ],
)
def test_arithmetic(op: str, other: tuple[int, ...], expected: list[str | None]) -> None:
    assert texts_of(built(shape_then(op, "c"), integers("c", *other))) == expected


def test_comparisons_of_sizes() -> None:
    nodes = [*shape_then("Add", "one"), mg.node("Equal", ["r", "s"], ["e"])]
    assert texts_of(built(nodes, integers("one", 1))) == ["0"] * 3
    nodes = [*shape_then("Add", "zero"), mg.node("Equal", ["s", "r"], ["e"])]
    assert texts_of(built(nodes, integers("zero", 0))) == ["1"] * 3
    nodes = [*shape_then("Add", "zero"), mg.node("Equal", ["s", "r"], ["e"])]
    nodes.append(mg.node("Not", ["e"], ["n"]))
    assert texts_of(built(nodes, integers("zero", 0))) == ["0"] * 3


def test_extremes_of_one_and_of_three() -> None:
    for op, expected in (("Max", "9"), ("Min", "2")):
        nodes = [mg.node("Shape", ["z"], ["s"], start=1), mg.node(op, ["s", "a", "b"], ["r"])]
        assert texts_of(built(nodes, integers("a", 9), scalar("b", 2))) == [expected]
        nodes = [mg.node("Shape", ["z"], ["s"], start=1), mg.node(op, ["s"], ["r"])]
        assert texts_of(built(nodes)) == ["3"]


def test_the_way_exporters_spell_expand() -> None:
    nodes = [
        *shape_then("Equal", "minus"),
        mg.node("Where", ["known", "s", "ones"], ["w"]),
    ]
    constants = [integers("minus", -1, 4, -1), integers("ones", 7, 7, 7)]
    known = mg.tensor("known", [True, False, True], np.bool_)
    assert texts_of(built(nodes, *constants, known)) == ["N", "7", "M"]
    nodes[-1] = mg.node("Where", ["r", "s", "ones"], ["w"])
    assert texts_of(built(nodes, *constants)) == ["7", "4", "7"]
    constants[0] = integers("minus", 5, 4, -1)
    assert texts_of(built(nodes, *constants)) == [None, "4", "7"]
    nodes[-1] = mg.node("Where", ["r", "s", "s"], ["w"])
    assert texts_of(built(nodes, *constants)) == ["N", "4", "M"]
    nodes = [
        *shape_then("ConstantOfShape", value=integers("", 1)),
        mg.node("Shape", ["r"], ["q"]),
    ]
    assert texts_of(built(nodes)) == ["N", "4", "M"]


@pytest.mark.parametrize(
    ("count", "expected"),
    [((3,), ["2"] * 3), ((0,), []), ((), ["2"]), ((2, 1), None), ((65,), None)],
)
def test_fills(count: tuple[int, ...], expected: list[str] | None) -> None:
    proto = built(
        [mg.node("ConstantOfShape", ["c"], ["r"], value=integers("", 2))], integers("c", *count)
    )
    assert texts_of(proto) == expected
    floats = built([mg.node("ConstantOfShape", ["c"], ["r"])], integers("c", *count))
    assert texts_of(floats) is None


@pytest.mark.parametrize(
    ("index", "shape", "expected"),
    [
        (integers("i", 0), (3,), ["N"] * 3),
        (scalar("i", 0), (2,), ["N"] * 2),
        (scalar("i", 0), (), ["N"]),
        (integers("i", 0, 2), (1,), ["N", "M"]),
        (integers("i", 0, 2), (2,), ["N", "M"]),
        (integers("i", 0, 2), (), ["N", "M"]),
        (integers("i", 0), (2, 2), None),
    ],
)
def test_expand_of_a_value(
    index: TensorProto, shape: tuple[int, ...], expected: list[str] | None
) -> None:
    nodes = [*shape_then("Gather", "i"), mg.node("Expand", ["r", "e"], ["q"])]
    assert texts_of(built(nodes, index, integers("e", *shape))) == expected


@pytest.mark.parametrize(
    ("attrs", "axes", "expected"),
    [
        ({}, None, ["4*M*N"]),
        ({"keepdims": 0}, None, ["4*M*N"]),
        ({"keepdims": 0}, (0,), ["4*M*N"]),
        ({"noop_with_empty_axes": 1}, None, None),
        ({"noop_with_empty_axes": 1}, (-1,), ["4*M*N"]),
    ],
)
def test_products(
    attrs: dict[str, int], axes: tuple[int, ...] | None, expected: list[str] | None
) -> None:
    more = () if axes is None else ("a",)
    constants = () if axes is None else (integers("a", *axes),)
    assert texts_of(built(shape_then("ReduceProd", *more, **attrs), *constants)) == expected


@pytest.mark.parametrize(
    ("start", "stop", "step", "expected"),
    [(0, 3, 1, ["0", "1", "2"]), (5, 0, -2, ["5", "3", "1"]), (2, 2, 1, []), (0, 99, 1, None)],
)
def test_range(start: int, stop: int, step: int, expected: list[str] | None) -> None:
    constants = (scalar("a", start), scalar("b", stop), scalar("c", step))
    proto = built([mg.node("Range", ["a", "b", "c"], ["r"])], *constants)
    assert texts_of(proto) == expected
    assert dims_of(proto) in ((len(range(start, stop, step)),), None)


def test_identity_hands_values_on() -> None:
    assert texts_of(built(shape_then("Identity"))) == ["N", "4", "M"]


def test_constants_that_are_no_shapes() -> None:
    for constant in (
        mg.tensor("c", [1.0], np.float32),
        mg.tensor("c", [[1]], np.int64),
        mg.tensor("c", np.zeros(MAX_ELEMENTS + 1), np.int64),
        mg.tensor("c", [1], np.uint8),
    ):
        array = gs.Constant("c", mg.numpy_helper.to_array(constant))
        assert value_of(array) is None
    assert value_of(gs.Constant("c", np.asarray([True, False]))) == Value(
        (Size.of(1), Size.of(0)), 1
    )


# Dimensions


@pytest.mark.parametrize(
    ("target", "allow_zero", "expected"),
    [
        ((0, -1), 0, ("N", "4*M")),
        ((0, 0, 0), 0, ("N", 4, "M")),
        ((-1, 4), 0, ("M*N", 4)),
        ((0, 2, 2, -1), 0, ("N", 2, 2, "M")),
        ((-1,), 0, ("4*M*N",)),
        ((-1, 4, 1), 1, ("M*N", 4, 1)),
        ((-1, 8), 0, (None, 8)),
    ],
)
def test_reshape(target: tuple[int, ...], allow_zero: int, expected: Dims) -> None:
    attrs = {"allowzero": 1} if allow_zero else {}
    proto = built([mg.node("Reshape", ["x", "t"], ["y"], **attrs)], integers("t", *target))
    if target == (-1, 8):
        assert walked(proto)["y"][0] == expected  # 3 * 2 * 4 is a multiple of 8, 5 * 4 * 4 too
    assert dims_of(proto) == expected


def test_reshape_by_computed_targets() -> None:
    nodes = [
        mg.node("Shape", ["x"], ["s"]),
        mg.node("Slice", ["s", "a", "b"], ["n"]),
        mg.node("Concat", ["n", "two", "minus"], ["t"], axis=0),
        mg.node("Reshape", ["x", "t"], ["y"]),
    ]
    constants = (
        integers("a", 0),
        integers("b", 1),
        integers("two", 2),
        integers("minus", -1),
    )
    assert dims_of(built(nodes, *constants)) == ("N", 2, "2*M")
    nodes[2] = mg.node("Concat", ["n", "u", "two"], ["t"], axis=0)
    nodes[2:2] = [
        mg.node("NonZero", ["one"], ["nz"]),
        mg.node("Flatten", ["nz"], ["fl"], axis=0),
        mg.node("Shape", ["fl"], ["fs"], end=1),
        mg.node("Abs", ["m2"], ["u0"]),
        mg.node("Add", ["u0", "m2"], ["u1"]),
        mg.node("Sub", ["u1", "one"], ["u"]),
    ]
    unknown = (integers("one", 1), integers("m2", -3))
    assert dims_of(built(nodes, *constants, *unknown)) == ("N", "2*M", 2)


@pytest.mark.parametrize(
    ("op", "other", "expected"),
    [
        ("Add", (4, 1), ("N", 4, "M")),
        ("Mul", (2, 1, 1, 1), (2, "N", 4, "M")),
        ("Where", (1,), ("N", 4, "M")),
        ("Sum", (1, 4, 1), ("N", 4, "M")),
        ("PRelu", (4, 1), ("N", 4, "M")),
        ("Max", (), ("N", 4, "M")),
    ],
)
def test_broadcasting(op: str, other: tuple[int, ...], expected: Dims) -> None:
    inputs = ["f", "x", "c"] if op == "Where" else ["x", "c"]
    constants = [mg.tensor("c", mg.weights(*other)), mg.tensor("f", [True], np.bool_)]
    assert dims_of(built([mg.node(op, inputs, ["y"])], *constants)) == expected


def test_broadcasting_against_each_other() -> None:
    nodes = [
        mg.node("Transpose", ["z"], ["t"]),
        mg.node("Unsqueeze", ["z", "o"], ["u"]),
        mg.node("MatMul", ["x", "u"], ["m"]),
        mg.node("ReduceMax", ["m", "o"], ["r"], keepdims=1),
        mg.node("Sub", ["m", "r"], ["d"]),
        mg.node("Softmax", ["d"], ["y"], axis=-1),
    ]
    known = checked(built(nodes, integers("o", 0)))
    assert {name: dims for name, (dims, _) in known.items()} == {
        "t": (3, "M"),
        "u": (1, "M", 3),
        "m": ("N", 4, 3),
        "r": (1, 4, 3),
        "d": ("N", 4, 3),
        "y": ("N", 4, 3),
    }


@pytest.mark.parametrize(
    ("op", "attrs", "expected"),
    [
        ("Transpose", {}, ("M", 4, "N")),
        ("Transpose", {"perm": [2, 0, 1]}, ("M", "N", 4)),
        ("Relu", {}, ("N", 4, "M")),
        ("Shape", {}, (3,)),
        ("Shape", {"start": -1}, (1,)),
        ("ReduceSum", {}, (1, 1, 1)),
        ("ReduceSum", {"keepdims": 0}, ()),
        ("ReduceMean", {"noop_with_empty_axes": 1}, ("N", 4, "M")),
    ],
)
def test_operators_of_one_input(op: str, attrs: dict[str, Any], expected: Dims) -> None:
    assert dims_of(built([mg.node(op, ["x"], ["y"], **attrs)])) == expected


@pytest.mark.parametrize("op", ["ReduceMax", "ReduceL2", "ReduceLogSumExp", "ReduceSumSquare"])
@pytest.mark.parametrize(
    ("axes", "keep", "expected"),
    [
        ((-1,), 1, ("N", 4, 1)),
        ((0, -1), 0, (4,)),
        ((1,), 0, ("N", "M")),
        ((), 1, (1, 1, 1)),
    ],
)
def test_reductions(op: str, axes: tuple[int, ...], keep: int, expected: Dims) -> None:
    nodes = [mg.node(op, ["x", "a"], ["y"], keepdims=keep)]
    assert dims_of(built(nodes, integers("a", *axes))) == expected
    if axes:
        nodes = [mg.node(op, ["x"], ["y"], keepdims=keep, axes=axes)]
        assert dims_of(built(nodes, opset=11)) == expected


def test_reductions_over_axes_that_are_computed() -> None:
    nodes = [
        mg.node("Shape", ["z"], ["s"], end=1),
        mg.node("Less", ["s", "c"], ["l"]),
        mg.node("Cast", ["l"], ["a"], to=TensorProto.INT64),
        mg.node("ReduceMax", ["x", "a"], ["y"], keepdims=0),
    ]
    assert dims_of(built(nodes, integers("c", 4))) is None


@pytest.mark.parametrize(
    ("op", "axes", "expected"),
    [
        ("Unsqueeze", (0, -1), (1, "N", 4, "M", 1)),
        ("Unsqueeze", (-2,), ("N", 4, 1, "M")),
        ("Unsqueeze", (2, 0), (1, "N", 1, 4, "M")),
    ],
)
def test_new_axes(op: str, axes: tuple[int, ...], expected: Dims) -> None:
    nodes = [mg.node(op, ["x", "a"], ["y"]), mg.node("Squeeze", ["y", "a"], ["q"])]
    known = checked(built(nodes, integers("a", *axes)))
    assert known["y"][0] == expected
    assert known["q"][0] == ("N", 4, "M")


def test_squeeze_of_axes_that_are_left_out() -> None:
    nodes = [mg.node("Squeeze", ["x"], ["y"])]
    assert dims_of(built(nodes)) is None  # N may be 1
    nodes = [mg.node("Squeeze", ["x", "a"], ["y"])]
    assert dims_of(built(nodes, integers("a"))) is None


@pytest.mark.parametrize("axis", [0, -1, 1])
def test_concat(axis: int) -> None:
    nodes = [mg.node("Relu", ["x"], ["r"]), mg.node("Concat", ["x", "r", "x"], ["y"], axis=axis)]
    expected = {0: ("3*N", 4, "M"), -1: ("N", 4, "3*M"), 1: ("N", 12, "M")}[axis]
    assert dims_of(built(nodes)) == expected


def test_concat_takes_from_one_what_another_does_not_say() -> None:
    nodes = [
        mg.node("Slice", ["x", "a", "b", "c", "d"], ["r"]),
        mg.node("Concat", ["r", "x"], ["y"], axis=0),
        mg.node("Concat", ["x", "r"], ["w"], axis=1),
    ]
    constants = (integers("a", -1), integers("b", -99), integers("c", 1), integers("d", -1))
    known = checked(built(nodes, *constants))
    assert known["r"][0] == ("N", None, "M")
    assert known["y"][0] == ("2*N", 4, "M")
    assert known["w"][0] == ("N", None, "M")


@pytest.mark.parametrize(
    ("index", "axis", "expected"),
    [
        (scalar("i", 1), 1, ("N", "M")),
        (integers("i", 1, 0), -1, ("N", 4, 2)),
        (mg.tensor("i", [[0, 1], [1, 0]], np.int64), 0, (2, 2, 4, "M")),
    ],
)
def test_gather_of_rows(index: TensorProto, axis: int, expected: Dims) -> None:
    assert dims_of(built([mg.node("Gather", ["x", "i"], ["y"], axis=axis)], index)) == expected


@pytest.mark.parametrize(
    ("attrs", "expected"),
    [({}, ("M", 2)), ({"transB": 1}, None), ({"transA": 1}, None)],
)
def test_gemm(attrs: dict[str, int], expected: Dims | None) -> None:
    weight = {"transB": (2, 3)}.get(next(iter(attrs), ""), (3, 2))
    nodes = [mg.node("Transpose", ["z"], ["t"])]
    source = "t" if "transA" in attrs else "z"
    nodes.append(mg.node("Gemm", [source, "w"], ["y"], **attrs))
    assert dims_of(built(nodes, mg.tensor("w", mg.weights(*weight)))) == ("M", 2)


def test_products_of_vectors_are_not_followed() -> None:
    nodes = [mg.node("MatMul", ["z", "v"], ["y"])]
    assert dims_of(built(nodes, mg.tensor("v", mg.weights(3)))) is None


@pytest.mark.parametrize(
    ("starts", "ends", "axes", "steps", "expected"),
    [
        ((0,), (2,), (1,), None, ("N", 2, "M")),
        ((-3, 0), (-1, BIG), (-2, 0), (1, 1), ("N", 2, "M")),
        ((1,), (3,), (0,), None, (None, 4, "M")),
        ((3,), (0,), (1,), (-1,), ("N", None, "M")),
        ((0, 1), (BIG, 3), None, None, ("N", 2, "M")),
        ((3,), (1,), (1,), None, ("N", 0, "M")),
        ((0,), (2**31 - 1,), (2,), (1,), ("N", 4, "M")),
    ],
)
def test_slices(
    starts: tuple[int, ...],
    ends: tuple[int, ...],
    axes: tuple[int, ...] | None,
    steps: tuple[int, ...] | None,
    expected: Dims,
) -> None:
    constants = [integers("a", *starts), integers("b", *ends)]
    for name, part in (("c", axes), ("d", steps)):
        if part is not None:
            constants.append(integers(name, *part))
    inputs = ["x", *(constant.name for constant in constants)]
    assert dims_of(built([mg.node("Slice", inputs, ["y"])], *constants)) == expected


def test_slices_up_to_what_is_there() -> None:
    nodes = [
        mg.node("Shape", ["z"], ["e"], end=1),
        mg.node("Slice", ["x", "zero", "e", "last"], ["y"]),
    ]
    constants = (integers("zero", 0), integers("last", 2))
    assert dims_of(built(nodes, *constants)) == ("N", 4, "M")


def test_range_over_a_dimension() -> None:
    nodes = [
        mg.node("Shape", ["x"], ["s"]),
        mg.node("Gather", ["s", "i"], ["n"]),
        mg.node("Range", ["zero", "n", "one"], ["r"]),
    ]
    constants = (scalar("i", 0), scalar("zero", 0), scalar("one", 1), scalar("two", 2))
    assert dims_of(built(nodes, *constants)) == ("N",)
    for bounds in (("zero", "n", "two"), ("one", "n", "one"), ("n", "zero", "one")):
        nodes[-1] = mg.node("Range", bounds, ["r"])
        assert dims_of(built(nodes, *constants)) in ((None,), None)


def test_expand() -> None:
    nodes = [mg.node("Shape", ["x"], ["s"]), mg.node("Expand", ["c", "s"], ["y"])]
    assert dims_of(built(nodes, mg.tensor("c", mg.weights(4, 1)))) == ("N", 4, "M")
    nodes = [mg.node("Expand", ["z", "s"], ["y"])]
    assert dims_of(built(nodes, integers("s", 2, 1, 1))) == (2, "M", 3)


@pytest.mark.parametrize(
    ("axis", "given", "count", "expected"),
    [
        (1, (3, 1), 2, [("N", 3, "M"), ("N", 1, "M")]),
        (-2, (1, 1, 2), 3, [("N", 1, "M"), ("N", 1, "M"), ("N", 2, "M")]),
        (1, None, 3, [("N", 2, "M"), ("N", 2, "M"), ("N", 0, "M")]),
        (1, None, 2, [("N", 2, "M"), ("N", 2, "M")]),
        (0, None, 2, [(None, 4, "M"), (None, 4, "M")]),
    ],
)
def test_split(axis: int, given: tuple[int, ...] | None, count: int, expected: list[Dims]) -> None:
    names = [f"p{index}" for index in range(count)]
    if given is not None:
        nodes = [mg.node("Split", ["x", "c"], names, axis=axis)]
        proto = built(nodes, integers("c", *given))
    else:
        proto = built([mg.node("Split", ["x"], names, axis=axis, num_outputs=count)])
    is_run = given is not None or count == 2  # ONNX Runtime refuses a part of nothing
    known = checked(proto) if is_run else walked(proto)
    assert [known[name][0] for name in names] == expected
    if given is not None:
        old = built([mg.node("Split", ["x"], names, axis=axis, split=given)], opset=11)
        assert [checked(old)[name][0] for name in names] == expected


# Bodies, and models that are not what they should be


def test_bodies_see_what_is_around_them() -> None:
    then = helper.make_graph(
        [mg.node("Reshape", ["x", "t"], ["u"]), mg.node("Add", ["u", "one"], ["v"])],
        "t",
        [],
        [helper.make_empty_tensor_value_info("v")],
    )
    other = helper.make_graph(
        [mg.node("Reshape", ["x", "t2"], ["w"])],
        "e",
        [],
        [helper.make_empty_tensor_value_info("w")],
    )
    nodes = [
        mg.node("Shape", ["x"], ["s"]),
        mg.node("Slice", ["s", "a", "b"], ["n"]),
        mg.node("Concat", ["n", "minus"], ["t"], axis=0),
        mg.node("If", ["flag"], ["y"], then_branch=then, else_branch=other),
    ]
    constants = (
        integers("a", 0),
        integers("b", 1),
        integers("minus", -1),
        integers("t2", 0, -1),
        mg.tensor("one", [1.0], np.float32),
        mg.tensor("flag", True, np.bool_),
    )
    known = walked(built(nodes, *constants))
    assert known["u"][0] == known["v"][0] == known["w"][0] == ("N", "4*M")


def test_what_a_loop_carries_is_unknown() -> None:
    body = helper.make_graph(
        [
            mg.node("Concat", ["v", "v"], ["v2"], axis=0),
            mg.node("Shape", ["v"], ["sv"]),
            mg.node("Identity", ["c"], ["c2"]),
        ],
        "b",
        [mg.info("i", [], np.int64), mg.info("c", [], np.bool_), mg.info("v", [None, 3])],
        [mg.info("c2", [], np.bool_), mg.info("v2", [None, 3])],
    )
    nodes = [mg.node("Loop", ["two", "", "z"], ["y"], body=body)]
    known = walked(built(nodes, scalar("two", 2)), forget=False)
    assert known["sv"][1] != Value((Size.of("M"), Size.of(3)), 1)
    assert known["v2"][0] not in (("2*M", 3), ("M", 3))
    assert known["y"] == (None, None)


def test_what_onnx_knows_stays_known() -> None:
    conv = mg.node("Conv", ["img", "W"], ["y"])
    proto = mg.model(
        [conv],
        [mg.info("img", ["N", 3, 8, 8])],
        [mg.info("y", ["N", 2, 6, 6])],
        [mg.tensor("W", mg.weights(2, 3, 3, 3))],
    )
    assert walked(proto, forget=False)["y"][0] == ("N", 2, 6, 6)


@pytest.mark.parametrize(
    "node",
    [
        mg.node("Transpose", ["x"], ["y"], perm=[0, 1, 7]),
        mg.node("Concat", ["scalar", "scalar"], ["y"], axis=0),
        mg.node("Split", ["scalar"], ["y"], num_outputs=1),
        mg.node("Slice", ["x", "two", "one", "one"], ["y"]),
        mg.node("Squeeze", ["scalar", "one"], ["y"]),
        mg.node("ReduceMax", ["scalar", "one"], ["y"]),
        mg.node("Gather", ["x"], ["y"]),
        mg.node("Concat", ["x", "x"], ["y"]),
        mg.node("Expand", ["x"], ["y"]),
        mg.node("Unsqueeze", ["x", "two"], ["y"]),
    ],
)
def test_malformed_nodes_are_no_knowledge(node: NodeProto) -> None:
    constants = (integers("one", 1), integers("two", 1, 1), mg.tensor("scalar", 1.0, np.float32))
    known = walked(built([node, mg.node("Relu", ["x"], ["r"])], *constants))
    assert known["r"][0] == ("N", 4, "M")


@pytest.mark.parametrize("name", ["-1", "0", "12", "s72 + 1", "Min(512, s53)", "a*b", "2*N", "?"])
def test_dimensions_with_odd_names_are_no_numbers(name: str) -> None:
    proto = built(
        [mg.node("Shape", ["x"], ["s"]), mg.node("Neg", ["s"], ["y"])], dims=[name, 4, name]
    )
    value = walked(proto)["s"][1]
    assert value is not None
    first, four, last = value.elements
    assert first is not None
    assert first == last
    assert first.number is None
    assert four == Size.of(4)
    assert first != four
