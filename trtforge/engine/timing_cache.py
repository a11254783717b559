"""Timings of tactics, kept from build to build: one file per device and version, shared safely.

TensorRT alone has them. TensorRT-RTX times nothing, and its timing cache would ask for a GPU.
"""

from pathlib import Path
from typing import Any

from filelock import FileLock

from trtforge.disk import write_bytes
from trtforge.errors import BuildError


def attach(trt: Any, config: Any, path: Path) -> str | None:
    """Give the builder what earlier builds timed, and have it keep what it times.

    Args:
        trt: the module of the flavour.
        config: an IBuilderConfig.
        path: the file; it need not exist.

    Returns:
        What to warn of: the file did not fit and is started anew. None when all is well.

    Raises:
        BuildError: TF0620, the library does not even take an empty cache.
    """
    with _lock(path):
        known = path.read_bytes() if path.is_file() else b""
    if _attached(config, known):
        return None
    if known and _attached(config, b""):
        return f"the timing cache {path.name} belongs to another device or version: started anew"
    raise BuildError(
        "TF0620",
        f"{trt.__name__} {trt.__version__} does not take a timing cache",
        hint="set timing_cache: off in the target's options",
    )


def keep(config: Any, path: Path) -> None:
    """Write what the builder timed, joined with what other builds wrote meanwhile.

    Raises:
        MissingError: the file cannot be written.
    """
    mine = config.get_timing_cache()
    if mine is None:
        return
    with _lock(path):
        if path.is_file():
            theirs = config.create_timing_cache(path.read_bytes())
            if theirs is not None:
                mine.combine(theirs, ignore_mismatch=False)
        write_bytes(path, bytes(mine.serialize()))


def _attached(config: Any, known: bytes) -> bool:
    cache = config.create_timing_cache(known)
    return cache is not None and bool(config.set_timing_cache(cache, ignore_mismatch=False))


def _lock(path: Path) -> FileLock:
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path.with_name(f"{path.name}.lock"))
