"""The schema of a recipe, version 1: frozen, strict, and nothing but data.

Field descriptions are user documentation: `trtforge schema` prints them as JSON Schema.
Paths are strings as the user wrote them, relative to the recipe's folder
(`LoadedRecipe.resolve` in `load.py` makes them absolute).
"""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

FloatType = Literal["fp32", "fp16", "bf16"]
QuantizedType = Literal["none", "int8", "fp8"]
CalibrationMethod = Literal["minmax", "entropy"]
BackendName = Literal["tensorrt_rtx", "tensorrt", "onnxruntime"]

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
"""Names of recipes and targets: they become folder names, so no separators and no spaces."""

Dims = Annotated[
    tuple[Annotated[int, Field(ge=0, le=2**31 - 1, strict=True)], ...], Field(max_length=8)
]
"""A shape; TensorRT's dimensions are at most 8 (`Dims::MAX_DIMS`) and 32-bit in profiles."""


def _relative_path(value: str) -> str:
    if not value.strip() or "\0" in value:
        raise ValueError("a path must not be empty")
    return value


PathText = Annotated[str, AfterValidator(_relative_path)]


def _compute_capability(value: Any) -> Any:
    if isinstance(value, float):
        raise ValueError(f'write it as text, in quotes: "{value}"')
    if isinstance(value, str) and not re.fullmatch(r"\d{1,2}\.\d", value):
        raise ValueError(f"'{value}' is not a compute capability; write it like \"8.9\"")
    return value


ComputeCapability = Annotated[str, BeforeValidator(_compute_capability)]


class Section(BaseModel):
    """The base of all sections: immutable, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, validate_default=True)


class ModelSource(Section):
    """Where the model comes from."""

    onnx: PathText = Field(description="ONNX file, relative to the recipe")


class ShapeRange(Section):
    """The shapes that one input takes in one optimization profile."""

    min: Dims = Field(description="smallest shape, every dimension")
    opt: Dims = Field(description="shape to optimize for; between min and max in every dimension")
    max: Dims = Field(description="largest shape, every dimension")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not len(self.min) == len(self.opt) == len(self.max):
            raise ValueError(
                f"min, opt and max differ in rank: {len(self.min)}, {len(self.opt)}, {len(self.max)}"
            )
        for axis, (low, mid, high) in enumerate(zip(self.min, self.opt, self.max, strict=True)):
            if low > high:
                raise ValueError(f"min is above max in dimension {axis}: {low} > {high}")
            if not low <= mid <= high:
                raise ValueError(
                    f"opt is outside min..max in dimension {axis}: {mid} not in {low}..{high}"
                )
        return self


Profile = dict[str, ShapeRange]


class Passes(Section):
    """Which graph passes run."""

    use: Literal["default", "none"] | tuple[str, ...] = Field(
        "default", description="'default', 'none', or the passes to run, by name"
    )
    drop: tuple[str, ...] = Field((), description="passes to leave out, by name")


class KeepRule(Section):
    """Nodes that are not quantized and compute in the given type."""

    op: str | None = Field(None, description="ONNX operator type, e.g. Softmax")
    name: str | None = Field(None, description="glob on the node's name, e.g. /head/*")
    type: FloatType = Field("fp32", description="the type these nodes compute in")

    @model_validator(mode="after")
    def _selects_something(self) -> Self:
        if self.op is None and self.name is None:
            raise ValueError("a keep rule needs op or name (or both)")
        return self


class Precision(Section):
    """Types of the typed graph."""

    type: FloatType = Field("fp32", description="the type of what is not quantized")
    quantize: QuantizedType = Field("none", description="none, int8 (W8A8) or fp8 (E4M3, W8A8)")
    keep: tuple[KeepRule, ...] = Field((), description="exceptions, by operator or node name")


class Calibration(Section):
    """How activation ranges are measured."""

    data: PathText = Field(description=".npz with one array per model input, samples along axis 0")
    method: CalibrationMethod = Field("entropy", description="minmax, or entropy (TensorRT's KL)")
    samples: int | None = Field(
        None,
        ge=1,
        description="how many samples to use; fewer in the file is an error; default all",
    )
    batch: int = Field(32, ge=1, le=65536, description="samples per run; bounds memory")
    cache: Annotated[str, StringConstraints(pattern=r"^[^/\\\0]+\.json$")] | None = Field(
        None, description="file name of the calibration cache inside the bundle; default cache.json"
    )


class Target(Section):
    """One engine to build."""

    name: Name
    backend: BackendName
    compute_capabilities: tuple[ComputeCapability, ...] = Field(
        (), description='tensorrt_rtx only: GPUs the engine must run on, e.g. ["8.6", "8.9"]'
    )
    workspace_mib: int | None = Field(
        None, ge=1, le=2**24, description="builder workspace limit, MiB"
    )
    tf32: bool = Field(False, description="let FP32 layers compute in TF32 (10-bit mantissa)")
    timeout_s: float = Field(
        3600.0, gt=0, le=7 * 86400, description="the build is stopped after this"
    )

    @model_validator(mode="after")
    def _options_fit_the_backend(self) -> Self:
        if self.compute_capabilities and self.backend != "tensorrt_rtx":
            raise ValueError(
                f"compute_capabilities is for tensorrt_rtx; backend '{self.backend}' builds for the GPU at hand"
                if self.backend == "tensorrt"
                else f"compute_capabilities is for tensorrt_rtx, not for '{self.backend}'"
            )
        if self.backend == "onnxruntime" and (self.workspace_mib is not None or self.tf32):
            raise ValueError(
                "workspace_mib and tf32 are builder options; onnxruntime builds no engine"
            )
        return self


class Tolerance(Section):
    """What counts as the same function. Every bound given must hold for every output judged."""

    sqnr_db: float | None = Field(
        None, description="at least this signal-to-quantization-noise ratio, dB"
    )
    cosine: float | None = Field(None, ge=-1, le=1, description="at least this cosine similarity")
    max_abs: float | None = Field(None, ge=0, description="at most this absolute error")
    max_rel: float | None = Field(None, ge=0, description="at most this relative error")
    top1_agreement: float | None = Field(
        None, ge=0, le=1, description="at least this share of samples with the same arg-max"
    )
    accuracy_drop: float | None = Field(
        None,
        ge=0,
        le=1,
        description="at most this loss of top-1 accuracy (0.01 = one point); needs labels",
    )


class Attest(Section):
    """Shares that the typed graph must really have."""

    min_quantized_macs: float | None = Field(
        None, ge=0, le=1, description="share of multiply-accumulates in INT8/FP8"
    )


class Verify(Section):
    """How parity with the original model is judged."""

    data: PathText | None = Field(
        None, description=".npz with one array per model input; optional 'labels' (class ids)"
    )
    samples: int | None = Field(
        None, ge=1, description="how many samples of the data to use; default all"
    )
    tolerance: Tolerance = Field(default_factory=Tolerance, description="bounds for every output")
    outputs: dict[str, Tolerance] = Field(
        default_factory=dict, description="bounds for single outputs, in place of `tolerance`"
    )
    attest: Attest = Field(default_factory=Attest)
    seed: int = Field(0, ge=0, le=2**32 - 1, description="seed of the random inputs")


class BundleOptions(Section):
    """What the bundle holds."""

    include_onnx: bool = Field(True, description="ship the typed ONNX beside the engines")


class Recipe(Section):
    """One model, one precision, one or several targets."""

    version: Literal[1] = Field(description="version of this schema")
    name: Name
    model: ModelSource
    shapes: tuple[Profile, ...] = Field(
        (), description="one optimization profile (a mapping of inputs) or a list of them"
    )
    passes: Passes = Field(default_factory=Passes)
    precision: Precision = Field(default_factory=Precision)
    calibration: Calibration | None = None
    targets: tuple[Target, ...] = Field(min_length=1)
    verify: Verify = Field(default_factory=Verify)
    bundle: BundleOptions = Field(default_factory=BundleOptions)
