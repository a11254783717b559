"""Giving memory back to the system between two heavy pieces of work."""

import ctypes
import gc
import sys


def give_back() -> None:
    """Free what only cycles keep alive, and return free heap pages to the system.

    A graph's nodes and tensors refer to each other and hold its weights; glibc keeps freed blocks
    of up to 32 MiB (M_MMAP_THRESHOLD grows up to that), which most weights are.
    Source: https://man7.org/linux/man-pages/man3/malloc_trim.3.html
    """
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it, musl does not
        if trim is not None:
            trim(0)
