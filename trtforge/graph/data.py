"""Samples for calibration and verification, checked against a model's contract and streamed."""

import hashlib
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path

import numpy as np

from trtforge.errors import DataError, Place
from trtforge.graph.contract import IoContract, TensorSpec
from trtforge.graph.npy import ArrayFile, ArrayHeader
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


class ArrayData:
    """One array per model input, samples along axis 0. Make it with `ArrayData.open`.

    Attributes:
        path: the file.
        count: how many samples it holds, at least 1.
        labels: class ids, int64, shape (count,); None when absent or not asked for.
        static_batch: the batch size that the model fixes, None when it is free.
    """

    def __init__(
        self,
        file: ArrayFile,
        specs: Mapping[str, TensorSpec],
        headers: Mapping[str, ArrayHeader],
        labels: np.ndarray | None,
    ) -> None:
        self.path = file.path
        self.count = next(iter(headers.values())).shape[0]
        self.labels = labels
        self.static_batch = static_batch(specs.values())
        self._file = file
        self._specs = specs
        self._headers = headers

    @classmethod
    def open(cls, path: Path, contract: IoContract, *, labels: bool = False) -> "ArrayData":
        """Open a .npz file (or a .npy file for a model with one input) and check its headers.

        Args:
            path: the file.
            contract: the inputs that must be there.
            labels: read the array `labels` where it exists.

        Raises:
            DataError: TF0501 not readable, TF0502 corrupt, TF0503 names, TF0504 shapes,
                TF0505 types, TF0506 sample counts, TF0508 labels, TF0509 object arrays.
        """
        file = ArrayFile(path)
        specs = {spec.name: spec for spec in contract.inputs}
        headers = _named_headers(file, specs)
        try:
            label_header = None if LABELS in specs else headers.pop(LABELS, None)
            check_names(specs, headers)
            for name, spec in specs.items():
                check_array(spec, headers[name])
            _check_counts(headers, label_header)
            wanted = label_header if labels else None
            values = None if wanted is None else _read_labels(file, wanted)
        except DataError as error:
            error.where = error.where or Place(str(path))
            raise
        return cls(file, specs, {name: headers[name] for name in specs}, values)

    @cached_property
    def digest(self) -> str:
        """The file's digest, `sha256:` and 64 hexadecimal digits."""
        with self.path.open("rb") as stream:
            return f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()}"

    @property
    def description(self) -> str:
        """The file's name."""
        return self.path.name

    @property
    def is_synthetic(self) -> bool:
        """False: somebody recorded these."""
        return False

    def batches(self, batch: int, limit: int | None = None, start: int = 0) -> Iterator[Feeds]:
        """Yield the samples in order; one batch is in memory at a time.

        Args:
            batch: samples per batch, at least 1; the last batch may be smaller. A model with
                a static batch gets its own size instead.
            limit: the sample to stop before; None means all.
            start: the first sample.

        Raises:
            DataError: TF0502 damaged bytes, TF0506 a static batch does not divide the samples,
                TF0507 NaN or Inf.
        """
        total = self.count if limit is None else min(limit, self.count)
        size = self.static_batch or batch
        whole_batches(total, self.static_batch, Place(str(self.path)))
        blocks = {
            name: self._file.rows(header, size, total, start)
            for name, header in self._headers.items()
        }
        for first in range(start, total, size):
            yield {
                name: converted(self._specs[name], next(rows), first, Place(str(self.path)))
                for name, rows in blocks.items()
            }


def _named_headers(file: ArrayFile, specs: Mapping[str, TensorSpec]) -> dict[str, ArrayHeader]:
    if not specs:
        raise DataError(
            "TF0503",
            "the model has no inputs, so data cannot be fed to it",
            "leave the data out",
            Place(str(file.path)),
        )
    if file.is_archive:
        return {header.name: header for header in file.headers}
    if len(specs) != 1:
        raise DataError(
            "TF0503",
            f"a .npy file holds one array, but the model has {len(specs)} inputs",
            f"write a .npz file with {', '.join(sorted(specs))}",
            Place(str(file.path)),
        )
    return {next(iter(specs)): file.headers[0]}


def _check_counts(headers: Mapping[str, ArrayHeader], labels: ArrayHeader | None) -> None:
    counts = {name: header.shape[0] for name, header in headers.items()}
    if labels is not None and len(labels.shape) == 1:
        counts[LABELS] = labels.shape[0]
    check_counts(counts)
    if labels is not None and (len(labels.shape) != 1 or labels.dtype.kind not in "iu"):
        raise DataError(
            "TF0508",
            f"'labels' must be integer class ids of shape (samples,), "
            f"not {labels.dtype.name} {list(labels.shape)}",
            "write one whole number per sample, 0 for the first class",
        )


def _read_labels(file: ArrayFile, header: ArrayHeader) -> np.ndarray:
    count = header.shape[0]
    values = next(file.rows(header, count, count)).astype(np.int64)
    if values.min() < 0:
        raise DataError(
            "TF0508",
            f"'labels' holds a negative class id: {values.min()}",
            "write one whole number per sample, 0 for the first class",
            Place(str(file.path)),
        )
    return values
