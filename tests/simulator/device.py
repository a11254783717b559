"""The fake GPU, asked as the library asks a real one: through the driver's library."""

import ctypes
import functools

# Source: cuda.h, CUdevice_attribute.
_CC_MAJOR, _CC_MINOR = 75, 76


@functools.cache
def capability() -> str:
    """Compute capability of the device that this process sees, e.g. "8.9"."""
    cuda = ctypes.CDLL("libcuda.so.1")
    cuda.cuInit(0)
    numbers = []
    for attribute in (_CC_MAJOR, _CC_MINOR):
        value = ctypes.c_int(0)
        cuda.cuDeviceGetAttribute(ctypes.byref(value), attribute, 0)
        numbers.append(value.value)
    return ".".join(map(str, numbers))
