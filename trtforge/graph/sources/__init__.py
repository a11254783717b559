"""Samples for calibration, from every kind of source. One file per kind, one line per file."""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from trtforge.graph.contract import IoContract
from trtforge.graph.sources.request import SourceRequest
from trtforge.graph.sources.source import DataSource
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
        profiles: the recipe's shapes, needed for synthetic samples of dynamic inputs.

    Raises:
        DataError: TF0501 to TF0509, the data cannot be read or does not fit; TF0541 to TF0545,
            Python code failed or is not what is needed.
        MissingError: TF0540, Pillow is needed and not installed.
        GraphError: TF0412, a dynamic input has no shape for synthetic samples.
    """
    request = SourceRequest(calibration, contract, resolve, model, tuple(profiles))
    source: DataSource = import_module(KINDS[_kind(request)]).open_source(request)
    return source


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
