"""Samples through ONNX Runtime, one at a time, and the values of tensors handed to a visitor.

Each sample runs alone. A kernel may round differently for another batch size, and what is seen
must not depend on how the data happens to be grouped.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from trtforge.graph.execute import Session
from trtforge.graph.model import Model
from trtforge.precision.typeinfo import infer

Feeds = dict[str, np.ndarray]
Progress = Callable[[float, str], None]
Visit = Callable[[str, npt.NDArray[np.float32]], None]

VALUES_BYTES = 1 << 30
"""Tensors of one run that are in memory together; more of them are split over several passes."""

_READ_BYTES = 32 << 20
"""Samples are read in blocks of about this size, but at least one by one."""

_MOST_AT_ONCE = 256


class DataSource(Protocol):
    """Where samples come from."""

    @property
    def count(self) -> int:
        """Number of samples, at least 1."""

    @property
    def digest(self) -> str:
        """Digest of the samples: `sha256:` and 64 hexadecimal digits."""

    @property
    def description(self) -> str:
        """What it is, in a few words: a file's name, a folder and its preprocessing."""

    @property
    def is_synthetic(self) -> bool:
        """Whether the samples were made up."""

    @property
    def static_batch(self) -> int | None:
        """The batch size that the model fixes, None when it is free."""

    def batches(self, batch: int, limit: int | None = None, start: int = 0) -> Iterator[Feeds]:
        """Feeds of up to `batch` samples each, of the samples start..limit."""


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
    """

    model: Model
    source: DataSource
    start: int
    stop: int
    on_progress: Progress | None = None
    bytes_at_once: int = VALUES_BYTES
    _sizes: dict[str, int] = field(default_factory=dict, init=False, repr=False)

    @property
    def samples_per_run(self) -> int:
        """1, unless the model fixes its batch."""
        return self.source.static_batch or 1

    def groups(self, tensors: Sequence[str]) -> list[tuple[str, ...]]:
        """Split tensors into groups that fit into memory together, in their order."""
        sizes = self._bytes_of()
        groups: list[list[str]] = []
        filled = 0
        for name in tensors:
            size = sizes.get(name, 0)
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
        session = Session(self.model, optimize=True, outputs=computed)
        done = self.start
        for feeds in self._feeds():
            values = session.run(feeds, computed) if computed else {}
            for name in tensors:
                # Each tensor is let go as soon as it has been looked at.
                visit(name, _as_float(values.pop(name) if name in values else feeds[name]))
            del feeds
            done += self.samples_per_run
            if after is not None:
                after(done)
            self._tell(done, part, what)

    def _feeds(self) -> Iterator[Feeds]:
        """The samples, one run at a time."""
        size = self.samples_per_run
        block = size if self.source.static_batch else self._block()
        for feeds in self.source.batches(block, self.stop, self.start):
            rows = len(next(iter(feeds.values())))
            for row in range(0, rows, size):
                yield {name: array[row : row + size] for name, array in feeds.items()}

    def _block(self) -> int:
        first = next(iter(self.source.batches(1, self.start + 1, self.start)))
        sample = sum(array.nbytes for array in first.values())
        return max(1, min(_MOST_AT_ONCE, _READ_BYTES // max(sample, 1)))

    def _bytes_of(self) -> dict[str, int]:
        """Bytes of the tensors of one run, where inference knows the shape."""
        if not self._sizes:
            feeds = next(islice(self._feeds(), 1))
            shapes = {name: array.shape for name, array in feeds.items()}
            graph = infer(self.model.proto, fixed=shapes).graph
            for value in (*graph.input, *graph.value_info, *graph.output):
                dims = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
                self._sizes[value.name] = 4 * math.prod(dims)
        return self._sizes

    def _tell(self, done: int, part: tuple[float, float], what: str) -> None:
        if self.on_progress is None:
            return
        begin, end = part
        share = (done - self.start) / max(self.stop - self.start, 1)
        text = f"{what}: {done - self.start} of {self.stop - self.start} samples"
        self.on_progress(begin + (end - begin) * min(share, 1.0), text)


def _as_float(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    return np.asarray(values, np.float32)
