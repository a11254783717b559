"""The same memory layout in every worker, so that the same build gives the same bytes.

TensorRT-RTX 1.7.1 orders something by address when a graph has Q/DQ: of 8 builds of one INT8
network, 6 to 8 differed in some dozens of bytes, with address space layout randomization switched
off none did (Linux x86-64, measured 2026-11-22; docs/decisions/0003). FP32 and FP16 networks did
not differ either way.
"""

import contextlib
import ctypes
import sys
from collections.abc import Iterator

_ADDR_NO_RANDOMIZE = 0x0040000  # Source: linux/personality.h
_QUERY = 0xFFFFFFFF


@contextlib.contextmanager
def fixed() -> Iterator[None]:
    """Give programs that this thread starts meanwhile a memory layout without randomness.

    A new program takes the setting over from the thread that starts it; other threads keep theirs,
    and this thread's own memory stays where it is (personality(2)).
    Does nothing on other systems than Linux, and where the kernel or a container's policy forbids
    it: engines are then as good, but their bytes may differ from build to build.
    """
    if not sys.platform.startswith("linux"):
        yield
        return
    personality = ctypes.CDLL(None).personality
    personality.argtypes = [ctypes.c_ulong]
    before = personality(_QUERY)
    if before == -1 or personality(before | _ADDR_NO_RANDOMIZE) == -1:
        yield
        return
    try:
        yield
    finally:
        personality(before)
