"""Over random small graphs: every pass keeps the contract and the numbers, and ends."""

from dataclasses import dataclass, field

import models_graph as mg
import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import ModelProto, NodeProto, TensorProto, helper

from trtforge.errors import GraphError
from trtforge.graph.execute import Session
from trtforge.graph.inputs import random_feeds
from trtforge.graph.model import Model
from trtforge.graph.passes import DEFAULT_PASSES, PassRequest, run_passes

CHANNELS, SIDE = 4, 4
KINDS = (
    "conv",
    "conv",
    "transpose",
    "batchnorm",
    "batchnorm",
    "affine",
    "affine",
    "identity",
    "dropout",
    "constant",
    "folded",
    "add",
    "relu",
    "if",
    "dead",
    "tied",
)


@dataclass
class Growing:
    """A graph under construction; every tensor is (N, CHANNELS, SIDE, SIDE)."""

    nodes: list[NodeProto] = field(default_factory=list)
    initializers: list[TensorProto] = field(default_factory=list)
    tensors: list[str] = field(default_factory=lambda: ["x"])
    last_weight: str | None = None
    count: int = 0

    def name(self, role: str) -> str:
        self.count += 1
        return f"{role}{self.count}"

    def weight(self, role: str, values: np.ndarray) -> str:
        name = self.name(role)
        self.initializers.append(mg.tensor(name, values))
        return name

    def add(self, op: str, inputs: list[str], **attributes: object) -> str:
        output = self.name("t")
        self.nodes.append(mg.node(op, inputs, [output], **attributes))
        self.tensors.append(output)
        return output


def grow(graph: Growing, kind: str, source: str, other: str, choice: int) -> None:
    seed = graph.count
    group = (1, 2, 4)[choice % 3]
    if kind in ("conv", "transpose", "tied"):
        if kind != "tied" or graph.last_weight is None:
            values = mg.weights(CHANNELS, CHANNELS // group, 3, 3, seed=seed) / 4
            graph.last_weight = graph.weight("W", values)
        else:
            tied = next(t for t in graph.initializers if t.name == graph.last_weight)
            group = CHANNELS // tied.dims[1]
        inputs = [source, graph.last_weight]
        if choice % 2:
            inputs.append(graph.weight("b", mg.weights(CHANNELS, seed=seed)))
        op = "ConvTranspose" if kind == "transpose" else "Conv"
        graph.add(op, inputs, group=group, pads=[1, 1, 1, 1])
    elif kind == "batchnorm":
        prefix = graph.name("bn")
        graph.initializers.extend(mg.batchnorm_parameters(prefix, CHANNELS, seed))
        roles = [f"{prefix}.{role}" for role in ("scale", "B", "mean", "var")]
        graph.add("BatchNormalization", [source, *roles], epsilon=10.0 ** -(choice % 4 + 2))
    elif kind == "affine":
        shape = ((), (CHANNELS, 1, 1), (1, CHANNELS, 1, 1), (SIDE,))[choice % 4]
        constant = graph.weight("k", np.abs(mg.weights(*shape, seed=seed)) + 0.5)
        inputs = [source, constant] if choice % 3 else [constant, source]
        op = ("Mul", "Add", "Sub")[choice % 3]
        graph.add(op, inputs)
    elif kind == "constant":
        name = graph.name("c")
        value = mg.tensor("", mg.weights(1, CHANNELS, 1, 1, seed=choice % 2))
        graph.nodes.append(mg.node("Constant", [], [name], value=value))
        graph.add("Add", [source, name])
    elif kind == "folded":
        a, b = (graph.weight("f", mg.weights(CHANNELS, 1, 1, seed=choice % 2)) for _ in "ab")
        product, root = graph.name("f"), graph.name("f")
        graph.nodes.append(mg.node("Mul", [a, b], [product]))
        graph.nodes.append(mg.node("Tanh", [product], [root]))
        graph.add("Mul", [source, root])
    elif kind == "if":
        bodies = []
        for op, branch in (("Neg", "then"), ("Abs", "else")):
            output = graph.name(branch)
            inner = [
                mg.node(op, [source], [f"{output}.i"]),
                mg.node("Add", [f"{output}.i", other], [output]),
            ]
            info = mg.info(output, ["N", CHANNELS, SIDE, SIDE])
            bodies.append(helper.make_graph(inner, output, [], [info]))
        graph.add("If", ["flag"], then_branch=bodies[0], else_branch=bodies[1])
    elif kind == "dead":
        graph.add("Exp", [source])
        graph.tensors.pop()
    else:
        op = {"identity": "Identity", "dropout": "Dropout", "add": "Add", "relu": "Relu"}[kind]
        graph.add(op, [source, other] if op == "Add" else [source])


@st.composite
def models(draw: st.DrawFn) -> ModelProto:
    graph = Growing()
    for _ in range(draw(st.integers(1, 10))):
        # Mostly the newest tensor, so that patterns arise; sometimes an older one.
        back = draw(st.sampled_from([1, 1, 1, 2, 3]))
        source = graph.tensors[-min(back, len(graph.tensors))]
        other = draw(st.sampled_from(graph.tensors))
        grow(graph, draw(st.sampled_from(KINDS)), source, other, draw(st.integers(0, 11)))
    made = [name for name in graph.tensors if name != "x"]
    extra = draw(st.lists(st.sampled_from(made), max_size=2, unique=True)) if made else []
    if not made:
        graph.add("Relu", ["x"])
    outputs = list(dict.fromkeys([graph.tensors[-1], *extra]))
    dims = ["N", CHANNELS, SIDE, SIDE]
    proto = mg.model(
        graph.nodes,
        [mg.info("x", dims), mg.info("flag", [], bool)],
        [mg.info(name, dims) for name in outputs],
        graph.initializers,
    )
    onnx.checker.check_model(proto)
    return proto


CAREFUL = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def agree(before: Model, after: Model) -> None:
    assert after.contract == before.contract
    onnx.checker.check_model(after.proto, full_check=True)
    one, two = Session(before, threads=1), Session(after, threads=1)
    for batch, seed in ((1, 0), (3, 1)):
        feeds = random_feeds(before, {"x": (batch, CHANNELS, SIDE, SIDE)}, seed)
        expected, found = one.run(feeds), two.run(feeds)
        for name, reference in expected.items():
            scale = max(float(np.abs(reference).max()), 1.0)
            assert np.abs(reference - found[name]).max() <= 2e-4 * scale, name


@CAREFUL
@given(proto=models())
def test_all_passes_together(proto: ModelProto) -> None:
    model = Model(proto)
    result = run_passes(model, PassRequest(prove=False))
    agree(model, result.model)
    assert result.report.rounds < 10
    assert not any(outcome.rolled_back for outcome in result.report.passes)
    again = run_passes(result.model, PassRequest(prove=False))
    assert again.model is result.model
    assert not any(outcome.rewrites for outcome in again.report.passes)


@pytest.mark.parametrize("name", DEFAULT_PASSES)
@settings(CAREFUL, max_examples=15)
@given(proto=models())
def test_each_pass_alone(name: str, proto: ModelProto) -> None:
    model = Model(proto)
    result = run_passes(model, PassRequest(use=(name,), prove=False))
    agree(model, result.model)
    before = {tensor for node in proto.graph.node for tensor in node.output}
    after = {tensor for node in result.model.proto.graph.node for tensor in node.output}
    assert after <= before  # no tensor gets a name that the user does not know


@settings(CAREFUL, max_examples=25)
@given(proto=models())
def test_the_round_trip_is_exact(proto: ModelProto) -> None:
    model = Model(proto)
    assert model.with_graph(model.to_graph()).proto == proto


@settings(CAREFUL, max_examples=25)
@given(proto=models(), data=st.data())
def test_mutated_bytes_never_crash_the_gate(
    proto: ModelProto, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray(proto.SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("mutated") / "m.onnx"
    path.write_bytes(content)
    try:
        outputs = Model.load(path).contract.outputs
    except GraphError as error:
        outputs = (error.where,)
    assert outputs
    assert all(outputs)
