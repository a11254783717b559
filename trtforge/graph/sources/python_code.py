"""Samples from Python code: `module:name` in the recipe's folder or installed, or a script.

A script is what Polygraphy calls a data loader script: a function, `load_data` by default, that
takes nothing and yields feeds.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from trtforge.errors import Place
from trtforge.graph.sources.items import ItemSource
from trtforge.graph.sources.request import SourceRequest
from trtforge.graph.sources.user_code import UserCode, import_module, load_script
from trtforge.recipe.calibration import PythonData, ScriptData


def open_source(request: SourceRequest) -> "PythonItems":
    """Import the code that `data` names and run it once.

    Raises:
        DataError: TF0541 the code failed, TF0542 there is nothing of that name, or nothing that
            gives samples, or see ItemSource.
    """
    data = request.calibration.data
    if isinstance(data, PythonData):
        module, name = data.python.split(":")
        code = UserCode(request.resolve("."), Place(data.python))
        found = code.attribute(lambda: import_module(module, code.folder), name)
        return PythonItems(request, code, found, data.python)
    function = data.function if isinstance(data, ScriptData) else "load_data"
    path = request.resolve(data.script if isinstance(data, ScriptData) else str(data))
    code = UserCode(path.parent, Place(str(path)))
    found = code.attribute(lambda: load_script(path), function)
    return PythonItems(request, code, found, f"{path.name}:{function}")


class PythonItems(ItemSource):
    """What a function, or an iterable object, of the user's yields.

    Args:
        request: the model's inputs, and how many samples are wanted.
        code: where the user's code is.
        found: the function or the iterable.
        description: how the recipe names it.
    """

    def __init__(
        self, request: SourceRequest, code: UserCode, found: Any, description: str
    ) -> None:
        self._code = code
        self._found = found
        super().__init__(request, description, code.where)

    def items(self) -> Iterator[tuple[Any, Place]]:
        """Call the function, or start the iterable, and yield what it yields."""
        code = self._code
        with code.runs():
            made = self._found() if callable(self._found) else self._found
        if isinstance(made, Mapping | str | bytes) or not _is_iterable(made):
            raise code.unfit(
                f"gives a {type(made).__name__}, not samples one after the other",
                "yield a dict of arrays for each sample, or return a list of them",
            )
        with code.runs():
            iterator = iter(made)
        if iterator is self._found:
            raise code.unfit(
                "is an iterator, which can be read only once, and samples are read several times",
                "name a function that makes a new one at each call",
            )
        try:
            while True:
                with code.runs():
                    item = next(iterator, code)
                if item is code:
                    return
                yield item, code.where
        finally:
            close = getattr(iterator, "close", None)
            if close is not None:
                with code.runs():
                    close()


def _is_iterable(value: Any) -> bool:
    return hasattr(value, "__iter__") or hasattr(value, "__getitem__")
