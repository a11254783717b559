"""Calibration: right ranges, the same for any grouping, one sample in memory."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from models_precision import Net
from precision_samples import SHAPES, Feeds, Samples, net, samples_for

from trtforge.errors import DataError, GraphError
from trtforge.graph.execute import Session
from trtforge.graph.inputs import random_feeds
from trtforge.graph.model import Model
from trtforge.interrupts import interrupts_between
from trtforge.precision.cache import CalibrationCache, DataUse
from trtforge.precision.calibrate import CalibrationRequest, calibrate
from trtforge.precision.observers import METHODS
from trtforge.precision.quantize import candidate_tensors
from trtforge.recipe.schema import Precision


def images(count: int = 24) -> Samples:
    return Samples(random_feeds(net("cnn"), {"image": (count, 3, 16, 16)}, 4))


def tensors() -> tuple[str, ...]:
    return candidate_tensors(net("cnn"), Precision(quantize="int8"))


def measured(method: str = "minmax", count: int = 24, **changes: object) -> CalibrationCache:
    request = CalibrationRequest(tensors(), method, **changes)  # type: ignore[arg-type]
    return calibrate(net("cnn"), images(count), request)


def logs() -> Model:
    model = Net()
    x = model.input("x", ["N", 8])
    y = model.op("MatMul", [model.op("Log", [x], "logs"), model.weight("w", 8, 8)], "y")
    model.output(y, ["N", 8])
    return model.model()


def test_ranges_are_those_of_the_tensors() -> None:
    data, names = images(), tensors()
    cache = calibrate(net("cnn"), data, CalibrationRequest(names, "minmax"))
    inner = [name for name in names if name != "image"]
    values = Session(net("cnn"), outputs=inner).run(data.arrays, inner) | data.arrays
    assert tuple(cache.ranges) == names
    for name, seen in cache.ranges.items():
        assert seen.min == pytest.approx(values[name].min(), rel=1e-4, abs=1e-5)
        assert seen.max == pytest.approx(values[name].max(), rel=1e-4)
        assert seen.amax == seen.observed_amax
        assert seen.runs == 24


def test_the_cache_says_what_it_was_measured_with() -> None:
    cache = measured("percentile", options={"percentile": 99.5}, grid="fp8")
    assert (cache.method, cache.grid, cache.samples) == ("percentile", "fp8", 24)
    assert cache.options == {"percentile": 99.5}
    assert cache.graph_digest == net("cnn").digest()
    assert cache.data == (DataUse(digest="sha256:data", source="data.npz", spans=((0, 24),)),)
    assert set(cache.versions) == {"numpy", "onnxruntime"}
    assert not cache.is_synthetic


def test_synthetic_data_is_recorded() -> None:
    data = images(2)
    data.is_synthetic = True
    assert calibrate(net("cnn"), data, CalibrationRequest(tensors(), "minmax")).is_synthetic


@pytest.mark.parametrize("method", METHODS)
def test_methods_stay_inside_what_was_seen(method: str) -> None:
    cache = measured(method)
    assert all(0 < seen.amax <= seen.observed_amax for seen in cache.ranges.values())
    clips = any(seen.amax < 0.999 * seen.observed_amax for seen in cache.ranges.values())
    assert clips == (method != "minmax")


def test_few_values_are_warned_about_where_histograms_count() -> None:
    assert "tensors with very few values" in measured("entropy", 2).warnings[0]
    assert measured("minmax", 2).warnings == ()


class Shaped(Samples):
    """Data that notes the blocks it is read in, and gives no more than `most` samples in one."""

    def __init__(self, arrays: Feeds, most: int) -> None:
        super().__init__(arrays)
        self.most = most

    def batches(self, batch: int, limit: int | None = None, start: int = 0) -> Iterator[Feeds]:
        return super().batches(min(batch, self.most), limit, start)


@pytest.mark.parametrize("method", ["minmax", "entropy", "average"])
def test_the_blocks_that_data_comes_in_do_not_matter(method: str) -> None:
    request = CalibrationRequest(tensors(), method)
    texts = {
        calibrate(net("cnn"), Shaped(images().arrays, most), request).as_text()
        for most in (1, 7, 64)
    }
    assert len(texts) == 1


def test_samples_may_differ_in_shape() -> None:
    class Lengths(Samples):
        def batches(self, batch: int, limit: int | None = None, start: int = 0) -> Iterator[Feeds]:
            for index in range(start, self.count if limit is None else limit):
                rows = random_feeds(
                    net("transformer"), dict.fromkeys(self.arrays, (1, 4 + index)), 0
                )
                yield rows

    data = Lengths({"ids": np.zeros((5, 1)), "mask": np.zeros((5, 1))})
    names = candidate_tensors(net("transformer"), Precision(quantize="int8"))
    cache = calibrate(net("transformer"), data, CalibrationRequest(names, "entropy"))
    stored = cache.ranges["merged"].histogram
    assert stored is not None
    assert stored.restore().counts.sum() == 32 * sum(4 + index for index in range(5))


def test_a_fixed_batch_is_one_run() -> None:
    model = net("control_flow")
    data = samples_for(model, {"x": random_feeds(model, {"x": (2, 8, 8, 8)}, 0)["x"].repeat(3, 0)})
    cache = calibrate(model, data, CalibrationRequest(("x", "scaled"), "entropy"))
    assert cache.ranges["x"].runs == 3
    assert cache.samples == 6
    halves = [
        calibrate(model, data, CalibrationRequest(("x",), "entropy", shard=(index, 2)))
        for index in range(2)
    ]
    assert [cache.data[0].spans for cache in halves] == [((0, 2),), ((2, 6),)]


def test_tensors_that_do_not_fit_are_measured_in_several_passes() -> None:
    texts: list[str] = []
    request = CalibrationRequest(tensors(), "entropy", bytes_at_once=16 * 16 * 16 * 4 * 2)
    cache = calibrate(net("cnn"), images(), request, lambda fraction, text: texts.append(text))
    whole = measured("entropy")
    passes = len(texts) // 24
    assert passes > 2
    assert f"the samples ran {passes} times" in cache.warnings[0]
    assert tuple(cache.ranges) == tuple(whole.ranges)
    for name, seen in whole.ranges.items():
        # ONNX Runtime fuses differently for other outputs: last digits may differ.
        assert cache.ranges[name].max == pytest.approx(seen.max, rel=1e-5)
        assert cache.ranges[name].runs == seen.runs


def test_progress_tells_rate_and_time_left() -> None:
    seen: list[tuple[float, str]] = []
    calibrate(
        net("cnn"), images(), CalibrationRequest(tensors(), "mse"), lambda *told: seen.append(told)
    )
    fractions = [fraction for fraction, _ in seen]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert seen[5][1].startswith("mse: 6 of 24 samples, ")
    assert " per second, " in seen[5][1]
    assert seen[-1][1].endswith(" 0 s left")


def test_fewer_samples_than_asked_for_is_an_error_and_fewer_used_is_not() -> None:
    with pytest.raises(DataError) as caught:
        measured(count=4, samples=5)
    assert caught.value.code == "TF0523"
    assert "5 samples, the data has 4" in caught.value.message
    assert measured(count=8, samples=3).data[0].spans == ((0, 3),)


@pytest.mark.parametrize("shard", [(0, 5), (4, 4), (-1, 2), (0, 0)])
def test_shards_that_are_not_there(shard: tuple[int, int]) -> None:
    with pytest.raises(DataError) as caught:
        measured(count=4, shard=shard)
    assert caught.value.code == "TF0523"


def test_unknown_tensors_and_methods() -> None:
    with pytest.raises(DataError) as caught:
        calibrate(net("cnn"), images(), CalibrationRequest(("nope",), "minmax"))
    assert caught.value.code == "TF0525"
    with pytest.raises(ValueError, match="unknown calibration method 'max'"):
        measured("max")


@pytest.mark.parametrize(("value", "what"), [(0.0, "infinite"), (-1.0, "NaN")])
def test_what_is_not_finite_names_the_tensor_and_the_sample(value: float, what: str) -> None:
    data = Samples({"x": np.ones((4, 8), np.float32)})
    data.arrays["x"][2, 3] = value
    with pytest.raises(GraphError) as caught:
        calibrate(logs(), data, CalibrationRequest(("logs",), "entropy"))
    assert caught.value.code == "TF0524"
    assert f"tensor 'logs' is {what} on sample 2 " in caught.value.message


def test_a_tensor_that_stays_empty_is_an_error() -> None:
    model = Net()
    x = model.input("x", ["N", 4])
    flat = model.op("Compress", [x, model.const("none", [False], bool)], "empty")
    model.output(flat, ["K"])
    data = Samples({"x": np.ones((2, 4), np.float32)})
    with pytest.raises(DataError) as caught:
        calibrate(model.model(), data, CalibrationRequest(("x", "empty"), "minmax"))
    assert caught.value.code == "TF0526"


def test_constant_tensors_are_warned_about() -> None:
    data = Samples({"image": np.zeros((16, 3, 16, 32), np.float32)})
    data.arrays["image"] = data.arrays["image"][..., :16]
    cache = calibrate(net("cnn"), data, CalibrationRequest(("image",), "minmax"))
    assert cache.ranges["image"].amax == 0.0
    assert cache.warnings == ("tensor 'image' was 0 throughout; is the data representative?",)


def test_no_tensors_no_work() -> None:
    assert calibrate(net("cnn"), images(), CalibrationRequest((), "entropy")).ranges == {}


def test_several_inputs_of_integers() -> None:
    data = Samples(random_feeds(net("transformer"), SHAPES["transformer"], 2))
    names = candidate_tensors(net("transformer"), Precision(quantize="int8"))
    cache = calibrate(net("transformer"), data, CalibrationRequest(names, "minmax"))
    assert set(cache.ranges) == {"norm0", "merged", "norm1", "gelu"}


# --- partial caches


class StoppedError(Exception):
    """Ends a calibration from its progress."""


def stopped_after(count: int, checkpoint: Path, method: str = "entropy") -> CalibrationRequest:
    """Leave a checkpoint of `count` samples, as a killed run does."""
    request = CalibrationRequest(tensors(), method, checkpoint=checkpoint, checkpoint_seconds=0)
    told = 0

    def stop(fraction: float, text: str) -> None:
        nonlocal told
        told += 1
        if told == count:
            raise StoppedError

    with pytest.raises(StoppedError):
        calibrate(net("cnn"), images(), request, stop)
    return request


def runs_of(request: CalibrationRequest) -> tuple[int, str]:
    """How many samples run, and the cache."""
    told: list[float] = []
    cache = calibrate(net("cnn"), images(), request, lambda fraction, text: told.append(fraction))
    assert told == sorted(told)
    return len(told), cache.as_text()


@pytest.mark.parametrize("method", ["entropy", "average"])
def test_a_run_goes_on_where_another_stopped(tmp_path: Path, method: str) -> None:
    request = stopped_after(10, tmp_path / "cache.json", method)
    assert len(list(tmp_path.iterdir())) == 1
    assert runs_of(request) == (14, measured(method).as_text())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["", "{", "cut", "another"])
def test_a_damaged_partial_cache_is_ignored(tmp_path: Path, damage: str) -> None:
    request = stopped_after(10, tmp_path / "cache.json")
    (partial,) = tmp_path.iterdir()
    text = partial.read_text()
    spoiled = {"cut": text[: len(text) // 2], "another": json.dumps(json.loads(text) | {
        "graph_digest": "sha256:other"})}  # fmt: skip
    partial.write_text(spoiled.get(damage, damage))
    assert runs_of(request) == (24, measured("entropy").as_text())


def test_a_partial_cache_serves_more_samples_but_not_other_methods(tmp_path: Path) -> None:
    request = stopped_after(10, tmp_path / "cache.json", "minmax")
    assert runs_of(replace(request, method="entropy")) == (24, measured("entropy").as_text())
    request = replace(stopped_after(10, tmp_path / "cache.json", "minmax"), samples=12)
    assert runs_of(request) == (2, measured("minmax", samples=12).as_text())


def test_the_first_interrupt_waits_and_the_second_does_not() -> None:
    steps: list[str] = []
    with pytest.raises(KeyboardInterrupt), interrupts_between() as interrupted:  # noqa: PT012
        assert not interrupted()
        signal.raise_signal(signal.SIGINT)
        steps.append("went on")
        assert interrupted()
        signal.raise_signal(signal.SIGINT)
        steps.append("never")
    assert steps == ["went on"]
    with pytest.raises(KeyboardInterrupt), interrupts_between():
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


# --- memory

MEMORY_PROGRAM = """
import resource, sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from models_precision import Net
from precision_samples import Samples
from trtforge.precision.calibrate import CalibrationRequest, calibrate

class Made(Samples):
    count = int(sys.argv[3])
    def __init__(self): self.static_batch = None
    def batches(self, batch, limit=None, start=0):
        for first in range(start, limit or self.count, batch):
            rows = np.arange(first, min(first + batch, limit or self.count), dtype=np.float32)
            yield {"x": np.ones((len(rows), 3, 96, 96), np.float32) * rows[:, None, None, None]}

net = Net()
x = net.input("x", ["N", 3, 96, 96])
names, channels = [x], 3
for index in range(int(sys.argv[4])):
    x = net.op("Conv", [x, net.weight(f"w{index}", 16, channels, 3, 3)], f"c{index}",
               pads=[1, 1, 1, 1])
    x = net.op("GlobalAveragePool", [net.op("Relu", [x], f"r{index}")], f"p{index}")
    names += [f"c{index}", f"r{index}", x]
    x, channels = f"r{index}", 16
net.output(x, ["N", 16, 96, 96])
model = net.model()
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
before = peak()
calibrate(model, Made(), CalibrationRequest(tuple(names), sys.argv[2]))
print(before, peak())
"""


def peak_mib(method: str, samples: int, layers: int = 4) -> tuple[int, int]:
    """Peak memory before and after a calibration in a fresh process."""
    tests = str(Path(__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", MEMORY_PROGRAM, tests, method, str(samples), str(layers)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    before, after = map(int, done.stdout.split())
    return before, after


@pytest.mark.parametrize("method", ["minmax", "entropy"])
def test_memory_does_not_grow_with_the_samples(method: str) -> None:
    (_, few), (_, many) = peak_mib(method, 32), peak_mib(method, 512)
    assert many < 1.1 * few
