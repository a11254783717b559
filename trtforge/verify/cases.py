"""The inputs on which two models are compared: recorded data, profile corners, seeded random.

Cases are made one at a time, so memory holds one batch however long the data is.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt

from trtforge.errors import UsageError
from trtforge.graph.data import ArrayData
from trtforge.graph.inputs import Values, fixed_values, random_feeds
from trtforge.graph.model import Model
from trtforge.graph.sources.value_rows import ValueRows
from trtforge.verify.types import Group

Array = npt.NDArray[np.generic]
Feeds = dict[str, Array]
Shapes = dict[str, tuple[int, ...]]
Samples = ArrayData | ValueRows

_Span = tuple[tuple[int, ...], tuple[int, ...]]
"""Smallest and largest shape, or values."""

_Spans = dict[str, _Span]
"""Of one profile, by input."""

DEFAULT_BATCH = 32


@dataclass(frozen=True)
class Case:
    """One set of inputs.

    Attributes:
        name: for messages, e.g. "data 0..31" or "corner max".
        group: what kind of case it is; decides whether it is judged.
        feeds: input name -> array.
        labels: class ids of the first `rows` samples, None where unknown.
        rows: samples along axis 0 that count; the rest repeats them to fill the batch. None: all.
    """

    name: str
    group: Group
    feeds: Feeds
    labels: npt.NDArray[np.int64] | None = None
    rows: int | None = None

    def counted(self, output: Array) -> Array:
        """Return the part of an output that belongs to the samples that count."""
        if self.rows is None or output.ndim == 0 or output.shape[0] != self._batch:
            return output
        return output[: self.rows]

    @property
    def _batch(self) -> int:
        first = next(iter(self.feeds.values()))
        return first.shape[0] if first.ndim else 1


@dataclass(frozen=True)
class _Plan:
    data: Samples | None
    corners: Sequence[tuple[str, Shapes]]
    model: Model
    seed: int
    batch: int
    limit: int | None


def cases_from(
    data: Samples | None,
    corners: Sequence[tuple[str, Shapes]],
    model: Model,
    seed: int = 0,
    batch: int = DEFAULT_BATCH,
    limit: int | None = None,
) -> Iterator[Case]:
    """Make the cases of a comparison: data, then corners, then one random case.

    Args:
        data: recorded inputs; labels are passed along where it has them.
        corners: (name, input name -> shape or Values), usually the min, opt and max of every
            profile.
        model: the reference; its inputs decide what random inputs look like.
        seed: of the random inputs.
        batch: samples per data case; brought into the corners' range (or to the model's own batch
            where that is static), so that an engine's profile accepts it. The last batch is
            filled up with repeated rows, which do not count.
        limit: how many samples of the data to use, None for all.

    Yields:
        Cases. A corner is made of the data's rows, cropped and repeated along every axis to its
        shape, so that values stay those that the model meets; where that cannot be done, and where
        there is no data, of random inputs. With data, a corner of random inputs is in the group
        "random": its ranges are not those that a quantized model is made for.

    Raises:
        UsageError: an input is dynamic and there is neither a corner nor data to tell its shape.
    """
    plan = _Plan(data, corners, model, seed, batch, limit)
    return chain(_data_cases(plan), _corner_cases(plan), _random_cases(plan))


def _data_cases(plan: _Plan) -> Iterator[Case]:
    if plan.data is None:
        return
    rooms = _Rooms(plan)
    first_row = next(iter(plan.data.batches(1, limit=plan.data.static_batch or 1)))
    wanted = max(1, min(plan.batch, plan.data.count, plan.limit or plan.data.count))
    size, start = wanted if rooms.deciding else rooms.nearest(first_row, wanted), 0
    for feeds in plan.data.batches(size, limit=plan.limit):
        rows = next(iter(feeds.values())).shape[0]
        step = rooms.nearest(feeds, size)
        # Rows of other values run alone: they are filled up only as far as a profile asks.
        fill = rooms.nearest(feeds, min(rows, step)) if rooms.deciding else step
        for first in range(0, rows, step):
            part = rooms.cut(feeds, first, min(step, rows - first), fill)
            yield _data_case(plan.data.labels, part, start + first, min(step, rows - first))
        start += rows


def _data_case(labels: npt.NDArray[np.int64] | None, feeds: Feeds, start: int, rows: int) -> Case:
    return Case(
        name=f"data {start}..{start + rows - 1}",
        group="data",
        feeds=feeds,
        labels=None if labels is None else labels[start : start + rows].astype(np.int64),
        rows=rows,
    )


def _corner_cases(plan: _Plan) -> Iterator[Case]:
    for index, (name, shapes) in enumerate(plan.corners):
        feeds = None if plan.data is None else _from_rows(plan.data, shapes, plan.model)
        if feeds is not None:
            yield Case(f"corner {name}", "corner", feeds)
            continue
        group: Group = "corner" if plan.data is None else "random"
        made = random_feeds(plan.model, shapes, plan.seed + index + 1)
        yield Case(f"corner {name} (random)", group, dict(made))


def _random_cases(plan: _Plan) -> Iterator[Case]:
    shapes = _preferred_shapes(plan)
    if shapes is not None:
        yield Case("random", "random", dict(random_feeds(plan.model, shapes, plan.seed)))


def _from_rows(data: Samples, shapes: Mapping[str, tuple[int, ...]], model: Model) -> Feeds | None:
    sized = {name: shape for name, shape in shapes.items() if not isinstance(shape, Values)}
    wanted = max((shape[0] for shape in sized.values() if shape), default=1)
    wanted = max(1, min(wanted, data.count))
    rows = next(iter(data.batches(wanted, limit=wanted)))
    if set(rows) != set(shapes):
        return None
    if not all(_resizable(rows[name].shape, shape) for name, shape in sized.items()):
        return None
    made = {name: resized(rows[name], shape) for name, shape in sized.items()}
    return made | fixed_values(model.contract, dict(shapes))


def _resizable(have: tuple[int, ...], want: tuple[int, ...]) -> bool:
    return len(have) == len(want) and all(
        size > 0 or wanted == 0 for size, wanted in zip(have, want, strict=True)
    )


def resized(array: Array, shape: tuple[int, ...]) -> Array:
    """Crop or repeat an array along every axis until it has `shape`; ranks must be equal."""
    for axis, wanted in enumerate(shape):
        if array.shape[axis] != wanted:
            array = np.take(array, np.arange(wanted) % max(array.shape[axis], 1), axis=axis)
    return np.ascontiguousarray(array)


class _Rooms:
    """Which batches the model and the profiles take.

    Args:
        plan: the corners of one profile are called `min`, of several `0.min`, `1.min`, ...
    """

    def __init__(self, plan: _Plan) -> None:
        profiles: dict[str, list[Shapes]] = {}
        for name, shapes in plan.corners:
            profiles.setdefault(name.rpartition(".")[0], []).append(shapes)
        self._profiles = [_spans(corners) for corners in profiles.values()]
        self.deciding = frozenset(
            name
            for _, shapes in plan.corners
            for name, shape in shapes.items()
            if isinstance(shape, Values)
        )
        if isinstance(plan.data, ValueRows):
            self.deciding |= plan.data.deciding
        self._fixed = {
            spec.dims[0]
            for spec in plan.model.contract.inputs
            if spec.dims and isinstance(spec.dims[0], int) and spec.name not in self.deciding
        }

    def nearest(self, feeds: Feeds, wanted: int) -> int:
        """The batch nearest to the one wanted that a profile takes, with other axes as in feeds."""
        if self._fixed:
            return max(1, min(self._fixed))
        fitting = [one for one in self._profiles if self._fits(one, feeds)] or self._profiles
        spans = [span for one in fitting if (span := self._batches(one)) is not None]
        sizes = [min(max(wanted, low), high) for low, high in spans]
        return max(1, min(sizes, key=lambda size: abs(size - wanted), default=wanted))

    def cut(self, feeds: Feeds, first: int, rows: int, fill: int) -> Feeds:
        """Return some rows, repeated until there are `fill` of them; values have none."""
        return {
            name: array
            if name in self.deciding
            else resized(array[first : first + rows], (fill, *array.shape[1:]))
            for name, array in feeds.items()
        }

    def _fits(self, profile: _Spans, feeds: Feeds) -> bool:
        return all(
            self._within(span, name, feeds[name]) for name, span in profile.items() if name in feeds
        )

    def _within(self, span: _Span, name: str, array: Array) -> bool:
        is_value = name in self.deciding
        found = tuple(map(int, array.reshape(-1))) if is_value else array.shape
        skipped = 0 if is_value else 1
        low, high = span
        return len(found) == len(low) and all(
            low[axis] <= found[axis] <= high[axis] for axis in range(skipped, len(found))
        )

    def _batches(self, profile: _Spans) -> tuple[int, int] | None:
        """The smallest and the largest batch that a profile takes."""
        spans = [span for name, span in profile.items() if name not in self.deciding and span[0]]
        if not spans:
            return None
        return min(low[0] for low, _ in spans), max(high[0] for _, high in spans)


def _spans(corners: Sequence[Shapes]) -> _Spans:
    return {
        name: (
            tuple(map(min, zip(*(one[name] for one in corners), strict=True))),
            tuple(map(max, zip(*(one[name] for one in corners), strict=True))),
        )
        for name in corners[0]
    }


def _preferred_shapes(plan: _Plan) -> Shapes | None:
    """Return the shapes of a typical case: an opt corner, any corner, or the static shapes."""
    for name, shapes in plan.corners:
        if name.split(".")[-1] == "opt":
            return shapes
    if plan.corners:
        return plan.corners[0][1]
    dynamic = [spec.name for spec in plan.model.contract.inputs if spec.is_dynamic]
    if not dynamic:
        return {spec.name: _static(spec.dims) for spec in plan.model.contract.inputs}
    if plan.data is not None:
        return None
    raise UsageError(
        "TF0707",
        f"input '{dynamic[0]}' is dynamic, and there are neither shapes nor data to compare on",
        hint="give the input's shapes, or verification data",
    )


def _static(dims: Sequence[int | str | None]) -> tuple[int, ...]:
    return tuple(size for size in dims if isinstance(size, int))
