"""Samples of any shape, grouped into batches: what every source but a single file shares."""

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import islice
from typing import Any

import numpy as np

from trtforge.errors import DataError, Place
from trtforge.graph.contract import IoContract, TensorSpec
from trtforge.graph.npy import ArrayHeader
from trtforge.graph.sources.checks import (
    LABELS,
    check_array,
    check_counts,
    check_names,
    converted,
    static_batch,
    whole_batches,
)
from trtforge.graph.sources.source import Feeds

Specs = Mapping[str, TensorSpec]


class RowSource(ABC):
    """A source that yields its samples one by one.

    Args:
        contract: the model's inputs.
        description: what the data is, in a few words.
        where: the place named in errors.

    Attributes:
        count: number of samples, at least 1; set by the subclass.
        digest: `sha256:` and 64 hexadecimal digits; set by the subclass.
        description: what the data is.
        static_batch: the batch size that the model fixes, None when it is free.
    """

    count: int
    digest: str

    def __init__(self, contract: IoContract, description: str, where: Place) -> None:
        self.specs: Specs = {spec.name: spec for spec in contract.inputs}
        if not self.specs:
            raise DataError(
                "TF0503",
                "the model has no inputs, so data cannot be fed to it",
                "leave the data out",
                where,
            )
        self.description = description
        self.where = where
        self.static_batch = static_batch(contract.inputs)

    @property
    def is_synthetic(self) -> bool:
        """False: somebody recorded these."""
        return False

    @abstractmethod
    def samples(self, first: int) -> Generator[Feeds, None, None]:
        """Yield the samples from `first` on, checked, each with an axis 0 of length 1."""

    def batches(self, batch: int, limit: int | None = None, start: int = 0) -> Iterator[Feeds]:
        """Yield the samples in order; a batch ends early where the next sample differs in shape.

        Args:
            batch: samples per batch, at least 1. A model with a static batch gets its own size.
            limit: the sample to stop before; None means all.
            start: the first sample.

        Raises:
            DataError: TF0502 damaged data, TF0506 a static batch does not divide the samples,
                TF0504 samples of one static batch differ in shape, TF0507 NaN or Inf.
        """
        total = self.count if limit is None else min(limit, self.count)
        whole_batches(total, self.static_batch, self.where)
        size = self.static_batch or batch
        held: list[Feeds] = []
        with closing(self.samples(start)) as samples:
            for sample in islice(samples, max(total - start, 0)):
                differ = bool(held) and _shapes(held[0]) != _shapes(sample)
                if differ and self.static_batch:
                    raise self._uneven(held[0], sample)
                if differ or len(held) == size:
                    yield _joined(held)
                    held = []
                held.append(sample)
        if held:
            yield _joined(held)

    def _uneven(self, one: Feeds, other: Feeds) -> DataError:
        return DataError(
            "TF0504",
            f"samples of one batch differ in shape, {_shapes(one)} and {_shapes(other)}, and the "
            f"model's batch is fixed at {self.static_batch}",
            "export the model with a dynamic batch, or pad the samples to one shape",
            self.where,
        )


def split(
    item: Any, specs: Specs, first: int, where: Place, *, alone: bool = False
) -> Iterator[Feeds]:
    """Yield the samples of one item: a mapping of arrays, or an array for a model with one input.

    An array with as many axes as the input has samples along axis 0; with one axis less it is a
    single sample.

    Args:
        item: what a source gave.
        specs: the model's inputs by name.
        first: number of its first sample.
        where: the place named in errors.
        alone: whether the item is known to be one sample with axis 0.

    Raises:
        DataError: TF0503 names, TF0504 shapes, TF0505 types, TF0506 counts, TF0507 NaN or Inf,
            TF0509 no numbers.
    """
    try:
        arrays = {name: _array(name, value) for name, value in named(item, specs, first).items()}
        if not alone:
            arrays = {name: with_rows(specs[name], array) for name, array in arrays.items()}
        for name, array in arrays.items():
            check_array(specs[name], ArrayHeader(name, array.dtype, array.shape, False))
        check_counts({name: len(array) for name, array in arrays.items()})
    except DataError as error:
        if error.where is None:
            error.where = where
            error.message = f"sample {first}: {error.message}"
        raise
    rows = {name: converted(specs[name], arrays[name], first, where) for name in specs}
    for row in range(len(next(iter(rows.values())))):
        yield {name: array[row : row + 1] for name, array in rows.items()}


def named(item: Any, specs: Specs, first: int = 0) -> dict[str, Any]:
    """Return the values of an item by input, labels left out.

    Raises:
        DataError: TF0503, names that are not those of the inputs.
    """
    if isinstance(item, Mapping):
        values = {str(name): value for name, value in item.items()}
        if LABELS not in specs:
            values.pop(LABELS, None)
        check_names(specs, values)
        return values
    if len(specs) == 1 and hasattr(item, "__array__"):
        return {next(iter(specs)): item}
    wanted = "{" + ", ".join(f"'{name}': array" for name in specs) + "}"
    raise DataError(
        "TF0503",
        f"a {type(item).__name__} is no sample"
        + ("" if len(specs) == 1 else f" of a model with {len(specs)} inputs"),
        f"yield a dict: {wanted}",
    )


def has_rows(spec: TensorSpec, axes: int) -> bool:
    """Tell whether an array of so many axes has one for samples.

    Raises:
        DataError: TF0504, the model does not say how many axes its input has.
    """
    if not spec.rank_known:
        raise DataError(
            "TF0504",
            f"the model does not say how many dimensions input '{spec.name}' has, so one sample "
            "cannot be told from several",
            "put the samples into one .npz file, where axis 0 is theirs, or declare the input's "
            "shape in the model",
        )
    return axes != len(spec.dims) - 1


def with_rows(spec: TensorSpec, array: np.ndarray) -> np.ndarray:
    """Return the array with samples along axis 0, which is put before a lone sample."""
    return array if has_rows(spec, array.ndim) else array[None]


def _array(name: str, value: Any) -> np.ndarray:
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as error:
        raise DataError(
            "TF0509",
            f"array '{name}' cannot be read as numbers: {error}",
            "give a numpy array; a torch tensor on the CPU, without gradients, is fine",
        ) from error
    if array.dtype.hasobject or array.dtype.kind in "USMm":
        raise DataError(
            "TF0509",
            f"array '{name}' holds {array.dtype.name}, not numbers",
            "give a numpy array of numbers",
        )
    return array


def _shapes(feeds: Feeds) -> dict[str, tuple[int, ...]]:
    return {name: array.shape[1:] for name, array in feeds.items()}


def _joined(samples: Sequence[Feeds]) -> Feeds:
    if len(samples) == 1:
        return samples[0]
    return {name: np.concatenate([feeds[name] for feeds in samples]) for name in samples[0]}
