"""Timings of tactics, kept from build to build: one file per device and version, shared safely.

TensorRT alone has them. TensorRT-RTX times nothing, and its timing cache would ask for a GPU.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trtforge.disk import write_bytes, writing
from trtforge.errors import BuildError, MissingError


def attach(trt: Any, config: Any, path: Path, errors: list[str]) -> str | None:
    """Give the builder what earlier builds timed, and have it keep what it times.

    Args:
        trt: the module of the flavour.
        config: an IBuilderConfig.
        path: the file; it need not exist.
        errors: ERROR lines of the log so far; those about a file that does not fit are taken out,
            since the build goes on without it.

    Returns:
        What to warn of: the file did not fit and is started anew. None when all is well.

    Raises:
        BuildError: TF0620, the library does not even take an empty cache.
        MissingError: the file's place cannot be written; said now, before anything is timed.
    """
    with _locked(path):
        known = path.read_bytes() if path.is_file() else b""
    before = len(errors)
    if _attached(config, known):
        return None
    if known and _attached(config, b""):
        del errors[before:]
        return f"the timing cache {path.name} belongs to another device or version: started anew"
    raise BuildError(
        "TF0620",
        f"{trt.__name__} {trt.__version__} does not take a timing cache",
        hint="set timing_cache: off in the target's options",
    )


def keep(config: Any, path: Path) -> str | None:
    """Write what the builder timed, joined with what other builds wrote meanwhile.

    Returns:
        What to warn of: the file cannot be written. The engine is as good without it.
    """
    mine = config.get_timing_cache()
    if mine is None:
        return None
    try:
        with _locked(path):
            if path.is_file():
                theirs = config.create_timing_cache(path.read_bytes())
                if theirs is not None:
                    mine.combine(theirs, ignore_mismatch=False)
            write_bytes(path, bytes(mine.serialize()))
    except MissingError as unwritable:
        return f"what was timed is not kept: {unwritable.message}"
    return None


def _attached(config: Any, known: bytes) -> bool:
    cache = config.create_timing_cache(known)
    return cache is not None and bool(config.set_timing_cache(cache, ignore_mismatch=False))


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    from filelock import FileLock

    with writing(path, "the timing cache"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f"{path.name}.lock")):
            yield
