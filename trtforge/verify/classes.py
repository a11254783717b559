"""Outputs as class scores: rows of scores, predicted classes, accuracy on labels."""

from typing import Any

import numpy as np
import numpy.typing as npt

from trtforge.errors import DataError, ParityError

Array = npt.NDArray[Any]


def class_rows(output: Array) -> Array | None:
    """Return the output as (rows, classes), or None when its last axis holds no classes.

    Args:
        output: (..., C) with at least two axes and C >= 2. (N, C, 1, 1), the output of a network
            that ends in a global pooling, counts as (N, C). One score alone is no choice between
            classes: its arg-max would always agree.
    """
    shape = output.shape
    if len(shape) == 4 and shape[2:] == (1, 1):
        shape = shape[:2]
    if len(shape) < 2 or shape[-1] < 2:
        return None
    return output.reshape(-1, shape[-1])


def predictions(output: Array, samples: int) -> npt.NDArray[np.int64] | None:
    """Return the class that an output predicts for each sample.

    Args:
        output: float scores (samples, C) or (samples, C, 1, 1), or integer class ids (samples,)
            or (samples, 1).
        samples: the number of samples in the batch.

    Returns:
        Class ids (samples,), -1 for a sample whose scores hold a NaN; None when the output has
        another form.
    """
    if np.issubdtype(output.dtype, np.integer):
        is_ids = output.shape in ((samples,), (samples, 1))
        return output.reshape(-1).astype(np.int64) if is_ids else None
    if output.dtype == np.bool_ or output.dtype.kind in "OUSc" or output.ndim not in (2, 4):
        return None
    rows = class_rows(output)
    if rows is None or rows.shape[0] != samples:
        return None
    scores = rows.astype(np.float64)
    return np.where(np.isnan(scores).any(axis=1), -1, np.argmax(scores, axis=1)).astype(np.int64)


def check_labels(labels: Array, output: Array, name: str) -> None:
    """Refuse labels that the output has no class for.

    Raises:
        DataError: a label is negative or not below the number of classes.
    """
    rows = None if np.issubdtype(output.dtype, np.integer) else class_rows(output)
    wrong = labels < 0 if rows is None else (labels < 0) | (labels >= rows.shape[1])
    if not np.any(wrong):
        return
    label = int(labels[np.argmax(wrong)])
    classes = (
        "" if rows is None else f", which has {rows.shape[1]} classes (0..{rows.shape[1] - 1})"
    )
    raise DataError(
        "TF0706",
        f"label {label} is no class of output '{name}'{classes}",
        hint="labels are class ids counted from 0",
    )


def accuracy(output: Array, labels: Array) -> float:
    """Top-1 accuracy: the share of samples whose predicted class is the label, 0..1.

    Args:
        output: see `predictions`.
        labels: class ids, (samples,), at least one.

    Raises:
        ParityError: the output has no classes, or there is no label.
        DataError: a label is out of range.
    """
    predicted = predictions(output, len(labels)) if len(labels) else None
    if predicted is None:
        raise ParityError(
            "TF0703",
            f"an output of shape {output.shape} predicts no class for {len(labels)} labels",
            "labels are for an output of scores of classes, (samples, classes)",
        )
    check_labels(labels, output, "output")
    return float(np.mean(predicted == labels))
