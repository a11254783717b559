"""`trtforge bench`: latency and throughput of ONNX files and of the engines in a bundle."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtforge.engine.measuring.scenarios import (
    SCENARIOS,
    Load,
    Measurement,
    Query,
    highest_rate,
    measure,
)
from trtforge.engine.measuring.statistics import Comparison, compare
from trtforge.errors import EXIT_BUDGET, EXIT_OK, MissingError, UsageError
from trtforge.pipeline.events import Sink, StageProgress, ignore

if TYPE_CHECKING:
    from trtforge.graph.model import Model

_ROUNDS = 20
_DISTINCT = 16
"""Different samples that queries go through, so that no cache holds a single one."""

_LIMIT = re.compile(r"\s*(\w[\w.]*)\s*(<=|>=)\s*([0-9.eE+-]+)\s*")


@dataclass(frozen=True)
class Limit:
    """A bound on a figure: at most or at least."""

    figure: str
    is_most: bool
    bound: float

    def __str__(self) -> str:
        return f"{self.figure} {'<=' if self.is_most else '>='} {self.bound:g}"

    def holds(self, found: float) -> bool:
        """Whether a figure meets it."""
        return found <= self.bound if self.is_most else found >= self.bound


FIGURES = ("mean_ms", "p50_ms", "p90_ms", "p95_ms", "p99_ms", "p99.9_ms", "samples_per_second")
"""What limits may be set on."""


@dataclass(frozen=True)
class BenchOptions:
    """How something is measured.

    Attributes:
        load: what arrives.
        data: .npz with recorded inputs; None for random ones.
        shapes: `name=1x3x224x224` texts for dynamic inputs; the batch is the load's.
        target_ms: Server: find the highest rate at which the 99th percentile stays within this.
        threads: threads per operator; None for one per core.
        backend: `onnxruntime` measures a bundle's typed ONNX on the CPU; None its engines.
        limits: `p99_ms<=5`, `samples_per_second>=1000`.
        against: another thing, measured in turns with the first.
        rounds: turns of a comparison.
    """

    load: Load = field(default_factory=Load)
    data: Path | None = None
    shapes: tuple[str, ...] = ()
    target_ms: float | None = None
    threads: int | None = None
    backend: str | None = None
    limits: tuple[str, ...] = ()
    against: Path | None = None
    rounds: int = _ROUNDS


@dataclass(frozen=True)
class BenchResult:
    """What was measured.

    Attributes:
        subject: what ran.
        backend: on what.
        measurement: the figures; of a search for the highest rate, those of the best.
        missed: limits that do not hold, with what was found.
        rates: of a search: every rate tried, with its 99th percentile in milliseconds.
        other: of a comparison: the figures of the other.
        comparison: how the two compare: time of the other / time of the subject.
        environment: what the machine says of itself.
        warnings: what makes the figures doubtful.
    """

    subject: str
    backend: str
    measurement: Measurement
    missed: tuple[str, ...] = ()
    rates: tuple[tuple[float, float], ...] = ()
    other: Measurement | None = None
    comparison: Comparison | None = None
    environment: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def exit_status(self) -> int:
        """6 when a limit is missed."""
        return EXIT_BUDGET if self.missed else EXIT_OK

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {
            "subject": self.subject,
            "backend": self.backend,
            **self.measurement.as_json(),
            "missed": list(self.missed),
            "rates": [{"rate": rate, "p99_ms": late} for rate, late in self.rates],
            "against": None if self.other is None else self.other.as_json(),
            "comparison": None if self.comparison is None else self.comparison.as_json(),
            "environment": dict(self.environment),
            "warnings": list(self.warnings),
        }


def bench(subject: Path, options: BenchOptions, emit: Sink = ignore) -> BenchResult:
    """Measure an ONNX file or a bundle.

    Raises:
        UsageError: an option is wrong, or the subject cannot be measured.
        MissingError: TF0603, an engine is to be run and there is no GPU here.
        DataError: the data does not fit the model.
        GraphError: the model does not run.
    """
    limits = [parse_limit(text) for text in options.limits]
    _check(options)
    with ExitStack() as stack:
        emit(StageProgress("bench", None, f"loading {subject.name}"))
        queries = stack.enter_context(_queries(subject, options))
        others: Sequence[Query] = ()
        if options.against is not None:
            others = stack.enter_context(_queries(options.against, options))
        emit(StageProgress("bench", None, f"measuring: {options.load.scenario}"))
        busy = _load_average()
        if others:
            return _compared(subject, queries, others, options, limits)
        rates: tuple[tuple[float, float], ...] = ()
        if options.target_ms is not None:
            found, tried = highest_rate(queries, options.load, options.target_ms)
            rates = tuple((one.load.rate or 0.0, one.latency_ms) for one in tried)
            measurement = found or min(tried, key=lambda one: one.latency_ms)
            missed = [] if found else [f"no rate tried holds p99 <= {options.target_ms:g} ms"]
        else:
            measurement, missed = measure(queries, options.load), []
    missed += _missed(limits, measurement)
    return BenchResult(
        str(subject),
        "onnxruntime",
        measurement,
        tuple(missed),
        rates,
        environment=environment(),
        warnings=_doubts(measurement, busy),
    )


def parse_limit(text: str) -> Limit:
    """Read `p99_ms<=5`.

    Raises:
        UsageError: TF0140, it is not of that form, or there is no such figure.
    """
    found = _LIMIT.fullmatch(text)
    known = ", ".join(FIGURES)
    if found is None or found[1] not in FIGURES:
        raise UsageError(
            "TF0140", f"'{text}' is no limit", f"write p99_ms<=5; figures are: {known}"
        )
    try:
        return Limit(found[1], found[2] == "<=", float(found[3]))
    except ValueError:
        raise UsageError("TF0140", f"'{found[3]}' is no number", "write p99_ms<=5") from None


def figure(measurement: Measurement, name: str) -> float:
    """Return one of FIGURES."""
    if name == "samples_per_second":
        return measurement.throughput
    if name == "mean_ms":
        return measurement.latencies.mean
    return measurement.latencies.at(float(name.removeprefix("p").removesuffix("_ms"))).value


def _check(options: BenchOptions) -> None:
    load = options.load
    if load.scenario == "server" and load.rate is None and options.target_ms is None:
        raise UsageError(
            "TF0141", "the server scenario needs a rate", "give --rate, or --target-ms to find it"
        )
    if options.target_ms is not None and load.scenario != "server":
        raise UsageError("TF0141", "--target-ms is of the server scenario", "add --scenario server")
    if options.against is not None and load.scenario not in ("single-stream", "multi-stream"):
        raise UsageError(
            "TF0141",
            f"a comparison takes turns, which {load.scenario} does not",
            "use --scenario single-stream or multi-stream",
        )


def _compared(
    subject: Path,
    queries: Sequence[Query],
    others: Sequence[Query],
    options: BenchOptions,
    limits: Sequence[Limit],
) -> BenchResult:
    """Measure two in turns: what disturbs the machine disturbs both."""
    busy = _load_average()
    slice_seconds = options.load.seconds / options.rounds / 2
    load = replace(
        options.load,
        seconds=slice_seconds,
        queries=max(1, options.load.queries // options.rounds),
        warmup_seconds=0.0,
    )
    for one in (queries, others):
        measure(one, replace(load, seconds=0.0, warmup_seconds=options.load.warmup_seconds))
    rounds: list[tuple[Measurement, Measurement]] = []
    for index in range(options.rounds):
        # Whichever goes first finds the other's data in the caches: they take turns in that too.
        if index % 2:
            second, first = measure(others, load), measure(queries, load)
        else:
            first, second = measure(queries, load), measure(others, load)
        rounds.append((first, second))
    mine, theirs = (_joined([pair[side] for pair in rounds], options.load) for side in (0, 1))
    medians = [[one[side].latencies.at(50.0).value for one in rounds] for side in (0, 1)]
    return BenchResult(
        str(subject),
        "onnxruntime",
        mine,
        tuple(_missed(limits, mine)),
        other=theirs,
        comparison=compare(*medians),
        environment=environment(),
        warnings=_doubts(mine, busy),
    )


def _joined(parts: Sequence[Measurement], load: Load) -> Measurement:
    from trtforge.engine.measuring.statistics import latencies

    times = tuple(one for part in parts for one in part.times)
    return Measurement(
        load,
        latencies(times),
        sum(part.seconds for part in parts),
        sum(part.samples for part in parts),
        times,
    )


def _missed(limits: Sequence[Limit], measurement: Measurement) -> list[str]:
    found = [(limit, figure(measurement, limit.figure)) for limit in limits]
    return [f"{limit}: found {value:.4g}" for limit, value in found if not limit.holds(value)]


@contextmanager
def _queries(subject: Path, options: BenchOptions) -> Iterator[list[Query]]:
    """Load what is measured, and prepare a query for each of some samples."""
    from trtforge.graph.execute import load_session
    from trtforge.graph.model import Model

    onnx = _onnx_of(subject, options)
    model = Model.load(onnx)
    feeds = list(_feeds(model, options))
    session, weights = load_session(model, optimize=True, threads=options.threads)
    yield [_query(session, one) for one in feeds]
    del session, weights


def _query(session: Any, feeds: Mapping[str, Any]) -> Query:
    run = session.run

    def query() -> object:
        return run(None, feeds)

    return query


def _onnx_of(subject: Path, options: BenchOptions) -> Path:
    from trtforge.pipeline.compare import kind_of

    kind = kind_of(subject)
    if kind == "onnx":
        return subject
    if kind == "bundle" and options.backend == "onnxruntime":
        from trtforge.bundle.read import open_bundle

        bundle = open_bundle(subject)
        if bundle.manifest.model.included:
            return bundle.file("model.onnx")
        raise UsageError("TF0142", f"bundle '{subject}' holds no ONNX file", "name an ONNX file")
    from trtforge.engine.environment import driver

    reason = driver().reason or "engines are measured by NVIDIA's own trtexec so far"
    raise MissingError(
        "TF0603",
        f"cannot run the engines of '{subject.name}': {reason}",
        "measure the typed ONNX on this CPU with --backend onnxruntime",
    )


def _feeds(model: "Model", options: BenchOptions) -> Iterator[dict[str, Any]]:
    """Recorded samples where there are some, else random ones; the same for the same options."""
    batch = options.load.samples_per_query
    if options.data is not None:
        from trtforge.graph.data import ArrayData

        source = ArrayData.open(options.data, model.contract, labels=False)
        whole = list(source.batches(batch, _DISTINCT * batch))
        size = {len(next(iter(one.values()))) for one in whole}
        full = [one for one in whole if len(next(iter(one.values()))) == max(size)]
        if max(size) < batch:
            raise UsageError(
                "TF0143",
                f"'{options.data.name}' has {source.count} samples, a query takes {batch}",
                "give a smaller --batch, or more samples",
            )
        yield from full
        return
    from trtforge.graph.inputs import random_feeds
    from trtforge.pipeline.corners import free_shapes
    from trtforge.pipeline.rooms import given_shapes

    given = given_shapes(model.contract, options.shapes)
    shapes = dict(free_shapes(model.contract, given)["opt"])
    for spec in model.contract.inputs:
        if spec.name not in given and spec.dims and not isinstance(spec.dims[0], int):
            shapes[spec.name] = (batch, *shapes[spec.name][1:])
    for seed in range(_DISTINCT):
        yield random_feeds(model, shapes, seed)


def environment() -> dict[str, Any]:
    """What the machine says of itself: cores, load, clock of the first core in MHz."""
    facts: dict[str, Any] = {"cpus": os.cpu_count(), "load_average": _load_average()}
    clock = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq")
    if clock.is_file():
        facts["cpu_mhz"] = round(int(clock.read_text()) / 1000)
    return facts


def _load_average() -> float | None:
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def _doubts(measurement: Measurement, busy: float | None) -> tuple[str, ...]:
    found = []
    if busy is not None and busy > 0.75 * (os.cpu_count() or 1):
        found.append(f"the machine is busy: load {busy} on {os.cpu_count()} cores before the start")
    drift = measurement.latencies.drift
    if not 0.9 <= drift <= 1.1:
        change = "slower" if drift > 1 else "faster"
        found.append(
            f"the last quarter was {abs(drift - 1):.0%} {change} than the first: clocks or caches "
            "had not settled"
        )
    percent = SCENARIOS[measurement.load.scenario]
    if measurement.latencies.at(percent).low is None:
        found.append(
            f"{measurement.latencies.count} queries are too few for the {percent:g}th percentile"
        )
    return tuple(found)
