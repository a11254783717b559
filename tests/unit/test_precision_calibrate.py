"""Calibration: right ranges, any grouping into batches, one batch in memory."""

import gc
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from models_precision import Net
from precision_samples import SHAPES, Samples, net

from trtforge.errors import DataError, GraphError
from trtforge.graph.execute import Session
from trtforge.graph.inputs import random_feeds
from trtforge.graph.model import Model
from trtforge.precision import calibrate as calibration
from trtforge.precision.calibrate import CalibrationRequest, calibrate
from trtforge.precision.quantize import candidate_tensors
from trtforge.recipe.schema import Precision


def images(count: int = 24) -> Samples:
    return Samples(random_feeds(net("cnn"), {"image": (count, 3, 16, 16)}, 4))


def tensors() -> tuple[str, ...]:
    return candidate_tensors(net("cnn"), Precision(quantize="int8"))


def two_layers() -> Model:
    model = Net()
    x = model.input("x", ["N", 8])
    y = model.op("Relu", [model.op("MatMul", [x, model.weight("w", 8, 8)], "m")], "y")
    model.op("MatMul", [y, model.weight("w2", 8, 8)], "z")
    model.output("z", ["N", 8])
    return model.model()


def test_ranges_are_those_of_the_tensors() -> None:
    data = images()
    names = tensors()
    cache = calibrate(net("cnn"), data, CalibrationRequest(names, "minmax", batch=5))
    inner = [name for name in names if name != "image"]
    values = Session(net("cnn"), outputs=inner).run(data.arrays, inner) | data.arrays
    assert tuple(cache.ranges) == names
    for name, seen in cache.ranges.items():
        assert seen.min == pytest.approx(values[name].min(), rel=1e-4, abs=1e-5)
        assert seen.max == pytest.approx(values[name].max(), rel=1e-4)
        assert seen.amax == seen.observed_amax
    assert cache.samples == 24
    assert cache.graph_digest == net("cnn").digest()
    assert cache.data_digest == "sha256:data"


@pytest.mark.parametrize("method", ["minmax", "entropy"])
def test_the_grouping_into_batches_does_not_matter(method: str) -> None:
    caches = [
        calibrate(net("cnn"), images(), CalibrationRequest(tensors(), method, batch=batch))
        for batch in (1, 7, 24)
    ]
    for other in caches[1:]:
        for name, seen in caches[0].ranges.items():
            # Only the runtime's own order of sums differs; one of 2048 bins is 5e-4.
            assert other.ranges[name].amax == pytest.approx(seen.amax, rel=2e-3)


def test_entropy_stays_inside_what_was_seen() -> None:
    cache = calibrate(net("cnn"), images(), CalibrationRequest(tensors(), "entropy"))
    assert cache.options == {"bins": 2048, "levels": 128}
    clipped = 0
    for seen in cache.ranges.values():
        assert 0 < seen.amax <= seen.observed_amax
        clipped += seen.amax < 0.99 * seen.observed_amax
    assert clipped > 0
    assert any("mostly noise" in text for text in cache.warnings)


@pytest.mark.parametrize("method", ["minmax", "entropy"])
def test_one_batch_is_in_memory_at_a_time(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[weakref.ref[np.ndarray]] = []
    most = 0

    class Watched(Samples):
        def batches(self, batch: int, limit: int | None = None) -> Iterator[dict[str, np.ndarray]]:
            nonlocal most
            for _ in range(6):
                gc.collect()
                most = max(most, sum(ref() is not None for ref in alive))
                fresh = np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32)
                alive.append(weakref.ref(fresh))
                feeds = {"x": fresh}
                del fresh
                yield feeds
                del feeds

    model = two_layers()
    data = Watched({"x": np.zeros((24, 8), np.float32)})
    calibrate(model, data, CalibrationRequest(("x", "y"), method, batch=4))
    assert len(alive) == 6 * (2 if method == "entropy" else 1)
    assert most == 0


def test_histogram_batches_shrink_to_the_memory_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    class Noting(Samples):
        def batches(self, batch: int, limit: int | None = None) -> Iterator[dict[str, np.ndarray]]:
            asked.append(batch)
            return super().batches(batch, limit)

    data = Noting({"x": np.random.default_rng(0).standard_normal((24, 8)).astype(np.float32)})
    per_sample = 2 * 8 * 4
    monkeypatch.setattr(calibration, "_VALUE_BATCH_BYTES", 3 * per_sample)
    calibrate(two_layers(), data, CalibrationRequest(("x", "y"), "entropy", batch=12))
    assert asked == [12, 3]


def test_a_static_batch_is_used_as_it_is() -> None:
    model = net("control_flow")
    data = Samples({"x": np.ones((6, 8, 8, 8), np.float32)})
    cache = calibrate(model, data, CalibrationRequest(("x", "scaled"), "entropy", batch=64))
    assert cache.ranges["x"].max == 1.0


def test_progress_runs_from_zero_to_one() -> None:
    seen: list[float] = []
    calibrate(
        net("cnn"),
        images(),
        CalibrationRequest(tensors(), "entropy", batch=8),
        lambda fraction, text: seen.append(fraction),
    )
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


def test_fewer_samples_than_asked_for_is_an_error_and_fewer_used_is_not() -> None:
    with pytest.raises(DataError) as caught:
        calibrate(net("cnn"), images(4), CalibrationRequest(tensors(), "minmax", samples=5))
    assert caught.value.code == "TF0523"
    assert "5 samples, the data has 4" in caught.value.message
    cache = calibrate(net("cnn"), images(8), CalibrationRequest(tensors(), "minmax", samples=3))
    assert cache.samples == 3


def test_unknown_tensors_and_methods() -> None:
    with pytest.raises(DataError) as caught:
        calibrate(net("cnn"), images(), CalibrationRequest(("nope",), "minmax"))
    assert caught.value.code == "TF0525"
    with pytest.raises(ValueError, match="percentile"):
        calibrate(net("cnn"), images(), CalibrationRequest(tensors(), "percentile"))


def test_nan_inside_the_network_names_the_tensor() -> None:
    model = Net()
    x = model.input("x", ["N", 8])
    logs = model.op("Log", [x], "logs")
    model.op("MatMul", [logs, model.weight("w", 8, 8)], "y")
    model.output("y", ["N", 8])
    data = Samples({"x": np.zeros((4, 8), np.float32)})
    with pytest.raises(GraphError) as caught:
        calibrate(model.model(), data, CalibrationRequest(("logs",), "minmax"))
    assert caught.value.code == "TF0524"
    assert "'logs'" in caught.value.message


def test_constant_tensors_are_warned_about() -> None:
    data = Samples({"image": np.zeros((4, 3, 16, 16), np.float32)})
    cache = calibrate(net("cnn"), data, CalibrationRequest(("image",), "entropy"))
    assert cache.ranges["image"].amax == 0.0
    assert cache.warnings == ("tensor 'image' was 0 throughout; is the data representative?",)


def test_no_tensors_no_work() -> None:
    assert calibrate(net("cnn"), images(), CalibrationRequest((), "entropy")).ranges == {}


def test_several_inputs_of_integers() -> None:
    data = Samples(random_feeds(net("transformer"), SHAPES["transformer"], 2))
    names = candidate_tensors(net("transformer"), Precision(quantize="int8"))
    cache = calibrate(net("transformer"), data, CalibrationRequest(names, "minmax", batch=3))
    assert set(cache.ranges) == {"norm0", "merged", "norm1", "gelu"}


MEMORY_PROGRAM = """
import resource, sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from models_precision import Net
from precision_samples import Samples
from trtforge.precision.calibrate import CalibrationRequest, calibrate
net = Net()
x = net.input("x", ["N", 1 << 20])
names = []
for index in range(60):
    x = net.op("Tanh", [x], f"t{index}")
    names.append(x)
net.output(x, ["N", 1 << 20])
model, data = net.model(), Samples({"x": np.ones((1, 1 << 20), np.float32)})
used = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = used()
calibrate(model, data, CalibrationRequest(tuple(names), "minmax"))
print((used() - before) // 1024)
"""


def test_tensors_are_let_go_as_soon_as_they_are_reduced() -> None:
    """Sixty tensors of 4 MiB each would take 240 MiB together."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY_PROGRAM, str(Path(__file__).parent.parent)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 80
