"""What a library makes of a model, and what an engine says of itself; asked in a worker process."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trtforge.engine.backend import load_backend, require_installed
from trtforge.engine.environment import ELSEWHERE, driver
from trtforge.engine.supervisor import Job, run_worker
from trtforge.errors import MissingError

_TIMEOUT_S = 600.0


def parsed_network(
    onnx: Path, backend: str, shapes: Mapping[str, Sequence[int]]
) -> list[dict[str, Any]]:
    """Let a backend's parser read a model; nothing is built.

    Args:
        onnx: the model; external data lies beside it.
        backend: tensorrt_rtx or tensorrt.
        shapes: concrete shapes of the inputs.

    Returns:
        The network's layers, as `layers.describe` gives them.

    Raises:
        UsageError: no backend has this name.
        MissingError: the library, or a GPU that it needs, is missing.
        BuildError: the parser refuses the model, or the worker crashed.
    """
    require_installed(load_backend(backend))
    command = {
        "command": "network",
        "backend": backend,
        "onnx": str(onnx.absolute()),
        "shapes": {name: list(shape) for name, shape in shapes.items()},
    }
    described: list[dict[str, Any]] = _ask(f"parsing {onnx.name} with {backend}", command)
    return described


def engine_information(engine: Path, backend: str, *, allow_host_code: bool = False) -> Any:
    """Load an engine on this machine's GPU and return what its inspector says, JSON data.

    An engine is native code: check its digest first.

    Args:
        engine: the engine file.
        backend: "tensorrt_rtx" or "tensorrt", as it was built with.
        allow_host_code: let code inside a version-compatible engine run on the CPU.

    Raises:
        UsageError: no backend has this name.
        MissingError: there is no driver, GPU or library; nothing is attempted then.
        BuildError: the library does not take the engine, or the worker crashed.
    """
    if (reason := driver().reason) is not None:
        raise MissingError("TF0603", f"cannot load {engine.name}: {reason}", ELSEWHERE)
    require_installed(load_backend(backend))
    command = {
        "command": "layers",
        "backend": backend,
        "engine": str(engine.absolute()),
        "allow_host_code": allow_host_code,
    }
    return _ask(f"inspecting {engine.name} with {backend}", command)


def _ask(subject: str, command: Mapping[str, Any]) -> Any:
    with tempfile.TemporaryDirectory(prefix="trtforge-view-") as folder:
        job = Job(
            subject=subject,
            command=command,
            log=Path(folder) / "view.log",
            timeout_s=_TIMEOUT_S,
            is_kept=False,
        )
        return run_worker(job)
