"""The parts of a calibration cache: one tensor's range, and which samples were seen."""

import base64
import binascii
import zlib
from typing import Annotated, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from trtforge.precision.observers.histogram import BINS, LOWEST_EXPONENT, Histogram
from trtforge.precision.state import TensorState

Finite = Annotated[float, Field(allow_inf_nan=False)]


class StoredHistogram(BaseModel):
    """A histogram as text.

    Attributes:
        exponent: the bins cover 0..2**exponent.
        counts: BINS counts, little-endian int64, deflated, base64.
        zeros: how many values of the first bin are exactly 0.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    exponent: Annotated[int, Field(ge=LOWEST_EXPONENT, le=128)]
    counts: str
    zeros: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _readable(self) -> Self:
        self.restore()
        return self

    @classmethod
    def of(cls, histogram: Histogram) -> "StoredHistogram":
        """Store a histogram."""
        packed = zlib.compress(histogram.counts.astype("<i8").tobytes(), 6)
        text = base64.b64encode(packed).decode("ascii")
        return cls(exponent=histogram.exponent, counts=text, zeros=histogram.zeros)

    def restore(self) -> Histogram:
        """Return the histogram.

        Raises:
            ValueError: the text is damaged.
        """
        try:
            inflate = zlib.decompressobj()
            raw = inflate.decompress(base64.b64decode(self.counts, validate=True), BINS * 8 + 1)
        except (binascii.Error, zlib.error) as error:
            raise ValueError(f"the histogram's counts are damaged: {error}") from error
        if len(raw) != BINS * 8:
            raise ValueError(f"the histogram has {len(raw)} bytes of counts, not {BINS * 8}")
        counts = np.frombuffer(raw, "<i8").astype(np.int64)
        if counts.min() < 0:
            raise ValueError("the histogram has a negative count")
        if self.zeros > counts[0]:
            raise ValueError(f"the histogram has {self.zeros} zeros in a bin of {counts[0]} values")
        return Histogram(self.exponent, counts, self.zeros)


class TensorRange(BaseModel):
    """What calibration found out about one tensor.

    Attributes:
        min: smallest value observed.
        max: largest value observed.
        amax: the magnitude that the method maps to the end of the INT8 grid, >= 0; at most the
            largest magnitude observed.
        runs: in how many runs it was seen; 0 when that is not known.
        amax_total: sum of the runs' largest magnitudes in units of 2**-149 (`state.py`).
        histogram: counts of magnitudes, where the method needs them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    min: Finite
    max: Finite
    amax: Annotated[Finite, Field(ge=0)]
    runs: Annotated[int, Field(ge=0)] = 0
    amax_total: Annotated[int, Field(ge=0)] = 0
    histogram: StoredHistogram | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        return self

    @classmethod
    def of(cls, state: TensorState, amax: float) -> "TensorRange":
        """Store a settled state with the magnitude that a method chose."""
        stored = None if state.histogram is None else StoredHistogram.of(state.histogram)
        return cls(
            min=state.low,
            max=state.high,
            amax=amax,
            runs=state.runs,
            amax_total=state.amax_total,
            histogram=stored,
        )

    def state(self) -> TensorState:
        """Return what was seen, to merge it or to go on."""
        histogram = None if self.histogram is None else self.histogram.restore()
        return TensorState(self.min, self.max, self.runs, self.amax_total, histogram)

    @property
    def observed_amax(self) -> float:
        """Largest magnitude observed."""
        return max(abs(self.min), abs(self.max))


class DataUse(BaseModel):
    """Samples that were seen.

    Attributes:
        digest: of the data as a whole.
        source: what it is, for people.
        spans: which samples: [first, behind the last] each, in ascending order.
        synthetic: whether they were made up.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    digest: str
    source: str = ""
    spans: tuple[tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]], ...]
    synthetic: bool = False

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        ends = [0, *(end for span in self.spans for end in span)]
        if ends != sorted(ends):
            raise ValueError(f"the spans {list(self.spans)} overlap or do not ascend")
        return self
