"""Measuring: percentiles with honest intervals, scenarios that do what they say, limits."""

import json
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from trtforge.cli.main import cli
from trtforge.engine.measuring.scenarios import (
    SCENARIOS,
    Load,
    Measurement,
    Query,
    highest_rate,
    measure,
)
from trtforge.engine.measuring.statistics import compare, latencies
from trtforge.errors import MissingError, UsageError
from trtforge.graph.execute import Session
from trtforge.pipeline.bench import BenchOptions, bench, parse_limit
from trtforge.report.latency_chart import latency_svg

DIGITS = Path(__file__).parents[2] / "recipes" / "digits"


@given(st.lists(st.floats(1e-6, 10.0), min_size=1, max_size=300))
def test_percentiles_are_latencies_that_were_timed(seconds: list[float]) -> None:
    found = latencies(seconds)
    values = np.asarray(seconds) * 1e3
    for one in found.percentiles:
        assert one.value in values
        below = (values <= one.value).mean()
        assert below >= one.percent / 100 - 1e-12
        if one.low is not None:
            assert one.low <= one.value <= (one.high or 0)
    assert found.smallest == values.min()
    assert found.largest == values.max()


@settings(deadline=None, max_examples=25)
@given(
    st.sampled_from([50.0, 90.0, 95.0, 99.0]),
    st.sampled_from(["exponential", "two humps", "steps"]),
    st.integers(0, 999),
)
def test_the_interval_holds_the_true_percentile_as_often_as_it_says(
    percent: float, shape: str, seed: int
) -> None:
    rng, share = np.random.default_rng(seed), percent / 100
    uniform = rng.random((200, 1000))  # the inverse of its distribution makes any of a uniform
    inverse: dict[str, Callable[[Any], Any]] = {
        "exponential": lambda u: -np.log1p(-u),
        "two humps": lambda u: np.where(u < 0.7, 1 + 0.1 * u, 3 + u),
        "steps": lambda u: 1 + np.floor(8 * u),
    }
    times = inverse[shape](uniform)
    truth, held = float(inverse[shape](np.float64(share))), 0
    for row in times:
        one = latencies(row / 1e3).at(percent)
        assert one.low is not None
        assert one.high is not None
        held += one.low - 1e-9 <= truth <= one.high + 1e-9
    assert held >= 175, "190 of 200 in the mean, give or take 3"


def test_few_latencies_have_no_interval_for_high_percentiles() -> None:
    found = latencies([0.001] * 50)
    assert found.at(50.0).low is not None
    assert found.at(99.0).low is None
    with pytest.raises(KeyError):
        found.at(12.0)
    with pytest.raises(ValueError, match="no latencies"):
        latencies([])


def test_drift_tells_that_the_end_was_slower() -> None:
    assert latencies([0.001] * 40 + [0.002] * 40).drift == pytest.approx(2.0)


@settings(deadline=None, max_examples=30)
@given(st.floats(0.2, 5.0), st.integers(6, 40))
def test_the_ratio_of_a_scaled_run_is_the_scale(scale: float, rounds: int) -> None:
    first = np.linspace(1.0, 2.0, rounds)
    found = compare(list(first), list(first * scale))
    assert found.ratio == pytest.approx(scale)
    assert found.low == pytest.approx(scale)
    assert found.is_above_noise == (not 1 / 1.02 <= scale <= 1.02)


@pytest.mark.parametrize("rounds", [6, 20, 40])
def test_noise_is_called_noise_and_a_difference_a_difference(rounds: int) -> None:
    rng = np.random.default_rng(1)
    false_alarms, found = 0, 0
    for _ in range(400):
        first, second = rng.lognormal(0.0, 0.05, (2, rounds))
        false_alarms += compare(list(first), list(second)).is_above_noise
        found += compare(list(first), list(second * 1.3)).is_above_noise
    assert false_alarms <= 0.05 * 400 + 2 * (400 * 0.05 * 0.95) ** 0.5, "1 of 20 at most"
    assert found >= 398


def test_too_few_rounds_are_not_compared() -> None:
    for first, second in (([1.0] * 5, [1.0] * 5), ([1.0] * 7, [1.0] * 6), ([], [])):
        with pytest.raises(ValueError, match="at least 6"):
            compare(first, second)
    found = compare([1.0] * 6, [0.9, 1.1, 1.2, 1.3, 1.4, 1.5])
    assert (found.low, found.high) == (0.9, 1.5), "all of six, and no fewer"


class Sleeper:
    """A query of a known length; counts calls and how many ran at the same time."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.calls, self.now, self.most = seconds, 0, 0, 0
        self._lock = threading.Lock()

    def __call__(self) -> None:
        with self._lock:
            self.calls += 1
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(self.seconds)
        with self._lock:
            self.now -= 1


QUICK: dict[str, Any] = {"seconds": 0.0, "warmup_seconds": 0.0}


def test_a_single_stream_waits_for_each_query() -> None:
    query = Sleeper(0.002)
    found = measure([query], Load(queries=20, **QUICK))
    assert (query.calls, query.most) == (21, 1), "one of them warmed up"
    assert found.latencies.count == 20
    assert found.latency_ms >= 2.0
    assert found.seconds >= sum(found.times) * 0.999


def test_a_stream_goes_through_all_samples_and_lasts_as_long_as_asked() -> None:
    queries = [Sleeper(0.0005) for _ in range(3)]
    found = measure(queries, Load("multi-stream", 8, seconds=0.05, queries=1, warmup_seconds=0.0))
    assert found.seconds >= 0.05
    assert found.samples == 8 * found.latencies.count
    assert max(one.calls for one in queries) - min(one.calls for one in queries) <= 2


def test_offline_runs_streams_together() -> None:
    query = Sleeper(0.005)
    found = measure([query], Load("offline", queries=24, streams=4, **QUICK))
    assert query.most > 1
    assert found.latencies.count == 24
    assert found.throughput > 1.5 / 0.005


def test_a_query_that_waits_in_line_grows_old() -> None:
    query = Sleeper(0.004)
    slow = measure([query], Load("server", queries=30, rate=1000.0, **QUICK))
    fast = measure([query], Load("server", queries=30, rate=20.0, **QUICK))
    assert slow.latencies.at(99.0).value > 3 * fast.latencies.at(50.0).value
    with pytest.raises(ValueError, match="rate"):
        measure([query], Load("server", queries=3, **QUICK))
    with pytest.raises(ValueError, match="no queries"):
        measure([], Load())


def test_a_server_that_cannot_keep_up_is_seen_and_comes_to_an_end() -> None:
    begun = time.perf_counter()
    load = Load("server", seconds=0.1, queries=5, rate=1e6, warmup_seconds=0.0)
    found = measure([Sleeper(0.002)], load)
    assert time.perf_counter() - begun < 1.0
    assert not found.keeps_up
    assert 5 <= found.latencies.count < 300
    assert measure([Sleeper(0.002)], replace(load, rate=50.0)).keeps_up
    assert measure([Sleeper(0.002)], replace(load, scenario="offline")).keeps_up


def test_arrivals_are_a_poisson_process() -> None:
    count, seconds = 0, 0.5
    for seed in range(4):
        load = Load("server", seconds=seconds, queries=1, rate=400.0, warmup_seconds=0.0, seed=seed)
        count += measure([lambda: None], load).latencies.count
    assert abs(count - 800) < 4 * 800**0.5


def test_the_search_ends_whatever_is_measured() -> None:
    """Over a model of a server: `capacity` queries per second, 1 ms each."""

    def take(load: Load, capacity: float = 500.0) -> Measurement:
        rate = load.rate or capacity
        late = 0.001 if rate <= capacity else 1.0
        seconds = 1000 / min(rate, capacity)
        return Measurement.of(load, [late] * 1000, seconds)

    load = Load("server", seconds=1.0)
    best, tried = highest_rate(take, load, 5.0)
    assert best is not None
    assert 480 <= (best.load.rate or 0) <= 500
    assert len(tried) <= 7
    best, tried = highest_rate(take, replace(load, rate=5000.0), 5.0)
    assert best is not None, "a first rate far too high"
    assert 400 <= (best.load.rate or 0) <= 500
    best, tried = highest_rate(take, load, 1e-9)
    assert best is None
    assert len(tried) == 5, "hardly a query waits at a twentieth of what there is"
    capacities = iter([100.0, *[1000.0] * 9])  # the probe saw too little
    best, _ = highest_rate(lambda one: take(one, next(capacities)), replace(load, rate=200.0), 5.0)
    assert best is not None
    assert (best.load.rate or 0) > 700


def taking(query: Query) -> Callable[[Load], Measurement]:
    return lambda load: measure([query], load)


def test_the_highest_rate_holds_the_target() -> None:
    best, tried = highest_rate(
        taking(Sleeper(0.004)), Load("server", seconds=0.3, queries=10), target_ms=40.0, trials=4
    )
    assert best is not None
    assert best.latency_ms <= 40.0
    assert 1 <= len(tried) <= 4
    none, _ = highest_rate(
        taking(Sleeper(0.004)), Load("server", seconds=0.05, queries=5), target_ms=0.001, trials=2
    )
    assert none is None


def test_a_failing_query_is_not_swallowed() -> None:
    def broken() -> None:
        raise RuntimeError("no")

    for scenario in SCENARIOS:
        with pytest.raises(RuntimeError):
            measure([broken], Load(scenario, rate=10.0, queries=2, streams=2, **QUICK))


SHORT = Load(seconds=0.05, queries=20, warmup_seconds=0.0)


def test_a_model_is_measured_and_limits_are_held_against_it() -> None:
    options = BenchOptions(SHORT, limits=("p99_ms<=0.000001", "samples_per_second>=1"))
    result = bench(DIGITS / "model.onnx", options)
    assert result.measurement.latencies.count >= 20
    assert [text.split(":")[0] for text in result.missed] == ["p99_ms <= 1e-06"]
    assert result.exit_status == 6
    data = BenchOptions(Load("offline", 4, **QUICK), data=DIGITS / "calib.npz")
    assert bench(DIGITS / "model.onnx", data).exit_status == 0


def test_two_are_measured_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[bool] = []

    class Counted(Session):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            made.append(True)
            super().__init__(*arguments, **named)

    monkeypatch.setattr("trtforge.graph.execute.Session", Counted)
    load = Load(seconds=0.1, queries=20, warmup_seconds=0.0)
    options = BenchOptions(load, against=DIGITS / "model.onnx", rounds=6)
    result = bench(DIGITS / "model.onnx", options)
    assert result.comparison is not None
    assert result.comparison.rounds == 6
    assert result.other is not None
    assert 0.2 < result.comparison.ratio < 5
    assert len(made) == 2 + 2 * 6, "loaded anew for every round: it lies elsewhere then"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"limits": ("p98_ms<=1",)}, "no limit"),
        ({"limits": ("p99_ms<1",)}, "no limit"),
        ({"limits": ("p99_ms<=1e",)}, "no number"),
        ({"load": Load("server")}, "needs a rate"),
        ({"target_ms": 5.0}, "of the server scenario"),
        ({"load": Load("offline"), "against": DIGITS / "model.onnx"}, "takes turns"),
        ({"load": Load(streams=2)}, "one query at a time"),
        ({"against": DIGITS / "model.onnx", "rounds": 5}, "5 rounds tell nothing"),
        ({"shapes": ("image=4x1x8x8",)}, "hold 1 sample, and the inputs hold 4"),
        ({"shapes": ("image=4x1x8x8",), "load": Load("multi-stream", 8)}, "hold 8 samples"),
        ({"graphs": True}, "CUDA graphs are of engines"),
        ({"target": "rtx"}, "a target is one of"),
        ({"load": Load("offline", 10**7), "data": DIGITS / "calib.npz"}, "a query takes"),
    ],
)
def test_options_that_are_wrong(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        bench(DIGITS / "model.onnx", BenchOptions(**options))


@pytest.mark.parametrize(
    ("shape", "batch", "samples"),
    [([4, 3], 4, 4), ([4, 3], 1, 1), (["N", 3], 5, 5), ([], 1, 1), (["S", "B", 2], 1, 1)],
)
def test_samples_are_counted_as_the_inputs_hold_them(
    shape: list[Any], batch: int, samples: int, tmp_path: Path
) -> None:
    """Anything else would be a throughput that is no one's."""
    path = save_relu(shape, tmp_path)
    found = bench(path, BenchOptions(Load("offline", batch, **(QUICK | {"queries": 3}))))
    assert found.measurement.samples == 3 * samples
    if shape == [4, 3]:
        with pytest.raises(UsageError, match="the inputs hold 4"):
            bench(path, BenchOptions(Load("offline", 2, **QUICK)))


def test_what_nothing_says_is_told(tmp_path: Path) -> None:
    path = save_relu(["N", 3, "H", "W"], tmp_path)
    load = Load(**(QUICK | {"queries": 3}))
    (told,) = [text for text in bench(path, BenchOptions(load)).warnings if "how large" in text]
    assert "'x' is: 1x3x" in told
    found = bench(path, BenchOptions(load, shapes=("x=1x3x8x8",)))
    assert not [text for text in found.warnings if "how large" in text]


def test_an_overloaded_server_is_told_of() -> None:
    load = Load("server", seconds=0.02, queries=50, rate=1e6, warmup_seconds=0.0)
    (told,) = [
        text for text in bench(DIGITS / "model.onnx", BenchOptions(load)).warnings if "come" in text
    ]
    assert told.startswith("1000000 queries were to come each second, and ")


def save_relu(shape: list[Any], folder: Path) -> Path:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", ends[:1], ends[1:])
    imports = [helper.make_opsetid("", 19)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=10), folder / "m.onnx")
    return folder / "m.onnx"


def test_limits_are_read() -> None:
    limit = parse_limit(" samples_per_second >= 1e3 ")
    assert str(limit) == "samples_per_second >= 1000"
    assert limit.holds(1000)
    assert not limit.holds(999)


def test_engines_are_not_measured_without_a_gpu(tmp_path: Path) -> None:
    engine = tmp_path / "m.engine"
    engine.write_bytes(b"ftrt" + bytes(64))
    with pytest.raises(MissingError, match=r"cannot run 'm\.engine'") as caught:
        bench(engine, BenchOptions())
    assert "onnxruntime" not in str(caught.value.hint)  # a bare engine has no typed ONNX


def test_the_plot_is_a_picture_of_its_own(tmp_path: Path) -> None:
    plot = tmp_path / "plot.svg"
    arguments = [str(DIGITS / "model.onnx"), "--seconds", "0.05", "--warmup", "0", "--json"]
    done = CliRunner().invoke(cli, ["bench", *arguments, "--plot", str(plot)])
    document = json.loads(done.stdout)
    assert document["schema"] == "trtforge.bench/1"
    root = ET.fromstring(plot.read_text())
    assert root.tag.endswith("svg")
    assert "p99" in plot.read_text()


@given(
    st.lists(st.floats(1e-7, 1e3), min_size=1, max_size=50),
    st.lists(st.floats(1e-7, 1e3), max_size=5),
)
def test_whatever_was_measured_is_drawn_inside_the_picture(
    seconds: list[float], other: list[float]
) -> None:
    one = {
        "subject": "/some/where/<a&b>",
        "scenario": "offline",
        "latencies": latencies(seconds).as_json(),
    }
    picture = latency_svg(one, seconds, other)
    root = ET.fromstring(picture)
    assert "/some" not in picture
    shapes = [part for part in root.iter() if part.get("x") or part.get("x1")]
    places = [float(part.get("x") or part.get("x1") or 0) for part in shapes]
    assert all(0 <= place <= 720 for place in places)
    bars = [part for part in root.iter() if part.get("class") == "bar"]
    tallest = max(float(part.get("height") or 0) for part in bars)
    assert tallest <= 340
    assert len([part for part in root.iter() if part.get("class") == "other"]) == bool(other)
