"""Streaming calibration: data through ONNX Runtime into observers, one batch in memory at a time.

The graph itself reduces every tensor to its minimum and maximum, so a pass for ranges fetches two
numbers per tensor. Histograms (entropy) need a second pass, since their bins need the ranges.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import onnx_graphsurgeon as gs
import onnxruntime

from trtforge.errors import DataError, GraphError, Place
from trtforge.graph.execute import Session
from trtforge.graph.model import Model
from trtforge.precision.cache import CalibrationCache, TensorRange
from trtforge.precision.names import Names
from trtforge.precision.observers import ValueObserver, minmax, value_observer

Feeds = dict[str, np.ndarray]
Progress = Callable[[float, str], None]

_VALUE_BATCH_BYTES = 256 << 20
"""The second pass fetches whole tensors; its batches shrink so that they stay below this."""


class CalibrationData(Protocol):
    """Where samples come from; `graph.data.ArrayData` is one."""

    @property
    def count(self) -> int:
        """Number of samples."""

    @property
    def digest(self) -> str:
        """Digest of the file."""

    def batches(self, batch: int, limit: int | None = None) -> Iterator[Feeds]:
        """Feeds of up to `batch` samples each, `limit` samples in all."""


@dataclass(frozen=True)
class CalibrationRequest:
    """What to measure.

    Attributes:
        tensors: names of float tensors of the main graph, graph inputs included.
        method: minmax or entropy.
        samples: how many samples to use; None means all.
        batch: samples per run, >= 1; ignored where the model's batch is static.
    """

    tensors: tuple[str, ...]
    method: str
    samples: int | None = None
    batch: int = 32


@dataclass
class _Run:
    """What the passes share."""

    model: Model
    data: CalibrationData
    request: CalibrationRequest
    samples: int
    batch: int
    static_batch: bool
    on_progress: Progress | None
    warnings: list[str] = field(default_factory=list)

    def batches(self, batch: int, part: tuple[float, float], what: str) -> Iterator[Feeds]:
        """The samples in batches, with progress over `part` of the whole."""
        done = 0
        for feeds in self.data.batches(batch, self.samples):
            size = len(next(iter(feeds.values())))
            yield feeds
            del feeds  # or the next batch would be read while this one is still held
            done += size
            if self.on_progress is not None:
                start, end = part
                fraction = start + (end - start) * min(done / self.samples, 1.0)
                self.on_progress(fraction, f"{what}: {done} of {self.samples} samples")


def calibrate(
    model: Model,
    data: CalibrationData,
    request: CalibrationRequest,
    on_progress: Progress | None = None,
) -> CalibrationCache:
    """Measure the ranges of tensors.

    Args:
        model: the graph that will be quantized.
        data: samples, matching the model's inputs.
        request: tensors, method, number of samples, batch.
        on_progress: told the fraction done (0..1) and a line of text.

    Returns:
        The cache; its ranges follow the order of `request.tensors`.

    Raises:
        DataError: fewer samples than asked for (TF0523), an unknown tensor (TF0525).
        GraphError: a tensor is NaN or infinite (TF0524), or ONNX Runtime refuses the model.
        ValueError: the method is unknown.
    """
    observer = value_observer(request.method)
    run = _prepare(model, data, request, on_progress)
    ranges, bytes_per_sample = _minmax_pass(run, (0.0, 1.0 if observer is None else 0.3))
    amax = {name: seen.amax() for name, seen in ranges.items()}
    if observer is not None:
        amax |= _value_pass(run, observer, amax, bytes_per_sample)
    return CalibrationCache(
        method=request.method,
        options={} if observer is None else dict(observer.options),
        samples=run.samples,
        graph_digest=model.digest(),
        data_digest=data.digest,
        versions={"numpy": np.__version__, "onnxruntime": onnxruntime.__version__},
        warnings=(*run.warnings, *_constant_warnings(ranges)),
        ranges={
            name: TensorRange(min=seen.low, max=seen.high, amax=amax[name])
            for name, seen in ranges.items()
        },
    )


def _prepare(
    model: Model, data: CalibrationData, request: CalibrationRequest, on_progress: Progress | None
) -> _Run:
    samples = data.count if request.samples is None else request.samples
    if samples > data.count:
        raise DataError(
            "TF0523",
            f"calibration asks for {samples} samples, the data has {data.count}",
            f"set calibration.samples to {data.count} or less, or give more data",
        )
    static = _static_batch(model)
    batch = static or min(request.batch, samples)
    return _Run(model, data, request, samples, batch, static is not None, on_progress)


def _static_batch(model: Model) -> int | None:
    """The first dimension of the inputs where the model fixes it."""
    firsts = [spec.dims[0] for spec in model.contract.inputs if spec.dims]
    return next((dim for dim in firsts if isinstance(dim, int)), None)


def _minmax_pass(
    run: _Run, part: tuple[float, float]
) -> tuple[dict[str, minmax.MinMaxObserver], float]:
    observers = {name: minmax.MinMaxObserver() for name in run.request.tensors}
    if not observers:
        return observers, 0.0
    reduced, outputs = _reduced_model(run.model, run.request.tensors)
    session = Session(reduced, optimize=True)
    largest = 0.0
    for feeds in run.batches(run.batch, part, "ranges"):
        values = session.run(feeds)
        size = len(next(iter(feeds.values())))
        elements = 0
        for name, (low, high, count) in outputs.items():
            if int(values[count]) == 0:
                continue
            elements += int(values[count])
            observers[name].update(*_finite(name, float(values[low]), float(values[high])))
        largest = max(largest, 4.0 * elements / size)
        del feeds
    for name, observer in observers.items():
        if observer.low > observer.high:
            raise _never_computed(name)
    return observers, largest


def _reduced_model(
    model: Model, tensors: tuple[str, ...]
) -> tuple[Model, dict[str, tuple[str, str, str]]]:
    """The model with the minimum, maximum and size of each tensor as its only outputs."""
    graph = model.to_graph()
    found: dict[str, gs.Tensor] = {tensor.name: tensor for tensor in graph.inputs}
    for node in graph.nodes:
        found.update((tensor.name, tensor) for tensor in node.outputs)
    names = Names(graph)
    outputs: dict[str, tuple[str, str, str]] = {}
    nodes: list[gs.Node] = []
    for name in tensors:
        if name not in found:
            raise _unknown(name)
        made = [_reduction(op, found[name], names) for op in ("ReduceMin", "ReduceMax", "Size")]
        outputs[name] = (made[0].outputs[0].name, made[1].outputs[0].name, made[2].outputs[0].name)
        nodes.extend(made)
    graph.outputs[:] = [node.outputs[0] for node in nodes]
    # ONNX Runtime orders nodes by a depth-first search from the last leaf: reversed, each tensor
    # is reduced, and let go, as soon as it is computed. Otherwise all stay alive to the end.
    graph.nodes.extend(reversed(nodes))
    return model.with_graph(graph), outputs


def _reduction(op: str, tensor: gs.Tensor, names: Names) -> gs.Node:
    is_size = op == "Size"
    name = f"{tensor.name}_{op}"
    result = gs.Variable(names.fresh(name), np.int64 if is_size else np.float32, [])
    attributes = {} if is_size else {"keepdims": 0}
    return gs.Node(op, names.fresh_node(name), attributes, [tensor], [result])


def _value_pass(
    run: _Run, kind: type[ValueObserver], limits: dict[str, float], bytes_per_sample: float
) -> dict[str, float]:
    observers = {name: kind(limit) for name, limit in limits.items() if limit > 0}
    if not observers:
        return {}
    fed = {spec.name for spec in run.model.contract.inputs}
    computed = [name for name in observers if name not in fed]
    session = Session(run.model, optimize=True, outputs=computed)
    batch = run.batch
    if not run.static_batch and bytes_per_sample > 0:
        batch = max(1, min(batch, int(_VALUE_BATCH_BYTES / bytes_per_sample)))
    for feeds in run.batches(batch, (0.3, 1.0), "histograms"):
        values = session.run(feeds, computed) if computed else {}
        for name, observer in observers.items():
            # Each tensor is let go as soon as it is counted.
            observer.update(values.pop(name) if name in values else feeds[name])
        del feeds
    sparse = [name for name, seen in observers.items() if seen.is_sparse]
    if sparse:
        run.warnings.append(
            f"{len(sparse)} tensors have very few values, such as '{sparse[0]}': their histograms "
            "are mostly noise; use more samples, or method minmax"
        )
    return {name: observer.amax() for name, observer in observers.items()}


def _finite(name: str, low: float, high: float) -> tuple[float, float]:
    if math.isfinite(low) and math.isfinite(high):
        return low, high
    raise GraphError(
        "TF0524",
        f"tensor '{name}' reaches {low}..{high} on the calibration data",
        "look for overflow or a division by zero in the model, or exclude the sample",
        Place(node=name),
    )


def _constant_warnings(ranges: dict[str, minmax.MinMaxObserver]) -> list[str]:
    return [
        f"tensor '{name}' was {seen.low:g} throughout; is the data representative?"
        for name, seen in ranges.items()
        if seen.is_constant
    ]


def _unknown(name: str) -> DataError:
    return DataError(
        "TF0525",
        f"the model has no tensor '{name}' to calibrate",
        "the list of tensors belongs to another graph",
        Place(node=name),
    )


def _never_computed(name: str) -> DataError:
    return DataError(
        "TF0526",
        f"tensor '{name}' was empty for every sample",
        "give data for which the whole network computes something",
        Place(node=name),
    )
