"""Drives TensorRT 10, TensorRT 11 and TensorRT-RTX alike; runs inside the worker process only.

Networks are strongly typed on every flavour: precision stands in the graph, never in flags. No
setting is believed to have been taken: each answer is checked, and any ERROR line of the log
up to the end of the build fails it.
"""

import importlib
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trtforge.engine import layers, network, options, targets, timing_cache
from trtforge.engine.backend import BuildReport, BuildRequest
from trtforge.engine.engine_file import EngineFile, WrittenFile
from trtforge.engine.environment import driver, peak_rss_bytes
from trtforge.engine.flavour import FLAVOURS, Flavour
from trtforge.engine.native_log import LogBook, make_logger
from trtforge.engine.network_types import network_types
from trtforge.engine.progress import Progress, make_monitor
from trtforge.engine.remedies import BUILDER_REMEDIES, explain, one_line
from trtforge.errors import BuildError, MissingError, Place

_PARSE_SHARE = 0.1
"""Share of the progress shown that parsing gets; the parser announces no phases."""

_STREAMED_BYTES = 200 << 20
"""Engines of more weights are written piece by piece.

That spares memory of the whole engine's size, but each piece is copied into Python: with 25 and
100 MB of weights it takes 8 to 10 % more memory, with 350 and 570 MB 16 to 23 % less
(TensorRT-RTX 1.7.1)."""

_DEFAULT_TARGETS = (
    "no compute capabilities given: built for the library's default, which checks no type against "
    "any GPU"
)


@dataclass(frozen=True)
class Reporting:
    """Where a build says what it does.

    Attributes:
        sink: takes the lines of the log.
        emit: takes the share of the work done (0..1) and what is being done.
        cancelled: once set, the build stops at the builder's next step.
        verbose: whether VERBOSE lines go to the log too.
    """

    sink: Callable[[str], None]
    emit: Callable[[float, str], None]
    cancelled: threading.Event
    verbose: bool = False


@dataclass(frozen=True)
class _Build:
    trt: Any
    flavour: Flavour
    request: BuildRequest
    reporting: Reporting
    book: LogBook
    builder: Any


def load_module(flavour: Flavour) -> Any:
    """Import the module of a flavour.

    Raises:
        MissingError: it is not installed, too old, or one of its libraries is missing.
    """
    try:
        trt = importlib.import_module(flavour.module)
    except ImportError as error:
        raise MissingError(
            "TF0602", f"cannot import {flavour.module}: {error}", hint=flavour.install
        ) from error
    if tuple(int(part) for part in trt.__version__.split(".")[:2]) < flavour.oldest:
        oldest = ".".join(map(str, flavour.oldest))
        raise MissingError(
            "TF0624",
            f"{flavour.module} {trt.__version__} is too old: {oldest} or later is needed",
            hint=flavour.install,
        )
    return trt


def build_engine(request: BuildRequest, reporting: Reporting) -> BuildReport:
    """Parse the model, build the engine and write it.

    Raises:
        MissingError: the library, a GPU that it needs, or disk space is missing.
        BuildError: the model or a setting is refused, the build failed or was cancelled.
    """
    flavour = FLAVOURS[request.backend]
    options.require_driver_for(flavour, request.options)
    trt = load_module(flavour)
    scrub = f"{request.onnx.parent}/" if request.onnx.is_absolute() else ""
    book = LogBook(flavour.name, reporting.sink, scrub=scrub, verbose=reporting.verbose)
    logger = make_logger(trt, book)
    builder = _create_builder(trt, flavour, logger, book)
    build = _Build(trt, flavour, request, reporting, book, builder)
    definition = builder.create_network(network.network_flags(trt))
    reporting.emit(0.0, f"parsing {request.onnx.name}")
    started = time.perf_counter()
    parser = network.parse(trt, definition, logger, request.onnx)
    parse_seconds = time.perf_counter() - started
    described = layers.describe(trt, definition)
    config = _configure(build, definition, described)
    started = time.perf_counter()
    written = _serialize(build, definition, config, described)
    if request.timing_cache is not None and flavour.times_tactics:
        doubt = timing_cache.keep(config, request.timing_cache)
        if doubt is not None:
            book.warnings.setdefault(doubt)
    build_seconds = time.perf_counter() - started
    del parser  # alive until here: it holds the weights that the network points to
    return _report(build, written, described, (parse_seconds, build_seconds))


def describe_network(job: Mapping[str, Any], sink: Callable[[str], None]) -> list[dict[str, Any]]:
    """Parse a model and describe the network; nothing is built.

    Args:
        job: `onnx` (path), `backend`, and `shapes`: input -> shape, for concrete shapes all over.
        sink: takes the lines of the log.

    Raises:
        MissingError: the library is not installed, or needs a GPU.
        BuildError: the parser refuses the model.
    """
    flavour = FLAVOURS[job["backend"]]
    trt = load_module(flavour)
    book = LogBook(flavour.name, sink)
    logger = make_logger(trt, book)
    builder = _create_builder(trt, flavour, logger, book)
    definition = builder.create_network(network.network_flags(trt))
    parser = network.parse(trt, definition, logger, Path(job["onnx"]))
    network.set_shapes(definition, job["shapes"])
    described = layers.describe(trt, definition)
    del parser  # alive until here: it holds the weights that the network points to
    return list(described)


def _create_builder(trt: Any, flavour: Flavour, logger: Any, book: LogBook) -> Any:
    if not flavour.builds_without_gpu:
        if (reason := driver().reason) is not None:
            raise MissingError(
                "TF0603",
                f"{flavour.name} tunes on the GPU that it builds for: {reason}",
                hint="build on a machine with an NVIDIA GPU, or with the backend tensorrt_rtx",
            )
        trt.init_libnvinfer_plugins(logger, "")
    try:
        return trt.Builder(logger)
    except (TypeError, RuntimeError) as error:
        reason = book.errors[0] if book.errors else str(error)
        raise MissingError(
            "TF0603",
            f"{flavour.name} {trt.__version__} does not start: {reason}",
            hint="run `trtforge doctor`",
        ) from error


def _configure(build: _Build, definition: Any, described: tuple[dict[str, Any], ...]) -> Any:
    request, trt = (build.request, build.trt)
    network.check_interface(definition, request.inputs, request.outputs, request.onnx.name)
    network.check_profiles(definition, request.profiles, request.onnx.name)
    network.make_attention_decomposable(trt, definition)
    config = build.builder.create_builder_config()
    # By default an engine knows its layers' names only; this costs no byte, and lets it tell what
    # its layers compute in (`inspector.py`).
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if request.compute_capabilities:
        _set_targets(build, config, described)
    if not request.tf32:
        config.clear_flag(trt.BuilderFlag.TF32)
    limits = {} if request.workspace_mib is None else {"workspace_mib": request.workspace_mib}
    try:
        options.apply_options(trt, config, {**limits, **request.options})
    except BuildError as refused:
        refused.details = "\n".join(build.book.errors) or None
        raise
    network.add_profiles(build.builder, config, request.profiles)
    if request.timing_cache is not None and build.flavour.times_tactics:
        doubt = timing_cache.attach(trt, config, request.timing_cache, build.book.errors)
        if doubt is not None:
            build.book.warnings.setdefault(doubt)
    progress = Progress(build.reporting.emit, _PARSE_SHARE, 1.0)
    config.progress_monitor = make_monitor(trt, progress, build.reporting.cancelled)
    return config


def _set_targets(build: _Build, config: Any, described: tuple[dict[str, Any], ...]) -> None:
    request = build.request
    if not build.flavour.takes_targets:
        raise BuildError(
            "TF0606",
            f"{build.flavour.name} builds for the GPU at hand, not for a list of targets",
            hint="leave compute_capabilities out, or use the backend tensorrt_rtx",
        )
    targets.set_targets(build.trt, config, request.compute_capabilities)
    targets.check_types(described, request.compute_capabilities, request.onnx.name)


def _serialize(
    build: _Build, definition: Any, config: Any, described: tuple[dict[str, Any], ...]
) -> WrittenFile:
    weights_bytes = sum(network_types(described).weights_bytes.values())
    with EngineFile(build.request.output) as file:
        if weights_bytes > _STREAMED_BYTES:
            done = build.builder.build_serialized_network_to_stream(
                definition, config, _make_writer(build.trt, file)
            )
        else:
            plan = build.builder.build_serialized_network(definition, config)
            done = plan is not None and file.write(memoryview(plan)) == plan.nbytes
        if file.failure is not None:
            return file.commit()
        if build.reporting.cancelled.is_set():
            raise BuildError("TF0611", f"the build of {build.request.onnx.name} was cancelled")
        if not done or build.book.errors:
            raise _build_error(build)
        return file.commit()


def _make_writer(trt: Any, file: EngineFile) -> Any:
    class Writer(trt.IStreamWriter):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IStreamWriter.__init__(self)

        def write(self, data: bytes) -> int:
            return file.write(data)

    return Writer()


def _build_error(build: _Build) -> BuildError:
    said = build.book.errors
    text = said[0] if said else "it returned no engine and logged no error"
    reason, hint = explain(text, BUILDER_REMEDIES)
    return BuildError(
        "TF0608",
        f"{build.flavour.name} {build.trt.__version__} cannot build "
        f"{build.request.onnx.name}: {reason}",
        hint=hint,
        where=Place(file=build.request.onnx.name),
        details=None if list(map(one_line, said)) == [reason] else "\n".join(said) or None,
    )


def _report(
    build: _Build,
    written: WrittenFile,
    described: tuple[dict[str, Any], ...],
    seconds: tuple[float, float],
) -> BuildReport:
    request = build.request
    warnings = list(build.book.warnings)
    if build.flavour.takes_targets and not request.compute_capabilities:
        warnings.append(_DEFAULT_TARGETS)
    return BuildReport(
        backend=request.backend,
        version=build.trt.__version__,
        engine_bytes=written.size,
        engine_sha256=written.sha256,
        profiles=request.profiles,
        compute_capabilities=_targets_built_for(build),
        parse_seconds=seconds[0],
        build_seconds=seconds[1],
        peak_rss_bytes=peak_rss_bytes(),
        activation_memory_bytes=build.book.activation_bytes,
        warnings=tuple(warnings),
        layers=described,
    )


def _targets_built_for(build: _Build) -> tuple[str, ...]:
    if build.flavour.takes_targets:
        return build.request.compute_capabilities
    return tuple(gpu.compute_capability for gpu in driver().gpus[:1])
