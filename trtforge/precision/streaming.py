"""Samples through ONNX Runtime, one at a time, and the values of tensors handed to a visitor.

Each sample runs alone. A kernel may round differently for another batch size, and what is seen
must not depend on how the data happens to be grouped.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trtforge.errors import GraphError
from trtforge.graph.execute import Session
from trtforge.graph.model import Model
from trtforge.graph.sources.source import DataSource as DataSource
from trtforge.graph.sources.source import Feeds as Feeds
from trtforge.precision.typeinfo import infer

Progress = Callable[[float, str], None]
Visit = Callable[[str, npt.NDArray[np.float32]], None]

VALUES_BYTES = 1 << 30
"""Tensors of one run that are in memory together; more of them are split over several passes."""

_READ_BYTES = 4 << 20
"""Samples are read in blocks of about this size, but at least one by one."""

_MOST_AT_ONCE = 256


@dataclass
class Stream:
    """Samples `start`..`stop` of a source through a model.

    Attributes:
        model: the model; its inputs are what the source gives.
        source: the samples.
        start: the first sample.
        stop: the sample behind the last.
        on_progress: told the fraction done (0..1) and a line of text.
        bytes_at_once: see VALUES_BYTES.
        optimize: let ONNX Runtime fuse and fold, which pays where there are many samples.
    """

    model: Model
    source: DataSource
    start: int
    stop: int
    on_progress: Progress | None = None
    bytes_at_once: int = VALUES_BYTES
    optimize: bool = True

    @property
    def samples_per_run(self) -> int:
        """1, unless the model fixes its batch."""
        return self.source.static_batch or 1

    def groups(self, tensors: Sequence[str]) -> list[tuple[str, ...]]:
        """Split tensors into groups that fit into memory together, in their order.

        The groups do not depend on which samples this stream has: ONNX Runtime fuses differently
        for other outputs, which changes last digits.
        """
        sizes = self._bytes_of() if tensors else {}
        unknown = max(sizes.values(), default=0)
        groups: list[list[str]] = []
        filled = 0
        for name in tensors:
            size = sizes.get(name) or unknown
            if not groups or filled + size > self.bytes_at_once:
                groups.append([])
                filled = 0
            groups[-1].append(name)
            filled += size
        return [tuple(group) for group in groups]

    def run(
        self,
        tensors: Sequence[str],
        visit: Visit,
        after: Callable[[int], None] | None = None,
        *,
        part: tuple[float, float] = (0.0, 1.0),
        what: str = "",
    ) -> None:
        """Run the samples once.

        Args:
            tensors: float tensors of the main graph, inputs included.
            visit: called with each tensor's name and values, once per run.
            after: called after each run with the number of the next sample.
            part: the part of the whole job that this pass is, for progress.
            what: what is being done, for progress.

        Raises:
            GraphError: ONNX Runtime refuses the model or a sample, or there is no such tensor.
            DataError: the source cannot give a sample.
        """
        fed = {spec.name for spec in self.model.contract.inputs}
        computed = [name for name in tensors if name not in fed]
        session = Session(self.model, optimize=self.optimize, outputs=computed)
        done, began = self.start, time.monotonic()
        for feeds in self._feeds():
            values = session.run(feeds, computed) if computed else {}
            for name in tensors:
                # Each tensor is let go as soon as it has been looked at.
                visit(name, _as_float(values.pop(name) if name in values else feeds[name]))
            del feeds
            done += self.samples_per_run
            if after is not None:
                after(done)
            if self.on_progress is not None:
                share = (done - self.start) / (self.stop - self.start)
                fraction = part[0] + (part[1] - part[0]) * share
                passed = max(time.monotonic() - began, 1e-9)
                left = passed * (1 - fraction) / max(fraction - part[0], 1e-9)
                self.on_progress(fraction, self._text(what, done, passed, left))

    def _feeds(self) -> Iterator[Feeds]:
        """The samples, one run at a time."""
        size = self.samples_per_run
        block = size if self.source.static_batch else self._block()
        for feeds in self.source.batches(block, self.stop, self.start):
            rows = len(next(iter(feeds.values())))
            if rows <= size:  # values that decide shapes have no rows
                yield feeds
                continue
            for row in range(0, rows, size):
                yield {name: array[row : row + size] for name, array in feeds.items()}

    def _block(self) -> int:
        sample = sum(array.nbytes for array in self._first_run().values())
        return max(1, min(_MOST_AT_ONCE, _READ_BYTES // max(sample, 1)))

    def _first_run(self) -> Feeds:
        """What the source gives for its first run."""
        return next(iter(self.source.batches(1, self.samples_per_run)))

    def _bytes_of(self) -> dict[str, int]:
        """Bytes of the tensors of one run; 0 where inference does not know the shape."""
        shapes = {name: array.shape for name, array in self._first_run().items()}
        try:
            graph = infer(self.model.proto, fixed=shapes).graph
        except GraphError:  # ONNX's inference gives up on some models that ONNX Runtime runs
            return {}
        return {
            value.name: 4 * math.prod(dim.dim_value for dim in value.type.tensor_type.shape.dim)
            for value in (*graph.input, *graph.value_info, *graph.output)
        }

    def _text(self, what: str, done: int, passed: float, left: float) -> str:
        count = done - self.start
        rate = f"{count / passed:.3g} per second"
        time_left = f"{left:.0f} s" if left < 100 else f"{left / 60:.0f} min"
        return f"{what}: {count} of {self.stop - self.start} samples, {rate}, {time_left} left"


def _as_float(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    return np.asarray(values, np.float32)
