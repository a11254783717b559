"""Samples of models of which inputs decide shapes by their values: each sample has its own.

To every source such an input is one with a row of values per sample. What a model is fed holds the
values of one sample, so a batch ends where the next sample has others.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from trtforge.errors import DataError, Place
from trtforge.graph.contract import IoContract
from trtforge.graph.deciding import can_decide
from trtforge.graph.inputs import Shapes, Values, fixed_values
from trtforge.graph.npy import ArrayFile
from trtforge.graph.sources.source import DataSource, Feeds

if TYPE_CHECKING:
    from trtforge.graph.data import ArrayData
    from trtforge.recipe.schema import ShapeRange

    Profiles = Sequence[Mapping[str, ShapeRange]]


class ValueRows:
    """A source whose feeds hold values that decide shapes; these stand last.

    Args:
        source: opened with the contract that `row_contract` gives.
        contract: the model's inputs.
        given: the inputs in question that the source has rows of.
        fixed: the values of the others, the same in all samples.

    Attributes:
        count: number of samples, at least 1.
        labels: class ids, int64, shape (count,); None when absent.
    """

    def __init__(
        self, source: DataSource, contract: IoContract, given: Sequence[str], fixed: Feeds
    ) -> None:
        self.count = source.count
        self.labels: np.ndarray | None = getattr(source, "labels", None)
        self.deciding = frozenset({*given, *fixed})
        self._source = source
        self._dims = {name: contract.input(name).dims for name in given}
        self._fixed = fixed

    @property
    def digest(self) -> str:
        """Digest of the samples, and of the values that they do not hold."""
        if not self._fixed:
            return self._source.digest
        parts = [(name, values.tolist()) for name, values in sorted(self._fixed.items())]
        return f"sha256:{sha256(f'{self._source.digest} {parts}'.encode()).hexdigest()}"

    @property
    def description(self) -> str:
        """What it is."""
        return self._source.description

    @property
    def is_synthetic(self) -> bool:
        """Whether the samples were made up."""
        return self._source.is_synthetic

    @property
    def static_batch(self) -> int:
        """The batch size that the model fixes; else 1, as no two samples need have equal values."""
        return self._source.static_batch or 1

    def batches(self, batch: int, limit: int | None = None, start: int = 0) -> Iterator[Feeds]:
        """Feeds of up to `batch` samples, all of the same values; see `DataSource`.

        Raises:
            DataError: TF0504, the model fixes its batch, and samples of one differ in values.
        """
        for feeds in self._source.batches(batch, limit, start):
            values = {name: feeds[name] for name in self._dims}
            others = {name: array for name, array in feeds.items() if name not in values}
            rows = len(next(iter(others.values())))
            ends = _ends(list(values.values()), rows)
            if len(ends) > 1 and self._source.static_batch:
                raise DataError(
                    "TF0504",
                    f"samples of one batch differ in the values of {', '.join(values)}, and the "
                    f"model's batch is fixed at {self._source.static_batch}",
                    "export the model with a dynamic batch, or sort the samples by these values",
                )
            first = 0
            for end in ends:
                part = {name: array[first:end] for name, array in others.items()}
                chosen = {
                    name: rows[first].reshape(self._dims[name]) for name, rows in values.items()
                }
                yield part | chosen | self._fixed
                first = end


def _ends(values: Sequence[np.ndarray], rows: int) -> list[int]:
    """Where runs of equal values end."""
    differs = np.zeros(max(rows - 1, 0), np.bool_)
    for array in values:
        differs |= (array[1:] != array[:-1]).any(axis=tuple(range(1, array.ndim)))
    return [*(np.flatnonzero(differs) + 1).tolist(), rows]


def deciding_of(profiles: "Profiles") -> tuple[str, ...]:
    """Return the inputs of which profiles give values."""
    names = (name for profile in profiles for name, one in profile.items() if one.values)
    return tuple(dict.fromkeys(names))


def row_contract(
    contract: IoContract,
    deciding: Collection[str],
    given: Collection[str],
    where: Place | None = None,
) -> IoContract:
    """Return the contract that a source of samples must fit.

    Args:
        contract: the model's inputs.
        deciding: those that decide shapes by their values.
        given: those of them that the source has a row of values of for each sample; it has nothing
            of the others.
        where: the place named in an error.

    Raises:
        DataError: TF0510, every input decides shapes, so that nothing is left to have samples of.
    """
    specs = [
        replace(spec, dims=(None, *spec.dims)) if spec.name in given else spec
        for spec in contract.inputs
        if spec.name not in deciding or spec.name in given
    ]
    if all(spec.name in deciding for spec in specs):
        raise DataError(
            "TF0510",
            "every input of the model decides shapes by its values, so there are no samples",
            "leave the data out: values are taken from the profiles then",
            where,
        )
    return replace(contract, inputs=tuple(specs))


def values_at_opt(contract: IoContract, profiles: "Profiles", names: Collection[str]) -> Feeds:
    """Return the values of inputs at the `opt` of the first profile that gives some."""
    shapes: Shapes = {}
    for profile in profiles:
        for name in names:
            if name in profile and name not in shapes:
                shapes[name] = Values(profile[name].opt)
    return fixed_values(contract, shapes)


def open_arrays(
    path: Path, contract: IoContract, profiles: "Profiles" = (), *, labels: bool = False
) -> "ArrayData | ValueRows":
    """Open a .npz or .npy file.

    Args:
        path: the file; it may hold rows of the values that decide shapes.
        contract: the model's inputs.
        profiles: say which inputs decide shapes, and their values where the file has none. Where
            they say of none, it is those that can and that the file has rows of values of.
        labels: read the array `labels` where it exists.

    Raises:
        DataError: as `ArrayData.open` and `row_contract`.
    """
    from trtforge.graph.data import ArrayData

    given = given_by(path, contract, deciding_of(profiles))
    deciding = deciding_of(profiles) or given
    if not deciding:
        return ArrayData.open(path, contract, labels=labels)
    rows = row_contract(contract, deciding, given, Place(str(path)))
    opened = ArrayData.open(path, rows, labels=labels)
    missing = [name for name in deciding if name not in given]
    return ValueRows(opened, contract, given, values_at_opt(contract, profiles, missing))


def given_by(path: Path, contract: IoContract, deciding: Sequence[str]) -> tuple[str, ...]:
    """Return the inputs of which a file of arrays holds rows of values.

    Args:
        path: the file.
        contract: the model's inputs.
        deciding: those that decide shapes by their values. Where none is known, it is those that
            can, and whose array has an axis more than the input.
    """
    file = ArrayFile(path)
    axes = {one.name: len(one.shape) for one in file.headers} if file.is_archive else {}
    if deciding:
        return tuple(name for name in deciding if name in axes)
    return tuple(
        spec.name
        for spec in contract.inputs
        if can_decide(spec) and axes.get(spec.name) == len(spec.dims) + 1
    )
