"""Giving memory back to the system between two heavy pieces of work."""

import ctypes
import gc
import mmap
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LIGHT_BYTES = 256 << 20
"""Below this there is nothing worth the 50 ms that a collection takes."""


def give_back() -> None:
    """Free what only cycles keep alive, and return free heap pages to the system.

    A graph's nodes and tensors refer to each other and hold its weights; glibc keeps freed blocks
    of up to 32 MiB (M_MMAP_THRESHOLD grows up to that), which most weights are. A process that
    holds little memory is left alone.
    Source: https://man7.org/linux/man-pages/man3/malloc_trim.3.html
    """
    if sys.platform != "linux":
        gc.collect()
        return
    if _own_bytes() < _LIGHT_BYTES:
        return
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it, musl does not
    if trim is not None:
        trim(0)


def _own_bytes() -> int:
    """Resident memory that is no file's. Source: proc(5), statm: resident minus shared pages."""
    fields = Path("/proc/self/statm").read_text(encoding="ascii").split()
    return (int(fields[1]) - int(fields[2])) * mmap.PAGESIZE


@contextmanager
def collector_paused() -> Iterator[None]:
    """Let no garbage be collected meanwhile.

    The collector looks at every object that is alive each time their number has grown by a
    quarter; a graph under edit is a hundred thousand of them, of which hardly one is garbage. On
    40,000 nodes it took as long as all passes together.
    Source: https://docs.python.org/3/library/gc.html#gc.set_threshold
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
