"""The section `calibration` of a recipe: which samples, which method, which cache."""

from difflib import get_close_matches
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, StringConstraints, Tag
from pydantic_core import PydanticCustomError

from trtforge.recipe.fields import Flag, Integer, Number, PathText, Section

CalibrationMethod = Literal["minmax", "average", "percentile", "entropy", "mse"]

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
