"""What a library says of itself and of an engine file; inside the worker process only."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trtforge.engine.environment import driver
from trtforge.engine.flavour import FLAVOURS
from trtforge.engine.native_log import LogBook, make_logger
from trtforge.engine.targets import target_names
from trtforge.engine.tensorrt import load_module
from trtforge.engine.worker import to_stderr


def probe(job: Mapping[str, Any]) -> dict[str, Any]:
    """Import the library of `job["backend"]` and ask it; look at `job["engine"]` where given.

    Returns:
        version; targets (compute capabilities it builds for, empty where it builds for the GPU at
        hand); driver; engine: None, or validity (valid | suboptimal | invalid | malformed |
        not_known), and the names of the diagnostics.

    Raises:
        MissingError: the library cannot be imported.
    """
    flavour = FLAVOURS[job["backend"]]
    trt = load_module(flavour)
    path = job.get("engine")
    return {
        "version": trt.__version__,
        "targets": list(target_names(trt)) if flavour.takes_targets else [],
        "driver": driver().as_json(),
        "engine": None if path is None else engine_validity(trt, flavour.name, Path(path)),
    }


def engine_validity(trt: Any, flavour: str, path: Path) -> dict[str, Any]:
    """What `Runtime.get_engine_validity` says; only TensorRT-RTX has it.

    Without a driver it can tell a file that is no engine, and nothing else: every engine is
    "invalid" then, so `not_known` is said instead.
    """
    if not hasattr(trt.Runtime, "get_engine_validity"):
        return {"validity": "not_known", "diagnostics": []}
    runtime = trt.Runtime(make_logger(trt, LogBook(flavour, to_stderr)))
    validity, bits = runtime.get_engine_validity(path.read_bytes())
    kinds = trt.EngineInvalidityDiagnostics
    found = [name for name, kind in kinds.__members__.items() if int(bits) & int(kind.value)]
    if "MALFORMED_ENGINE" in found:
        return {"validity": "malformed", "diagnostics": found}
    if driver().reason is not None:
        return {"validity": "not_known", "diagnostics": []}
    return {"validity": validity.name.lower(), "diagnostics": found}
