"""The four scenarios of MLPerf inference: what arrives when, and what is measured.

SingleStream: the next query when the last is done. MultiStream: several samples per query. Server:
queries arrive at random (Poisson). Offline: all samples are there at once. Source: MLPerf inference
rules, "Scenarios". What is measured here follows them in manner alone: it is no MLPerf result.
"""

import math
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Literal

from trtforge.engine.measuring.statistics import Latencies, latencies

Scenario = Literal["single-stream", "multi-stream", "server", "offline"]

SCENARIOS: dict[Scenario, float] = {
    "single-stream": 90.0,
    "multi-stream": 99.0,
    "server": 99.0,
    "offline": 50.0,
}
"""Scenario -> the percentile of latency that counts. Source: MLPerf inference rules."""

_PATIENCE = 3.0
"""A Server that cannot keep up is given no more queries after so many times `seconds`."""

Query = Callable[[], object]
"""Computes one query and returns when its result is there; may be called from several threads."""


@dataclass(frozen=True)
class Load:
    """What arrives.

    Attributes:
        scenario: one of SCENARIOS.
        samples_per_query: how many samples a query holds.
        seconds: for how long queries are made at least.
        queries: how many are made at least.
        warmup_seconds: queries before that are not counted.
        rate: Server: queries per second in the mean.
        streams: Server and Offline: how many queries run at the same time.
        seed: of the arrival times.
    """

    scenario: Scenario = "single-stream"
    samples_per_query: int = 1
    seconds: float = 3.0
    queries: int = 64
    warmup_seconds: float = 0.5
    rate: float | None = None
    streams: int = 1
    seed: int = 0


@dataclass(frozen=True)
class Measurement:
    """What came of a load.

    Attributes:
        load: what arrived.
        latencies: of the queries; Server: from the moment at which a query was due.
        seconds: from the first query to the end of the last.
        samples: how many were computed.
        times: latencies in the order of the queries, seconds.
        device_times: of a GPU: what its kernels took of each, by its own clock, seconds.
        joules: of a GPU: the energy that it took meanwhile; None where that is not known.
    """

    load: Load
    latencies: Latencies
    seconds: float
    samples: int
    times: tuple[float, ...]
    device_times: tuple[float, ...] = ()
    joules: float | None = None

    @classmethod
    def of(cls, load: Load, times: Sequence[float], seconds: float) -> "Measurement":
        """Summarize times of queries, in order.

        Raises:
            ValueError: there are none.
        """
        samples = len(times) * load.samples_per_query
        return cls(load, latencies(times), seconds, samples, tuple(times))

    @property
    def throughput(self) -> float:
        """Samples per second."""
        return self.samples / self.seconds

    @property
    def latency_ms(self) -> float:
        """The percentile of latency that counts in this scenario, milliseconds."""
        return self.latencies.at(SCENARIOS[self.load.scenario]).value

    @property
    def keeps_up(self) -> bool:
        """Whether a Server's queries were done as fast as they came, but for chance.

        In the time that they took, n queries come give or take sqrt(n) (a Poisson process); three
        times that is allowed, and the time of a query itself.
        """
        if self.load.scenario != "server" or self.load.rate is None:
            return True
        count = self.latencies.count
        own = 2 * self.latencies.smallest / 1e3
        return self.seconds <= (count + 3 * math.sqrt(count)) / self.load.rate + own

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON data, the single times left out."""
        return {
            "scenario": self.load.scenario,
            "samples_per_query": self.load.samples_per_query,
            "streams": self.load.streams,
            "rate": self.load.rate,
            "percentile": SCENARIOS[self.load.scenario],
            "latency_ms": self.latency_ms,
            "latencies": self.latencies.as_json(),
            "throughput": self.throughput,
            "samples": self.samples,
            "seconds": self.seconds,
            "device": latencies(self.device_times).as_json() if self.device_times else None,
            "joules_per_sample": None if self.joules is None else self.joules / self.samples,
        }


def measure(
    queries: Sequence[Query], load: Load, begin: Callable[[], None] = lambda: None
) -> Measurement:
    """Make queries, one after the other from the list and from its start again.

    Args:
        queries: at least one; what they compute may differ from one to the next.
        load: what arrives.
        begin: called between the warm-up and the first query that counts.

    Raises:
        ValueError: there are no queries, or a Server without a rate.
    """
    if not queries:
        raise ValueError("no queries")
    _warm_up(queries, load.warmup_seconds)
    begin()
    if load.scenario == "server":
        times, seconds = _server(queries, load)
    elif load.scenario == "offline":
        times, seconds = _offline(queries, load)
    else:
        times, seconds = _stream(queries, load)
    return Measurement.of(load, times, seconds)


def joined(parts: Sequence[Measurement], load: Load) -> Measurement:
    """Measurements of the same thing one after the other, as one.

    Args:
        parts: at least one.
        load: what arrived in all of them.
    """
    whole = Measurement.of(
        load, [time for part in parts for time in part.times], sum(part.seconds for part in parts)
    )
    joules = [part.joules for part in parts if part.joules is not None]
    return replace(
        whole,
        device_times=tuple(time for part in parts for time in part.device_times),
        joules=sum(joules) if len(joules) == len(parts) else None,
    )


def _warm_up(queries: Sequence[Query], seconds: float) -> None:
    end, index = time.perf_counter() + seconds, 0
    while index == 0 or time.perf_counter() < end:
        queries[index % len(queries)]()
        index += 1


def _stream(queries: Sequence[Query], load: Load) -> tuple[list[float], float]:
    """One query after the other; nothing but a clock stands between them."""
    clock, times, index, count = time.perf_counter, list[float](), 0, len(queries)
    begun = before = clock()
    end = begun + load.seconds
    while index < load.queries or before < end:
        queries[index % count]()
        after = clock()
        times.append(after - before)
        before = after
        index += 1
    return times, before - begun


def _offline(queries: Sequence[Query], load: Load) -> tuple[list[float], float]:
    """As many queries at the same time as there are streams, until time is up."""
    lock, times, made = threading.Lock(), list[float](), 0
    clock = time.perf_counter
    begun = clock()
    end = begun + load.seconds

    def stream() -> None:
        nonlocal made
        while True:
            with lock:
                if made >= load.queries and clock() >= end:
                    return
                index, made = made, made + 1
            before = clock()
            queries[index % len(queries)]()
            times.append(clock() - before)

    _together(stream, load.streams)
    return times, clock() - begun


def _server(queries: Sequence[Query], load: Load) -> tuple[list[float], float]:
    """Queries fall due at random; a query that waits for a free stream grows old meanwhile."""
    if load.rate is None or load.rate <= 0:
        raise ValueError("the server scenario needs a rate")
    rate, arrivals = load.rate, random.Random(load.seed)
    times, lock, due = list[float](), threading.Lock(), 0.0
    clock = time.perf_counter
    begun = clock()

    def stream() -> None:
        nonlocal due
        while True:
            with lock:
                due += arrivals.expovariate(rate)
                index, mine = len(times), due
                is_late = clock() - begun > _PATIENCE * load.seconds
                if index >= load.queries and (mine > load.seconds or is_late):
                    return
                times.append(0.0)
            wait = begun + mine - clock()
            if wait > 0:
                time.sleep(wait)
            queries[index % len(queries)]()
            times[index] = clock() - begun - mine

    _together(stream, load.streams)
    return times, clock() - begun


def _together(work: Callable[[], None], streams: int) -> None:
    if streams == 1:
        work()
        return
    with ThreadPoolExecutor(max_workers=streams) as pool:
        for one in [pool.submit(work) for _ in range(streams)]:
            one.result()


def highest_rate(
    take: Callable[[Load], Measurement], load: Load, target_ms: float, trials: int = 7
) -> tuple[Measurement | None, tuple[Measurement, ...]]:
    """Find the highest rate of a Server at which the 99th percentile stays within a target.

    The bound above is what there is without waiting (Offline), the first rate 0.7 of it; then the
    interval is halved. A rate that cannot be kept up does not hold, however short the run is. Nor
    is one tried below a twentieth of the bound: hardly a query waits for another there.

    Args:
        take: measures a load.
        load: with scenario `server`; its rate is the first one tried where it is given.
        target_ms: the bound on the 99th percentile, milliseconds.
        trials: how many rates are tried.

    Returns:
        The best measurement that holds the target, None where none did, and all of them in turn.
    """
    probe = take(replace(load, scenario="offline", seconds=load.seconds / 4))
    high = probe.throughput / load.samples_per_query
    low, rate, least = 0.0, load.rate or high * 0.7, high / 20
    best: Measurement | None = None
    tried = []
    for _ in range(trials):
        found = take(replace(load, rate=rate, warmup_seconds=0.0))
        tried.append(found)
        if found.latency_ms <= target_ms and found.keeps_up:
            low = rate
            high = high if rate < high else 4 * rate  # the bound was none: it is found anew
            if best is None or rate > (best.load.rate or 0):
                best = found
        else:
            high = min(high, rate)
        if high <= low * 1.02 or high < least:
            break
        rate = (low + high) / 2
    return best, tuple(tried)
