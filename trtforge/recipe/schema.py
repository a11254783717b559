"""The schema of a recipe, version 1: frozen, strict, and nothing but data.

Field descriptions are user documentation: `trtforge schema` prints them as JSON Schema.
Paths are strings as the user wrote them, relative to the recipe's folder
(`LoadedRecipe.resolve` in `load.py` finds the file).
"""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    StringConstraints,
    Tag,
    ValidatorFunctionWrapHandler,
    WrapSerializer,
    WrapValidator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from trtforge.recipe import attest_laws, laws
from trtforge.recipe.calibration import Calibration
from trtforge.recipe.engine_options import EngineOptions
from trtforge.recipe.fields import (
    Flag,
    FrozenDict,
    Integer,
    Name,
    Number,
    Numbers,
    PathText,
    Section,
    keep_laws,
)
from trtforge.recipe.performance import Performance as Performance
from trtforge.recipe.precision import Budget as Budget
from trtforge.recipe.precision import FloatType as FloatType
from trtforge.recipe.precision import ForceRule as ForceRule
from trtforge.recipe.precision import KeepRule as KeepRule
from trtforge.recipe.precision import Precision as Precision
from trtforge.recipe.precision import QuantizedType as QuantizedType
from trtforge.recipe.target_laws import target_laws

BackendName = Literal["tensorrt_rtx", "tensorrt", "onnxruntime"]


def _compute_capability(value: Any) -> Any:
    if not isinstance(value, str):
        raise PydanticCustomError("capability_text", "a compute capability is text, in quotes")
    if not re.fullmatch(r"[0-9]{1,2}\.[0-9]", value):
        raise PydanticCustomError("capability_form", "a compute capability looks like 8.9")
    return value


ComputeCapability = Annotated[
    str,
    BeforeValidator(_compute_capability),
    StringConstraints(pattern=r"^[0-9]{1,2}\.[0-9]$"),
]


def _whole_number(value: Any) -> Any:
    if type(value) is not int:
        raise PydanticCustomError("int_type", "a whole number")
    return value


def _as_list(value: Any) -> Any:
    return (value,) if isinstance(value, dict) else value


class ModelSource(Section):
    """Where the model comes from."""

    onnx: PathText = Field(description="ONNX file, relative to the recipe")


class ShapeRange(Section):
    """The shapes that one input takes in one optimization profile, or its values."""

    min: Numbers = Field(description="smallest shape, every dimension")
    opt: Numbers = Field(
        description="shape to optimize for; between min and max in every dimension"
    )
    max: Numbers = Field(description="largest shape, every dimension")
    values: Flag = Field(
        False,
        description="min, opt and max are the input's values, which decide shapes (of a Reshape, "
        "TopK, ...), and not its shape",
    )

    @model_validator(mode="after")
    def _laws(self) -> Self:
        keep_laws(laws.shape_laws(self.model_dump()))
        return self


class ByPosition(FrozenDict[ShapeRange]):
    """A profile whose keys are places among the model's inputs, until `LoadedRecipe.with_inputs`.

    It is written, and dumped, as a list.
    """


def _named(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    if isinstance(value, ByPosition):
        return value
    if not isinstance(value, list | tuple):
        return FrozenDict(handler(value))
    ranges = {str(index): one for index, one in enumerate(value) if one is not None}
    return ByPosition(handler(ranges))


def _as_written(value: Any, handler: SerializerFunctionWrapHandler) -> Any:
    ranges = handler(value)
    if not isinstance(value, ByPosition):
        return ranges
    return [ranges.get(str(index)) for index in range(1 + max(map(int, ranges)))]


Profile = Annotated[
    dict[Annotated[str, Field(min_length=1)], ShapeRange],
    Field(min_length=1),
    WrapValidator(
        _named,
        json_schema_input_type=dict[Annotated[str, Field(min_length=1)], ShapeRange]
        | Annotated[tuple[ShapeRange | None, ...], Field(min_length=1)],
    ),
    WrapSerializer(_as_written),
]
"""The shapes of every dynamic input, and the values of those that decide shapes: by name, or as a
list in the order of the model's inputs, with nothing (`~`) for an input that needs no range."""

_ONE_PROFILE = dict[Annotated[str, Field(min_length=1)], ShapeRange]
"""A profile by name may stand alone; one by position stands in a list, as it is one itself."""


PassName = Annotated[str, Field(min_length=1)]


class Passes(Section):
    """Which graph passes run."""

    use: Annotated[
        Annotated[Literal["default", "none"], Tag("word")]
        | Annotated[tuple[PassName, ...], Tag("names")],
        Discriminator(lambda value: "names" if isinstance(value, list | tuple) else "word"),
    ] = Field("default", description="'default', 'none', or the passes to run, by name")
    also: tuple[PassName, ...] = Field(
        (), description="optional passes to run as well, by name; `trtforge optimize --passes`"
    )
    drop: tuple[PassName, ...] = Field((), description="passes to leave out, by name")
    strict: bool = Field(
        False, description="fail when a pass had to be taken back, or the graph is not proven"
    )


class Target(Section):
    """One engine to build."""

    name: Name
    backend: BackendName
    compute_capabilities: tuple[ComputeCapability, ...] = Field(
        (), description='tensorrt_rtx only: GPUs the engine must run on, e.g. ["8.6", "8.9"]'
    )
    workspace_mib: Integer | None = Field(
        None, ge=1, le=2**24, description="builder workspace limit, MiB"
    )
    tf32: Flag = Field(False, description="let FP32 layers compute in TF32 (10-bit mantissa)")
    options: EngineOptions = Field(default_factory=EngineOptions)
    timeout_s: Number = Field(
        3600.0, gt=0, le=7 * 86400, description="the build is stopped after this"
    )
    memory_limit_mib: Integer | None = Field(
        None, ge=1, le=2**24, description="the build is stopped once it holds more memory, MiB"
    )

    @model_validator(mode="after")
    def _laws(self) -> Self:
        keep_laws(target_laws(self.model_dump()))
        return self


class Tolerance(Section):
    """What counts as the same function. Every bound given must hold for every output judged."""

    sqnr_db: Number | None = Field(
        None, description="at least this signal-to-quantization-noise ratio, dB"
    )
    cosine: Number | None = Field(None, ge=-1, le=1, description="at least this cosine similarity")
    max_abs: Number | None = Field(None, ge=0, description="at most this absolute error")
    max_rel: Number | None = Field(None, ge=0, description="at most this relative error")
    top1_agreement: Number | None = Field(
        None, ge=0, le=1, description="at least this share of samples with the same arg-max"
    )
    top5_agreement: Number | None = Field(
        None,
        ge=0,
        le=1,
        description="at least this share of samples whose class is among the five best",
    )
    accuracy_drop: Number | None = Field(
        None,
        ge=0,
        le=1,
        description="at most this loss of top-1 accuracy (0.01 = one point); needs labels",
    )


TypeName = Literal["int8", "fp8", "int4", "fp16", "bf16", "fp32", "fp64"]


class Share(Section):
    """Between which bounds a share lies, both included."""

    min: Number | None = Field(None, ge=0, le=1, description="at least this share, 0..1")
    max: Number | None = Field(None, ge=0, le=1, description="at most this share, 0..1")

    @model_validator(mode="after")
    def _laws(self) -> Self:
        keep_laws(attest_laws.share_laws(self.model_dump()))
        return self


Shares = Annotated[dict[TypeName, Share], AfterValidator(FrozenDict)]
"""Type -> bounds of its share."""


class Attest(Section):
    """Shares that the typed graph must really have; what misses one is not shipped.

    `{min: 0}` accepts that a type that precision asks for is nowhere, which fails otherwise.
    """

    min_quantized_macs: Number | None = Field(
        None, ge=0, le=1, description="share of multiply-accumulates in INT8/FP8"
    )
    macs: Shares = Field(
        default_factory=dict, description="shares of the multiply-accumulates, by type"
    )
    nodes: Shares = Field(default_factory=dict, description="shares of the nodes, by type")
    weights: Shares = Field(
        default_factory=dict, description="shares of the weights' bytes, by type"
    )
    activations: Shares = Field(
        default_factory=dict, description="shares of the activations' bytes, by type"
    )

    @model_validator(mode="after")
    def _laws(self) -> Self:
        keep_laws(attest_laws.attest_laws(self.model_dump()))
        return self


class Verify(Section):
    """How parity with the original model is judged."""

    data: PathText | None = Field(
        None, description=".npz with one array per model input; optional 'labels' (class ids)"
    )
    samples: Integer | None = Field(
        None, ge=1, description="how many samples of the data to use; default all"
    )
    tolerance: Tolerance = Field(default_factory=Tolerance, description="bounds for every output")
    outputs: Annotated[dict[str, Tolerance], AfterValidator(FrozenDict)] = Field(
        default_factory=FrozenDict, description="bounds for single outputs, in place of `tolerance`"
    )
    attest: Attest = Field(default_factory=Attest)
    seed: Integer = Field(0, ge=0, le=2**32 - 1, description="seed of the random inputs")


class BundleOptions(Section):
    """What the bundle holds."""

    include_onnx: Flag = Field(True, description="ship the typed ONNX beside the engines")


class Recipe(Section):
    """One model, one precision, one or several targets."""

    version: Annotated[
        Literal[1], BeforeValidator(_whole_number, json_schema_input_type=Literal[1])
    ] = Field(description="version of this schema")
    name: Name
    model: ModelSource
    shapes: Annotated[
        tuple[Profile, ...],
        BeforeValidator(_as_list, json_schema_input_type=_ONE_PROFILE | tuple[Profile, ...]),
    ] = Field(
        (),
        description="one optimization profile (a mapping of inputs), or a list of them, each a "
        "mapping or a list in the order of the model's inputs",
    )
    passes: Passes = Field(default_factory=Passes)
    precision: Precision = Field(default_factory=Precision)
    calibration: Calibration | None = None
    targets: tuple[Target, ...] = Field(min_length=1)
    verify: Verify = Field(default_factory=Verify)
    performance: Performance | None = None
    bundle: BundleOptions = Field(default_factory=BundleOptions)

    @model_validator(mode="after")
    def _laws(self) -> Self:
        keep_laws(laws.recipe_laws(self.model_dump()))
        return self


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a recipe, for editors and `trtforge schema`."""
    schema = Recipe.model_json_schema(mode="validation")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "trtforge recipe",
        **{key: value for key, value in schema.items() if key != "title"},
    }
