"""What every backend takes and gives: requests, reports, the Backend and Runner protocols.

This module stays light: it imports neither numpy nor onnx nor any runtime, so that plans and
command lines can speak of backends without loading one.
"""

import importlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeAlias

from trtforge.errors import MissingError, UsageError

if TYPE_CHECKING:
    import numpy as np

Feeds: TypeAlias = "Mapping[str, np.ndarray[Any, np.dtype[Any]]]"
"""Input name -> array, one batch."""

Outputs: TypeAlias = "dict[str, np.ndarray[Any, np.dtype[Any]]]"
"""Output name -> array, in the model's order."""

Dims = tuple[int, ...]
"""One concrete shape, e.g. (N, C, H, W)."""

ShapeTriple = tuple[Dims, Dims, Dims]
"""The smallest, the preferred and the largest shape of one input: min, opt, max."""


class ValueTriple(tuple[Dims, Dims, Dims]):
    """Min, opt and max of an input's values, where those decide shapes, and not of its shape."""


ProfileShapes = tuple[dict[str, ShapeTriple], ...]
"""Optimization profiles: for each, input name -> (min, opt, max), of its shape or its values."""

OnProgress = Callable[[float, str], None]
"""Called with the share of the work done (0..1, never falling) and what is being done."""

BACKENDS: dict[str, str] = {
    "tensorrt_rtx": "trtforge.engine.builder:TensorRtRtxBackend",
    "tensorrt": "trtforge.engine.builder:TensorRtBackend",
    "onnxruntime": "trtforge.engine.onnxruntime:OnnxRuntimeBackend",
}
"""Backend name -> "module:Class"; nothing is imported before it is used."""

OPSET_LIMITS: dict[str, int] = {"tensorrt_rtx": 24, "tensorrt": 22, "onnxruntime": 23}
"""Backend name -> the newest operator set that graphs may be raised to for it.

TensorRT 10.13, the oldest that is supported, takes opset 22 (onnx-tensorrt, docs/operators.md);
Attention came with 10.14 (its release notes), opset 24 with 10.15, and TensorRT 11 documents 25
(docs.nvidia.com, "ONNX Opset Guide"). TensorRT-RTX 1.7 parsed operators of 24 when it was asked.
The oldest ONNX Runtime that is supported, 1.22, knows 23.
"""

MEASURED_FIELDS = ("parse_seconds", "build_seconds", "peak_rss_bytes")
"""Fields of a BuildReport that differ from run to run; the others depend on the build alone."""


@dataclass(frozen=True)
class BuildRequest:
    """One engine to build.

    Attributes:
        onnx: the typed ONNX model; external data lies beside it.
        output: the engine file to write; it appears whole or not at all.
        log: where the builder's log goes; after a failure the job lies beside it.
        backend: a key of BACKENDS.
        inputs: the model's inputs, name -> dtype as numpy and ml_dtypes write it; the engine must
            have the same. Empty where they are not known: then nothing is compared.
        outputs: the model's outputs, likewise.
        profiles: optimization profiles; empty for a model whose inputs are all static.
        compute_capabilities: GPUs to build for, e.g. ("8.6", "12.0"); tensorrt_rtx only; empty
            leaves the choice to the library's default.
        workspace_mib: limit of the builder's workspace in MiB; None for the library's default.
        tf32: whether FP32 layers may compute in TF32.
        options: further options of the builder, by the names of a recipe's `targets[].options`.
        timing_cache: file that keeps what builds timed; None for none.
        timeout_s: the build is stopped after this many seconds.
        memory_limit_mib: the build is stopped once its process holds more memory, MiB; None for no
            limit.
    """

    onnx: Path
    output: Path
    log: Path
    backend: str
    profiles: ProfileShapes = ()
    compute_capabilities: tuple[str, ...] = ()
    workspace_mib: int | None = None
    tf32: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    timing_cache: Path | None = None
    timeout_s: float = 3600.0
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    memory_limit_mib: int | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the request as plain JSON data; `from_json` reads it back."""
        return {
            "onnx": str(self.onnx),
            "output": str(self.output),
            "log": str(self.log),
            "backend": self.backend,
            "profiles": profiles_as_json(self.profiles),
            "compute_capabilities": list(self.compute_capabilities),
            "workspace_mib": self.workspace_mib,
            "tf32": self.tf32,
            "options": dict(self.options),
            "timing_cache": None if self.timing_cache is None else str(self.timing_cache),
            "timeout_s": self.timeout_s,
            "inputs": dict(self.inputs),
            "outputs": dict(self.outputs),
            "memory_limit_mib": self.memory_limit_mib,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what `as_json` wrote.

        Raises:
            KeyError: a key is missing.
        """
        return cls(
            onnx=Path(data["onnx"]),
            output=Path(data["output"]),
            log=Path(data["log"]),
            backend=data["backend"],
            profiles=profiles_from_json(data["profiles"]),
            compute_capabilities=tuple(data["compute_capabilities"]),
            workspace_mib=data["workspace_mib"],
            tf32=data["tf32"],
            options=data["options"],
            timing_cache=None if data["timing_cache"] is None else Path(data["timing_cache"]),
            timeout_s=data["timeout_s"],
            inputs=data["inputs"],
            outputs=data["outputs"],
            memory_limit_mib=data["memory_limit_mib"],
        )


@dataclass(frozen=True)
class BuildReport:
    """What came of a build.

    Attributes:
        backend: a key of BACKENDS.
        version: the library's version, e.g. "1.7.1.116".
        engine_bytes: size of the engine file; 0 where the backend builds none.
        engine_sha256: "sha256:..." of the engine file; "" where the backend builds none.
        profiles: the optimization profiles built in.
        compute_capabilities: the GPUs asked for, or for `tensorrt` the one at hand; empty means
            the library's default.
        parse_seconds: time the library's ONNX parser took.
        build_seconds: time the library's builder took, writing the engine included.
        peak_rss_bytes: the building process's largest resident set.
        activation_memory_bytes: device memory for activations as the builder logged it, the largest
            over the profiles; None when it logged none.
        warnings: what the builder warned of, each text once, in order.
        layers: the parsed network, layer by layer: name, type, metadata (the ONNX node), inputs and
            outputs with name, dtype and shape.
    """

    backend: str
    version: str
    engine_bytes: int
    engine_sha256: str
    profiles: ProfileShapes
    compute_capabilities: tuple[str, ...]
    parse_seconds: float
    build_seconds: float
    peak_rss_bytes: int
    activation_memory_bytes: int | None
    warnings: tuple[str, ...]
    layers: tuple[dict[str, Any], ...]

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain JSON data; MEASURED_FIELDS differ from run to run."""
        return {
            "backend": self.backend,
            "version": self.version,
            "engine_bytes": self.engine_bytes,
            "engine_sha256": self.engine_sha256,
            "profiles": profiles_as_json(self.profiles),
            "compute_capabilities": list(self.compute_capabilities),
            "parse_seconds": self.parse_seconds,
            "build_seconds": self.build_seconds,
            "peak_rss_bytes": self.peak_rss_bytes,
            "activation_memory_bytes": self.activation_memory_bytes,
            "warnings": list(self.warnings),
            "layers": list(self.layers),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what `as_json` wrote."""
        return cls(
            **{
                **data,
                "profiles": profiles_from_json(data["profiles"]),
                "compute_capabilities": tuple(data["compute_capabilities"]),
                "warnings": tuple(data["warnings"]),
                "layers": tuple(data["layers"]),
            }
        )


def profiles_as_json(profiles: ProfileShapes) -> list[dict[str, dict[str, Any]]]:
    """Return profiles as plain JSON data, inputs in the order given."""
    return [
        {name: _triple_as_json(triple) for name, triple in profile.items()} for profile in profiles
    ]


def _triple_as_json(triple: ShapeTriple) -> dict[str, Any]:
    low, mid, high = map(list, triple)
    mark = {"values": True} if isinstance(triple, ValueTriple) else {}
    return {"min": low, "opt": mid, "max": high, **mark}


def profiles_from_json(data: list[dict[str, dict[str, Any]]]) -> ProfileShapes:
    """Read what `profiles_as_json` wrote."""
    return tuple(
        {name: _triple_from_json(written) for name, written in profile.items()} for profile in data
    )


def _triple_from_json(written: dict[str, Any]) -> ShapeTriple:
    triple = tuple(written["min"]), tuple(written["opt"]), tuple(written["max"])
    return ValueTriple(triple) if written.get("values") else triple


@dataclass(frozen=True)
class Availability:
    """What one backend can do on this machine.

    Attributes:
        name: a key of BACKENDS.
        installed: whether its library imports.
        version: the library's version, None when it is not installed.
        can_build: whether engines can be built here.
        can_run: whether engines (for onnxruntime: models) can be executed here.
        reason: why it cannot build or run, and what to install; None when it can do both.
    """

    name: str
    installed: bool
    version: str | None
    can_build: bool
    can_run: bool
    reason: str | None

    def as_json(self) -> dict[str, Any]:
        """Return the facts as plain JSON data."""
        return {
            "name": self.name,
            "installed": self.installed,
            "version": self.version,
            "can_build": self.can_build,
            "can_run": self.can_run,
            "reason": self.reason,
        }


class Backend(Protocol):
    """A way from a typed ONNX to something that runs."""

    name: str

    def available(self) -> Availability:
        """Say what this backend can do here; cheap, and never raises."""
        ...

    def build(
        self,
        request: BuildRequest,
        on_progress: OnProgress | None = None,
        cancelled: threading.Event | None = None,
    ) -> BuildReport:
        """Build `request.output`; once `cancelled` is set, stop within seconds.

        Raises:
            MissingError: the library, disk space or a permission is missing (exit 3).
            BuildError: the library refused, crashed or ran out of time (exit 4).
        """
        ...


class Runner(Protocol):
    """Something that computes outputs from inputs, while its context is entered."""

    name: str

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def infer(self, feeds: Feeds) -> Outputs:
        """Compute all outputs of one batch of inputs."""
        ...


def get_backend(name: str) -> Backend:
    """Return the backend called `name`, ready to build.

    Raises:
        UsageError: no backend has this name.
        MissingError: its library is not installed here; the hint says what to install.
    """
    backend = load_backend(name)
    require_installed(backend)
    return backend


def load_backend(name: str) -> Backend:
    """Return the backend called `name`, whether or not its library is installed.

    Raises:
        UsageError: no backend has this name.
    """
    if name not in BACKENDS:
        raise UsageError(
            "TF0601", f"unknown backend '{name}'", hint=f"backends are: {', '.join(BACKENDS)}"
        )
    module, _, attribute = BACKENDS[name].partition(":")
    backend: Backend = getattr(importlib.import_module(module), attribute)()
    return backend


def require_builder(name: str) -> None:
    """Raise unless engines can be built with this backend here; nothing is imported for it.

    Raises:
        UsageError: no backend has this name.
        MissingError: its library, or a GPU that it tunes on, is missing.
    """
    facts = get_backend(name).available()
    if not facts.can_build:
        raise MissingError(
            "TF0603",
            f"backend '{name}' cannot build here: {facts.reason}",
            hint="build on a machine with an NVIDIA GPU, or with the backend tensorrt_rtx",
        )


def require_installed(backend: Backend) -> None:
    """Raise a MissingError that says what to install unless the backend's library is there."""
    facts = backend.available()
    if not facts.installed:
        raise MissingError("TF0602", f"backend '{facts.name}' is not installed", hint=facts.reason)
