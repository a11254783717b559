"""Runs an engine on the GPU; inside the worker process only.

Polygraphy's TrtRunner moves the data. The engine is deserialized here and not by Polygraphy's
loader, since that one allows the engine's host code to run without being asked.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from trtforge.engine import arrays, messages
from trtforge.engine.backend import Dims, ShapeTriple, ValueTriple
from trtforge.engine.environment import driver
from trtforge.engine.flavour import FLAVOURS
from trtforge.engine.native_log import LogBook, make_logger
from trtforge.engine.profiles import covering_profile
from trtforge.engine.refit import refit
from trtforge.engine.tensorrt import load_module
from trtforge.engine.worker import to_stderr
from trtforge.errors import BuildError, MissingError

_HOST_CODE = re.compile(r"host.?code|lean.?runtime", re.IGNORECASE)
"""What an engine that may not run its own code is refused with speaks of one of these."""

Send = Callable[[Mapping[str, Any]], None]


def serve(job: Mapping[str, Any], cases: Iterable[Mapping[str, Any]], send: Send) -> int:
    """Load the engine, say so, and answer each case with its outputs; returns their number.

    Args:
        job: as `load_engine` takes it.
        cases: each has `feeds` (.npz), `members` (see `arrays.store`), `outputs` (to be written).
        send: takes the answers.

    Raises:
        MissingError: no NVIDIA driver, or the library is not installed.
        BuildError: the engine cannot be loaded, or cannot take a case.
    """
    if (reason := driver().reason) is not None:
        raise MissingError("TF0603", f"cannot run {Path(job['engine']).name}: {reason}")
    book = LogBook(job["backend"], to_stderr)
    engine, runtime = load_engine(job, book)
    from polygraphy.backend.trt import TrtRunner

    profiles = engine_profiles(engine)
    count = 0
    with TrtRunner(engine) as runner:
        send(messages.result({"profiles": len(profiles)}))
        for case in cases:
            send(_answer(runner, profiles, case, book))
            count += 1
    del engine, runtime  # in this order: an engine must not outlive its runtime
    return count


def _answer(
    runner: Any,
    profiles: tuple[dict[str, ShapeTriple], ...],
    case: Mapping[str, Any],
    book: LogBook,
) -> dict[str, Any]:
    from polygraphy.exception import PolygraphyException

    known = len(book.errors)
    try:
        feeds = arrays.load(Path(case["feeds"]), case["members"])
        runner.set_profile(choose_profile(profiles, feeds))
        outputs = runner.infer(feeds, check_inputs=True)
        return messages.result({"members": arrays.store(Path(case["outputs"]), outputs)})
    except BuildError as error:  # this case is refused; the next may fit
        return messages.failure(error)
    except PolygraphyException as error:  # a feed of another name or type, or a failed execution
        said = book.errors[known:] or [" ".join(str(error).split())]
        return messages.failure(
            BuildError(
                "TF0616",
                f"the engine cannot run these inputs: {said[0]}",
                hint="feed each input under its name and in the type that the model declares",
                details="\n".join(said[1:]) or None,
            )
        )


def load_engine(job: Mapping[str, Any], book: LogBook | None = None) -> tuple[Any, Any]:
    """Deserialize the engine of a job; returns it and the runtime that it lives in.

    Args:
        job: `engine` (path), `backend`, `allow_host_code`, and `weights` (path) where an ONNX
            file's weights are to be put into the engine.
        book: takes what the library says, now and while the engine lives; left out, its lines go
            to the worker's log and no further.

    Raises:
        MissingError: the library is not installed.
        BuildError: the library does not take the engine, or the engine not the weights; carries
            what was logged.
    """
    flavour = FLAVOURS[job["backend"]]
    trt = load_module(flavour)
    book = book or LogBook(flavour.name, to_stderr)
    logger = make_logger(trt, book)
    trt.init_libnvinfer_plugins(logger, "")
    runtime = trt.Runtime(logger)
    if job["allow_host_code"]:
        runtime.engine_host_code_allowed = True
    path = Path(job["engine"])
    engine = runtime.deserialize_cuda_engine(path.read_bytes())
    if engine is None:
        raise _cannot_load(f"{flavour.name} {trt.__version__} cannot load {path.name}", job, book)
    if job.get("weights") is not None:
        refit(trt, engine, logger, Path(job["weights"]), book)
    return engine, runtime


def _cannot_load(what: str, job: Mapping[str, Any], book: LogBook) -> BuildError:
    reason = book.errors[0] if book.errors else "no reason given"
    hint = (
        "an engine runs only with the version it was built with and on the GPUs it was built for; "
        "rebuild it here"
    )
    if _HOST_CODE.search(reason) and not job["allow_host_code"]:
        hint = "an engine built with version_compatible brings code along, which runs on the CPU: "
        hint += "give --allow-host-code if you trust where it comes from"
    return BuildError(
        "TF0613", f"{what}: {reason}", hint=hint, details="\n".join(book.errors[1:]) or None
    )


def engine_profiles(engine: Any) -> tuple[dict[str, ShapeTriple], ...]:
    """The optimization profiles of an ICudaEngine: shapes of its inputs, or values."""
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    inputs = [name for name in names if engine.get_tensor_mode(name).name == "INPUT"]
    return tuple(
        {name: _profile_of(engine, name, index) for name in inputs}
        for index in range(engine.num_optimization_profiles)
    )


def _profile_of(engine: Any, name: str, index: int) -> ShapeTriple:
    if engine.is_shape_inference_io(name):
        # by position: the bindings call the first `name` and the second `profile_index`
        return ValueTriple(_triple(engine.get_tensor_profile_values(index, name)))
    return _triple(engine.get_tensor_profile_shape(name, index))


def _triple(shapes: Any) -> ShapeTriple:
    low, mid, high = (tuple(shape) for shape in shapes)
    return low, mid, high


def choose_profile(
    profiles: tuple[dict[str, ShapeTriple], ...], feeds: Mapping[str, arrays.Array]
) -> int:
    """The first profile that the feeds lie in: their shapes, and values that decide shapes.

    Raises:
        BuildError: there is none.
    """
    declared = profiles[0] if profiles else {}
    deciding = {name for name, triple in declared.items() if isinstance(triple, ValueTriple)}
    shapes: dict[str, Dims] = {
        name: tuple(map(int, array.ravel())) if name in deciding else array.shape
        for name, array in feeds.items()
    }
    index = covering_profile(profiles, shapes)
    if index is None:
        shown = ", ".join(
            f"{name}{' =' if name in deciding else ''} {list(shape)}"
            for name, shape in shapes.items()
        )
        raise BuildError(
            "TF0614",
            f"no optimization profile of the engine covers {shown}",
            hint=f"the engine has {len(profiles)} profile(s); build it with a wider one",
        )
    return index
