"""Error feedback: closer outputs on samples that it did not see, and the laws of the rounding."""

from dataclasses import dataclass

import numpy as np
import pytest
from models_precision import Net
from precision_samples import SHAPES, Samples, check_typed, fidelity, net

from trtforge.graph.inputs import random_feeds
from trtforge.graph.model import Model
from trtforge.precision.cast import typed
from trtforge.precision.error_feedback import round_with_feedback
from trtforge.precision.scales import quantize_values
from trtforge.precision.streaming import DataSource, Progress
from trtforge.precision.techniques import gptq
from trtforge.precision.techniques.gptq import Gptq
from trtforge.precision.weight_scales import block_scales
from trtforge.recipe.schema import Precision

INT4 = Precision(quantize="int4_weight_only", block_size=32)


@dataclass
class Job:
    """The fields of a technique's job that this one reads."""

    model: Model
    source: DataSource
    precision: Precision = INT4
    samples: int | None = None
    on_progress: Progress | None = None


def correlated(rows: int, seed: int, inputs: int = 64) -> np.ndarray:
    """Inputs that lie near a plane of 12 dimensions, as those of real layers do."""
    mixing = np.random.default_rng(9).standard_normal((12, inputs))
    random = np.random.default_rng(seed)
    values = random.standard_normal((rows, 12)) @ mixing
    return (values + 0.1 * random.standard_normal((rows, inputs))).astype(np.float32)


def two_layers() -> Model:
    model = Net(7, 21)
    x = model.input("x", ["N", 64])
    model.op("Relu", [model.op("MatMul", [x, model.weight("w1", 64, 32)], "h")], "a")
    model.op("Gemm", ["a", model.weight("w2", 16, 32)], "y", transB=1)
    model.output("y", ["N", 16])
    return model.model()


def test_outputs_get_closer_on_other_samples_and_weights_stay_on_the_grid() -> None:
    random = np.random.default_rng(0)
    weight = random.standard_normal((64, 48)).astype(np.float32)
    steps = block_scales(weight, 0, 32, "int4").repeat(32, axis=0)
    seen, other = correlated(500, 1), correlated(500, 2)
    moment = seen.T.astype(np.float64) @ seen / 500
    rounded = round_with_feedback(weight, moment, steps, "int4", 500)
    levels = rounded / steps
    assert np.abs(levels - np.rint(levels)).max() < 1e-5
    assert levels.min() >= -8.001
    assert levels.max() <= 7.001
    plain = quantize_values(weight, steps, "int4").astype(np.float32) * steps
    before, after = (((other @ (w - weight)) ** 2).sum() for w in (plain, rounded))
    assert 10 * np.log10(before / after) > 6


def test_inputs_without_correlation_are_rounded_plainly() -> None:
    weight = np.random.default_rng(0).standard_normal((64, 8)).astype(np.float32)
    steps = block_scales(weight, 0, 32, "int4").repeat(32, axis=0)
    plain = quantize_values(weight, steps, "int4").astype(np.float32) * steps
    for moment in (np.eye(64), np.zeros((64, 64)), np.diag(np.arange(64.0))):
        found = round_with_feedback(weight, moment, steps, "int4", 1000)
        assert np.allclose(found, plain, rtol=1e-6)


def test_few_samples_move_little() -> None:
    weight = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    steps = block_scales(weight, 0, 32, "int4").repeat(32, axis=0)
    plain = quantize_values(weight, steps, "int4").astype(np.float32) * steps
    random = np.random.default_rng(3)
    seen, other = (random.standard_normal((n, 64)) for n in (16, 2000))
    found = round_with_feedback(weight, seen.T @ seen / 16, steps, "int4", 16)
    before, after = (((other @ (w - weight)) ** 2).sum() for w in (plain, found))
    assert 10 * np.log10(after / before) < 0.7


@pytest.mark.parametrize("kind", ["fp32", "fp16", "bf16"])
def test_the_technique_helps_a_model_and_the_grid_is_found_again(kind: str) -> None:
    source = two_layers()
    precision = INT4.model_copy(update={"type": kind})
    job = Job(source, Samples({"x": correlated(400, 1)}), precision)
    Gptq().apply(job)
    feeds = {"x": correlated(200, 2)}
    plain = typed(source, None, precision).model
    better = typed(job.model, None, precision).model
    check_typed(source, better)
    assert fidelity(source, better, feeds) > fidelity(source, plain, feeds) + 3
    if kind == "fp32":
        assert fidelity(job.model, better, feeds) > 100


def test_a_transformer_runs_in_batches_of_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    source = net("transformer")
    data = Samples(random_feeds(source, SHAPES["transformer"], seed=3))
    told: list[float] = []
    results = []
    for limit in (512 << 20, 1):
        monkeypatch.setattr(gptq, "_MOMENT_BYTES", limit)
        job = Job(source, data, samples=3, on_progress=lambda share, _: told.append(share))
        Gptq().apply(job)
        results.append(typed(job.model, None, INT4).model)
        check_typed(source, results[-1])
    assert told[-1] == pytest.approx(1.0)
    feeds = random_feeds(source, SHAPES["transformer"], seed=4)
    assert fidelity(results[0], results[1], feeds) > 60
    assert fidelity(source, results[0], feeds) > 12


def test_only_int4_products_are_touched() -> None:
    for precision in (
        Precision(quantize="int8_weight_only"),
        Precision.model_validate({"quantize": "int4_weight_only", "keep": [{"name": "*"}]}),
    ):
        source = two_layers()
        job = Job(source, Samples({"x": correlated(4, 1)}), precision)
        Gptq().apply(job)
        assert job.model is source
    convolutions = net("cnn")
    job = Job(convolutions, Samples(random_feeds(convolutions, SHAPES["cnn"], seed=0)))
    Gptq().apply(job)
    assert job.model.initializer("w_a").tolist() == convolutions.initializer("w_a").tolist()


def test_it_is_deterministic() -> None:
    digests = set()
    for _ in range(2):
        job = Job(two_layers(), Samples({"x": correlated(50, 1)}))
        Gptq().apply(job)
        digests.add(job.model.digest())
    assert len(digests) == 1
