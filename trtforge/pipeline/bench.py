"""`trtforge bench`: latency and throughput of ONNX files and of the engines in a bundle."""

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from trtforge.engine.measuring.scenarios import SCENARIOS, Load, Measurement, highest_rate, joined
from trtforge.engine.measuring.statistics import FEWEST_ROUNDS, Comparison, compare
from trtforge.errors import EXIT_BUDGET, EXIT_OK, UsageError
from trtforge.pipeline.events import Sink, StageProgress, ignore
from trtforge.pipeline.file_kinds import run_kind_of
from trtforge.pipeline.measured import Measured, opened
from trtforge.recipe.limits import HINT, Limit, read_limit

_ROUNDS = 20


@dataclass(frozen=True)
class BenchOptions:
    """How something is measured.

    Attributes:
        load: what arrives.
        data: .npz with recorded inputs; None for random ones.
        shapes: `name=1x3x224x224` texts for dynamic inputs; the batch is the load's.
        target_ms: Server: find the highest rate at which the 99th percentile stays within this.
        threads: threads per operator; None for one per core.
        backend: `onnxruntime` measures a bundle's typed ONNX on the CPU; None its engines. Of a
            bare engine: the backend that runs it.
        limits: `p99_ms<=5`, `samples_per_second>=1000`.
        against: another thing, measured in turns with the first.
        rounds: turns of a comparison.
        target: of a bundle: the target whose engine is measured; None where it has one only.
        against_target: likewise of `against`.
        graphs: engines: launch each query as one CUDA graph.
        allow_host_code: let code inside version-compatible engines run on the CPU.
        weights: a bare engine: the ONNX whose weights are put into it.
        weight_budget: an engine that streams weights: MiB of them that the GPU holds, or "auto"
            for what the library thinks fits; None for all. One in `against` has all.
        notes: what to warn of beside the figures.
        corner: shapes of all inputs, Values of those that decide shapes, in place of others.
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
    target: str | None = None
    against_target: str | None = None
    graphs: bool = False
    allow_host_code: bool = False
    weights: Path | None = None
    weight_budget: float | Literal["auto"] | None = None
    notes: tuple[str, ...] = ()
    corner: Mapping[str, tuple[int, ...]] | None = None


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
    """Measure an ONNX file, a bundle or an engine.

    Raises:
        UsageError: an option is wrong, or the subject cannot be measured.
        MissingError: TF0603, an engine is to be run and there is no GPU here.
        DataError: the data does not fit the model.
        GraphError: the model does not run.
        BuildError: the engine does not run.
    """
    limits = [parse_limit(text) for text in options.limits]
    _check(subject, options)
    with ExitStack() as stack:
        emit(StageProgress("bench", None, f"loading {subject.name}"))
        measured = stack.enter_context(opened(subject, options.target, options))
        if options.against is not None:
            emit(StageProgress("bench", None, f"loading {options.against.name}"))
            plain = replace(options, weights=None, weight_budget=None)
            other = opened(options.against, options.against_target, plain)
            emit(StageProgress("bench", None, f"measuring: {options.load.scenario}"))
            sides = (measured, stack.enter_context(other))
            _check_sides(sides, options)
            return _compared(subject, sides, options, limits)
        _check_sides((measured,), options)
        emit(StageProgress("bench", None, f"measuring: {options.load.scenario}"))
        busy = _load_average()
        rates: tuple[tuple[float, float], ...] = ()
        if options.target_ms is not None:
            found, tried = highest_rate(measured.measure, options.load, options.target_ms)
            rates = tuple((one.load.rate or 0.0, one.latency_ms) for one in tried)
            measurement = found or min(tried, key=lambda one: one.latency_ms)
            missed = [] if found else [f"no rate tried holds p99 <= {options.target_ms:g} ms"]
        else:
            measurement, missed = measured.measure(options.load), []
    missed += _missed(limits, measurement)
    return BenchResult(
        str(subject),
        measured.backend,
        measurement,
        tuple(missed),
        rates,
        environment=environment(measured),
        warnings=options.notes + _doubts(measurement, busy, (measured,)),
    )


def parse_limit(text: str) -> Limit:
    """Read `p99_ms<=5`.

    Raises:
        UsageError: TF0140, it is not of that form, or there is no such figure.
    """
    try:
        return read_limit(text)
    except ValueError as error:
        raise UsageError("TF0140", str(error), HINT) from None


def figure(measurement: Measurement, name: str) -> float:
    """Return one of FIGURES."""
    if name == "samples_per_second":
        return measurement.throughput
    if name == "mean_ms":
        return measurement.latencies.mean
    return measurement.latencies.at(float(name.removeprefix("p").removesuffix("_ms"))).value


def _check(subject: Path, options: BenchOptions) -> None:
    load = options.load
    if options.weights is not None and run_kind_of(subject) != "engine":
        raise UsageError("TF0147", "--weights is of a bare engine", "leave --weights out")
    if load.scenario == "server" and load.rate is None and options.target_ms is None:
        raise UsageError(
            "TF0141", "the server scenario needs a rate", "give --rate, or --target-ms to find it"
        )
    if load.rate is not None and load.scenario != "server":
        raise UsageError("TF0141", "--rate is of the server scenario", "add --scenario server")
    if load.streams > 1 and load.scenario in ("single-stream", "multi-stream"):
        raise UsageError(
            "TF0141",
            f"{load.scenario} runs one query at a time",
            "leave --streams out, or use --scenario offline or server",
        )
    if options.against_target is not None and options.against is None:
        raise UsageError(
            "TF0141", "--against-target is of a bundle given to --against", "add --against"
        )
    if options.target_ms is not None and load.scenario != "server":
        raise UsageError("TF0141", "--target-ms is of the server scenario", "add --scenario server")
    if options.against is not None and load.scenario not in ("single-stream", "multi-stream"):
        raise UsageError(
            "TF0141",
            f"a comparison takes turns, which {load.scenario} does not",
            "use --scenario single-stream or multi-stream",
        )
    if options.rounds < FEWEST_ROUNDS:
        raise UsageError("TF0141", f"{options.rounds} rounds tell nothing", f"give {FEWEST_ROUNDS}")


def _check_sides(sides: Sequence[Measured], options: BenchOptions) -> None:
    """Refuse options that none of what is measured takes."""
    on_cpu = [side.backend == "onnxruntime" for side in sides]
    if options.graphs and all(on_cpu):
        raise UsageError("TF0147", "CUDA graphs are of engines", "leave --cuda-graphs out")
    if options.backend not in (None, "onnxruntime") and all(on_cpu):
        raise UsageError(
            "TF0147",
            f"{options.backend} runs engines, and an ONNX file is measured with ONNX Runtime",
            "leave --backend out, or build an engine and name that",
        )
    if options.weight_budget is not None and on_cpu[0]:
        raise UsageError("TF0147", "a budget for weights is of engines", "leave it out")
    if options.threads is not None and not any(on_cpu):
        raise UsageError("TF0147", "threads are of ONNX Runtime", "leave --threads out")


def _compared(
    subject: Path,
    sides: tuple[Measured, Measured],
    options: BenchOptions,
    limits: Sequence[Limit],
) -> BenchResult:
    """Measure two in turns: what disturbs the machine disturbs both.

    Each is loaded anew for every round where that is quick: how fast a model runs also depends on
    where its weights and buffers happen to lie, which is nothing that either of the two has to do
    with.
    """
    busy = _load_average()
    load = replace(
        options.load,
        seconds=options.load.seconds / options.rounds / 2,
        queries=max(1, options.load.queries // options.rounds),
        warmup_seconds=options.load.warmup_seconds / options.rounds,
    )
    for one in sides:
        one.measure(replace(load, seconds=0.0, warmup_seconds=options.load.warmup_seconds))
    rounds: tuple[list[Measurement], list[Measurement]] = ([], [])
    for index in range(options.rounds):
        # Whichever goes first finds the other's data in the caches: they take turns in that too.
        for side in (1, 0) if index % 2 else (0, 1):
            if (reload := sides[side].reload) is not None:
                reload()
            rounds[side].append(sides[side].measure(load))
    mine, theirs = (joined(one, options.load) for one in rounds)
    medians = [[part.latencies.at(50.0).value for part in one] for one in rounds]
    return BenchResult(
        str(subject),
        sides[0].backend,
        mine,
        tuple(_missed(limits, mine)),
        other=theirs,
        comparison=compare(*medians),
        environment=environment(sides[0]) | {"against": dict(sides[1].facts)},
        warnings=options.notes + _doubts(mine, busy, sides),
    )


def _missed(limits: Sequence[Limit], measurement: Measurement) -> list[str]:
    found = [(limit, figure(measurement, limit.figure)) for limit in limits]
    return [f"{limit}: found {value:.4g}" for limit, value in found if not limit.holds(value)]


def environment(measured: Measured) -> dict[str, Any]:
    """What the machine says of itself: cores, load, clock of the first core in MHz, the GPU."""
    facts: dict[str, Any] = {"cpus": os.cpu_count(), "load_average": _load_average()}
    clock = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq")
    if clock.is_file():
        facts["cpu_mhz"] = round(int(clock.read_text()) / 1000)
    return facts | dict(measured.facts)


def _load_average() -> float | None:
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def _doubts(
    measurement: Measurement, busy: float | None, sides: Sequence[Measured]
) -> tuple[str, ...]:
    found = []
    for side in sides:
        for name, shape in side.facts.get("assumed_shapes", {}).items():
            shown = "x".join(map(str, shape))
            found.append(f"nothing says how large '{name}' is: {shown} is measured; see --shape")
        if held := side.facts.get("gpu", {}).get("held_back_by"):
            found.append(f"the GPU's clocks are held back: {', '.join(held)}")
    if busy is not None and busy > 0.75 * (os.cpu_count() or 1):
        found.append(f"the machine is busy: load {busy} on {os.cpu_count()} cores before the start")
    drift, count = measurement.latencies.drift, measurement.latencies.count
    if not measurement.keeps_up:
        found.append(
            f"{measurement.load.rate:.10g} queries were to come each second, and "
            f"{round(count / measurement.seconds, 1)} were done: latencies grow with --seconds"
        )
    elif not 0.9 <= drift <= 1.1:
        change = "slower" if drift > 1 else "faster"
        found.append(
            f"the last quarter was {abs(drift - 1):.0%} {change} than the first: clocks or caches "
            "had not settled"
        )
    percent = SCENARIOS[measurement.load.scenario]
    if measurement.latencies.at(percent).low is None:
        found.append(f"too few queries for the {percent:g}th percentile: {count}")
    return tuple(found)
