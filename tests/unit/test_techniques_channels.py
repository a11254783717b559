"""Groups of channels: what may be scaled computes what it did, what may not is left alone."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models_precision import Net
from precision_samples import SHAPES, Samples, net, sqnr_db

from trtforge.graph.execute import Session
from trtforge.graph.inputs import random_feeds
from trtforge.graph.model import Model
from trtforge.precision.constants import editable_graph
from trtforge.precision.names import Names
from trtforge.precision.techniques.channels import ChannelGroup, find_groups
from trtforge.precision.techniques.probing import shapes_of_a_run

Feeds = dict[str, np.ndarray]


def image(net: Net, channels: int = 4) -> str:
    return net.input("x", ["N", channels, 8, 8])


def chain() -> Model:
    """Conv, LeakyRelu, depthwise, Relu, grouped, pooling, Flatten, Gemm: four groups."""
    n = Net(3)
    a = n.op("Conv", [image(n), n.weight("wa", 6, 4, 3, 3), n.weight("ba", 6)], "a")
    a = n.op("LeakyRelu", [a], "ar", alpha=0.1)
    b = n.op("Relu", [n.op("Conv", [a, n.weight("wb", 12, 1, 3, 3)], "b", group=6)], "br")
    c = n.op("Relu", [n.op("Conv", [b, n.weight("wc", 6, 4, 1, 1)], "c", group=3)], "cr")
    n.op("ConvTranspose", [c, n.weight("wt", 6, 5, 2, 2), n.weight("bt", 5)], "t", strides=[2, 2])
    p = n.op("GlobalAveragePool", [n.op("MaxPool", ["t"], "m", kernel_shape=[2, 2])], "p")
    f = n.op("Flatten", [p], "f")
    n.op("Gemm", [f, n.weight("wg", 5, 3), n.weight("bg", 3)], "y")
    n.output("y", ["N", 3])
    return n.model()


def residual() -> Model:
    """A stream of three convolutions and two additions, one of a constant: one group for all."""
    n = Net(4)
    s = n.op("Conv", [image(n), n.weight("w0", 6, 4, 1, 1)], "s")
    s = n.op("Add", [s, n.weight("offset", 6, 1, 1)], "so")
    b = n.op("Conv", [s, n.weight("w1", 6, 6, 3, 3)], "b", pads=[1, 1, 1, 1])
    s = n.op("Relu", [n.op("Add", [s, b], "s1")], "s1r")
    n.op("Conv", [s, n.weight("w2", 3, 6, 1, 1)], "y")
    n.output("y", ["N", 3, 8, 8])
    return n.model()


def normalized() -> Model:
    """One normalization read by three products."""
    n = Net(5)
    x = n.input("x", ["N", 5, 8])
    h = n.op("LayerNormalization", [x, n.weight("g", 8), n.weight("b", 8)], "h", axis=-1)
    q, k, v = (n.op("MatMul", [h, n.weight(f"w{i}", 8, 8)], f"q{i}") for i in range(3))
    n.op("Mul", [n.op("Mul", [q, k], "qk"), v], "y")
    n.output("y", ["N", 5, 8])
    return n.model()


FEEDS: dict[Callable[[], Model], tuple[int, ...]] = {
    chain: (2, 4, 8, 8),
    residual: (2, 4, 8, 8),
    normalized: (2, 5, 8),
}


def feeds_for(make: Callable[[], Model]) -> Feeds:
    values = np.random.default_rng(1).standard_normal(FEEDS[make])
    return {"x": values.astype(np.float32)}


def groups_of(model: Model, feeds: Feeds) -> tuple[ChannelGroup, ...]:
    return find_groups(editable_graph(model), shapes_of_a_run(model, Samples(feeds)))


def scaled(model: Model, feeds: Feeds, seed: int) -> Model:
    graph = editable_graph(model)
    random, names = np.random.default_rng(seed), Names(graph)
    for group in find_groups(graph, shapes_of_a_run(model, Samples(feeds))):
        group.scale(2.0 ** random.uniform(-5, 5, group.channels), names)
    return model.with_graph(graph)


@pytest.mark.parametrize(
    ("make", "groups"), [(chain, [6, 12, 6, 5]), (residual, [6]), (normalized, [8])]
)
def test_groups_are_found(make: Callable[[], Model], groups: list[int]) -> None:
    found = groups_of(make(), feeds_for(make))
    assert [group.channels for group in found] == groups
    assert [group.has_norm for group in found] == [make is normalized] * len(groups)


@settings(max_examples=15, deadline=None)
@given(make=st.sampled_from(list(FEEDS)), seed=st.integers(0, 10**6))
def test_scaling_changes_no_output(make: Callable[[], Model], seed: int) -> None:
    model, feeds = make(), feeds_for(make)
    changed = scaled(model, feeds, seed)
    expected, got = Session(model).run(feeds), Session(changed).run(feeds)
    assert sqnr_db(expected["y"], got["y"]) > 110
    weights = model.initializers
    assert any((model.initializer(n) != changed.initializer(n)).any() for n in weights)


@pytest.mark.parametrize("name", ["cnn", "transformer"])
def test_whole_networks_compute_what_they_did(name: str) -> None:
    model = net(name)
    feeds = random_feeds(model, SHAPES[name], seed=3)
    changed = scaled(model, feeds, 7)
    expected, got = Session(model).run(feeds), Session(changed).run(feeds)
    assert groups_of(model, feeds)
    assert all(sqnr_db(expected[one], got[one]) > 100 for one in expected)


def refused(read: Callable[[Net, str], None]) -> tuple[ChannelGroup, ...]:
    n = Net(6)
    a = n.op("Relu", [n.op("Conv", [image(n), n.weight("wa", 4, 4, 1, 1)], "a")], "h")
    n.op("Conv", [a, n.weight("wb", 4, 4, 1, 1)], "y")
    n.output("y", ["N", 4, 8, 8])
    read(n, a)
    return groups_of(n.model(), {"x": np.ones((1, 4, 8, 8), np.float32)})


def sigmoid(n: Net, tensor: str) -> None:
    n.op("Sigmoid", [tensor], "z")
    n.output("z", ["N", 4, 8, 8])


def given_out(n: Net, tensor: str) -> None:
    n.output(tensor, ["N", 4, 8, 8])


def shared_weight(n: Net, tensor: str) -> None:
    n.op("Conv", [tensor, "wb"], "z")
    n.output("z", ["N", 4, 8, 8])


def broadcast(n: Net, tensor: str) -> None:
    pooled = n.op("GlobalAveragePool", [n.op("Conv", ["x", n.weight("wz", 4, 4, 1, 1)], "z0")], "p")
    n.op("Add", [tensor, pooled], "z")
    n.op("Conv", ["z", n.weight("wq", 4, 4, 1, 1)], "zq")
    n.output("zq", ["N", 4, 8, 8])


@pytest.mark.parametrize("read", [sigmoid, given_out, shared_weight, broadcast])
def test_what_else_reads_the_channels_keeps_them(read: Callable[[Net, str], None]) -> None:
    assert len(refused(lambda n, tensor: None)) == 1
    assert refused(read) == ()
