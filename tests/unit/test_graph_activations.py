"""Activations in the spellings of exporters: fused, equal in numbers, or refused with reason."""

import math
from collections.abc import Callable
from typing import Any

import models_graph as mg
import numpy as np
import onnx
import pytest
from onnx import ModelProto
from pair_metrics import sqnr_db

from trtforge.graph.catalog import OPTIONAL, PASSES
from trtforge.graph.execute import Session
from trtforge.graph.inputs import random_feeds
from trtforge.graph.model import Model
from trtforge.graph.passes import PassRequest, run_passes
from trtforge.precision.cast import typed
from trtforge.precision.emulate import emulate
from trtforge.recipe.schema import Precision

ACTIVATIONS = (
    *("sigmoid", "clip", "softplus", "leaky-relu", "gelu"),
    *("swish", "mish", "hard-swish", "hard-sigmoid"),
)


class Writer:
    """Writes nodes one after the other; a number becomes a constant."""

    def __init__(self, dtype: Any = np.float32, constant_rank: int = 0) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.dtype, self.rank = dtype, constant_rank

    def __call__(self, op: str, *inputs: Any, **attributes: Any) -> str:
        names = [one if isinstance(one, str) else self.constant(one, op) for one in inputs]
        name = f"t{len(self.nodes)}"
        self.nodes.append(mg.node(op, names, [name], **attributes))
        return name

    def constant(self, value: float, op: str) -> str:
        name = f"k{len(self.initializers)}"
        dims = () if op == "Clip" else (1,) * self.rank
        self.initializers.append(mg.tensor(name, np.full(dims, value), self.dtype))
        return name

    def model(self, result: str, *, opset: int = 17, dims: Any = ("N", 40)) -> ModelProto:
        nodes = [*self.nodes, mg.node("Identity", [result], ["y"])]
        return mg.model(
            nodes,
            [mg.info("x", dims, self.dtype)],
            [mg.info("y", [None] * len(dims), self.dtype)],
            self.initializers,
            opset=opset,
            ir_version=10,
        )


Spelling = Callable[[Writer], str]


def fused(proto: ModelProto, *use: str, limit: int = 24) -> tuple[list[str], Model, str]:
    """Run the passes (the clean-up, too); return operators, model and all that was refused."""
    onnx.checker.check_model(proto, full_check=True)
    names = ("identity", *(use or ACTIVATIONS), "dead-code")
    result = run_passes(Model(proto), PassRequest(use=names, prove=False, opset_limit=limit))
    onnx.checker.check_model(result.model.proto, full_check=True)
    refused = [n.reason for o in result.report.passes for n in o.notes if n.kind == "refused"]
    return mg.ops(result.model), result.model, "\n".join(refused)


def quality(before: ModelProto, after: Model) -> float:
    """Compare over -12..12, where every branch of every activation is."""
    kind = after.contract.inputs[0].dtype
    x = np.linspace(-12, 12, 400).reshape(10, 40).astype(kind)
    expected, found = Session(Model(before)).run({"x": x}), Session(after).run({"x": x})
    return sqnr_db(expected["y"], found["y"])


# Gelu

_C, _R = 0.044715, math.sqrt(2 / math.pi)


def _cube(w: Writer) -> str:
    return w("Pow", "x", 3.0)


GELUS: dict[str, tuple[Spelling, str]] = {
    "torch": (
        lambda w: w(
            "Mul", w("Mul", "x", w("Add", w("Erf", w("Div", "x", math.sqrt(2))), 1.0)), 0.5
        ),
        "none",
    ),
    "half first": (
        lambda w: w(
            "Mul", w("Mul", 0.5, "x"), w("Add", 1.0, w("Erf", w("Mul", "x", math.sqrt(0.5))))
        ),
        "none",
    ),
    "four digits": (
        lambda w: w("Mul", "x", w("Mul", 0.5, w("Add", 1.0, w("Erf", w("Div", "x", 1.4142))))),
        "none",
    ),
    "distributed": (
        lambda w: w("Mul", w("Add", w("Mul", w("Erf", w("Mul", 0.70710677, "x")), 0.5), 0.5), "x"),
        "none",
    ),
    "divided by two": (
        lambda w: w(
            "Div", w("Mul", w("Add", w("Erf", w("Div", "x", math.sqrt(2))), 1.0), "x"), 2.0
        ),
        "none",
    ),
    "GPT-2": (
        lambda w: w(
            "Mul",
            w("Mul", 0.5, "x"),
            w("Add", 1.0, w("Tanh", w("Mul", _R, w("Add", "x", w("Mul", _C, _cube(w)))))),
        ),
        "tanh",
    ),
    "x * x * x": (
        lambda w: w(
            "Mul",
            w(
                "Add",
                w(
                    "Tanh",
                    w("Mul", w("Add", w("Mul", w("Mul", w("Mul", "x", "x"), "x"), _C), "x"), _R),
                ),
                1.0,
            ),
            w("Mul", "x", 0.5),
        ),
        "tanh",
    ),
    "x taken out": (
        lambda w: w(
            "Mul",
            "x",
            w(
                "Mul",
                0.5,
                w(
                    "Add",
                    1.0,
                    w(
                        "Tanh",
                        w(
                            "Mul",
                            w("Mul", _R, "x"),
                            w("Add", 1.0, w("Mul", w("Mul", _C, "x"), "x")),
                        ),
                    ),
                ),
            ),
        ),
        "tanh",
    ),
}


@pytest.mark.parametrize("rank", [0, 1, 2])
@pytest.mark.parametrize("name", GELUS)
def test_gelu_spellings(name: str, rank: int) -> None:
    spelling, form = GELUS[name]
    w = Writer(constant_rank=rank)
    proto = w.model(spelling(w))
    operators, model, _ = fused(proto)
    assert operators == ["Gelu"]
    assert model.opset == 20
    (attribute,) = model.proto.graph.node[0].attribute
    assert attribute.s.decode() == form
    assert quality(proto, model) > 100


def test_gelu_in_half_precision() -> None:
    w = Writer(np.float16)
    proto = w.model(GELUS["torch"][0](w))
    assert fused(proto)[0] == ["Gelu"]
    assert quality(proto, fused(proto)[1]) > 55


def _gelu(argument: float = 1.4142135, one: float = 1.0, half: float = 0.5) -> Spelling:
    return lambda w: w("Mul", w("Mul", "x", w("Add", w("Erf", w("Div", "x", argument)), one)), half)


def _tanh_gelu(cube: float) -> Spelling:
    return lambda w: w(
        "Mul",
        w("Mul", 0.5, "x"),
        w("Add", 1.0, w("Tanh", w("Mul", _R, w("Add", "x", w("Mul", cube, _cube(w)))))),
    )


@pytest.mark.parametrize(
    ("spelling", "why"),
    [
        (_gelu(argument=1.41), "a coefficient is 0.7092199, not 0.7071068"),
        (_gelu(half=0.25), "a coefficient is 0.25, not 0.5"),
        (_tanh_gelu(0.05), "a coefficient is"),
        (
            lambda w: w("Mul", w("Mul", "x", w("Add", w("Erf", "x"), 1.0)), 0.5),
            "is taken of 'x' itself",
        ),
        (_gelu(one=2.0), "a coefficient is 1, not 0.5"),
    ],
)
def test_near_misses_of_gelu_stay(spelling: Spelling, why: str) -> None:
    w = Writer()
    operators, _, refused = fused(w.model(spelling(w)))
    assert "Gelu" not in operators
    assert why in refused


def test_gelu_stays_when_a_value_in_between_is_needed() -> None:
    w = Writer()
    proto = w.model(_gelu()(w))
    proto.graph.output.append(mg.info(w.nodes[1].output[0], ["N", 40]))
    assert "Gelu" not in fused(proto)[0]
    w = Writer()
    y = _gelu()(w)
    proto = w.model(w("Add", y, w.nodes[1].output[0]))  # the Erf's result
    assert "Gelu" not in fused(proto)[0]
    w = Writer()
    y = _gelu()(w)
    proto = w.model(w("Mul", w("Add", y, 1.0), w.nodes[0].output[0]))  # the Erf's argument
    assert "Gelu" not in fused(proto)[0]


def test_gelu_where_constants_add_axes_stays() -> None:
    w = Writer(constant_rank=3)
    flat = w("Reshape", _gelu()(w), "shape")
    w.initializers.append(mg.tensor("shape", [-1, 40], np.int64))
    assert "Gelu" not in fused(w.model(flat))[0]


def test_gelu_needs_opset_20() -> None:
    w = Writer()
    operators, _, refused = fused(w.model(_gelu()(w)), limit=19)
    assert "Gelu" not in operators
    assert "this needs opset 20" in refused


# The others

SPELLINGS: dict[str, tuple[Spelling, list[str]]] = {
    "silu": (lambda w: w("Mul", w("Sigmoid", "x"), "x"), ["Swish"]),
    "clip gelu": (lambda w: w("Mul", "x", w("Sigmoid", w("Mul", 1.702, "x"))), ["Swish"]),
    "spelled silu": (
        lambda w: w("Div", "x", w("Add", w("Exp", w("Neg", "x")), 1.0)),
        ["Swish"],
    ),
    "mish": (lambda w: w("Mul", "x", w("Tanh", w("Softplus", "x"))), ["Mish"]),
    "spelled mish": (
        lambda w: w("Mul", w("Tanh", w("Log", w("Add", 1.0, w("Exp", "x")))), "x"),
        ["Mish"],
    ),
    "softplus": (lambda w: w("Log", w("Add", w("Exp", "x"), 1.0)), ["Softplus"]),
    "stable softplus": (
        lambda w: w(
            "Add",
            w("Max", "x", w.constant(0.0, "Clip")),
            w("Log", w("Add", w("Exp", w("Neg", w("Abs", "x"))), 1.0)),
        ),
        ["Softplus"],
    ),
    "softplus with relu": (
        lambda w: w(
            "Add",
            w("Log", w("Add", w("Exp", w("Neg", w("Abs", "x"))), 1.0)),
            w("Relu", "x"),
        ),
        ["Softplus"],
    ),
    "softplus with threshold": (
        lambda w: w("Where", w("Greater", "x", 20.0), "x", w("Softplus", "x")),
        ["Softplus"],
    ),
    "sigmoid": (lambda w: w("Div", 1.0, w("Add", 1.0, w("Exp", w("Neg", "x")))), ["Sigmoid"]),
    "reciprocal": (
        lambda w: w("Reciprocal", w("Add", w("Exp", w("Mul", "x", -1.0)), 1.0)),
        ["Sigmoid"],
    ),
    "hard swish": (
        lambda w: w("Div", w("Mul", "x", w("Clip", w("Add", "x", 3.0), 0.0, 6.0)), 6.0),
        ["HardSwish"],
    ),
    "hard swish, sixth on x": (
        lambda w: w(
            "Mul", w("Mul", "x", 1 / 6), w("Min", w("Relu", w("Add", 3.0, "x")), w.constant(6, ""))
        ),
        ["HardSwish"],
    ),
    "hard swish of a gate": (
        lambda w: w("Mul", "x", w("HardSigmoid", "x", alpha=1 / 6, beta=0.5)),
        ["HardSwish"],
    ),
    "hard sigmoid": (
        lambda w: w("Div", w("Clip", w("Add", "x", 3.0), 0.0, 6.0), 6.0),
        ["HardSigmoid"],
    ),
    "keras hard sigmoid": (
        lambda w: w("Clip", w("Add", w("Mul", "x", 0.2), 0.5), 0.0, 1.0),
        ["HardSigmoid"],
    ),
    "relu6": (lambda w: w("Min", w("Relu", "x"), 6.0), ["Clip"]),
    "min of max": (lambda w: w("Min", w("Max", "x", -1.0), 2.0), ["Clip"]),
    "max of min": (lambda w: w("Max", -1.0, w("Min", 2.0, "x")), ["Clip"]),
    "clip of relu": (lambda w: w("Clip", w("Relu", "x"), 0.0, 6.0), ["Clip"]),
    "max with 0": (lambda w: w("Max", "x", 0.0), ["Relu"]),
    "leaky by max": (lambda w: w("Max", w("Mul", "x", 0.1), "x"), ["LeakyRelu"]),
    "leaky by where": (
        lambda w: w("Where", w("Greater", "x", 0.0), "x", w("Mul", 1.5, "x")),
        ["LeakyRelu"],
    ),
    "leaky by less": (
        lambda w: w("Where", w("LessOrEqual", "x", 0.0), w("Neg", "x"), "x"),
        ["LeakyRelu"],
    ),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("name", SPELLINGS)
def test_spellings(name: str, dtype: Any) -> None:
    spelling, wanted = SPELLINGS[name]
    w = Writer(dtype)
    proto = w.model(spelling(w))
    operators, model, _ = fused(proto)
    assert operators == wanted
    assert quality(proto, model) > (110 if dtype is np.float32 else 50)
    assert not any(
        outcome.rewrites
        for outcome in run_passes(model, PassRequest(use=ACTIVATIONS, prove=False)).report.passes
    )


def test_what_makes_engines_larger_is_optional() -> None:
    assert {"sigmoid", "softplus", "hard-sigmoid", "hard-swish", "swish"} <= OPTIONAL < set(PASSES)


NEAR_MISSES: dict[str, tuple[Spelling, str, str]] = {
    "swish with an offset": (
        lambda w: w("Mul", "x", w("Sigmoid", w("Add", "x", 1.0))),
        "Swish",
        "has the offset 1",
    ),
    "swish used twice": (
        lambda w: w("Add", w("Mul", "x", w("Sigmoid", "x")), w.nodes[0].output[0]),
        "Swish",
        "used elsewhere too",
    ),
    "mish of another": (
        lambda w: w("Mul", w("Abs", "x"), w("Tanh", w("Softplus", "x"))),
        "Mish",
        "is not multiplied by that alone",
    ),
    "softplus with a low threshold": (
        lambda w: w("Where", w("Greater", "x", 5.0), "x", w("Softplus", "x")),
        "nothing",
        "beyond 5 the result is not the same",
    ),
    "softplus used twice": (
        lambda w: w("Add", w("Log", w("Add", w("Exp", "x"), 1.0)), w.nodes[0].output[0]),
        "Softplus",
        "used elsewhere too",
    ),
    "sigmoid used twice": (
        lambda w: w(
            "Add", w("Div", 1.0, w("Add", w("Exp", w("Neg", "x")), 1.0)), w.nodes[1].output[0]
        ),
        "Sigmoid",
        "used elsewhere too",
    ),
    "another gate": (
        lambda w: w("Mul", "x", w("HardSigmoid", "x", alpha=0.2, beta=0.5)),
        "HardSwish",
        "its gate is clip(0.2 * x + 0.5, 0, 1)",
    ),
    "another factor": (
        lambda w: w("Div", w("Mul", "x", w("Clip", w("Add", "x", 3.0), 0.0, 6.0)), 5.0),
        "HardSwish",
        "a coefficient is 0.2, not 0.1666667",
    ),
    "bounds crossed": (
        lambda w: w("Min", w("Max", "x", 2.0), 1.0),
        "Clip",
        "the lower bound 2 is above the upper one 1",
    ),
    "a bound used twice": (
        lambda w: w("Add", w("Min", w("Max", "x", 1.0), 2.0), w.nodes[0].output[0]),
        "Clip",
        "used elsewhere too",
    ),
    "a steep slope": (
        lambda w: w("Max", "x", w("Mul", "x", 2.0)),
        "LeakyRelu",
        "the slope is not in 0..1",
    ),
    "another threshold": (
        lambda w: w("Where", w("Greater", "x", 1.0), "x", w("Mul", "x", 0.1)),
        "LeakyRelu",
        "does not compare with 0",
    ),
}


@pytest.mark.parametrize("name", NEAR_MISSES)
def test_near_misses_stay(name: str) -> None:
    spelling, absent, why = NEAR_MISSES[name]
    w = Writer()
    proto = w.model(spelling(w))
    operators, model, refused = fused(proto)
    assert absent not in operators
    assert why in refused
    assert quality(proto, model) == np.inf


@pytest.mark.parametrize(
    ("name", "opset"), [("silu", 24), ("mish", 18), ("hard swish", 14), ("relu6", 11)]
)
def test_opsets(name: str, opset: int) -> None:
    spelling, wanted = SPELLINGS[name]
    older = Writer()
    y = spelling(older)
    if name == "hard swish":  # bounds of Clip were attributes before opset 11
        proto = older.model(y, opset=13)
    else:
        proto = older.model(y, opset=min(opset - 1, 17))
    operators, model, _ = fused(proto, limit=opset)
    assert operators == wanted
    assert model.opset == opset
    operators, _, refused = fused(proto, limit=opset - 1)
    assert wanted[0] not in operators
    assert f"this needs opset {opset}" in refused


def test_integers_are_clipped_too() -> None:
    w = Writer(np.int32)
    proto = w.model(w("Min", w("Max", "x", -3), 4), opset=13)
    operators, model, _ = fused(proto)
    assert operators == ["Clip"]
    x = np.arange(-10, 30, dtype=np.int32).reshape(1, 40)
    assert np.array_equal(Session(model).run({"x": x})["y"], x.clip(-3, 4))


@pytest.mark.parametrize("type_", ["fp16", "bf16"])
@pytest.mark.parametrize("name", ["silu", "mish", "softplus", "hard swish", "hard sigmoid"])
def test_fused_activations_are_typed_and_no_worse(name: str, type_: str) -> None:
    w = Writer()
    head = w("MatMul", SPELLINGS[name][0](w), w.constant(0.0, "Clip"))
    w.initializers[-1].CopyFrom(mg.tensor(w.initializers[-1].name, mg.weights(40, 40)))
    proto = w.model(head)
    before, after = Model(proto), fused(proto)[1]
    feeds = random_feeds(before, {"x": (8, 40)}, 1)
    expected = Session(before).run(feeds)["y"]
    found = []
    for one in (before, after):
        result = typed(one, None, Precision(type=type_))
        found.append(sqnr_db(expected, Session(emulate(result.model)).run(feeds)["y"]))
    assert result.cast.nodes.get(type_)
    assert found[1] > found[0] - 1.0


def test_no_other_pass_takes_a_gelu_apart_while_it_waits_for_its_opset() -> None:
    w = Writer()
    first = w("MatMul", "x", "W")
    w.initializers.extend([mg.tensor("W", mg.weights(40, 40)), mg.tensor("V", mg.weights(40, 40))])
    inner = w("Add", w("Erf", w("Div", first, math.sqrt(2))), 1.0)
    y = w("MatMul", w("Mul", w("Mul", first, inner), 0.5), "V")
    result = run_passes(Model(w.model(y)), PassRequest(shapes=({"x": (8, 40)},)))
    assert mg.ops(result.model) == ["MatMul", "Gelu", "MatMul"]
    assert result.report.proof.verdict == "pass"
