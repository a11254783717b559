"""Polygraphy's JSON inputs: a list of feeds, or one, as `polygraphy.json.save_json` writes them.

Read item by item, so that memory holds one. The format: an array is an object with the class name
`ndarray` and a .npy file in base64.
"""

import base64
import io
import zipfile
from collections.abc import Iterator, Sequence
from json import JSONDecodeError, JSONDecoder
from pathlib import Path
from typing import IO, Any

import numpy as np

from trtforge.errors import READABLE, DataError, Place
from trtforge.graph.sources.items import ItemSource
from trtforge.graph.sources.request import SourceRequest

_CHUNK = 1 << 16


def open_source(request: SourceRequest) -> "JsonFiles":
    """Open the .json file that `data` names.

    Raises:
        DataError: TF0501 it cannot be read, TF0502 it is damaged or no list of feeds, or see
            ItemSource.
    """
    data = request.calibration.data
    assert isinstance(data, str)
    path = request.resolve(data)
    return JsonFiles(request, [path], path.name, path)


class JsonFiles(ItemSource):
    """The feeds of one or several JSON files, one after the other.

    Args:
        request: the model's inputs, and how many samples are wanted.
        files: the files, at least one, in order.
        description: what the data is.
        place: the file or folder that the recipe names.
    """

    def __init__(
        self, request: SourceRequest, files: Sequence[Path], description: str, place: Path
    ) -> None:
        self._files = files
        super().__init__(request, description, Place(str(place)))

    def items(self) -> Iterator[tuple[Any, Place]]:
        """Yield the feeds."""
        for path in self._files:
            where = Place(str(path))
            try:
                with path.open(encoding="utf-8") as stream:
                    for number, item in enumerate(_elements(stream)):
                        yield _feeds(item, number, where), where
            except OSError as error:
                reason = f"cannot read the data: {error.strerror or error}"
                raise DataError("TF0501", reason, READABLE, where) from error
            except (JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
                raise DataError(
                    "TF0502",
                    f"the file is damaged or no JSON: {error or type(error).__name__}",
                    "write it with polygraphy.json.save_json(list_of_feeds, path)",
                    where,
                ) from error


def _elements(stream: IO[str]) -> Iterator[Any]:
    """Decode the elements of a list one by one; anything else counts as one element."""
    decoder = JSONDecoder()
    text = stream.read(_CHUNK).lstrip()
    if not text.startswith("["):
        yield decoder.decode(text + stream.read())
        return
    text = text[1:]
    while True:
        text = text.lstrip(" \t\r\n,")
        if text.startswith("]"):
            return
        try:
            item, end = decoder.raw_decode(text)
        except JSONDecodeError:
            more = stream.read(max(_CHUNK, len(text)))  # doubled, so that few attempts are made
            if not more:
                raise
            text += more
            continue
        yield item
        text = text[end:]


def _feeds(item: Any, number: int, where: Place) -> dict[str, np.ndarray]:
    if not isinstance(item, dict) or "polygraphy_class" in item:
        found = item.get("polygraphy_class") if isinstance(item, dict) else type(item).__name__
        raise DataError(
            "TF0502",
            f"element {number} is no mapping of input names to arrays, but of type {found}",
            "save inputs: polygraphy run ... --save-inputs FILE, or save_json(list_of_feeds, FILE)",
            where,
        )
    return {str(name): _array(str(name), value, number, where) for name, value in item.items()}


def _array(name: str, value: Any, number: int, where: Place) -> np.ndarray:
    kind = value.get("polygraphy_class") if isinstance(value, dict) else type(value).__name__
    content = value.get("array") if isinstance(value, dict) else None
    if kind != "ndarray" or not isinstance(content, str):
        raise DataError(
            "TF0502",
            f"'{name}' of element {number} is of type {kind}, not ndarray",
            "convert it before saving: tensor.numpy()",
            where,
        )
    try:
        array = np.load(io.BytesIO(base64.b64decode(content, validate=True)), allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise ValueError("several arrays in one")
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise DataError(
            "TF0502",
            f"array '{name}' of element {number} is damaged: {error}",
            "write it again with polygraphy.json.save_json",
            where,
        ) from error
    return array
