"""The calibration cache: what was seen of each tensor with its provenance, as deterministic JSON.

Ranges rather than scales, so that one cache serves INT8 and FP8 and every float type; digests of
graph and data, so that it can be told when it is stale; histograms, so that caches of shards merge
exactly and another method needs no new run.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trtforge.disk import write_text
from trtforge.errors import DataError, Place
from trtforge.precision.ranges import DataUse, Finite, TensorRange
from trtforge.precision.reshaping import Reshaping, Vector
from trtforge.precision.scales import LARGEST, round_to_step, round_up, scale_of
from trtforge.precision.textfile import read_text

__all__ = ["CalibrationCache", "DataUse", "TensorRange"]

SCHEMA: Literal["trtforge.calibration/2"] = "trtforge.calibration/2"
_FIRST_SCHEMA = "trtforge.calibration/1"


class CalibrationCache(BaseModel):
    """Ranges of activations, and what they were measured with.

    Attributes:
        method: a key of `observers.METHODS`, or what a foreign tool called it.
        grid: int8 or fp8: what the method mapped the ranges onto.
        options: settings of the method that change its result.
        samples: how many samples were seen.
        graph_digest: digest of the model that was run; empty when it is not known.
        data: which samples of which data.
        versions: libraries that can change the numbers.
        warnings: what a user should look at, such as tensors that never changed.
        ranges: per tensor name.
        weight_scales: scales of weights that a technique fixed, per weight: one number, or one per
            output channel; the other weights get theirs from their own values.
        reshaping: how techniques reshaped the graph before it was measured.
        bias_shifts: per tensor that a layer computes, what a technique took off its bias.
        origin: where it was converted from; empty for a cache of trtforge's own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    schema_name: Literal["trtforge.calibration/2"] = Field(SCHEMA, alias="schema")
    method: str
    grid: str = "int8"
    options: dict[str, int | float | str] = Field(default_factory=dict)
    samples: int = Field(ge=0)
    graph_digest: str
    data: tuple[DataUse, ...] = ()
    versions: dict[str, str] = Field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    ranges: dict[str, TensorRange]
    weight_scales: dict[str, tuple[Annotated[Finite, Field(gt=0)], ...]] = Field(
        default_factory=dict
    )
    reshaping: Annotated[tuple[Reshaping, ...], Field(max_length=16)] = ()
    bias_shifts: dict[str, Vector] = Field(default_factory=dict)
    origin: str = ""

    @property
    def is_synthetic(self) -> bool:
        """Whether any of the data was made up."""
        return any(use.synthetic for use in self.data)

    def as_json(self) -> dict[str, Any]:
        """The cache as plain JSON data; keys that older versions refuse are in it only if used."""
        unused = {name for name in ("reshaping", "bias_shifts") if not getattr(self, name)}
        return self.model_dump(mode="json", by_alias=True, exclude_none=True, exclude=unused)

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
        if not isinstance(data, dict) or data.get("schema") not in (SCHEMA, _FIRST_SCHEMA):
            found = data.get("schema") if isinstance(data, dict) else type(data).__name__
            raise _malformed(path, f"expected schema '{SCHEMA}', found {found!r}")
        if data["schema"] == _FIRST_SCHEMA:
            data = _from_first_schema(data)
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

    def scale(
        self, name: str, quantize: str, float_type: str = "fp32", *, compact: bool = False
    ) -> float:
        """The scale of a tensor, rounded up on the grid of `float_type`.

        Args:
            name: the tensor.
            quantize: int8 or fp8; FP8 uses the observed amax, since E4M3 has range to spare and
                clipping buys no resolution.
            float_type: fp32, fp16 or bf16.
            compact: round it to a step of `round_to_step` before.

        Raises:
            DataError: the cache does not know the tensor (TF0521).
        """
        found = self.range_of(name)
        clips = quantize == "int8" or self.grid == quantize
        magnitude = found.amax if clips else found.observed_amax
        if compact and magnitude > 0:
            return float(round_up(round_to_step(magnitude / LARGEST[quantize]), float_type))
        return float(scale_of(magnitude, quantize, float_type))

    def staleness(
        self, graph_digest: str, tensors: Sequence[str], data_digest: str | None = None
    ) -> tuple[str, ...]:
        """Why this cache does not fit a model and its data; empty when it does.

        Args:
            graph_digest: digest of the model that is to be quantized.
            tensors: the tensors whose ranges are needed.
            data_digest: digest of the data that would be measured now; None: not compared.
        """
        found = []
        if self.graph_digest and self.graph_digest != graph_digest:
            found.append(
                f"it was measured on another graph ({_short(self.graph_digest)}, "
                f"this one is {_short(graph_digest)})"
            )
        missing = [name for name in tensors if name not in self.ranges]
        if missing:
            found.append(
                f"{len(missing)} of {len(tensors)} tensors are not in it, such as '{missing[0]}'"
            )
        known = {use.digest for use in self.data}
        if data_digest is not None and known and known != {data_digest}:
            found.append(f"its data was another ({', '.join(map(_short, sorted(known)))})")
        return tuple(found)


def _from_first_schema(data: Mapping[str, Any]) -> dict[str, Any]:
    """Version 1 named one data file by its digest and had no histograms."""
    rest = {key: value for key, value in data.items() if key != "data_digest"}
    digest, samples = data.get("data_digest"), data.get("samples")
    if isinstance(digest, str) and isinstance(samples, int):
        rest["data"] = [{"digest": digest, "source": "", "spans": [[0, samples]]}]
    return {**rest, "schema": SCHEMA}


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]


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
        "delete it and calibrate again; `trtforge calib convert` reads those of other tools",
        Place(str(path), line),
    )
