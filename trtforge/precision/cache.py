"""The calibration cache: observed ranges with their provenance, as deterministic JSON.

Ranges rather than scales, so that one cache serves INT8 and FP8 and every float type; digests of
graph and data, so that it can be told when it is stale.
"""

import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from trtforge.disk import write_text
from trtforge.errors import DataError, Place
from trtforge.precision.scales import scale_of
from trtforge.precision.textfile import read_text

SCHEMA: Literal["trtforge.calibration/1"] = "trtforge.calibration/1"

Finite = Annotated[float, Field(allow_inf_nan=False)]


class TensorRange(BaseModel):
    """What calibration found out about one tensor.

    Attributes:
        min: smallest value observed.
        max: largest value observed.
        amax: the magnitude that the method maps to the end of the INT8 grid, >= 0; at most the
            largest magnitude observed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    min: Finite
    max: Finite
    amax: Annotated[Finite, Field(ge=0)]

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        return self

    @property
    def observed_amax(self) -> float:
        """Largest magnitude observed."""
        return max(abs(self.min), abs(self.max))


class CalibrationCache(BaseModel):
    """Ranges of activations, and what they were measured with.

    Attributes:
        method: minmax or entropy.
        options: settings of the method that change its result.
        samples: how many samples were seen.
        graph_digest: digest of the model that was run.
        data_digest: digest of the data file.
        versions: libraries that can change the numbers.
        warnings: what a user should look at, such as tensors that never changed.
        ranges: per tensor name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    schema_name: Literal["trtforge.calibration/1"] = Field(SCHEMA, alias="schema")
    method: str
    options: dict[str, int | float | str] = Field(default_factory=dict)
    samples: int = Field(ge=1)
    graph_digest: str
    data_digest: str
    versions: dict[str, str] = Field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    ranges: dict[str, TensorRange]

    def as_json(self) -> dict[str, Any]:
        """The cache as plain JSON data."""
        return self.model_dump(mode="json", by_alias=True)

    def as_text(self) -> str:
        """The cache as JSON text: sorted keys, so equal caches are equal bytes."""
        return json.dumps(self.as_json(), indent=1, sort_keys=True, allow_nan=False) + "\n"

    def save(self, path: Path) -> None:
        """Write the cache, whole or not at all.

        Raises:
            MissingError: the folder cannot be written.
        """
        write_text(path, self.as_text())

    @classmethod
    def load(cls, path: Path) -> "CalibrationCache":
        """Read a cache.

        Raises:
            DataError: the file is missing, not JSON, or not a calibration cache (TF0520).
        """
        text = read_text(path, "TF0520", "calibration cache")
        try:
            data = json.loads(text, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise _malformed(path, _json_reason(text, error), _line_of(error)) from error
        if not isinstance(data, dict) or data.get("schema") != SCHEMA:
            found = data.get("schema") if isinstance(data, dict) else type(data).__name__
            raise _malformed(path, f"expected schema '{SCHEMA}', found {found!r}")
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            first = error.errors()[0]
            at = ".".join(str(part) for part in first["loc"])
            raise _malformed(path, f"'{at}': {first['msg']}") from error

    def range_of(self, name: str) -> TensorRange:
        """The range of a tensor.

        Raises:
            DataError: the cache does not know the tensor (TF0521).
        """
        try:
            return self.ranges[name]
        except KeyError:
            raise DataError(
                "TF0521",
                f"the calibration cache has no range for tensor '{name}'",
                "the cache belongs to another graph; calibrate again",
                Place(node=name),
            ) from None

    def scale(self, name: str, quantize: str, float_type: str = "fp32") -> float:
        """Scale of an activation, exact in `float_type`.

        FP8 takes the largest magnitude observed rather than the method's threshold: a floating
        grid loses almost nothing on large values, and clipping them would.

        Args:
            name: tensor name.
            quantize: int8 or fp8.
            float_type: fp32, fp16 or bf16; the scale is rounded up to it.

        Raises:
            DataError: the cache does not know the tensor.
        """
        found = self.range_of(name)
        amax = found.observed_amax if quantize == "fp8" else found.amax
        return float(scale_of(amax, quantize, float_type))


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is not a number that JSON has")


def _json_reason(text: str, error: Exception) -> str:
    if not text.strip():
        return "the file is empty"
    return f"not valid JSON: {error}"


def _line_of(error: Exception) -> int | None:
    return error.lineno if isinstance(error, json.JSONDecodeError) else None


def _malformed(path: Path, reason: str, line: int | None = None) -> DataError:
    return DataError(
        "TF0520",
        f"'{path}' is not a calibration cache: {reason}",
        "delete it and calibrate again; TensorRT's own text caches are read by another command",
        Place(str(path), line),
    )
