"""Whether arrays are what a model's inputs take: the same laws for every source of samples."""

from collections.abc import Iterable, Mapping

import ml_dtypes
import numpy as np

from trtforge.errors import DataError, Place
from trtforge.graph.contract import TensorSpec
from trtforge.graph.names import did_you_mean
from trtforge.graph.npy import ArrayHeader

LABELS = "labels"
"""The array that holds class ids, unless the model has an input of that name."""


def spec_dtype(spec: TensorSpec) -> "np.dtype[np.generic]":
    """Return numpy's type of an input."""
    found = getattr(ml_dtypes, spec.dtype, None)
    return np.dtype(found if found is not None else spec.dtype)


def static_batch(specs: Iterable[TensorSpec]) -> int | None:
    """Return the batch size that the inputs fix, None where it is free."""
    sizes = {spec.dims[0] for spec in specs if spec.dims}
    fixed = {size for size in sizes if isinstance(size, int)}
    return fixed.pop() if len(fixed) == 1 else None


def whole_batches(count: int, size: int | None, where: Place) -> None:
    """Check that samples make whole batches.

    Raises:
        DataError: TF0506, a static batch does not divide the samples.
    """
    if size and count % size:
        raise DataError(
            "TF0506",
            f"the model's batch is fixed at {size}, and {count} samples are no multiple of it",
            f"use {count - count % size or size} samples, or export with a dynamic batch",
            where,
        )


def check_names(specs: Mapping[str, TensorSpec], names: Iterable[str]) -> None:
    """Check that there is an array for each input, and no other.

    Raises:
        DataError: TF0503.
    """
    names = tuple(names)
    for name in names:
        if name not in specs:
            hint = did_you_mean(name, specs)
            raise DataError("TF0503", f"array '{name}' is no input of the model", hint)
    for name in specs:
        if name not in names:
            there = ", ".join(f"'{key}'" for key in names) or "none"
            raise DataError(
                "TF0503", f"there is no array for input '{name}'", f"arrays in the data: {there}"
            )


def check_array(spec: TensorSpec, header: ArrayHeader) -> None:
    """Check shape and type of an array with one row per sample.

    Raises:
        DataError: TF0504 shapes, TF0505 types.
    """
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
        raise DataError(
            "TF0505",
            f"input '{spec.name}' takes strings, which are not supported",
            "export the model without what reads text: TensorRT takes numbers only",
        )
    wanted, given = spec_dtype(spec), header.dtype
    narrowing = given.kind == "f" and given.itemsize == 8 and wanted == np.float32
    if not (narrowing or np.can_cast(given, wanted, casting="safe")):
        raise DataError(
            "TF0505",
            f"array '{spec.name}' is {given.name}, the model's input is {spec.dtype}",
            f"convert it: array.astype('{spec.dtype}')",
        )


def check_counts(counts: Mapping[str, int]) -> None:
    """Check that all arrays hold the same number of samples, at least one.

    Raises:
        DataError: TF0506.
    """
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"'{name}' {count}" for name, count in counts.items())
        raise DataError(
            "TF0506",
            f"the arrays hold different numbers of samples: {listed}",
            "every array has one row per sample along axis 0, also that of an input without a "
            "batch dimension; make such an input a constant of the model, or build without data",
        )
    if 0 in counts.values():
        raise no_samples()


def no_samples(where: Place | None = None) -> DataError:
    """The error of data that is empty."""
    return DataError("TF0506", "the data holds no samples", "give it at least one", where)


def converted(spec: TensorSpec, rows: np.ndarray, first: int, where: Place) -> np.ndarray:
    """Return rows in the input's own type.

    Args:
        spec: the input.
        rows: samples along axis 0, of a type that `check_array` allows.
        first: number of the first of them.
        where: the place named in an error.

    Raises:
        DataError: TF0507, NaN or Inf.
    """
    with np.errstate(over="ignore"):  # what overflows is Inf, and found below
        array = rows.astype(spec_dtype(spec), copy=False)
    if array.dtype.kind not in "biu":
        finite = np.isfinite(array).reshape(len(array), -1).all(axis=1)
        if not finite.all():
            sample = first + int(np.argmin(finite))
            raise DataError(
                "TF0507",
                f"array '{spec.name}' holds NaN or Inf (or overflows {spec.dtype}) "
                f"in sample {sample}",
                "repair or remove that sample",
                where,
            )
    return array
