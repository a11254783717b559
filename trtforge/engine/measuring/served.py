"""Measures an engine on the GPU; inside the worker process only."""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trtforge.engine import arrays, messages
from trtforge.engine.cuda import Cuda
from trtforge.engine.environment import ELSEWHERE, driver
from trtforge.engine.flavour import FLAVOURS
from trtforge.engine.infer import explained, load_engine
from trtforge.engine.interface import Interface
from trtforge.engine.lane import Pinned
from trtforge.engine.measuring.power import Power
from trtforge.engine.measuring.scenarios import Load, Query, measure
from trtforge.engine.native_log import LogBook
from trtforge.engine.session import Session, SessionOptions
from trtforge.engine.tensorrt import load_module
from trtforge.engine.worker import to_stderr
from trtforge.errors import BuildError, MissingError

_RANDOM = 16

Send = Callable[[Mapping[str, Any]], None]


def serve_loads(
    job: Mapping[str, Any], requests: Iterable[Mapping[str, Any]], send: Send
) -> dict[str, Any]:
    """Load an engine, run every batch once, say so, and answer each load with its times.

    Args:
        job: as `infer.load_engine` takes it; `batches` (.npz files with `path` and
            `members`, see `arrays.store`), or, where there are none, `batch`: samples in each of
            some random batches; `streams`, `graphs`, `runtime_cache` (path or None), see
            SessionOptions.
        requests: each has `load`, the fields of a Load.
        send: takes the answers: facts of the session first, then per load `times`, `device_times`
            and `seconds` (all in seconds), `joules` and `gpu` (see `Power.state`).

    Raises:
        MissingError: no NVIDIA driver, or a library is not installed.
        BuildError: the engine cannot be loaded, or does not take the batches.
    """
    if (reason := driver().reason) is not None:
        raise MissingError("TF0603", f"cannot run {Path(job['engine']).name}: {reason}", ELSEWHERE)
    cuda = Cuda()
    power = Power(cuda.bus_id())
    idle = power.idle_watts()
    book = LogBook(job["backend"], to_stderr)
    free = cuda.free_bytes()
    engine, runtime = load_engine(job, book)
    cache = job["runtime_cache"]
    options = SessionOptions(job["streams"], job["graphs"], Path(cache) if cache else None)
    with Session(load_module(FLAVOURS[job["backend"]]), engine, cuda, options) as session:
        given = [arrays.load(Path(one["path"]), one["members"]) for one in job["batches"]]
        batches = [
            session.pin(one) for one in given or random_batches(session.interface, job["batch"])
        ]
        try:
            for batch in batches:
                session.prepare(batch)
        except BuildError as error:
            raise explained(error, book.errors) from error
        session.keep_runtime_cache()
        facts = {"idle_watts": idle, "device_memory_bytes": max(0, free - cuda.free_bytes())}
        send(messages.result({**session.facts, **facts, "gpu": power.state()}))
        for request in requests:
            try:
                send(messages.result(_answer(session, batches, Load(**request["load"]), power)))
            except BuildError as error:  # the parent decides whether another load is tried
                send(messages.failure(explained(error, book.errors)))
        for batch in batches:
            for one in batch.values():
                one.free()
    del engine, runtime  # in this order: an engine must not outlive its runtime
    return {}


def random_batches(interface: Interface, batch: int) -> list[dict[str, arrays.Array]]:
    """Inputs of the shapes that the engine's first profile is tuned for, seeded.

    Args:
        interface: of the engine.
        batch: size of the first dimension, where that is dynamic.
    """
    made = []
    for seed in range(_RANDOM):
        rng = np.random.default_rng(seed)
        feeds = {}
        for name, dtype in interface.inputs.items():
            low, best, high = interface.profiles[0][name]
            if name in interface.deciding:
                feeds[name] = np.array(best, dtype).reshape(interface.deciding[name])
                continue
            shape = (batch, *best[1:]) if best and low[0] != high[0] else best
            is_whole = dtype.kind in "biu"  # 0 and 1: tokens and masks take any model's of these
            values = rng.integers(0, 2, shape) if is_whole else rng.standard_normal(shape)
            feeds[name] = values.astype(dtype)
        made.append(feeds)
    return made


def _answer(
    session: Session, batches: Sequence[Pinned], load: Load, power: Power
) -> dict[str, Any]:
    timed = _Timed(session)
    before: list[float | None] = []

    def begin() -> None:
        timed.device_times.clear()
        before.append(power.joules())

    found = measure([timed.query(batch) for batch in batches], load, begin)
    after = power.joules()
    joules = None if after is None or before[0] is None else after - before[0]
    return {
        "times": found.times,
        "seconds": found.seconds,
        "device_times": timed.device_times,
        "joules": joules,
        "gpu": power.state(),
    }


class _Timed:
    """Queries that also take the device's time; from several threads, as streams are."""

    def __init__(self, session: Session) -> None:
        self.device_times: list[float] = []
        self._session = session
        self._lock = threading.Lock()

    def query(self, batch: Pinned) -> Query:
        def run() -> None:
            with self._session.submit(batch) as pending:
                seconds = pending.wait()
            with self._lock:
                self.device_times.append(seconds)

        return run
