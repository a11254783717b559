"""Code of the user's that runs within trtforge: found, imported, its errors put into words."""

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from hashlib import sha256
from pathlib import Path
from traceback import extract_tb, format_list
from types import ModuleType
from typing import Any

from trtforge.errors import DataError, Place


class UserCode:
    """The user's code: what it needs around it while it runs.

    Args:
        folder: modules in it can be imported.
        where: the place named in errors.
        purpose: what the code does, for errors.
    """

    def __init__(self, folder: Path, where: Place, purpose: str = "gives the data") -> None:
        self.folder = folder.resolve()
        self.where = where
        self._purpose = purpose

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
        message = f"the code that {self._purpose} failed: {type(error).__name__}: {error}"
        return DataError("TF0541", message, hint, where, details=trace)


def import_module(name: str, folder: Path) -> ModuleType:
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


def load_script(path: Path) -> ModuleType:
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
