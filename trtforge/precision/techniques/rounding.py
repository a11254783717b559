"""Technique `rounding`: INT8 weights rounded so that layers' outputs, not weights, stay close."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx_graphsurgeon as gs

from trtforge.precision.cache import CalibrationCache
from trtforge.precision.constants import editable_graph
from trtforge.precision.error_feedback import round_with_feedback
from trtforge.precision.scales import LARGEST, LOWEST, Floats
from trtforge.precision.sites import Site, find_sites
from trtforge.precision.streaming import Stream
from trtforge.precision.techniques.job import TechniqueJob
from trtforge.precision.techniques.patches import can_unfold, unfold
from trtforge.precision.typeinfo import tensors_of
from trtforge.precision.weight_scales import weight_scales
from trtforge.recipe.schema import Precision

_MOST_INPUTS = 6144
"""Layers with more inputs are rounded plainly: the inverse of their moment takes a minute."""

_MOMENT_BYTES = 512 << 20
"""Second moments in memory at a time; more of them take another pass over the samples."""

_ROWS_PER_SAMPLE = 64
"""Positions of one sample that are looked at, evenly spread: neighbours say the same."""


_ROWS_AT_ONCE = 512

_ROWS_PER_INPUT = 8
_LEAST_ROWS = 8192
"""A second moment of that many rows is settled; later samples are passed over."""


class Rounding:
    """Round INT8 weights with error feedback, against the float layer.

    Each weight becomes a whole multiple of its channel's step, and what that spoils is made good by
    the weights of the same output that are still to be rounded: least squares over E[x xT] of the
    layer's quantized inputs, column by column in closed form (`error_feedback.py`, after E. Frantar
    et al., 2022; the aim is AdaRound's, M. Nagel et al., 2020, without its optimizer). The steps go
    into the calibration cache.
    """

    name = "rounding"

    def apply(self, job: TechniqueJob) -> None:
        """Replace weights of `job.model` by multiples of their steps.

        Raises:
            DataError: the cache lacks a tensor, or the source cannot give a sample.
            GraphError: ONNX Runtime refuses the model.
        """
        if job.source is None or job.cache is None or job.precision.quantize != "int8":
            return
        graph = editable_graph(job.model)
        findings = find_sites(graph, tensors_of(job.model.proto), job.precision)
        layers = tuple(_layers(findings, job))
        stop = job.source.count if job.samples is None else job.samples
        batches = tuple(_batches(layers))
        fixed = dict(job.cache.weight_scales)
        for number, batch in enumerate(batches):
            stream = Stream(job.model, job.source, 0, stop, job.on_progress)
            _look(stream, batch, (number / len(batches), (number + 1) / len(batches)))
            for layer in batch:
                fixed[layer.weight.name] = layer.round(fixed.get(layer.weight.name))
        if layers:
            job.model = job.model.with_graph(graph)
            job.cache = job.cache.model_copy(update={"weight_scales": fixed})
            job.notes.append(f"{self.name}: {len(layers)} weights")


@dataclass(eq=False)
class _Layer:
    """One weight, and the second moment of what it is multiplied with.

    Attributes:
        node: the only reader of the weight.
        axis: the weight's axis of output channels.
        step: of the activation.
        float_type: the type that scales are held in.
        moment: sum of x xT, float32, (inputs, inputs); None before anything was seen.
        rows: how many x.
        waiting: rows that are not in `moment` yet: a product of few rows is all writing.
    """

    node: gs.Node
    axis: int
    step: np.float32
    float_type: str
    moment: Floats | None = None
    rows: int = 0
    waiting: list[Floats] = field(default_factory=list)

    @property
    def weight(self) -> gs.Constant:
        return self.node.inputs[1]

    @property
    def inputs(self) -> int:
        shape = self.weight.shape
        return int(np.prod(shape)) // int(shape[self.axis])

    def add(self, values: npt.NDArray[np.float32], sample: int) -> None:
        """Look at the activations of one run."""
        if self.rows >= max(_LEAST_ROWS, _ROWS_PER_INPUT * self.inputs):
            return
        rows = unfold(self.node, values, _ROWS_PER_SAMPLE, sample)
        levels = np.clip(np.rint(rows / self.step), LOWEST["int8"], LARGEST["int8"])
        self.waiting.append(np.asarray(levels * self.step, np.float32))
        if sum(map(len, self.waiting)) >= _ROWS_AT_ONCE:
            self._join()

    def _join(self) -> None:
        if not self.waiting:
            return
        rows = np.concatenate(self.waiting)
        self.waiting.clear()
        product = rows.T @ rows
        if self.moment is None:
            self.moment = product
        else:
            self.moment += product
        self.rows += len(rows)

    def round(self, fixed: tuple[float, ...] | None) -> tuple[float, ...]:
        """Round the weight; return its scales, which are `fixed` where those are given."""
        self._join()
        values = np.asarray(self.weight.values, np.float32)
        if fixed is None:
            scale = weight_scales(values, self.axis, "int8", "amax", self.float_type)
        else:
            scale = np.asarray(fixed, np.float32)
        by_output = np.moveaxis(values, self.axis, 0)
        by_input = np.ascontiguousarray(by_output.reshape(len(by_output), -1).T)
        if self.moment is not None and self.rows:
            moment = self.moment.astype(np.float64) / self.rows
            by_input = round_with_feedback(by_input, moment, scale, "int8", self.rows)
            self.moment = None
        rounded = by_input.T.reshape(by_output.shape)
        self.weight.values = np.ascontiguousarray(np.moveaxis(rounded, 0, self.axis))
        return tuple(float(one) for one in scale.ravel())


def _layers(findings: Iterable[object], job: TechniqueJob) -> Iterator[_Layer]:
    assert job.cache is not None
    for site in findings:
        if not isinstance(site, Site) or site.axis is None or site.weight_index != 1:
            continue
        if len(site.weight.outputs) != 1 or not can_unfold(site.node):
            continue
        step = _step(job.cache, site.activation.name, job.precision)
        if step is None:
            continue
        layer = _Layer(site.node, site.axis, step, job.precision.type)
        if layer.inputs <= _MOST_INPUTS:
            yield layer


def _step(cache: CalibrationCache, name: str, precision: Precision) -> np.float32 | None:
    """The step of an activation; None where calibration saw nothing but zeros, or nothing."""
    known = cache.ranges.get(name)
    if known is None or known.observed_amax == 0:
        return None
    return np.float32(
        cache.scale(name, precision.quantize, precision.type, compact=precision.compact)
    )


def _batches(layers: Sequence[_Layer]) -> Iterator[tuple[_Layer, ...]]:
    """Layers whose second moments fit into memory together."""
    batch: list[_Layer] = []
    filled = 0
    for layer in layers:
        size = 4 * layer.inputs**2
        if batch and filled + size > _MOMENT_BYTES:
            yield tuple(batch)
            batch, filled = [], 0
        batch.append(layer)
        filled += size
    if batch:
        yield tuple(batch)


def _look(stream: Stream, batch: Sequence[_Layer], part: tuple[float, float]) -> None:
    readers: dict[str, list[_Layer]] = {}
    for layer in batch:
        readers.setdefault(layer.node.inputs[0].name, []).append(layer)
    groups = stream.groups(tuple(readers))
    for number, names in enumerate(groups):
        width = (part[1] - part[0]) / len(groups)
        within = (part[0] + number * width, part[0] + (number + 1) * width)
        seen = dict.fromkeys(names, 0)

        def visit(name: str, values: npt.NDArray[np.float32], seen: dict[str, int] = seen) -> None:
            for layer in readers[name]:
                layer.add(values, seen[name])
            seen[name] += 1

        stream.run(names, visit, part=within, what="rounding")
