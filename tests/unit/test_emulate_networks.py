"""Whole networks, typed as trtforge types them: every tensor of the twin, bit for bit."""

from functools import lru_cache

import ml_dtypes
import numpy as np
import pytest
from documents import REPOSITORY
from emulation_samples import differing, written
from per_operator import PerOperator, same_bits
from precision_samples import SHAPES, net, ranges

from trtforge.engine.onnxruntime import OnnxRuntimeRunner
from trtforge.graph.execute import Session
from trtforge.graph.inputs import random_feeds
from trtforge.graph.model import Model
from trtforge.precision.cast import typed
from trtforge.precision.emulate import emulate
from trtforge.recipe.schema import Precision

KINDS = ["fp16", "bf16"]


@lru_cache
def digits() -> tuple[Model, dict[str, np.ndarray]]:
    """The trained network of the recipes, and images that it was not trained on."""
    folder = REPOSITORY / "recipes" / "digits"
    model = Model.load(folder / "model.onnx")
    with np.load(folder / "test.npz") as images:
        name = model.contract.inputs[0].name
        return model, {name: images[name][:32]}


@pytest.mark.parametrize("kind", KINDS)
def test_the_trained_digits_network(kind: str) -> None:
    model, feeds = digits()
    result = typed(model, None, Precision.model_validate({"type": kind})).model
    assert differing(result, feeds) == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("quantize", ["none", "int8", "fp8"])
@pytest.mark.parametrize("name", SHAPES)
def test_small_networks_of_every_kind(name: str, kind: str, quantize: str) -> None:
    precision = Precision.model_validate({"type": kind, "quantize": quantize})
    cache = ranges(name) if quantize != "none" else None
    result = typed(net(name), cache, precision).model
    assert differing(result, random_feeds(net(name), SHAPES[name], 3)) == []


def test_int4_weights() -> None:
    precision = Precision(type="fp16", quantize="int4_weight_only")
    result = typed(net("transformer"), None, precision).model
    feeds = random_feeds(net("transformer"), SHAPES["transformer"], 3)
    assert differing(result, feeds) == []


def test_graph_parity_runs_fp8_where_onnx_runtime_computes_it_right() -> None:
    """At its higher levels it refuses FP8 graphs or gives wrong numbers; the runner's is none."""
    model = net("cnn")
    result = typed(model, ranges("cnn"), Precision(type="bf16", quantize="fp8")).model
    feeds = random_feeds(model, SHAPES["cnn"], 3)
    expected = PerOperator(result).run(feeds)["logits"]
    with OnnxRuntimeRunner(lambda: emulate(result)) as runner:
        assert same_bits(runner.infer(feeds)["logits"], expected)


@pytest.mark.parametrize("kind", KINDS)
def test_names_stay_with_what_readers_see(kind: str) -> None:
    """Any tensor can be asked for by its name in the original, and is what its readers got."""
    model = net("transformer")
    result = typed(model, None, Precision.model_validate({"type": kind})).model
    twin = emulate(result)
    made = {name for node in result.proto.graph.node for name in node.output}
    assert made <= {name for node in twin.proto.graph.node for name in node.output}
    originals = sorted(made & {n for node in model.proto.graph.node for n in node.output})
    got = Session(twin, outputs=originals).run(random_feeds(model, SHAPES["transformer"], 3))
    narrow = {"fp16": np.float16, "bf16": ml_dtypes.bfloat16}[kind]
    floats = [name for name in originals if got[name].dtype == np.float32]
    with np.errstate(over="ignore"):  # masks of what stays FP32
        rounded = [n for n in floats if (got[n].astype(narrow).astype(np.float32) == got[n]).all()]
    assert len(floats) > 30
    assert len(rounded) > len(floats) * 0.8, "most are in the narrow type"


def test_operators_that_only_onnx_runtime_knows_are_rounded_too() -> None:
    """Nothing infers the type behind a contrib operator: it is taken from what goes in."""
    text = (
        "(T[2, 8] x) => (T[2, 8] y) { a = Mul(x, w) b = FusedGelu(a) c = Add(b, w) y = Mul(c, b) }"
    )
    model = written(text, "float16", w=np.linspace(0.1, 0.9, 8, dtype=np.float32))
    model.proto.opset_import.add(domain="com.microsoft", version=1)
    contrib = model.proto.graph.node[1]
    contrib.op_type, contrib.domain = "QuickGelu", "com.microsoft"
    x = np.random.default_rng(0).standard_normal((2, 8)).astype(np.float16)
    got = Session(emulate(model), outputs=["b", "c"]).run({"x": x})
    b = got["b"]
    assert (b.astype(np.float16) == b).all()
    w = model.initializer("w").astype(np.float32)
    assert (got["c"] == (b + w).astype(np.float16)).all()
    assert (got["y"] == (got["c"] * b).astype(np.float16)).all()
