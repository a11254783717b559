"""Facts about this machine: the NVIDIA driver, its GPUs, a process's memory.

The driver is asked through its own library by ctypes, so that nothing has to be installed to say
what is missing.
"""

import ctypes
import functools
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from trtforge.engine.flavour import FLAVOURS, installed_version

NO_DRIVER = "no NVIDIA driver"
DRIVER_LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"

# Source: cuda.h, CUresult and CUdevice_attribute.
_CUDA_ERROR_NO_DEVICE = 100
_ATTRIBUTE_CC_MAJOR = 75
_ATTRIBUTE_CC_MINOR = 76
_NAME_LENGTH = 256


@dataclass(frozen=True)
class Gpu:
    """One GPU: its name and its compute capability, e.g. "8.9"."""

    name: str
    compute_capability: str


@dataclass(frozen=True)
class Driver:
    """What the NVIDIA driver says.

    Attributes:
        cuda_version: the newest CUDA version that the driver takes, e.g. "13.0"; None without one.
        gpus: the GPUs visible to this process.
        reason: why no GPU can be used here; None when one can.
    """

    cuda_version: str | None
    gpus: tuple[Gpu, ...]
    reason: str | None

    def as_json(self) -> dict[str, Any]:
        """Return the facts as plain JSON data."""
        return {
            "cuda_version": self.cuda_version,
            "gpus": [
                {"name": gpu.name, "compute_capability": gpu.compute_capability}
                for gpu in self.gpus
            ],
            "reason": self.reason,
        }


ELSEWHERE = "run it where there is an NVIDIA GPU and its driver; see `trtforge doctor`"
"""The remedy where an engine cannot be loaded here."""


@functools.cache
def driver() -> Driver:
    """Ask this machine's driver, once per process."""
    return read_driver(DRIVER_LIBRARY)


def read_driver(library: str) -> Driver:
    """Ask the driver library called `library` (a name for the loader, or a path).

    Never raises: whatever fails is the `reason`.
    """
    try:
        cuda = ctypes.CDLL(library)
    except OSError:
        return Driver(None, (), NO_DRIVER)
    try:
        return _ask(cuda)
    except AttributeError as error:
        return Driver(None, (), f"the NVIDIA driver library {library} is unusable: {error}")


def _ask(cuda: ctypes.CDLL) -> Driver:
    status = cuda.cuInit(0)
    version = ctypes.c_int(0)
    cuda.cuDriverGetVersion(ctypes.byref(version))
    # Source: cuda.h, cuDriverGetVersion: 1000 * major + 10 * minor.
    shown = f"{version.value // 1000}.{version.value % 1000 // 10}"
    count = ctypes.c_int(0)
    if status == 0:
        status = cuda.cuDeviceGetCount(ctypes.byref(count))
    if status == _CUDA_ERROR_NO_DEVICE or (status == 0 and count.value == 0):
        return Driver(shown, (), "no NVIDIA GPU is visible to the driver")
    if status != 0:
        return Driver(shown, (), f"the NVIDIA driver does not start (CUDA error {status})")
    return Driver(shown, tuple(_gpu(cuda, index) for index in range(count.value)), None)


def _gpu(cuda: ctypes.CDLL, index: int) -> Gpu:
    device = ctypes.c_int(0)
    cuda.cuDeviceGet(ctypes.byref(device), index)
    name = ctypes.create_string_buffer(_NAME_LENGTH)
    cuda.cuDeviceGetName(name, _NAME_LENGTH, device)
    major, minor = (ctypes.c_int(0), ctypes.c_int(0))
    cuda.cuDeviceGetAttribute(ctypes.byref(major), _ATTRIBUTE_CC_MAJOR, device)
    cuda.cuDeviceGetAttribute(ctypes.byref(minor), _ATTRIBUTE_CC_MINOR, device)
    return Gpu(name.value.decode(errors="replace"), f"{major.value}.{minor.value}")


def engine_facts(backend: str) -> dict[str, str | None]:
    """Those facts of this machine that can change what `backend` builds, for cache keys.

    TensorRT-RTX builds ahead of time on the CPU, so only its version counts; TensorRT tunes on the
    GPU at hand, so that GPU and its driver count too. ONNX Runtime builds nothing: its version.
    """
    if backend not in FLAVOURS:
        import importlib.metadata

        return {"backend": backend, "version": importlib.metadata.version("onnxruntime")}
    flavour = FLAVOURS[backend]
    facts: dict[str, str | None] = {"backend": backend, "version": installed_version(flavour)}
    if not flavour.builds_without_gpu:
        found = driver()
        facts["cuda_version"] = found.cuda_version
        facts["gpu"] = found.gpus[0].name if found.gpus else None
        facts["compute_capability"] = found.gpus[0].compute_capability if found.gpus else None
    return facts


def peak_rss_bytes() -> int:
    """This process's largest resident set so far, in bytes; 0 where the system does not tell.

    On Linux VmHWM is read and not `getrusage`: the latter also counts the parent's memory that the
    process shared between fork and exec.
    """
    if (peak := peak_rss_of("self")) is not None:
        return peak
    if sys.platform == "win32":
        return 0
    import resource

    # Source: getrusage(2); macOS counts bytes, the others kilobytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def peak_rss_of(process: int | Literal["self"]) -> int | None:
    """The largest resident set of a process so far, in bytes; None where nothing tells it.

    Nothing does outside Linux, and once the process has ended.
    Source: proc(5), /proc/pid/status.
    """
    try:
        status = Path(f"/proc/{process}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None
