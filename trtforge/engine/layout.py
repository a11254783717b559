"""The same memory layout in every worker, so that the same build gives the same bytes.

TensorRT-RTX 1.7.1 orders something by address when a graph has Q/DQ: of 8 builds of one INT8
network, 6 to 8 differed in some dozens of bytes, with address space layout randomization switched
off none did (Linux x86-64, measured 2026-11-22; docs/decisions/0003). FP32 and FP16 networks did
not differ either way.
"""

import ctypes
import os
import sys

_ADDR_NO_RANDOMIZE = 0x0040000  # Source: linux/personality.h
_QUERY = 0xFFFFFFFF
_DONE_VARIABLE = "TRTFORGE_WORKER_LAYOUT"


def fix() -> None:
    """Start this program again with a fixed layout, unless it has one or cannot get one.

    Does nothing on other systems than Linux, and where the kernel or a container's policy forbids
    it: engines are then as good, but their bytes may differ from build to build.
    """
    if not sys.platform.startswith("linux") or _DONE_VARIABLE in os.environ:
        return
    library = ctypes.CDLL(None, use_errno=True)
    library.personality.argtypes = [ctypes.c_ulong]
    current = library.personality(_QUERY)
    if current == -1 or current & _ADDR_NO_RANDOMIZE:
        return
    if library.personality(current | _ADDR_NO_RANDOMIZE) == -1:
        return
    environment = {**os.environ, _DONE_VARIABLE: "fixed"}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
