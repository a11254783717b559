"""The flavours of TensorRT that one implementation drives: module, package, what each can.

A flavour is data. What differs in the API between them is asked of the module by name (never by
number: the integers behind flags differ between TensorRT 10 and 11).
"""

import importlib.util
from dataclasses import dataclass


@dataclass(frozen=True)
class Flavour:
    """One way to get a `trt` module.

    Attributes:
        name: the backend's name in recipes.
        module: the Python module to import.
        distributions: the packages that may bring it, in the order looked up.
        install: what to do when it is missing.
        builds_without_gpu: whether engines can be built on a machine without an NVIDIA driver.
        takes_targets: whether a list of compute capabilities can be given.
        times_tactics: whether a build times kernels, so that it can keep what it timed.
        plan_tag: the bytes that its engines begin with.
        oldest: the oldest version (major, minor) that is supported.
    """

    name: str
    module: str
    distributions: tuple[str, ...]
    install: str
    builds_without_gpu: bool
    takes_targets: bool
    times_tactics: bool
    plan_tag: bytes
    oldest: tuple[int, int]


FLAVOURS: dict[str, Flavour] = {
    "tensorrt_rtx": Flavour(
        name="tensorrt_rtx",
        module="tensorrt_rtx",
        distributions=("tensorrt-rtx", "tensorrt-rtx-cu13", "tensorrt-rtx-cu12"),
        install="pip install 'tensorrt-rtx>=1.7,<1.8' (wheels for x86_64 Linux and Windows only)",
        # Source: "CPU-Only AOT and TensorRT-RTX Engines", TensorRT-RTX documentation.
        builds_without_gpu=True,
        takes_targets=True,
        times_tactics=False,
        # Not published; every engine of 1.7.1 begins so.
        plan_tag=b"vtrt",
        oldest=(1, 7),
    ),
    "tensorrt": Flavour(
        name="tensorrt",
        module="tensorrt",
        distributions=("tensorrt", "tensorrt-cu13", "tensorrt-cu12"),
        install="pip install 'trtforge[tensorrt]' with NVIDIA's package index as extra index",
        builds_without_gpu=False,
        takes_targets=False,
        times_tactics=True,
        # Source: samples/common/sampleEngines.cpp (printPlanVersion), TensorRT OSS 11.1.
        plan_tag=b"ftrt",
        oldest=(10, 13),
    ),
}


def is_installed(flavour: Flavour) -> bool:
    """Whether the module can be found; it is not imported."""
    return importlib.util.find_spec(flavour.module) is not None


def installed_version(flavour: Flavour) -> str | None:
    """The version that the package's metadata states; None when no package is known."""
    import importlib.metadata  # takes longer to load than all else that a worker needs

    for distribution in flavour.distributions:
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None
