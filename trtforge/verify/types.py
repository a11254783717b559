"""What verification reports, as plain immutable values; importing this costs no numpy.

JSON has no infinities: floats that may be inf or nan are written as "inf", "-inf" and "nan", and
read back from those strings.
"""

import math
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer

Verdict = Literal["pass", "fail", "not_run"]
Group = Literal["data", "corner", "random"]

PARITY_SCHEMA: Final = "trtforge.parity/1"


def _json_float(value: float | None) -> float | str | None:
    if value is None or math.isfinite(value):
        return value
    return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")


Number = Annotated[float, PlainSerializer(_json_float, when_used="json")]
"""A float that may be infinite or NaN and survives JSON."""


class ReportPart(BaseModel):
    """The base of all report values: immutable, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return self.model_dump(mode="json", by_alias=True)


class Bounds(ReportPart):
    """What counts as the same function; every bound that is given must hold.

    Attributes:
        sqnr_db: at least this signal-to-quantization-noise ratio, dB.
        cosine: at least this cosine similarity, -1..1.
        max_abs: at most this absolute error, in the output's own unit.
        max_rel: at most this relative error.
        top1_agreement: at least this share of rows with the same arg-max, 0..1.
        top5_agreement: at least this share of rows whose arg-max in the reference is among the
            candidate's five largest, 0..1.
        accuracy_drop: at most this loss of top-1 accuracy, 0..1; 0.01 is one point.
        exact_agreement: at least this share of equal elements, 0..1 (integer and bool outputs).
    """

    sqnr_db: float | None = None
    cosine: float | None = None
    max_abs: float | None = None
    max_rel: float | None = None
    top1_agreement: float | None = None
    top5_agreement: float | None = None
    accuracy_drop: float | None = None
    exact_agreement: float | None = None

    @property
    def given(self) -> dict[str, float]:
        """The bounds that are set, by name."""
        return {name: bound for name, bound in self.model_dump().items() if bound is not None}


class Tolerances(ReportPart):
    """Bounds for all outputs of a comparison.

    Attributes:
        default: bounds for every output that `outputs` does not name; where it is empty, or
            where none of its bounds fits an output's type, `fallback` is used.
        outputs: bounds for single outputs, in place of `default`.
        fallback: bounds by precision, see `tolerance.DEFAULTS`.
        fallback_reason: why these numbers; shown with the verdict.
    """

    default: Bounds = Bounds()
    outputs: dict[str, Bounds] = Field(default_factory=dict)
    fallback: Bounds
    fallback_reason: str


class Metrics(ReportPart):
    """How far one output of the candidate is from the reference.

    Attributes:
        elements: elements compared.
        finite: of these, how many are finite on both sides.
        sqnr_db: signal-to-quantization-noise ratio, dB; None for integer and bool outputs.
        max_abs: largest absolute error.
        max_rel: largest error relative to its reference element; inf where that is zero.
        cosine: cosine similarity; None for integer and bool outputs.
        exact_agreement: share of equal elements.
        top1_agreement: share of rows with the same arg-max; None where rows have no classes.
        top5_agreement: share of rows whose arg-max in the reference is among the candidate's five
            largest; None where rows have at most five classes.
        rows: rows that `top1_agreement` counts.
        reference_amax: largest finite absolute value of the reference.
        nonfinite: elements where exactly one side is NaN or Inf, or both in different ways.
        candidate_nonfinite: of these, how many are NaN or Inf in the candidate where the
            reference is finite.
    """

    elements: int
    finite: int
    sqnr_db: Number | None
    max_abs: Number | None
    max_rel: Number | None
    cosine: Number | None
    exact_agreement: float | None
    top1_agreement: float | None
    top5_agreement: float | None = None
    rows: int
    reference_amax: Number | None
    nonfinite: int
    candidate_nonfinite: int


class ErrorHistogram(ReportPart):
    """How the errors of one output are spread, in bins of one power of two each.

    Attributes:
        unit: the output's range: the smallest power of two above the largest finite magnitude of
            the reference; 1 where that is zero.
        exact: elements without any error.
        lowest: bin i holds unit * 2**(lowest + i) <= |error| < unit * 2**(lowest + i + 1); the
            bins of -40 and of 8 hold all that is smaller or larger, too.
        counts: elements of each bin; the first and the last are not zero. Elements where NaN or
            Inf differ are in none: `Metrics.nonfinite` counts them.
    """

    unit: float
    exact: int
    lowest: int
    counts: tuple[int, ...]


class Accuracy(ReportPart):
    """Top-1 accuracy on labelled data, shares of 0..1.

    Attributes:
        output: the output whose arg-max is the predicted class.
        reference: share of samples that the reference gets right.
        candidate: the same of the candidate.
        samples: labelled samples counted.
    """

    output: str
    reference: float
    candidate: float
    samples: int


class CaseMetrics(ReportPart):
    """The metrics of one corner or random case."""

    name: str
    group: Group
    metrics: Metrics


class OutputVerdict(ReportPart):
    """The verdict on one output.

    Attributes:
        verdict: pass, fail, or not_run where no element of it was ever judged.
        reason: why it is not_run.
        dtype: the reference's numpy type name.
        metrics: over all judged cases together.
        tolerance: the bounds that were applied.
        tolerance_source: "recipe", "recipe (this output)" or "default: <reason>".
        failures: each bound that was missed, as a sentence with both numbers.
        groups: metrics of each group of cases, judged or not.
        cases: metrics of each corner and random case.
        accuracy: where labels were given and this output has classes.
        errors: how the errors of all judged cases are spread; None for text.
    """

    verdict: Verdict
    reason: str | None = None
    dtype: str
    metrics: Metrics | None
    tolerance: Bounds
    tolerance_source: str
    failures: tuple[str, ...] = ()
    groups: dict[Group, Metrics] = Field(default_factory=dict)
    cases: tuple[CaseMetrics, ...] = ()
    accuracy: Accuracy | None = None
    errors: ErrorHistogram | None = None


class ParityReport(ReportPart):
    """Is the candidate still the same function as the reference?

    Attributes:
        schema_tag: the format's name, "schema" in JSON.
        verdict: pass only if every output was judged and met its bounds.
        reason: one sentence: what failed, or why nothing was run; None for pass.
        reference: the reference runner's name.
        candidate: the candidate runner's name.
        judged: the groups of cases that the verdict rests on.
        cases: number of cases in each group.
        outputs: by output name, in the reference's order.
        failures: what is wrong beyond single outputs (a missing output, for one).
        accuracy: of the first output that has classes, where labels were given.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", populate_by_name=True, ser_json_inf_nan="strings"
    )

    schema_tag: Literal["trtforge.parity/1"] = Field(PARITY_SCHEMA, alias="schema")
    verdict: Verdict
    reason: str | None = None
    reference: str | None = None
    candidate: str | None = None
    judged: tuple[Group, ...] = ()
    cases: dict[Group, int] = Field(default_factory=dict)
    outputs: dict[str, OutputVerdict] = Field(default_factory=dict)
    failures: tuple[str, ...] = ()
    accuracy: Accuracy | None = None

    @classmethod
    def not_run(
        cls, reason: str, *, reference: str | None = None, candidate: str | None = None
    ) -> Self:
        """Say that no comparison took place, and why."""
        return cls(verdict="not_run", reason=reason, reference=reference, candidate=candidate)
