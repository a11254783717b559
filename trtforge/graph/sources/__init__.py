"""Samples for calibration, from every kind of source. One file per kind, one line per file."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from trtforge.graph.contract import IoContract
from trtforge.graph.sources.request import SourceRequest
from trtforge.graph.sources.source import DataSource
from trtforge.graph.sources.value_rows import (
    ValueRows,
    deciding_of,
    given_by,
    row_contract,
    values_at_opt,
)
from trtforge.recipe.calibration import Calibration, ImageData, PythonData, ScriptData

if TYPE_CHECKING:
    from trtforge.graph.model import Model
    from trtforge.recipe.schema import ShapeRange

KINDS = {
    "file": "trtforge.graph.sources.file",
    "folder": "trtforge.graph.sources.folder",
    "images": "trtforge.graph.sources.images",
    "json": "trtforge.graph.sources.polygraphy_json",
    "python": "trtforge.graph.sources.python_code",
    "synthetic": "trtforge.graph.sources.synthetic",
}
"""Kind of source -> the module whose `open_source(SourceRequest)` opens it."""


def open_source(
    calibration: Calibration,
    contract: IoContract,
    resolve: Callable[[str], Path],
    *,
    model: "Model | None" = None,
    profiles: "Sequence[Mapping[str, ShapeRange]]" = (),
) -> DataSource:
    """Open what a recipe gives as calibration data and check it against the model's inputs.

    Python code runs once here, to count its samples and to take their digest, and once more for
    each pass over them; files are read when their samples are asked for.

    Args:
        calibration: the section of the recipe.
        contract: the model's inputs.
        resolve: the file or folder that a path of the recipe means.
        model: needed for `synthetic: true`.
        profiles: the recipe's shapes, needed for synthetic samples of dynamic inputs. Inputs of
            which they give values have a row of values per sample in data; where a file has none,
            and with images and synthetic samples, values are those of the first profile's `opt`.

    Raises:
        DataError: TF0501 to TF0510, the data cannot be read or does not fit; TF0541 to TF0545,
            Python code failed or is not what is needed.
        MissingError: TF0540, Pillow is needed and not installed.
        GraphError: TF0412, a dynamic input has no shape for synthetic samples.
    """
    request = SourceRequest(calibration, contract, resolve, model, tuple(profiles))
    kind = _kind(request)
    given = _given(kind, request, deciding_of(profiles))
    deciding = deciding_of(profiles) or given
    if deciding:
        request = replace(request, contract=row_contract(contract, deciding, given))
    source: DataSource = import_module(KINDS[kind]).open_source(request)
    if not deciding:
        return source
    missing = [name for name in deciding if name not in given]
    return ValueRows(source, contract, given, values_at_opt(contract, profiles, missing))


def _given(kind: str, request: SourceRequest, deciding: Sequence[str]) -> Sequence[str]:
    """Of the inputs that decide shapes by their values, those that the samples have values of."""
    if kind in ("images", "synthetic"):
        return ()
    data = request.calibration.data
    if kind == "file":
        assert isinstance(data, str)
        return given_by(request.resolve(data), request.contract, deciding)
    return deciding


def _kind(request: SourceRequest) -> str:
    data = request.calibration.data
    if data is None:
        return "synthetic"
    if isinstance(data, ImageData):
        return "images"
    if isinstance(data, PythonData | ScriptData):
        return "python"
    path = request.resolve(data)
    if path.is_dir():
        return "folder"
    return {".py": "python", ".json": "json"}.get(path.suffix.lower(), "file")
