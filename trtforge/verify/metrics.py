"""Distances between a reference output and a candidate output, streamed batch by batch.

All sums are taken in float64 over blocks, so memory does not grow with an output's size, and
statistics of two halves merge into those of the whole. One rule decides about NaN and Inf: an
element where both sides are NaN, or infinite with the same sign, is equal; an element where only
one side is finite, or where both are non-finite in different ways, is a mismatch that no tolerance
forgives (SQNR -inf, errors inf, cosine NaN).
"""

import math
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from trtforge.errors import ParityError
from trtforge.verify.classes import class_rows
from trtforge.verify.histogram import ErrorCounts
from trtforge.verify.types import ErrorHistogram, Metrics

Array = npt.NDArray[Any]
Float64Array = npt.NDArray[np.float64]

BLOCK_ELEMENTS = 1 << 16
"""Elements widened to float64 at a time: 512 KiB per operand, so that a block stays in cache."""

_SAFE_EXPONENT = 400
"""Values of 2**-400..2**400 can be squared and summed in float64 (2**-1022..2**1024) unscaled."""

_TOP = 5
"""The k of top-k agreement; top-5 is ImageNet's second measure (Russakovsky et al., 2015)."""

_NARROW_FLOATS = ("bfloat", "float8", "float6", "float4")
_NARROW_INTEGERS = ("int4", "uint4", "int2", "uint2")


def dtype_kind(dtype: np.dtype[Any]) -> str:
    """Return "float", "integer" (bool included) or "other" (text, complex) for a numpy type."""
    if np.issubdtype(dtype, np.floating) or dtype.name.startswith(_NARROW_FLOATS):
        return "float"
    if np.issubdtype(dtype, np.integer) or dtype == np.bool_ or dtype.name in _NARROW_INTEGERS:
        return "integer"
    return "other"


@dataclass
class PowerSum:
    """A sum of products, kept as `mantissa * 2**exponent` so that no square leaves float64.

    Squares of float64 values overflow from 1e154 on and vanish below 1e-162; scaling each block by
    a power of two is exact and avoids both.
    """

    mantissa: float = 0.0
    exponent: int = 0

    def add_product(self, left: Float64Array, right: Float64Array) -> None:
        """Add sum(left * right); both 1-D and of equal length, finite."""
        left_exponent, right_exponent = _peak_exponent(left), _peak_exponent(right)
        if left_exponent:
            left = np.ldexp(left, -left_exponent)
        if right_exponent:
            right = np.ldexp(right, -right_exponent)
        # Not np.dot: BLAS wakes its threads for it, which took 4 ms a block instead of 0.03 ms.
        product = np.einsum("i,i->", left, right)
        self.add(PowerSum(float(product), left_exponent + right_exponent))

    def add(self, other: "PowerSum") -> None:
        """Add another sum."""
        if other.mantissa == 0.0:
            return
        if self.mantissa == 0.0:
            self.mantissa, self.exponent = other.mantissa, other.exponent
            return
        top = max(self.exponent, other.exponent)
        self.mantissa = math.ldexp(self.mantissa, self.exponent - top) + math.ldexp(
            other.mantissa, other.exponent - top
        )
        self.exponent = top

    @property
    def log10(self) -> float:
        """log10 of the sum, which must be positive."""
        return math.log10(self.mantissa) + self.exponent * math.log10(2.0)


def _peak_exponent(values: Float64Array) -> int:
    """Return the power of two to divide by, 0 where squares are in range anyway."""
    peak = max(float(np.max(values, initial=0.0)), -float(np.min(values, initial=0.0)))
    exponent = math.frexp(peak)[1]
    return exponent if abs(exponent) > _SAFE_EXPONENT else 0


@dataclass
class OutputStats:
    """What has been seen of one output so far; `metrics()` says what it amounts to.

    Memory is constant. `a.merge(b)` equals having updated `a` with everything `b` saw.
    """

    elements: int = 0
    finite: int = 0
    equal: int = 0
    nonfinite: int = 0
    candidate_nonfinite: int = 0
    max_abs: float = 0.0
    max_rel: float = 0.0
    amax: float = 0.0
    kind: str | None = None
    signal: PowerSum = field(default_factory=PowerSum)
    candidate: PowerSum = field(default_factory=PowerSum)
    noise: PowerSum = field(default_factory=PowerSum)
    cross: PowerSum = field(default_factory=PowerSum)
    rows: int = 0
    rows_agreeing: int = 0
    wide_rows: int = 0
    wide_rows_agreeing: int = 0
    errors: ErrorCounts = field(default_factory=ErrorCounts)

    def update(self, reference: Array, candidate: Array) -> Self:
        """Add one batch.

        Args:
            reference: any shape; floats, integers, bool or text.
            candidate: the same shape and kind of type.

        Raises:
            ParityError: shapes or kinds of types differ.
        """
        self._check(reference, candidate)
        left, right = reference.reshape(-1), candidate.reshape(-1)
        for start in range(0, left.size, BLOCK_ELEMENTS):
            block = slice(start, start + BLOCK_ELEMENTS)
            self._add_block(left[block], right[block])
        self._add_rows(reference, candidate)
        return self

    def merge(self, other: "OutputStats") -> Self:
        """Add what `other` has seen.

        Raises:
            ParityError: the two have seen different kinds of types.
        """
        self._set_kind(other.kind)
        for count in ("elements", "finite", "equal", "nonfinite", "candidate_nonfinite"):
            setattr(self, count, getattr(self, count) + getattr(other, count))
        for count in ("rows", "rows_agreeing", "wide_rows", "wide_rows_agreeing"):
            setattr(self, count, getattr(self, count) + getattr(other, count))
        self.max_abs = max(self.max_abs, other.max_abs)
        self.max_rel = max(self.max_rel, other.max_rel)
        self.amax = max(self.amax, other.amax)
        for name in ("signal", "candidate", "noise", "cross"):
            getattr(self, name).add(getattr(other, name))
        self.errors.merge(other.errors)
        return self

    def metrics(self) -> Metrics | None:
        """Return the metrics of everything seen; None when no element has been seen."""
        if self.elements == 0:
            return None
        is_float, is_number = self.kind == "float", self.kind != "other"
        broken = self.nonfinite > 0
        return Metrics(
            elements=self.elements,
            finite=self.finite,
            sqnr_db=self._sqnr_db() if is_float else None,
            max_abs=(math.inf if broken else self.max_abs) if is_number else None,
            max_rel=(math.inf if broken else self.max_rel) if is_number else None,
            cosine=self._cosine() if is_float else None,
            exact_agreement=self.equal / self.elements,
            top1_agreement=self.rows_agreeing / self.rows if self.rows else None,
            top5_agreement=self.wide_rows_agreeing / self.wide_rows if self.wide_rows else None,
            rows=self.rows,
            reference_amax=self.amax if is_number else None,
            nonfinite=self.nonfinite,
            candidate_nonfinite=self.candidate_nonfinite,
        )

    def histogram(self) -> ErrorHistogram | None:
        """Return how the errors seen are spread; None for text, and when nothing was seen."""
        if self.elements == 0 or self.kind == "other":
            return None
        return self.errors.relative_to(self.amax, self.equal)

    def _sqnr_db(self) -> float:
        if self.nonfinite:
            return -math.inf
        if self.noise.mantissa == 0.0:
            return math.inf
        if self.signal.mantissa == 0.0:
            return -math.inf
        return 10.0 * (self.signal.log10 - self.noise.log10)

    def _cosine(self) -> float:
        if self.nonfinite:
            return math.nan
        if self.noise.mantissa == 0.0:
            return 1.0
        if self.signal.mantissa == 0.0 or self.candidate.mantissa == 0.0:
            return 0.0
        if self.cross.mantissa == 0.0:
            return 0.0
        size = PowerSum(abs(self.cross.mantissa), self.cross.exponent).log10
        ratio = 10.0 ** (size - 0.5 * (self.signal.log10 + self.candidate.log10))
        return math.copysign(min(ratio, 1.0), self.cross.mantissa)

    def _check(self, reference: Array, candidate: Array) -> None:
        if reference.shape != candidate.shape:
            raise ParityError(
                "TF0701",
                f"shapes differ: reference {reference.shape}, candidate {candidate.shape}",
                "compare two of the same model",
            )
        self._set_kind(dtype_kind(reference.dtype))
        self._set_kind(dtype_kind(candidate.dtype))

    def _set_kind(self, kind: str | None) -> None:
        if self.kind is not None and kind is not None and kind != self.kind:
            raise ParityError(
                "TF0701",
                f"types differ: {self.kind} values cannot be compared with {kind} values",
                "compare two of the same model",
            )
        self.kind = self.kind or kind

    def _add_block(self, reference: Array, candidate: Array) -> None:
        self.elements += reference.size
        if self.kind == "float":
            self._add_floats(reference.astype(np.float64), candidate.astype(np.float64))
        elif self.kind == "integer":
            self.finite += reference.size
            self._add_integers(_widened(reference), _widened(candidate))
        else:
            self.finite += reference.size
            self.equal += int(np.count_nonzero(reference == candidate))

    def _add_floats(self, reference: Float64Array, candidate: Float64Array) -> None:
        finite = np.isfinite(reference) & np.isfinite(candidate)
        if not finite.all():
            self._add_nonfinite(reference[~finite], candidate[~finite])
            reference, candidate = reference[finite], candidate[finite]
        self.finite += reference.size
        self.equal += int(np.count_nonzero(reference == candidate))
        with np.errstate(all="ignore"):
            error = reference - candidate
            self._add_errors(np.abs(error), np.abs(reference))
        self.signal.add_product(reference, reference)
        self.candidate.add_product(candidate, candidate)
        self.cross.add_product(reference, candidate)
        self._add_noise(reference, candidate, error)

    def _add_noise(
        self, reference: Float64Array, candidate: Float64Array, error: Float64Array
    ) -> None:
        if np.isfinite(error).all():
            self.noise.add_product(error, error)
            return
        # Two float64 values near the type's end differ by more than it holds; their halves do not.
        halves = 0.5 * reference - 0.5 * candidate
        quarter = PowerSum()
        quarter.add_product(halves, halves)
        self.noise.add(PowerSum(quarter.mantissa, quarter.exponent + 2))

    def _add_nonfinite(self, reference: Float64Array, candidate: Float64Array) -> None:
        same = (reference == candidate) | (np.isnan(reference) & np.isnan(candidate))
        self.equal += int(np.count_nonzero(same))
        self.nonfinite += int(np.count_nonzero(~same))
        self.candidate_nonfinite += int(np.count_nonzero(np.isfinite(reference)))

    def _add_errors(self, error: Float64Array, size: Float64Array) -> None:
        self.amax = max(self.amax, float(np.max(size, initial=0.0)))
        self.max_abs = max(self.max_abs, float(np.max(error, initial=0.0)))
        self.errors.add(error)
        # 0/0, an equal pair of zeros, is NaN, and fmax leaves NaN out.
        relative = np.fmax.reduce(error / size, initial=0.0)
        self.max_rel = max(self.max_rel, float(relative))

    def _add_integers(self, reference: Array, candidate: Array) -> None:
        self.equal += int(np.count_nonzero(reference == candidate))
        low, high = np.minimum(reference, candidate), np.maximum(reference, candidate)
        # Modulo 2**64 the difference of two 64-bit integers is exact; float64 would round it.
        error = (high.astype(np.uint64) - low.astype(np.uint64)).astype(np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            self._add_errors(error, np.abs(reference.astype(np.float64)))

    def _add_rows(self, reference: Array, candidate: Array) -> None:
        if self.kind != "float":
            return
        left, right = class_rows(reference), class_rows(candidate)
        if left is None or right is None:
            return
        wide = left.shape[1] > _TOP  # with fewer classes every row would agree
        step = max(1, BLOCK_ELEMENTS // left.shape[1])
        for start in range(0, left.shape[0], step):
            rows = slice(start, start + step)
            self.rows_agreeing += _agreeing_rows(left[rows], right[rows])
            if wide:
                self.wide_rows_agreeing += _rows_within_top(_TOP, left[rows], right[rows])
        self.rows += left.shape[0]
        self.wide_rows += left.shape[0] if wide else 0


def _widened(values: Array) -> Array:
    return values if values.dtype == np.uint64 else values.astype(np.int64)


def _agreeing_rows(reference: Array, candidate: Array) -> int:
    """Count rows where the candidate's arg-max is a maximum of the reference's row (ties agree)."""
    best = np.argmax(reference, axis=1)
    chosen = np.argmax(candidate, axis=1)
    row = np.arange(reference.shape[0])
    tied = reference[row, chosen] == reference[row, best]
    return int(np.count_nonzero((chosen == best) | tied))


def _rows_within_top(k: int, reference: Array, candidate: Array) -> int:
    """Count rows where a maximum of the reference is among the candidate's k largest.

    A class is among them when fewer than k classes score higher; NaN scores never are.
    """
    best = reference == reference.max(axis=1, keepdims=True)
    score = np.where(best, candidate, -np.inf).max(axis=1, keepdims=True)
    higher = np.count_nonzero(candidate > score, axis=1)
    sound = ~(np.isnan(candidate).any(axis=1) | np.isnan(reference).any(axis=1))
    return int(np.count_nonzero((higher < k) & sound))
