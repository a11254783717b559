"""What a worker is started with: nothing whose length depends on where things lie.

TensorRT-RTX orders something by address when a graph has Q/DQ (see `layout`), and every string that
the worker reads moves what comes after it.
"""

import os
import site
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trtforge.engine.worker import BACKEND_VARIABLE, PARENT_VARIABLE

_PATH_CHARACTERS = 600


def of_one_length(path: Path) -> str:
    """Write a path so that its length says nothing: `/tmp/job` as `/././tmp/job`.

    The arguments lie in the worker's memory before all else (see `layout`).
    """
    text = str(path.absolute())
    missing = _PATH_CHARACTERS - len(text)
    if not sys.platform.startswith("linux") or missing < 0:
        return text
    return "/" + "./" * (missing // 2) + "/" * (missing % 2) + text[1:]


_PAGE = 16384


def of_one_size(text: str) -> bytes:
    """Fill a job's file up with spaces: what is read of it takes the same memory for all paths."""
    data = text.encode()
    return data + b" " * (-len(data) % _PAGE)


def environment(command: Mapping[str, Any], more: Mapping[str, str]) -> dict[str, str]:
    """What a worker may depend on, and the way to trtforge where it is imported but not installed.

    Args:
        command: the job, whose backend is loaded first of all.
        more: variables set for this worker.

    Other variables stay behind: their mere length moves the memory that TensorRT-RTX orders
    things by (docs/decisions/0003).
    """
    found = {
        **{name: value for name, value in os.environ.items() if _is_passed_on(name)},
        "PYTHONFAULTHANDLER": "1",
        PARENT_VARIABLE: f"{os.getpid():010}",
        BACKEND_VARIABLE: str(command.get("request", {}).get("backend", "")),
        **more,
    }
    root = str(Path(__file__).parents[2])
    if root not in (*site.getsitepackages(), site.getusersitepackages()):
        known = found.get("PYTHONPATH")
        found["PYTHONPATH"] = f"{root}{os.pathsep}{known}" if known else root
    return found


_PASSED_ON = frozenset(
    {"CONDA_PREFIX", "HOME", "LANG", "PATH", "TEMP", "TMP", "TMPDIR", "TZ", "USER", "VIRTUAL_ENV"}
)
_PASSED_ON_PREFIXES = (
    "CUDA",
    "LC_",
    "LD_",
    "NV",
    "OMP_",
    "POLYGRAPHY_",
    "PYTHON",
    "TENSORRT",
    "TRT",
)
"""Where programs, libraries and temporary files are, locale, and what CUDA, TensorRT and Python
take from the environment."""


def _is_passed_on(name: str) -> bool:
    if not sys.platform.startswith("linux"):  # elsewhere layouts are not fixed (see `layout`)
        return True
    return name in _PASSED_ON or name.startswith(_PASSED_ON_PREFIXES)
