"""Runs stages in order: from the store, or anew; engines side by side, each to its own end."""

import functools
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, Timeout

from trtforge.disk import write_error
from trtforge.engine.memory import available_bytes
from trtforge.errors import BuildError, ForgeError
from trtforge.graph.memory import give_back
from trtforge.pipeline.events import StageFinished, StageProgress, StageStarted, Warned
from trtforge.pipeline.memory_room import MemoryRoom
from trtforge.pipeline.plan import recipe_id, why_missed
from trtforge.pipeline.stage import Job, Stage, key_document
from trtforge.pipeline.stages.build import BuildStage
from trtforge.pipeline.stages.precision import warnings_of
from trtforge.pipeline.store import Entry, digest_of

_LOCK_LOOK_S = 0.5
_CANCEL_S = 6.0
"""How long builds may take to end when they are cancelled: twice the worker's own time for it."""


@dataclass(frozen=True)
class Effort:
    """How stages are run.

    Attributes:
        force: run every stage, whatever the store holds.
        jobs: how many engines are built at once.
        memory_mib: what these may take together, by estimate, MiB; None for what there is.
    """

    force: bool = False
    jobs: int = 1
    memory_mib: int | None = None


@dataclass(frozen=True)
class StageRow:
    """What one stage did: `hit` or `ran`, and its wall time in seconds."""

    name: str
    outcome: str
    seconds: float


Outcome = tuple[Entry, StageRow] | ForgeError


def run_stages(
    job: Job, stages: Sequence[Stage], effort: Effort, held: Path | None = None
) -> tuple[dict[str, Entry], list[StageRow]]:
    """Run stages in order; return entries and one row each.

    When engines fail, the others are built and stored first.

    Args:
        job: the recipe and the store.
        stages: in order.
        effort: how they are run.
        held: a folder of the store's `scratch()`; as long as it is there, nobody takes the entries
            away. None to trust that nobody does.

    Raises:
        ForgeError: a stage failed; of several engines all failures, by the status of the first.
    """
    run = _Run(job, effort.force, held)
    documents = dict(run.last)
    rows: list[StageRow] = []
    for group in _groups(stages):
        outcomes = run.group(group, effort)
        for stage, outcome in zip(group, outcomes, strict=True):
            if isinstance(outcome, ForgeError):
                continue
            entry, row = outcome
            run.entries[stage.name] = entry
            if stage.kind == "precision":
                for text in warnings_of(entry, job.recipe):
                    job.emit(Warned(text))
            documents[stage.name] = dict(entry.document)
            rows.append(row)
        job.store.remember(recipe_id(job), documents)
        _raise_failures(job, group, outcomes)
    return run.entries, rows


def _groups(stages: Sequence[Stage]) -> Iterator[list[Stage]]:
    """Yield stages one by one, but engine builds, which are independent, together."""
    builds: list[Stage] = []
    for stage in stages:
        if isinstance(stage, BuildStage):
            builds.append(stage)
            continue
        if builds:
            yield builds
            builds = []
        yield [stage]
    if builds:
        yield builds


def _raise_failures(job: Job, group: Sequence[Stage], outcomes: Sequence[Outcome]) -> None:
    """Raise one error for all that failed, each told with its target's name."""
    failed = {
        stage.name.removeprefix("build:"): outcome
        for stage, outcome in zip(group, outcomes, strict=True)
        if isinstance(outcome, ForgeError)
    }
    if not failed:
        return
    first, *_ = failed.values()
    left = [f"--target {one.name}" for one in job.recipe.targets if one.name not in failed]
    if isinstance(group[0], BuildStage) and left:
        job.emit(Warned(f"nothing is shipped; `{' '.join(left)}` ships what can be built"))
    if len(group) > 1:
        problems = [
            replace(problem, message=f"target '{target}': {problem.message}")
            for target, error in failed.items()
            for problem in error.problems
        ]
        details = [
            f"target '{target}':\n{error.details}"
            for target, error in failed.items()
            if error.details
        ]
        first.message, first.more = problems[0].message, tuple(problems[1:])
        first.details = "\n\n".join(details) or None
    raise first


class _Run:
    """Stages of one job on their way; `entries` are those that are done."""

    def __init__(self, job: Job, force: bool, held: Path | None) -> None:
        self._job = job
        self._force = force
        self._held = held
        self.last = job.store.recall(recipe_id(job))
        self.entries: dict[str, Entry] = {}

    def group(self, group: Sequence[Stage], effort: Effort) -> list[Outcome]:
        """Run stages that need nothing of each other; return what became of each.

        One by one in this thread, which Ctrl-C reaches at once, unless several jobs are allowed.
        """
        if effort.jobs == 1 or len(group) == 1:
            room = MemoryRoom(None)
            return [self._attempt(stage, room) for stage in group]
        room = MemoryRoom(
            available_bytes() if effort.memory_mib is None else effort.memory_mib << 20
        )
        pool = ThreadPoolExecutor(max_workers=effort.jobs)
        running = [pool.submit(self._attempt, stage, room) for stage in group]
        try:
            return [future.result() for future in running]
        except BaseException:  # Ctrl-C, or a bug of ours
            self._job.cancelled.set()
            pool.shutdown(wait=False, cancel_futures=True)
            wait([future for future in running if not future.cancelled()], _CANCEL_S)
            raise
        finally:
            pool.shutdown(wait=False)

    def _attempt(self, stage: Stage, room: MemoryRoom) -> Outcome:
        try:
            return self._run(stage, room)
        except ForgeError as error:
            return error

    def _run(self, stage: Stage, room: MemoryRoom) -> tuple[Entry, StageRow]:
        job = self._job
        started = time.monotonic()
        document = key_document(stage, job, self.entries)
        key = digest_of(document)
        lock = job.store.lock(key)
        self._acquire(lock, stage)
        try:
            entry = None if self._force else job.store.get(stage.kind, key)
            if entry is not None:
                seconds = time.monotonic() - started
                job.emit(StageFinished(stage.name, "hit", seconds))
                return self._hold(entry), StageRow(stage.name, "hit", seconds)
            why = "--force" if self._force else why_missed(stage, document, self.last)
            with self._memory(stage, room):
                job.emit(StageStarted(stage.name, why))
                entry, note = _make(job, stage, self.entries, document, time.monotonic())
            seconds = time.monotonic() - started
            job.emit(StageFinished(stage.name, "ran", seconds, note))
            return self._hold(entry), StageRow(stage.name, "ran", seconds)
        finally:
            lock.release()

    def _hold(self, entry: Entry) -> Entry:
        return entry if self._held is None else self._job.store.hold(entry, self._held)

    def _acquire(self, lock: BaseFileLock, stage: Stage) -> None:
        seconds = 0.0
        while not lock.is_locked:
            with suppress(Timeout):
                lock.acquire(timeout=seconds)
                return
            self._wait_for(stage, "another build of the same")
            seconds = _LOCK_LOOK_S

    def _memory(self, stage: Stage, room: MemoryRoom) -> AbstractContextManager[None]:
        if not isinstance(stage, BuildStage):
            return nullcontext()
        waiting = functools.partial(self._wait_for, stage, "memory that other builds take")
        return room.taken(stage.memory_bytes(self.entries), waiting)

    def _wait_for(self, stage: Stage, what: str) -> None:
        if self._job.cancelled.is_set():
            raise BuildError("TF0611", f"{stage.name} was cancelled")
        self._job.emit(StageProgress(stage.name, None, f"waiting for {what}"))


def _make(
    job: Job, stage: Stage, inputs: Mapping[str, Entry], document: Mapping[str, Any], started: float
) -> tuple[Entry, str]:
    """Run a stage in a scratch folder and move the result into the store."""
    with job.store.scratch() as scratch:
        made = scratch / "made"
        try:
            made.mkdir()
            note = stage.run(job, inputs, made, functools.partial(_tell, job, stage))
        except BrokenPipeError:  # whoever read our progress went away; no file is concerned
            raise
        except OSError as error:
            raise write_error(error, made, f"the result of stage {stage.name}") from error
        give_back()
        entry = job.store.put(stage.kind, document, made, time.monotonic() - started)
    if isinstance(stage, BuildStage):
        try:
            stage.require_engine_as_written(entry)
        except BuildError:
            job.store.drop(entry)
            raise
    return entry, note


def _tell(job: Job, stage: Stage, share: float | None, text: str) -> None:
    job.emit(StageProgress(stage.name, share, text))
