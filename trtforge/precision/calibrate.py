"""Streaming calibration: samples through ONNX Runtime into mergeable states, in one pass.

Memory holds the model, one sample's tensors and the histograms, whatever the number of samples.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import onnxruntime

from trtforge.errors import DataError, GraphError, Place
from trtforge.graph.model import Model
from trtforge.interrupts import interrupts_between
from trtforge.precision.cache import CalibrationCache, DataUse, TensorRange
from trtforge.precision.observers import Method, Options, method
from trtforge.precision.observers.histogram import Histogram
from trtforge.precision.state import TensorState, warnings_of
from trtforge.precision.streaming import VALUES_BYTES, DataSource, Progress, Stream


@dataclass(frozen=True)
class CalibrationRequest:
    """What to measure.

    Attributes:
        tensors: names of float tensors of the main graph, graph inputs included.
        method: a key of `observers.METHODS`.
        grid: int8 or fp8, what the ranges are for.
        options: settings of the method; defaults for those not given.
        samples: how many samples to use; None means all.
        shard: (index, of): measure only this part of the samples; 0 <= index < of.
        checkpoint: a file that a run leaves when it is interrupted, and goes on from; each group
            of tensors that are measured together has its own, named after this one.
        checkpoint_seconds: time between two of them, for those that are killed; 0 means one after
            every run of the model.
        bytes_at_once: tensors of one run in memory together.
    """

    tensors: tuple[str, ...]
    method: str
    grid: str = "int8"
    options: Options = field(default_factory=dict)
    samples: int | None = None
    shard: tuple[int, int] = (0, 1)
    checkpoint: Path | None = None
    checkpoint_seconds: float = 20.0
    bytes_at_once: int = VALUES_BYTES


def calibrate(
    model: Model,
    data: DataSource,
    request: CalibrationRequest,
    on_progress: Progress | None = None,
) -> CalibrationCache:
    """Measure the ranges of tensors.

    Args:
        model: the graph that will be quantized.
        data: samples, matching the model's inputs.
        request: tensors, method, which samples.
        on_progress: told the fraction done (0..1) and a line of text.

    Returns:
        The cache; its ranges follow the order of `request.tensors`.

    Raises:
        DataError: fewer samples than asked for (TF0523), an unknown tensor (TF0525), a tensor
            that no sample computes (TF0526).
        GraphError: a tensor is NaN or infinite (TF0524), or ONNX Runtime refuses the model.
        ValueError: the method is unknown.
    """
    chosen = method(request.method, request.grid, request.options)
    start, stop = _span(data, request)
    _check_tensors(model, request.tensors)
    stream = Stream(model, data, start, stop, on_progress, request.bytes_at_once)
    groups = stream.groups(request.tensors)
    states: dict[str, TensorState] = {}
    for index, group in enumerate(groups):
        part = (index / len(groups), (index + 1) / len(groups))
        run = _Pass(stream, request, chosen, group, part)
        states |= run.states()
    for group in groups:
        _checkpoint_of(request, group).drop()
    split = (
        ()
        if len(groups) < 2
        else (
            f"the tensors do not fit into memory together: the samples ran {len(groups)} times, "
            "each time for a part of them",
        )
    )
    return _cache_of(stream, request, chosen, states, split)


def _span(data: DataSource, request: CalibrationRequest) -> tuple[int, int]:
    samples = data.count if request.samples is None else request.samples
    if samples > data.count:
        raise DataError(
            "TF0523",
            f"calibration asks for {samples} samples, the data has {data.count}",
            f"set calibration.samples to {data.count} or less, or give more data",
        )
    index, of = request.shard
    size = data.static_batch or 1
    runs = samples // size
    if not 0 <= index < of <= max(runs, 1):
        raise DataError(
            "TF0523",
            f"there is no shard {index} of {of} where {samples} samples make {runs} runs",
            f"shards count from 0, and there may be {max(runs, 1)} of them",
        )
    stop = samples if index == of - 1 else runs * (index + 1) // of * size
    return runs * index // of * size, stop


def _check_tensors(model: Model, tensors: Sequence[str]) -> None:
    known = {spec.name for spec in model.contract.inputs}
    known |= {name for node in model.proto.graph.node for name in node.output}
    for name in tensors:
        if name not in known:
            raise DataError(
                "TF0525",
                f"the model has no tensor '{name}' to calibrate",
                "the list of tensors belongs to another graph",
                Place(node=name),
            )


@dataclass
class _Pass:
    """One pass over the samples for one group of tensors."""

    stream: Stream
    request: CalibrationRequest
    method: Method
    group: tuple[str, ...]
    part: tuple[float, float]

    def states(self) -> dict[str, TensorState]:
        """What was seen of each tensor; picked up from a checkpoint where there is one."""
        checkpoint = _checkpoint_of(self.request, self.group)
        done, states = checkpoint.load(self.stream, self._new)
        if done < self.stream.stop:
            self._observe(states, done, checkpoint)
        for state in states.values():
            state.settle()
        return states

    def _new(self) -> TensorState:
        return TensorState(histogram=Histogram() if self.method.needs_histogram else None)

    def _observe(
        self, states: dict[str, TensorState], first: int, checkpoint: "_Checkpoint"
    ) -> None:
        rest, (begin, end) = replace(self.stream, start=first), self.part
        known = (first - self.stream.start) / (self.stream.stop - self.stream.start)
        part = (begin + (end - begin) * known, end)
        saved, done = time.monotonic(), first

        def visit(name: str, values: np.ndarray) -> None:
            if not states[name].update(values):
                raise _not_finite(name, values, done, self.stream.samples_per_run)

        with interrupts_between() as interrupted:

            def after(position: int) -> None:
                nonlocal saved, done
                done = position
                stop = interrupted()
                if stop or time.monotonic() - saved >= self.request.checkpoint_seconds:
                    checkpoint.save(self.stream, done, states)
                    saved = time.monotonic()
                if stop:
                    raise KeyboardInterrupt

            rest.run(self.group, visit, after, part=part, what=self.method.name)
        if self.part[1] < 1.0:  # the next group may be interrupted, and this one is whole
            checkpoint.save(self.stream, done, states)


@dataclass(frozen=True)
class _Checkpoint:
    """A partial cache on disk: what one pass has seen so far."""

    path: Path | None
    request: CalibrationRequest
    group: tuple[str, ...]

    def save(self, stream: Stream, done: int, states: Mapping[str, TensorState]) -> None:
        """Write the states, whole or not at all."""
        if self.path is None or done == stream.start:
            return
        for state in states.values():
            state.settle()
        ranges = {
            name: TensorRange.of(state, state.observed_amax)
            for name, state in states.items()
            if state.runs
        }
        _partial(stream, self.request, done, ranges).save(self.path)

    def load(
        self, stream: Stream, new: Callable[[], TensorState]
    ) -> tuple[int, dict[str, TensorState]]:
        """The next sample and the states; from the start where no checkpoint fits."""
        fresh = {name: new() for name in self.group}
        if self.path is None or not self.path.exists():
            return stream.start, fresh
        try:
            found = CalibrationCache.load(self.path)
        except DataError:  # damaged or another version's: it is only a shortcut
            return stream.start, fresh
        span = found.data[0].spans[0] if found.data else (0, 0)
        same = _partial(stream, self.request, span[1], found.ranges)
        with_histograms = all(
            (one.histogram is None) == (new().histogram is None) for one in found.ranges.values()
        )
        if found != same or not with_histograms or not set(found.ranges) <= set(self.group):
            return stream.start, fresh
        if span[0] != stream.start or not stream.start < span[1] <= stream.stop:
            return stream.start, fresh
        return span[1], fresh | {name: one.state() for name, one in found.ranges.items()}

    def drop(self) -> None:
        """Remove the file: the pass is over."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def _checkpoint_of(request: CalibrationRequest, group: tuple[str, ...]) -> _Checkpoint:
    if request.checkpoint is None:
        return _Checkpoint(None, request, group)
    tensors = sha256("\0".join(group).encode()).hexdigest()[:8]
    path = request.checkpoint.with_name(f"{request.checkpoint.name}.{tensors}.partial")
    return _Checkpoint(path, request, group)


def _partial(
    stream: Stream, request: CalibrationRequest, done: int, ranges: Mapping[str, TensorRange]
) -> CalibrationCache:
    return CalibrationCache(
        method="partial",
        grid=request.grid,
        samples=done - stream.start,
        graph_digest=stream.model.digest(),
        data=(_use(stream, done),),
        versions=_versions(),
        ranges=dict(ranges),
    )


def _cache_of(
    stream: Stream,
    request: CalibrationRequest,
    chosen: Method,
    states: Mapping[str, TensorState],
    warnings: tuple[str, ...],
) -> CalibrationCache:
    for name in request.tensors:
        if not states[name].runs:
            raise _never_computed(name)
    return CalibrationCache(
        method=chosen.name,
        grid=chosen.grid,
        options=dict(chosen.options),
        samples=stream.stop - stream.start,
        graph_digest=stream.model.digest(),
        data=(_use(stream, stream.stop),),
        versions=_versions(),
        warnings=(*warnings, *warnings_of(states, judges_histograms=chosen.needs_histogram)),
        ranges={
            name: TensorRange.of(states[name], chosen.amax(states[name]))
            for name in request.tensors
        },
    )


def _use(stream: Stream, stop: int) -> DataUse:
    source = stream.source
    return DataUse(
        digest=source.digest,
        source=source.description,
        spans=((stream.start, stop),),
        synthetic=source.is_synthetic,
    )


def _versions() -> dict[str, str]:
    return {"numpy": np.__version__, "onnxruntime": onnxruntime.__version__}


def _not_finite(name: str, values: np.ndarray, sample: int, count: int) -> GraphError:
    what = "NaN" if np.isnan(values).any() else "infinite"
    where = f"sample {sample}" if count == 1 else f"samples {sample} to {sample + count - 1}"
    return GraphError(
        "TF0524",
        f"tensor '{name}' is {what} on {where} of the calibration data",
        "look for overflow or a division by zero in the model, or leave the sample out",
        Place(node=name),
    )


def _never_computed(name: str) -> DataError:
    return DataError(
        "TF0526",
        f"tensor '{name}' was empty for every sample",
        "give data for which the whole network computes something",
        Place(node=name),
    )
