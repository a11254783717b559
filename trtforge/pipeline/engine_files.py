"""What is known of a single engine file: by its first bytes, and by the bundle that it lies in.

A plan does not tell without a GPU how it was built. An engine in a bundle's own folder has the
bundle's manifest, which does.
"""

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtforge.engine.flavour import FLAVOURS
from trtforge.errors import MissingError, Place, UsageError
from trtforge.pipeline.file_kinds import first_bytes
from trtforge.pipeline.judge import EngineCandidate
from trtforge.pipeline.store import file_sha256

if TYPE_CHECKING:
    from trtforge.bundle.manifest import TargetFacts
    from trtforge.bundle.read import Bundle

_ASK_S = 60.0
_ASK = "import trtforge; print(trtforge.__version__)"


@dataclass(frozen=True)
class EngineFile:
    """An engine file.

    Attributes:
        path: it.
        backend: that runs it; None where nothing tells.
        options: of the builder, where a bundle tells them.
        typed: the ONNX that it was built from, where it lies in a bundle that holds it.
        target: its name in the bundle; None outside of one.
    """

    path: Path
    backend: str | None
    options: Mapping[str, Any] = field(default_factory=dict)
    typed: Path | None = None
    target: str | None = None

    @property
    def is_stripped(self) -> bool:
        """Whether it is known that its weights were left out."""
        return bool(self.options.get("strip_weights"))


def engine_file(path: Path) -> EngineFile:
    """Find out about an engine file; digests of the bundle that it lies in are checked.

    Raises:
        IntegrityError: a file of that bundle is not what its manifest says.
    """
    around = bundle_of(path)
    if around is None:
        return EngineFile(path, _backend_of(path))
    bundle, target = around
    typed = bundle.file("model.onnx") if bundle.manifest.model.included else None
    return EngineFile(path, target.backend, target.options, typed, target.name)


def bundle_of(path: Path) -> "tuple[Bundle, TargetFacts] | None":
    """Return the bundle that an engine lies in, and its target; None where it lies in none.

    Raises:
        IntegrityError: a file of that bundle is not what its manifest says.
    """
    from trtforge.bundle.read import open_bundle

    engine = path.resolve()
    if engine.parent.parent.name != "engines":  # as in engines/<target>/ of a bundle
        return None
    folder = engine.parents[2]
    if not (folder / "manifest.json").is_file():
        return None
    try:
        bundle = open_bundle(folder)
    except UsageError:  # another tool's manifest
        return None
    for target in bundle.manifest.targets:
        if target.engine is not None and bundle.file(target.engine) == engine:
            return bundle, target
    return None


def built_beside(engine: Path) -> dict[str, Any] | None:
    """Return what the build.json beside an engine says, None unless it is of this very file."""
    try:
        built = json.loads((engine.parent / "build.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(built, dict) or "engine_sha256" not in built:
        return None
    return built if built["engine_sha256"] == f"sha256:{file_sha256(engine)}" else None


def _backend_of(path: Path) -> str | None:
    head = first_bytes(path)
    return next((one.name for one in FLAVOURS.values() if head.startswith(one.plan_tag)), None)


def runnable(
    path: Path, backend: str | None, weights: Path | None, *, allow_host_code: bool
) -> EngineCandidate:
    """Return a single engine file as it is to be loaded.

    Args:
        path: the engine.
        backend: that runs it; None for what the file or its bundle tells, else tensorrt_rtx.
        weights: the ONNX whose weights are put into it; None for the bundle's own, where it is
            known that the engine lacks them.
        allow_host_code: let code that it brings run on the CPU.

    Raises:
        UsageError: TF0771, it is another backend's engine; TF0772, there is no ONNX file to take
            weights from.
        IntegrityError: see `engine_file`.
    """
    known = engine_file(path)
    if None not in (backend, known.backend) and backend != known.backend:
        raise UsageError(
            "TF0771",
            f"'{path.name}' is an engine of {known.backend}, not of {backend}",
            f"give --backend {known.backend}, or leave it out",
            Place(str(path)),
        )
    if weights is not None and not (weights.suffix.lower() == ".onnx" and weights.is_file()):
        raise UsageError(
            "TF0772",
            f"'{weights}' is no ONNX file to take weights from",
            "name the typed ONNX that the engine was built from",
            Place(str(weights)),
        )
    return EngineCandidate(
        path,
        backend or known.backend or "tensorrt_rtx",
        known.options,
        known.typed,
        allow_host_code,
        weights,
    )


def worker_of(python: Path) -> tuple[str, ...]:
    """Return the worker that another interpreter starts, which has another TensorRT.

    TensorRT 10 and 11 are one module's two versions, so each is in an environment of its own.

    Raises:
        UsageError: TF0775, it is no interpreter, or its trtforge is of another version.
        MissingError: TF0775, it has no trtforge.
    """
    import trtforge

    where = Place(str(python))
    try:
        asked = subprocess.run(
            [str(python), "-P", "-c", _ASK],
            capture_output=True,
            text=True,
            timeout=_ASK_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        message = f"'{python}' does not run: {error}"
        raise UsageError("TF0775", message, "name a Python, e.g. venv/bin/python", where) from error
    version = asked.stdout.strip()
    if asked.returncode != 0:
        lines = asked.stderr.strip().splitlines() or [f"status {asked.returncode}"]
        raise MissingError(
            "TF0775", f"'{python}' has no trtforge: {lines[-1]}", "install it there", where
        )
    if version != trtforge.__version__:
        raise UsageError(
            "TF0775",
            f"'{python}' has trtforge {version}, this is {trtforge.__version__}",
            "install the same version there",
            where,
        )
    return (str(python), "-P", "-m", "trtforge.engine.worker")
