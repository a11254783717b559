"""What a comparison has seen so far of each output: statistics, not arrays."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from trtforge.errors import DataError
from trtforge.verify.cases import Case
from trtforge.verify.classes import check_labels, predictions
from trtforge.verify.metrics import OutputStats, dtype_kind
from trtforge.verify.tolerance import OutputForm
from trtforge.verify.types import Accuracy, CaseMetrics, Group

Array = npt.NDArray[Any]


@dataclass
class AccuracyCount:
    """How often each side predicted the label."""

    samples: int = 0
    reference: int = 0
    candidate: int = 0
    refusal: DataError | None = None

    def add(self, name: str, case: Case, reference: Array, candidate: Array) -> None:
        """Count one labelled case; an output that cannot predict these labels is left out."""
        if case.labels is None or not len(case.labels) or self.refusal is not None:
            return
        expected = predictions(reference, len(case.labels))
        found = predictions(candidate, len(case.labels))
        if expected is None or found is None:
            return
        try:
            check_labels(case.labels, reference, name)
        except DataError as error:
            self.refusal = error
            return
        self.samples += len(case.labels)
        self.reference += int(np.count_nonzero(expected == case.labels))
        self.candidate += int(np.count_nonzero(found == case.labels))

    def result(self, name: str) -> Accuracy | None:
        """Return the two accuracies, None where nothing was counted or the labels do not fit."""
        if self.samples == 0 or self.refusal is not None:
            return None
        return Accuracy(
            output=name,
            reference=self.reference / self.samples,
            candidate=self.candidate / self.samples,
            samples=self.samples,
        )


@dataclass
class OutputRecord:
    """Statistics of one output, by group of cases."""

    name: str
    dtype: str
    kind: str
    groups: dict[Group, OutputStats] = field(default_factory=dict)
    cases: list[CaseMetrics] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    accuracy: AccuracyCount = field(default_factory=AccuracyCount)

    @classmethod
    def of(cls, name: str, reference: Array) -> "OutputRecord":
        """Begin the record of an output."""
        return cls(name, reference.dtype.name, dtype_kind(reference.dtype))

    def add(self, case: Case, reference: Array, candidate: Array) -> None:
        """Add one case; a different type or shape is a failure and is not compared."""
        if problem := _form_problem(reference, candidate):
            self.fail(f"{problem} in case '{case.name}'")
            return
        reference, candidate = case.counted(reference), case.counted(candidate)
        stats = OutputStats().update(reference, candidate)
        if stats.nonfinite:
            self.fail(f"{_nonfinite(stats)} in case '{case.name}'")
        self.groups.setdefault(case.group, OutputStats()).merge(stats)
        metrics = stats.metrics()
        if metrics is not None and case.group != "data":
            self.cases.append(CaseMetrics(name=case.name, group=case.group, metrics=metrics))
        self.accuracy.add(self.name, case, reference, candidate)

    def over(self, groups: tuple[Group, ...]) -> OutputStats:
        """Return what was seen in these groups together."""
        whole = OutputStats()
        for group in groups:
            if group in self.groups:
                whole.merge(self.groups[group])
        return whole

    def form(self, *, has_accuracy: bool) -> OutputForm:
        """Return what decides which bounds fit."""
        has_classes = any(stats.rows > 0 for stats in self.groups.values())
        has_top5 = any(stats.wide_rows > 0 for stats in self.groups.values())
        return OutputForm(self.name, self.dtype, self.kind, has_classes, has_top5, has_accuracy)

    def fail(self, failure: str) -> None:
        """Note what no tolerance forgives; the first time only."""
        # One case shows what is wrong; thousands of batches would repeat it.
        if not self.failures:
            self.failures.append(failure)


def _form_problem(reference: Array, candidate: Array) -> str | None:
    if reference.dtype != candidate.dtype:
        return f"type {candidate.dtype.name} instead of {reference.dtype.name}"
    if reference.shape != candidate.shape:
        return f"shape {list(candidate.shape)} instead of {list(reference.shape)}"
    return None


def _nonfinite(stats: OutputStats) -> str:
    if stats.candidate_nonfinite:
        return (
            f"{stats.candidate_nonfinite} of {stats.elements} values are NaN or Inf where the "
            "reference is finite"
        )
    return f"{stats.nonfinite} of {stats.elements} values differ where the reference is NaN or Inf"
