"""A folder of images, each one a sample, prepared as the recipe says. Needs Pillow.

Steps and their order: turned by the EXIF entry, colours, resize, crop, then
`(pixel * scale - mean) / std` in float32. Those of torchvision with Pillow images give the same.
"""

import json
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trtforge.errors import DataError, MissingError, Place
from trtforge.graph.contract import TensorSpec
from trtforge.graph.sources.checks import spec_dtype
from trtforge.graph.sources.folder import digest_of, nothing_in, unreadable
from trtforge.graph.sources.request import SourceRequest, natural, shown
from trtforge.graph.sources.rows import RowSource, split
from trtforge.graph.sources.source import Feeds
from trtforge.recipe.calibration import ImageData

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""Other files in the folder are passed over."""

_MODES = {"rgb": "RGB", "bgr": "RGB", "grey": "L"}


def open_source(request: SourceRequest) -> "ImageFolder":
    """Open the folder that `data.images` names.

    Raises:
        MissingError: TF0540, Pillow is not installed.
        DataError: TF0501 there are no images in it, TF0503 the model has several inputs, TF0505
            the preprocessing does not fit the input's type.
    """
    try:
        import PIL.Image  # noqa: F401
    except ImportError as error:
        raise MissingError(
            "TF0540", "reading images needs Pillow", "run: pip install trtforge[images]"
        ) from error
    return ImageFolder(request)


class ImageFolder(RowSource):
    """The images of a folder and its subfolders, in natural order of their paths."""

    def __init__(self, request: SourceRequest) -> None:
        assert isinstance(request.calibration.data, ImageData)
        self._how = request.calibration.data
        self._folder = request.resolve(self._how.images)
        about = f"{shown(self._folder)} ({_steps(self._how)})"
        super().__init__(request.contract, about, Place(str(self._folder)))
        self._input = _only_input(self.specs.values(), self.where)
        self._scale = _scale(self._how, self._input, self.where)
        self._files = _images_in(self._folder)
        self._wanted = request.wanted
        self.count = len(self._files)

    @cached_property
    def digest(self) -> str:  # type: ignore[override]
        """Digest of the preprocessing and of the images that are used, contents and names."""
        how = json.dumps(self._how.model_dump(exclude={"images"}), sort_keys=True)
        return digest_of(self._folder, self._files[: self._wanted], how)

    def samples(self, first: int) -> Generator[Feeds, None, None]:
        """Yield the images from number `first` on, decoded one at a time.

        Raises:
            DataError: TF0502 an image is damaged or too small, TF0504 it does not fit the input.
        """
        for number in range(first, self.count):
            path = self._files[number]
            item = {self._input.name: self._array(path)}
            yield from split(item, self.specs, number, Place(str(path)), alone=True)

    def _array(self, path: Path) -> np.ndarray:
        pixels = np.asarray(self._prepared(path))
        if self._how.colour == "grey":
            pixels = pixels[:, :, None]
        if self._how.colour == "bgr":
            pixels = pixels[:, :, ::-1]
        values = pixels if self._scale is None else self._scaled(pixels, self._scale)
        ordered = values.transpose(2, 0, 1) if self._how.layout == "nchw" else values
        return np.ascontiguousarray(ordered)[None]

    def _scaled(self, pixels: np.ndarray, scale: float) -> np.ndarray:
        values = pixels.astype(np.float32) * np.float32(scale)
        if self._how.mean is not None:
            values -= np.asarray(self._how.mean, np.float32)
        if self._how.std is not None:
            values /= np.asarray(self._how.std, np.float32)
        return values.astype(spec_dtype(self._input), copy=False)

    def _prepared(self, path: Path) -> "Image":
        from PIL import Image, ImageOps

        with _decoding(path), Image.open(path) as opened:
            if opened.mode[0] in "IF":
                raise _unusable(path, "has more than 8 bits per channel", "convert it to 8 bits")
            image = ImageOps.exif_transpose(opened)
            if image.mode == "P":  # through RGBA, as a palette may hold transparent colours
                image = image.convert("RGBA")
            image = image.convert(_MODES[self._how.colour])
        if self._how.resize is not None:
            by = Image.Resampling[self._how.filter.upper()]
            image = image.resize(_resized(image.size, self._how.resize), by)
        return image if self._how.crop is None else _cropped(image, self._how.crop, path)


def _only_input(inputs: Any, where: Place) -> TensorSpec:
    found: list[TensorSpec] = list(inputs)
    if len(found) == 1:
        return found[0]
    names = ", ".join(spec.name for spec in found)
    raise DataError(
        "TF0503",
        f"images are one array each, but the model has {len(found)} inputs: {names}",
        "write a function that yields all of them: {python: module:function}",
        where,
    )


def _scale(how: ImageData, spec: TensorSpec, where: Place) -> float | None:
    """The factor for pixels; None where the model takes the bytes as they are."""
    if spec.dtype == "uint8":
        given = [key for key in ("scale", "mean", "std") if getattr(how, key) is not None]
        if given:
            raise DataError(
                "TF0505",
                f"input '{spec.name}' takes the bytes of the pixels, which cannot have "
                f"{' and '.join(given)}",
                f"remove {' and '.join(given)}: the model does it itself",
                where,
            )
        return None
    if spec.dtype not in ("float32", "float16", "bfloat16", "float64"):
        raise DataError(
            "TF0505",
            f"input '{spec.name}' is {spec.dtype}, and pixels are not",
            "give it data as .npz, or export the model with a float or uint8 input",
            where,
        )
    return how.scale if how.scale is not None else 1 / 255


def _images_in(folder: Path) -> list[Path]:
    try:
        found = [
            path
            for path in folder.rglob("*")
            if path.suffix.lower() in SUFFIXES and path.name[0] != "." and path.is_file()
        ]
    except OSError as error:
        raise unreadable(folder, error) from error
    if not found:
        raise nothing_in(folder, "image", f"its name must end in one of: {' '.join(SUFFIXES)}")
    return sorted(found, key=lambda path: natural(path.relative_to(folder).as_posix()))


@contextmanager
def _decoding(path: Path) -> Generator[None, None, None]:
    """Put what Pillow says of a file into words; it raises all kinds of errors on damaged ones."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (MemoryError, DataError):
        raise
    except Exception as error:
        why = (
            "in no format that Pillow knows"
            if type(error).__name__ == ("UnidentifiedImageError")
            else str(error) or type(error).__name__
        )
        raise _unusable(path, f"is damaged or no image: {why}", "repair or remove it") from error


def _unusable(path: Path, what: str, hint: str) -> DataError:
    return DataError("TF0502", f"image '{path.name}' {what}", hint, Place(str(path)))


def _resized(size: tuple[int, int], wanted: int | tuple[int, ...]) -> tuple[int, int]:
    """Width and height; a single number is the shorter side, the other keeps the proportion."""
    if not isinstance(wanted, int):
        height, width = wanted
        return width, height
    width, height = size
    if width <= height:
        return wanted, max(1, int(wanted * height / width))
    return max(1, int(wanted * width / height)), wanted


def _cropped(image: "Image", wanted: int | tuple[int, ...], path: Path) -> "Image":
    height, width = (wanted, wanted) if isinstance(wanted, int) else wanted
    if image.width < width or image.height < height:
        raise _unusable(
            path,
            f"is {image.height} x {image.width} pixels, and the crop is {height} x {width}",
            "set resize, or remove the image",
        )
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    return image.crop((left, top, left + width, top + height))


def _steps(how: ImageData) -> str:
    given = how.model_dump(exclude={"images"}, exclude_defaults=True)
    listed = [
        f"{key} {value if not isinstance(value, tuple) else list(value)}"
        for key, value in given.items()
    ]
    return ", ".join(listed) or "as they are"
