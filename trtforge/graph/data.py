"""Samples for calibration and verification, checked against a model's contract and streamed."""

import hashlib
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path

import ml_dtypes
import numpy as np

from trtforge.errors import DataError, Place
from trtforge.graph.contract import IoContract, TensorSpec
from trtforge.graph.names import did_you_mean
from trtforge.graph.npy import ArrayFile, ArrayHeader

Feeds = dict[str, np.ndarray]

LABELS = "labels"
"""The array that holds class ids, unless the model has an input of that name."""


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
        self.static_batch = _static_batch(specs)
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
            _check_names(specs, headers)
            for name, spec in specs.items():
                _check_array(spec, headers[name])
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
        if self.static_batch and total % size:
            raise DataError(
                "TF0506",
                f"the model's batch is fixed at {size}, and {total} samples are no multiple of it",
                f"use {total - total % size or size} samples, or export with a dynamic batch",
                Place(str(self.path)),
            )
        blocks = {
            name: self._file.rows(header, size, total, start)
            for name, header in self._headers.items()
        }
        for first in range(start, total, size):
            yield {
                name: self._converted(self._specs[name], next(rows), first)
                for name, rows in blocks.items()
            }

    def _converted(self, spec: TensorSpec, rows: np.ndarray, start: int) -> np.ndarray:
        with np.errstate(over="ignore"):  # what overflows is Inf, and found below
            array = rows.astype(_spec_dtype(spec), copy=False)
        if array.dtype.kind not in "biu":
            finite = np.isfinite(array).reshape(len(array), -1).all(axis=1)
            if not finite.all():
                sample = start + int(np.argmin(finite))
                raise DataError(
                    "TF0507",
                    f"array '{spec.name}' holds NaN or Inf (or overflows {spec.dtype}) "
                    f"in sample {sample}",
                    "repair or remove that sample",
                    Place(str(self.path)),
                )
        return array


def _spec_dtype(spec: TensorSpec) -> "np.dtype[np.generic]":
    found = getattr(ml_dtypes, spec.dtype, None)
    return np.dtype(found if found is not None else spec.dtype)


def _static_batch(specs: Mapping[str, TensorSpec]) -> int | None:
    sizes = {spec.dims[0] for spec in specs.values() if spec.dims}
    fixed = {size for size in sizes if isinstance(size, int)}
    return fixed.pop() if len(fixed) == 1 else None


def _named_headers(file: ArrayFile, specs: Mapping[str, TensorSpec]) -> dict[str, ArrayHeader]:
    if not specs:
        raise DataError("TF0503", "the model has no inputs, so data cannot be fed to it")
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


def _check_names(specs: Mapping[str, TensorSpec], headers: Mapping[str, ArrayHeader]) -> None:
    for name in headers:
        if name not in specs:
            hint = did_you_mean(name, specs)
            raise DataError("TF0503", f"array '{name}' is no input of the model", hint)
    for name in specs:
        if name not in headers:
            there = ", ".join(f"'{key}'" for key in headers) or "none"
            raise DataError(
                "TF0503", f"there is no array for input '{name}'", f"arrays in the file: {there}"
            )


def _check_array(spec: TensorSpec, header: ArrayHeader) -> None:
    if spec.rank_known and not spec.dims:
        raise DataError(
            "TF0504",
            f"input '{spec.name}' is a single number in the model, and data has a row per sample",
            "give the input a batch dimension or make it a constant of the model, or build "
            "without data and quantization",
        )
    if not header.shape:
        raise DataError(
            "TF0504",
            f"array '{spec.name}' is a single number; samples lie along axis 0",
            "add an axis: array[None]",
        )
    if spec.rank_known and len(spec.dims) != len(header.shape):
        raise DataError(
            "TF0504",
            f"array '{spec.name}' has {len(header.shape)} dimensions {list(header.shape)}, "
            f"the model's input has {len(spec.dims)}",
            "samples lie along axis 0, the other axes are those of the model",
        )
    for axis, (dim, size) in enumerate(zip(spec.dims, header.shape, strict=spec.rank_known)):
        if axis > 0 and isinstance(dim, int) and dim != size:
            raise DataError(
                "TF0504",
                f"dimension {axis} of array '{spec.name}' is {size}, the model's input has {dim}",
                f"the array's shape is {list(header.shape)}",
            )
    _check_type(spec, header)


def _check_type(spec: TensorSpec, header: ArrayHeader) -> None:
    if spec.dtype == "string":
        raise DataError("TF0505", f"input '{spec.name}' takes strings, which are not supported")
    wanted, given = _spec_dtype(spec), header.dtype
    narrowing = given.kind == "f" and given.itemsize == 8 and wanted == np.float32
    if not (narrowing or np.can_cast(given, wanted, casting="safe")):
        raise DataError(
            "TF0505",
            f"array '{spec.name}' is {given.name}, the model's input is {spec.dtype}",
            f"convert it: array.astype('{spec.dtype}')",
        )


def _check_counts(headers: Mapping[str, ArrayHeader], labels: ArrayHeader | None) -> None:
    counts = {name: header.shape[0] for name, header in headers.items()}
    if labels is not None and len(labels.shape) == 1:
        counts[LABELS] = labels.shape[0]
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"'{name}' {count}" for name, count in counts.items())
        raise DataError(
            "TF0506",
            f"the arrays hold different numbers of samples: {listed}",
            "every array has one row per sample along axis 0, also that of an input without a "
            "batch dimension; make such an input a constant of the model, or build without data",
        )
    if 0 in counts.values():
        raise DataError("TF0506", "the data holds no samples", "give it at least one")
    if labels is not None and (len(labels.shape) != 1 or labels.dtype.kind not in "iu"):
        raise DataError(
            "TF0508",
            f"'labels' must be integer class ids of shape (samples,), "
            f"not {labels.dtype.name} {list(labels.shape)}",
        )


def _read_labels(file: ArrayFile, header: ArrayHeader) -> np.ndarray:
    count = header.shape[0]
    values = next(file.rows(header, count, count)).astype(np.int64)
    if values.min() < 0:
        raise DataError("TF0508", f"'labels' holds a negative class id: {values.min()}")
    return values
