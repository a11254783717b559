"""Samples from Python code: `module:name` in the recipe's folder or installed, or a script.

A script is what Polygraphy calls a data loader script: a function, `load_data` by default, that
takes nothing and yields feeds.
"""

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from hashlib import sha256
from pathlib import Path
from traceback import extract_tb, format_list
from types import ModuleType
from typing import Any

from trtforge.errors import DataError, Place
from trtforge.graph.sources.items import ItemSource
from trtforge.graph.sources.request import SourceRequest
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
        code = _Code(request.resolve("."), Place(data.python))
        found = code.attribute(lambda: _import(module, code.folder), name)
        return PythonItems(request, code, found, data.python)
    function = data.function if isinstance(data, ScriptData) else "load_data"
    path = request.resolve(data.script if isinstance(data, ScriptData) else str(data))
    code = _Code(path.parent, Place(str(path)))
    found = code.attribute(lambda: _load(path), function)
    return PythonItems(request, code, found, f"{path.name}:{function}")


class PythonItems(ItemSource):
    """What a function, or an iterable object, of the user's yields.

    Args:
        request: the model's inputs, and how many samples are wanted.
        code: where the user's code is.
        found: the function or the iterable.
        description: how the recipe names it.
    """

    def __init__(self, request: SourceRequest, code: "_Code", found: Any, description: str) -> None:
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


class _Code:
    """The user's code: what it needs around it while it runs.

    Args:
        folder: modules in it can be imported.
        where: the place named in errors.
    """

    def __init__(self, folder: Path, where: Place) -> None:
        self.folder = folder.resolve()
        self.where = where

    @contextmanager
    def runs(self) -> Iterator[None]:
        """Let it import from its folder, keep its prints out of results, put errors into words."""
        path, writes = str(self.folder), sys.dont_write_bytecode
        sys.path.insert(0, path)
        sys.dont_write_bytecode = True  # nothing is left behind in the user's folder
        try:
            with redirect_stdout(sys.stderr):
                yield
        except DataError:
            raise
        except (Exception, SystemExit) as error:
            raise self._failed(error) from error
        finally:
            sys.dont_write_bytecode = writes
            if path in sys.path:
                sys.path.remove(path)

    def attribute(self, load: Callable[[], ModuleType], name: str) -> Any:
        """Return what the loaded module calls `name`."""
        with self.runs():
            module = load()
        if not hasattr(module, name):
            known = [key for key in vars(module) if not key.startswith("_")]
            listed = f"it has: {', '.join(known[:10])}" if known else "it is empty"
            raise self.unfit(f"has nothing of the name '{name}'", listed)
        return getattr(module, name)

    def unfit(self, message: str, hint: str) -> DataError:
        """The error of code that is not what is needed."""
        return DataError("TF0542", f"'{self.where.file}' {message}", hint, self.where)

    def _failed(self, error: BaseException) -> DataError:
        hint = "run it on its own to find out why"
        if isinstance(error, ModuleNotFoundError):
            hint = f"install '{error.name}', or put it into {self.folder.name or 'the folder'}/"
        frames = extract_tb(error.__traceback__)
        own = [n for n, one in enumerate(frames) if Path(one.filename).is_relative_to(self.folder)]
        where, trace = self.where, None
        if own:
            where = Place(frames[own[-1]].filename, frames[own[-1]].lineno)
            trace = "".join(format_list(frames[own[0] :])).rstrip()
        if isinstance(error, SyntaxError) and error.filename is not None:
            where = Place(error.filename, error.lineno, error.offset)
        message = f"the code that gives the data failed: {type(error).__name__}: {error}"
        return DataError("TF0541", message, hint, where, details=trace)


def _is_iterable(value: Any) -> bool:
    return hasattr(value, "__iter__") or hasattr(value, "__getitem__")


def _import(name: str, folder: Path) -> ModuleType:
    """Import a module; one in the folder is imported anew.

    A module of that name may have come from another recipe's folder, and what a module keeps
    between two runs must not decide what it yields.
    """
    top = name.partition(".")[0]
    is_here = (folder / f"{top}.py").exists() or (folder / top).is_dir()
    if is_here and top != __name__.partition(".")[0]:
        for key in [key for key in sys.modules if key == top or key.startswith(f"{top}.")]:
            del sys.modules[key]
    importlib.invalidate_caches()
    return importlib.import_module(name)


def _load(path: Path) -> ModuleType:
    """Execute a script as a module of its own."""
    path = path.resolve()
    name = f"trtforge_script_{sha256(str(path).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look it up
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
