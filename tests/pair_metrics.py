"""One metric of a reference and a candidate, as `OutputStats` has it; None where it has none."""

from typing import Any

import numpy.typing as npt

from trtforge.verify.metrics import OutputStats
from trtforge.verify.types import Metrics

Array = npt.NDArray[Any]


def _metrics(reference: Array, candidate: Array) -> Metrics:
    found = OutputStats().update(reference, candidate).metrics()
    assert found is not None, "the output is empty"
    return found


def sqnr_db(reference: Array, candidate: Array) -> Any:
    """Signal-to-quantization-noise ratio, dB."""
    return _metrics(reference, candidate).sqnr_db


def max_abs(reference: Array, candidate: Array) -> Any:
    """Largest |reference - candidate|."""
    return _metrics(reference, candidate).max_abs


def max_rel(reference: Array, candidate: Array) -> Any:
    """Largest |reference - candidate| / |reference|."""
    return _metrics(reference, candidate).max_rel


def cosine(reference: Array, candidate: Array) -> Any:
    """Cosine similarity, -1..1."""
    return _metrics(reference, candidate).cosine


def top1_agreement(reference: Array, candidate: Array) -> Any:
    """Share of rows with the same arg-max."""
    return _metrics(reference, candidate).top1_agreement


def top5_agreement(reference: Array, candidate: Array) -> Any:
    """Share of rows whose arg-max is among the candidate's five largest."""
    return _metrics(reference, candidate).top5_agreement
