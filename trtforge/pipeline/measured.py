"""What `trtforge bench` measures: an ONNX file on ONNX Runtime, or an engine on the GPU."""

import hashlib
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trtforge.engine.measuring.scenarios import Load, Measurement, Query, measure
from trtforge.errors import READABLE, DataError, MissingError, Place, UsageError
from trtforge.pipeline.file_kinds import run_kind_of
from trtforge.pipeline.query_feeds import DISTINCT, assumed_shapes, query_feeds, too_few

if TYPE_CHECKING:
    from trtforge.engine.measuring.meter import EngineLoad
    from trtforge.graph.execute import Session
    from trtforge.pipeline.bench import BenchOptions
    from trtforge.pipeline.query_feeds import Profiles

_LIGHT_S = 1.0
"""What takes longer to load is not loaded anew for each round of a comparison."""

_LOADING_S = 600.0
_PATIENCE = 10.0
"""A measurement may take that many times as long as asked for, plus a second per query."""


@dataclass(frozen=True)
class Measured:
    """Something ready to be measured.

    Attributes:
        backend: on what it runs.
        measure: takes a load.
        facts: what its session says of itself, as it is after the last load; on a CPU
            `assumed_shapes`, where the model leaves sizes open that nothing gives.
        reload: loads it anew, so that its weights and buffers lie elsewhere; None where that
            takes long, and of engines.
    """

    backend: str
    measure: Callable[[Load], Measurement]
    facts: Mapping[str, Any] = field(default_factory=dict)
    reload: Callable[[], None] | None = None


@contextmanager
def opened(path: Path, target: str | None, options: "BenchOptions") -> Iterator[Measured]:
    """Load what is at a path, and prepare different batches for it.

    Args:
        path: an ONNX file, a bundle or an engine.
        target: of a bundle: whose engine; None where it has only one.
        options: how it is measured.

    Raises:
        UsageError: an option does not fit what is at the path.
        MissingError: TF0603, an engine is to be run and there is no GPU here.
        DataError: the data does not fit the model.
        GraphError: the model does not run.
        BuildError: the engine does not run.
    """
    kind = run_kind_of(path)
    if kind == "onnx" or (kind == "bundle" and options.backend == "onnxruntime"):
        if target is not None:
            raise UsageError(
                "TF0144", "a target is one of a bundle's engines", "leave --target out"
            )
        typed, profiles = (path, ()) if kind == "onnx" else (_typed(path), _profiles(path))
        with _on_cpu(typed, options, profiles) as measured:
            yield measured
        return
    with _on_gpu(path, target, options) as measured:
        yield measured


@contextmanager
def _on_cpu(onnx: Path, options: "BenchOptions", profiles: "Profiles" = ()) -> Iterator[Measured]:
    from trtforge.graph.execute import Session
    from trtforge.graph.model import Model

    model = Model.load(onnx)
    feeds = list(query_feeds(model, options, profiles))
    queries: list[Query] = []

    def load() -> None:
        queries.clear()  # of the session before, which ends with them
        session = Session(model, optimize=True, threads=options.threads)
        session.run(feeds[0])  # says clearly what measured calls, which nothing wraps, would not
        queries.extend(_query(session, one) for one in feeds)

    begun = time.perf_counter()
    load()
    is_light = time.perf_counter() - begun < _LIGHT_S
    assumed = assumed_shapes(model, options, profiles)
    yield Measured(
        "onnxruntime",
        lambda load: measure(queries, load),
        {"assumed_shapes": assumed} if assumed else {},
        load if is_light else None,
    )
    queries.clear()


def _query(session: "Session", feeds: dict[str, Any]) -> Query:
    run = session.unchecked

    def query() -> object:
        return run(None, feeds)

    return query


def _profiles(path: Path) -> "Profiles":
    """The profiles of a bundle; none of a bare engine."""
    from trtforge.bundle.read import open_bundle

    return open_bundle(path).manifest.profiles if run_kind_of(path) == "bundle" else ()


def _typed(path: Path) -> Path:
    from trtforge.bundle.read import open_bundle

    bundle = open_bundle(path)
    if bundle.manifest.model.included:
        return bundle.file("model.onnx")
    raise UsageError("TF0142", f"bundle '{path}' holds no ONNX file", "name an ONNX file")


@contextmanager
def _on_gpu(path: Path, target: str | None, options: "BenchOptions") -> Iterator[Measured]:
    from trtforge.engine.environment import driver
    from trtforge.engine.measuring.meter import EngineMeter

    subject, typed = _engine_at(path, target, options)
    if (reason := driver().reason) is not None:
        is_bundle = run_kind_of(path) == "bundle"
        raise MissingError(
            "TF0603",
            f"cannot run {'the engines of ' if is_bundle else ''}'{path.name}': {reason}",
            "measure the typed ONNX on this CPU with --backend onnxruntime"
            if is_bundle
            else "measure it on a machine with a GPU, or its ONNX file here",
        )
    load = options.load
    meter = EngineMeter(
        subject,
        _engine_batches(typed, options, _profiles(path)),
        load.samples_per_query,
        timeout_s=_LOADING_S + _PATIENCE * load.seconds + load.queries,
    )
    with meter:
        yield Measured(subject.backend, meter.measure, meter.facts)


def _engine_at(
    path: Path, target: str | None, options: "BenchOptions"
) -> tuple["EngineLoad", Path | None]:
    """The engine at a path, checked where that can be, and the typed ONNX it was built from."""
    if run_kind_of(path) == "bundle":
        found, typed = _engine_of(path, target, options.backend)
    elif target is not None:
        raise UsageError("TF0144", "a target is one of a bundle's engines", "leave --target out")
    elif options.backend == "onnxruntime":
        raise UsageError("TF0144", f"ONNX Runtime does not run '{path.name}'", "name an ONNX file")
    else:
        found, typed = _bare(path, options), None
    asked = replace(
        found,
        weight_budget=options.weight_budget,
        streams=options.load.streams,
        graphs=options.graphs,
        allow_host_code=options.allow_host_code,
        runtime_cache=_runtime_cache(found.engine, found.backend),
    )
    return asked, typed


def _bare(path: Path, options: "BenchOptions") -> "EngineLoad":
    """A single engine file, with the weights that it is known to lack."""
    from trtforge.engine.measuring.meter import EngineLoad
    from trtforge.pipeline.engine_files import runnable

    found = runnable(path, options.backend, options.weights, allow_host_code=False)
    own = found.typed if found.options.get("strip_weights") else None
    return EngineLoad(path, found.backend, weights=found.weights or own)


def _engine_of(
    path: Path, target: str | None, backend: str | None
) -> tuple["EngineLoad", Path | None]:
    """A bundle's engine as it is to be loaded, and the typed ONNX where the bundle holds it."""
    from trtforge.bundle.read import open_bundle
    from trtforge.engine.measuring.meter import EngineLoad

    bundle = open_bundle(path)
    typed = bundle.file("model.onnx") if bundle.manifest.model.included else None
    found = {
        one.name: one
        for one in bundle.manifest.targets
        if one.engine is not None and backend in (None, one.backend)
    }
    shown = ", ".join(found) or "none"
    if target is not None and target not in found:
        raise UsageError("TF0145", f"the bundle has no engine '{target}'", f"it has: {shown}")
    if target is None and len(found) != 1:
        hint = f"choose one with --target: {shown}"
        if not found:
            hint = "measure its typed ONNX with --backend onnxruntime"
        raise UsageError("TF0145", f"the bundle has {len(found)} such engines", hint)
    chosen = found[target if target is not None else next(iter(found))]
    assert chosen.engine is not None
    is_stripped = bool(chosen.options.get("strip_weights"))
    if is_stripped and typed is None:
        raise UsageError(
            "TF0145",
            f"the weights of '{chosen.name}' are stripped, and the bundle holds no ONNX file",
            "build it with include_onnx: true",
        )
    engine = bundle.file(chosen.engine)
    return EngineLoad(engine, chosen.backend, weights=typed if is_stripped else None), typed


def _runtime_cache(engine: Path, backend: str) -> Path | None:
    """Where TensorRT-RTX keeps kernels compiled for this engine, version and device."""
    if backend != "tensorrt_rtx":
        return None
    from trtforge.engine.environment import engine_facts
    from trtforge.pipeline.store import default_root, digest_of

    with engine.open("rb") as file:
        content = hashlib.file_digest(file, "sha256").hexdigest()
    name = digest_of([content, engine_facts(backend)])[:16]
    return default_root() / "kernels" / f"{backend}-{name}.cache"


def _engine_batches(
    typed: Path | None, options: "BenchOptions", profiles: "Profiles"
) -> Iterator[dict[str, Any]]:
    """Batches of the model's inputs; none where the engine alone must say what it takes."""
    if typed is not None:
        from trtforge.graph.model import Model

        yield from query_feeds(Model.load(typed), options, profiles)
    elif options.shapes:
        raise UsageError(
            "TF0144",
            "--shape needs the model, and only its engine is here",
            "give --data; random inputs have the shape that the engine is tuned for",
        )
    elif options.data is not None:
        yield from _recorded(options.data, options.load.samples_per_query)


def _recorded(path: Path, batch: int) -> Iterator[dict[str, Any]]:
    """Batches of a .npz, whose arrays the engine itself will check."""
    where = Place(file=str(path))
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files if name != "labels"}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        message = f"'{path.name}' is no .npz file: {error}"
        raise DataError("TF0146", message, READABLE, where) from error
    count = min((len(array) for array in arrays.values() if array.ndim), default=0)
    if count < batch:
        raise too_few(path, count, batch)
    for start in range(0, min(count - batch + 1, DISTINCT * batch), batch):
        yield {name: array[start : start + batch] for name, array in arrays.items()}
