"""trtforge: one recipe in, one verified TensorRT engine bundle out.

The public names are loaded when first used, so that `import trtforge` (and with it
`trtforge --help`) imports none of onnx, onnxruntime, polygraphy, numpy or tensorrt.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trtforge.bundle.read import open_bundle
    from trtforge.pipeline.compare import verify
    from trtforge.pipeline.run import build

# ONNX Runtime's wheels report to Microsoft unless this is set before they are loaded, see their
# Privacy.md. Nothing leaves this machine; whoever wants that sets the variable to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"

__all__ = ["__version__", "build", "open_bundle", "verify"]

_PUBLIC = {
    "build": "trtforge.pipeline.run",
    "verify": "trtforge.pipeline.compare",
    "open_bundle": "trtforge.bundle.read",
}


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'trtforge' has no attribute {name!r}")
