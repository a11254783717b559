"""The schema of a recipe, version 1: frozen, strict, and nothing but data.

Field descriptions are user documentation: `trtforge schema` prints them as JSON Schema.
Paths are strings as the user wrote them, relative to the recipe's folder
(`LoadedRecipe.resolve` in `load.py` finds the file).
"""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Strict,
    StringConstraints,
    Tag,
    model_validator,
)
from pydantic_core import PydanticCustomError

from trtforge.recipe import laws

FloatType = Literal["fp32", "fp16", "bf16"]
QuantizedType = Literal["none", "int8", "fp8", "int8_weight_only", "int4_weight_only"]
CalibrationMethod = Literal["minmax", "average", "percentile", "entropy", "mse"]
BackendName = Literal["tensorrt_rtx", "tensorrt", "onnxruntime"]

Integer = Annotated[int, Strict()]
Number = Annotated[float, Strict(), Field(allow_inf_nan=False)]
Flag = Annotated[bool, Strict()]
"""Strict, because pydantic otherwise takes `on`, "5", 5.0 and true for what they are not."""

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
"""Names of recipes and targets: they become folder names, so no separators and no spaces."""

Dims = Annotated[
    tuple[Annotated[int, Field(ge=0, le=2**31 - 1, strict=True)], ...], Field(max_length=8)
]
"""A shape; TensorRT's dimensions are at most 8 (`Dims::MAX_DIMS`) and 32-bit in profiles."""

_Value = TypeVar("_Value")


class FrozenDict(dict[str, _Value]):
    """A dict that cannot be changed: a recipe is immutable to its leaves, and hashable."""

    def _refuse(self, *_: Any, **__: Any) -> Any:
        raise TypeError("a recipe cannot be changed; make a new one")

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))

    def __reduce__(self) -> tuple[Any, ...]:
        return FrozenDict, (dict(self),)


def _path_text(value: str) -> str:
    if not value.strip() or "\0" in value:
        raise PydanticCustomError("path_text", "a path must not be empty")
    return value


PathText = Annotated[str, AfterValidator(_path_text)]


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


def _keep_laws(broken: Iterable[laws.Broken]) -> None:
    """Raise the first broken law; `load.py` reports all of them itself."""
    for one in broken:
        raise PydanticCustomError("law", "{message}", {"message": one.message, "hint": one.hint})


class Section(BaseModel):
    """The base of all sections: immutable, and unknown keys are errors."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=False, validate_default=True, defer_build=True
    )


class ModelSource(Section):
    """Where the model comes from."""

    onnx: PathText = Field(description="ONNX file, relative to the recipe")


class ShapeRange(Section):
    """The shapes that one input takes in one optimization profile."""

    min: Dims = Field(description="smallest shape, every dimension")
    opt: Dims = Field(description="shape to optimize for; between min and max in every dimension")
    max: Dims = Field(description="largest shape, every dimension")

    @model_validator(mode="after")
    def _laws(self) -> Self:
        _keep_laws(laws.shape_laws(self.model_dump()))
        return self


Profile = Annotated[
    dict[Annotated[str, Field(min_length=1)], ShapeRange],
    Field(min_length=1),
    AfterValidator(FrozenDict),
]
"""The shapes of every dynamic input, by input name."""


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


class KeepRule(Section):
    """Nodes that are not quantized and compute in the given type."""

    op: str | None = Field(None, min_length=1, description="ONNX operator type, e.g. Softmax")
    name: str | None = Field(
        None, min_length=1, description="glob on the node's name, e.g. /head/*"
    )
    type: FloatType = Field("fp32", description="the type these nodes compute in")

    @model_validator(mode="after")
    def _laws(self) -> Self:
        _keep_laws(laws.keep_laws(self.model_dump()))
        return self


class Precision(Section):
    """Types of the typed graph."""

    type: FloatType = Field("fp32", description="the type of what is not quantized")
    quantize: QuantizedType = Field(
        "none",
        description="none, int8 (W8A8), fp8 (E4M3, W8A8), int8_weight_only or int4_weight_only",
    )
    block_size: Literal[32, 64, 128] = Field(
        128, description="int4_weight_only: weights of one output channel that share a scale"
    )
    attention: Flag = Field(
        False, description="int8 and fp8: quantize the matrix products of attention as well"
    )
    unquantized: tuple[Literal["first", "last"], ...] = Field(
        (), description="leave the first or the last layers of the network unquantized"
    )
    techniques: Annotated[
        Annotated[Literal["default", "none"], Tag("word")]
        | Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Tag("names")],
        Discriminator(lambda value: "names" if isinstance(value, list | tuple) else "word"),
    ] = Field(
        "default", description="what to do for accuracy: 'default', 'none', or techniques by name"
    )
    keep: tuple[KeepRule, ...] = Field((), description="exceptions, by operator or node name")


_Pixels = Annotated[int, Field(ge=1, le=65536, strict=True)]


def _pair(value: tuple[int, ...]) -> tuple[int, ...]:
    if len(value) != 2:
        raise PydanticCustomError("pair", "height and width")
    return value


_Extent = Annotated[
    Annotated[_Pixels, Tag("(number)")]
    | Annotated[tuple[_Pixels, ...], AfterValidator(_pair), Tag("(pair)")],
    Discriminator(lambda value: "(pair)" if isinstance(value, list | tuple) else "(number)"),
]
_PerChannel = Annotated[tuple[Number, ...], Field(min_length=1)]


class ImageData(Section):
    """A folder of images and how each becomes an array.

    It is turned as its EXIF entry says, its colours converted, resized, cropped, and then
    `(pixel * scale - mean) / std`.
    """

    images: PathText = Field(description="folder of images, its subfolders included")
    resize: _Extent | None = Field(
        None, description="length of the shorter side, or [height, width]; default as it is"
    )
    crop: _Extent | None = Field(
        None, description="cut this square, or [height, width], out of the middle"
    )
    filter: Literal["nearest", "bilinear", "bicubic", "lanczos"] = Field(
        "bilinear", description="how to resize"
    )
    colour: Literal["rgb", "bgr", "grey"] = Field("rgb", description="channels, in this order")
    scale: Number | None = Field(
        None,
        gt=0,
        description="factor for the pixels 0..255; default 1/255 for a float input, 1 for uint8",
    )
    mean: _PerChannel | None = Field(
        None, description="subtracted after scaling: one number, or one per channel"
    )
    std: Annotated[tuple[Annotated[Number, Field(gt=0)], ...], Field(min_length=1)] | None = Field(
        None, description="divides after subtracting: one number, or one per channel"
    )
    layout: Literal["nchw", "nhwc"] = Field("nchw", description="order of the input's axes")


class PythonData(Section):
    """Samples that Python code makes, found by the name of its module."""

    python: Annotated[
        str, StringConstraints(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$")
    ] = Field(
        description="module:name of a function that yields samples, or of an iterable of them; "
        "the module is installed or lies in the recipe's folder"
    )


class ScriptData(Section):
    """Samples that a Python script makes, such as those of Polygraphy's --data-loader-script."""

    script: PathText = Field(description="Python file")
    function: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_]\w*$")] = Field(
        "load_data", description="function that takes nothing and yields samples"
    )


_DATA_FORMS = ("images", "python", "script")


def _data_form(value: Any) -> str | None:
    """Tell the forms of `data` apart; tags in brackets are no keys of the text (`nodes.steps`)."""
    if isinstance(value, Section):
        return f"({next(iter(type(value).model_fields))})"
    if not isinstance(value, dict):
        return "(path)"
    for key in value:
        close = get_close_matches(str(key)[:100].lower(), _DATA_FORMS, n=1)
        if close:
            return f"({close[0]})"
    return None


class Calibration(Section):
    """How activation ranges are measured."""

    data: (
        Annotated[
            Annotated[PathText, Tag("(path)")]
            | Annotated[ImageData, Tag("(images)")]
            | Annotated[PythonData, Tag("(python)")]
            | Annotated[ScriptData, Tag("(script)")],
            Discriminator(_data_form),
        ]
        | None
    ) = Field(
        None,
        description="file (.npz, .npy, Polygraphy's .json, or .py with load_data), a folder of "
        "arrays, {images: folder, ...}, {python: module:function} or {script: file}",
    )
    synthetic: Flag = Field(
        False,
        description="use seeded random samples in place of data: ranges to try things out with, "
        "not to ship",
    )
    method: CalibrationMethod = Field(
        "mse",
        description="minmax, average (of each sample's largest), percentile, entropy (TensorRT's "
        "KL) or mse (least squared error)",
    )
    percentile: Number = Field(
        99.99, gt=0, le=100, description="method percentile: share of the values that do not clip"
    )
    samples: Integer | None = Field(
        None,
        ge=1,
        description="how many samples to use; fewer in the data is an error; default all, 32 "
        "synthetic ones",
    )
    cache: Annotated[str, StringConstraints(pattern=r"^[^/\\\x00]+\.json$")] | None = Field(
        None, description="file name of the calibration cache inside the bundle; default cache.json"
    )
    reuse: PathText | None = Field(
        None,
        description="calibration cache to take in place of measuring, of trtforge or TensorRT",
    )
    accept_stale: Flag = Field(
        False,
        description="take the cache of `reuse` even where it belongs to another graph or data",
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
    timeout_s: Number = Field(
        3600.0, gt=0, le=7 * 86400, description="the build is stopped after this"
    )

    @model_validator(mode="after")
    def _laws(self) -> Self:
        _keep_laws(laws.target_laws(self.model_dump()))
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


class Attest(Section):
    """Shares that the typed graph must really have."""

    min_quantized_macs: Number | None = Field(
        None, ge=0, le=1, description="share of multiply-accumulates in INT8/FP8"
    )


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
        BeforeValidator(_as_list, json_schema_input_type=Profile | tuple[Profile, ...]),
    ] = Field((), description="one optimization profile (a mapping of inputs) or a list of them")
    passes: Passes = Field(default_factory=Passes)
    precision: Precision = Field(default_factory=Precision)
    calibration: Calibration | None = None
    targets: tuple[Target, ...] = Field(min_length=1)
    verify: Verify = Field(default_factory=Verify)
    bundle: BundleOptions = Field(default_factory=BundleOptions)

    @model_validator(mode="after")
    def _laws(self) -> Self:
        _keep_laws(laws.recipe_laws(self.model_dump()))
        return self


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a recipe, for editors and `trtforge schema`."""
    schema = Recipe.model_json_schema(mode="validation")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "trtforge recipe",
        **{key: value for key, value in schema.items() if key != "title"},
    }
