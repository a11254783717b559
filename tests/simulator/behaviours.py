"""Which classes and functions are simulated."""

from typing import Any

from . import building, configuration, inspecting, network, parsing, refitting, running

_MODULES = (building, configuration, inspecting, network, parsing, refitting, running)

BEHAVIOURS: dict[str, type] = {
    name: value
    for module in _MODULES
    for name, value in vars(module).items()
    if isinstance(value, type)
    and value.__module__ == module.__name__
    and not name.startswith("_")
    and not issubclass(value, Exception)
}
"""Class of NVIDIA's -> the handwritten class with its behaviour."""


def init_libnvinfer_plugins(trt: Any, logger: Any, namespace: str) -> bool:
    """There are no plugins here."""
    return True


FUNCTIONS = {"init_libnvinfer_plugins": init_libnvinfer_plugins}
"""Function of the module -> its behaviour."""
