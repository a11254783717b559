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
from trtforge.graph.inputs import Values, random_feeds
from trtforge.graph.model import Model
from trtforge.verify.types import Group

Array = npt.NDArray[np.generic]
Feeds = dict[str, Array]
Shapes = dict[str, tuple[int, ...]]

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
    data: ArrayData | None
    corners: Sequence[tuple[str, Shapes]]
    model: Model
    seed: int
    batch: int
    limit: int | None


def cases_from(
    data: ArrayData | None,
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
        UsageError: an input is dynamic and there is neither a corner nor data to tell its shape;
            or there is data, and values of an input decide shapes.
    """
    if data is not None:
        _refuse_values(corners)
    plan = _Plan(data, corners, model, seed, batch, limit)
    return chain(_data_cases(plan), _corner_cases(plan), _random_cases(plan))


def _refuse_values(corners: Sequence[tuple[str, Shapes]]) -> None:
    for name, shape in (item for _, shapes in corners for item in shapes.items()):
        if isinstance(shape, Values):
            raise UsageError(
                "TF0723",
                f"data is of samples, and the values of input '{name}' belong to no sample",
                hint="compare without data: values are taken from the profiles then",
            )


def _data_cases(plan: _Plan) -> Iterator[Case]:
    if plan.data is None:
        return
    labels, start = plan.data.labels, 0
    size = _batch_size(plan, plan.data.count)
    for feeds in plan.data.batches(size, limit=plan.limit):
        rows = next(iter(feeds.values())).shape[0]
        full = {name: resized(array, (size, *array.shape[1:])) for name, array in feeds.items()}
        yield Case(
            name=f"data {start}..{start + rows - 1}",
            group="data",
            feeds=full if rows < size else dict(feeds),
            labels=None if labels is None else labels[start : start + rows].astype(np.int64),
            rows=rows,
        )
        start += rows


def _corner_cases(plan: _Plan) -> Iterator[Case]:
    for index, (name, shapes) in enumerate(plan.corners):
        feeds = None if plan.data is None else _from_rows(plan.data, shapes)
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


def _from_rows(data: ArrayData, shapes: Mapping[str, tuple[int, ...]]) -> Feeds | None:
    wanted = max((shape[0] for shape in shapes.values() if shape), default=1)
    wanted = max(1, min(wanted, data.count))
    rows = next(iter(data.batches(wanted, limit=wanted)))
    if set(rows) != set(shapes):
        return None
    if not all(_resizable(rows[name].shape, shape) for name, shape in shapes.items()):
        return None
    return {name: resized(rows[name], shape) for name, shape in shapes.items()}


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


def _batch_size(plan: _Plan, samples: int) -> int:
    fixed = {
        spec.dims[0]
        for spec in plan.model.contract.inputs
        if spec.dims and isinstance(spec.dims[0], int)
    }
    if fixed:
        return max(1, min(fixed))
    sizes = [shape[0] for _, shapes in plan.corners for shape in shapes.values() if shape]
    wanted = max(1, min(plan.batch, samples, plan.limit or samples))
    return max(1, min(max(wanted, min(sizes)), max(sizes))) if sizes else wanted


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
