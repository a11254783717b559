"""Loads an engine and runs it on the GPU; inside the worker process only."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trtforge.engine import arrays, messages
from trtforge.engine.cuda import Cuda
from trtforge.engine.environment import ELSEWHERE, driver
from trtforge.engine.flavour import FLAVOURS
from trtforge.engine.native_log import LogBook, make_logger
from trtforge.engine.refit import refit, require_weights
from trtforge.engine.session import Session
from trtforge.engine.tensorrt import load_module
from trtforge.engine.weight_streaming import set_weight_budget
from trtforge.engine.worker import to_stderr
from trtforge.errors import BuildError, MissingError

_HOST_CODE = re.compile(r"host.?code|lean.?runtime", re.IGNORECASE)
"""What an engine that may not run its own code is refused with speaks of one of these."""

_PLUGIN = re.compile(r"plugin", re.IGNORECASE)
"""What an engine is refused with whose plugins nothing registered speaks of them."""

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
        raise MissingError("TF0603", f"cannot run {Path(job['engine']).name}: {reason}", ELSEWHERE)
    book = LogBook(job["backend"], to_stderr)
    engine, runtime = load_engine(job, book)
    count = 0
    with Session(load_module(FLAVOURS[job["backend"]]), engine, Cuda()) as session:
        send(messages.result(session.interface.as_json()))
        for case in cases:
            send(_answer(session, case, book))
            count += 1
    del engine, runtime  # in this order: an engine must not outlive its runtime
    return count


def _answer(session: Session, case: Mapping[str, Any], book: LogBook) -> dict[str, Any]:
    known = len(book.errors)
    try:
        outputs = session.infer(arrays.load(Path(case["feeds"]), case["members"]))
        return messages.result({"members": arrays.store(Path(case["outputs"]), outputs)})
    except BuildError as error:  # this case is refused; the next may fit
        return messages.failure(explained(error, book.errors[known:]))


def explained(failure: BuildError, said: Sequence[str]) -> BuildError:
    """Add what the library logged, which a session does not see."""
    if said:
        failure.message = f"{failure.message}: {said[0]}"
        failure.details = "\n".join(said) if len(said) > 1 else None
    return failure


def load_engine(job: Mapping[str, Any], book: LogBook | None = None) -> tuple[Any, Any]:
    """Deserialize the engine of a job; returns it and the runtime that it lives in.

    Args:
        job: `engine` (path), `backend`, `allow_host_code`; where the engine is to run also
            `weights` (path of the ONNX file whose weights it gets, or None) and `weight_budget`
            (see `weight_streaming.set_weight_budget`, or None for all).
        book: takes what the library says, now and while the engine lives; left out, its lines go
            to the worker's log and no further.

    Raises:
        MissingError: the library is not installed.
        BuildError: the library does not take the engine, the engine lacks its weights, or does not
            take those given or the budget; carries what was logged.
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
    if "weights" in job:
        _prepare(trt, engine, logger, job, book)
    return engine, runtime


def _prepare(trt: Any, engine: Any, logger: Any, job: Mapping[str, Any], book: LogBook) -> None:
    """Make an engine ready to run: its weights, and how many of them the GPU holds."""
    if job["weights"] is not None:
        refit(trt, engine, logger, Path(job["weights"]), book)
    else:
        require_weights(trt, engine, Path(job["engine"]).name)
    if job["weight_budget"] is not None:
        known = len(book.errors)
        try:
            set_weight_budget(engine, job["weight_budget"])
        except BuildError as error:
            raise explained(error, book.errors[known:]) from error


def _cannot_load(what: str, job: Mapping[str, Any], book: LogBook) -> BuildError:
    reason = book.errors[0] if book.errors else "no reason given"
    hint = (
        "an engine runs only with the version it was built with and on the GPUs it was built for; "
        "rebuild it here"
    )
    if _HOST_CODE.search(reason) and not job["allow_host_code"]:
        hint = "an engine built with version_compatible brings code along, which runs on the CPU: "
        hint += "give --allow-host-code if you trust where it comes from"
    elif _PLUGIN.search(reason):
        hint = (
            "the engine needs a plugin that none of TensorRT's own libraries brings: preload the "
        )
        hint += "library that registers it (LD_PRELOAD), if you trust where it comes from"
    return BuildError(
        "TF0613", f"{what}: {reason}", hint=hint, details="\n".join(book.errors[1:]) or None
    )
