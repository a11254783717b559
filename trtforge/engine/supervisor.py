"""Runs a worker process and turns whatever becomes of it into a result or one clear error.

The worker is a session of its own, so a Ctrl-C reaches the parent only, and the parent decides:
it cancels, waits a little, kills. A worker never outlives its parent: it watches its stdin, and on
Linux the kernel kills it when the thread that started it ends.
"""

import contextlib
import json
import os
import queue
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from trtforge.disk import write_error
from trtforge.engine import layout, messages
from trtforge.engine.backend import OnProgress
from trtforge.engine.engine_file import partial_path
from trtforge.engine.environment import peak_rss_of
from trtforge.engine.worker_start import environment, of_one_length, of_one_size
from trtforge.errors import BuildError, ForgeError, MissingError

WORKER_PROGRAM = (sys.executable, "-P", "-m", "trtforge.engine.worker")
"""What is started; `-P` keeps modules in the current folder from standing in for the real ones."""

CANCEL_GRACE_S = 3.0
"""How long a worker may take to stop by itself before it is killed."""

_TAIL_LINES = 30
_TAIL_BYTES = 65536
_TICK_S = 0.1


@dataclass(frozen=True)
class Job:
    """One job for a worker.

    Attributes:
        subject: what it does, for messages, e.g. "building model.onnx with tensorrt_rtx".
        command: what the worker reads, plain JSON data.
        log: where its stderr goes.
        timeout_s: how long one answer may take, in seconds.
        program: what is started; the job's file is appended to it.
        environment: variables set for the worker, beside the parent's own.
        output: the file that it writes by an EngineFile, if any; leftovers of it are removed.
        memory_limit_mib: the worker is stopped once it holds more memory, MiB; None for no limit.
        cancelled: once set by any thread, the worker is stopped.
        is_kept: log and job's file stay after a failure; where they do not, no message names them.
    """

    subject: str
    command: Mapping[str, Any]
    log: Path
    timeout_s: float
    program: tuple[str, ...] = WORKER_PROGRAM
    environment: Mapping[str, str] = field(default_factory=dict)
    output: Path | None = None
    memory_limit_mib: int | None = None
    cancelled: threading.Event | None = None
    is_kept: bool = True

    @property
    def file(self) -> Path:
        """The job's file, beside its log."""
        return self.log.with_suffix(".job.json")

    @property
    def repeat(self) -> str:
        """The command that repeats the job by hand."""
        variables = [f"{name}={shlex.quote(value)}" for name, value in self.environment.items()]
        return " ".join([*variables, shlex.join([*self.program, str(self.file.absolute())])])


def run_worker(job: Job, on_progress: OnProgress | None = None) -> Any:
    """Do one job in a process of its own and return its result.

    After success the job's file is removed; after a failure it stays beside the log.

    Raises:
        ForgeError: the error that the worker reported.
        BuildError: the worker crashed, was killed, or ran out of time (exit 4).
        MissingError: the log cannot be written.
    """
    with Worker(job) as worker:
        value = worker.answer(on_progress)
    job.file.unlink(missing_ok=True)
    return value


class Worker:
    """A worker process while it lives; leaving the context ends it."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._messages: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()

    def __enter__(self) -> Self:
        job = self._job
        _require_memory_watch(job)
        try:
            job.file.write_bytes(of_one_size(json.dumps(job.command, indent=1)))
            self._log = job.log.open("wb")
        except OSError as error:
            raise write_error(error, job.log) from error
        try:
            with layout.fixed():
                self._process = subprocess.Popen(
                    [*job.program, of_one_length(job.file)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=self._log,
                    env=environment(job.command, job.environment),
                    start_new_session=True,
                )
        except OSError as error:
            self._log.close()
            raise MissingError(
                "TF0603", f"cannot start a worker for {job.subject}: {error}"
            ) from error
        self._reader = threading.Thread(
            target=_read, args=(self._process.stdout, self._messages), daemon=True
        )
        self._reader.start()
        return self

    @property
    def process_id(self) -> int:
        """The worker's process id."""
        return self._process.pid

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._close_stdin()
            if error is not None:
                self._signal(signal.SIGTERM)
            self._wait(CANCEL_GRACE_S)
        finally:
            self._kill()
            self._reader.join(1.0)
            self._log.close()
            self._remove_leftovers()

    def ask(self, request: Mapping[str, Any], on_progress: OnProgress | None = None) -> Any:
        """Send one request and return its answer; raises what `answer` raises."""
        pipe = self._process.stdin
        assert pipe is not None
        with contextlib.suppress(OSError):  # a worker that is gone is explained by `answer`
            pipe.write(messages.encode(request))
            pipe.flush()
        return self.answer(on_progress)

    def answer(self, on_progress: OnProgress | None = None) -> Any:
        """Wait for the next result, passing progress on.

        Raises:
            ForgeError: the error that the worker reported.
            BuildError: the worker crashed, was killed, or ran out of time (exit 4).
        """
        deadline = time.monotonic() + self._job.timeout_s
        while True:
            message = self._next(deadline)
            if message["event"] == "result":
                return message["value"]
            if message["event"] == "error":
                raise self._with_repeat(messages.raised(message))
            if on_progress is not None:
                on_progress(message["fraction"], message["phase"])

    def _next(self, deadline: float) -> dict[str, Any]:
        while (left := deadline - time.monotonic()) > 0:
            self._watch()
            # A worker may be gone while a process that it started keeps the line open.
            gone = self._process.poll() is not None
            try:
                message = self._messages.get(timeout=min(_TICK_S, left))
            except queue.Empty:
                if gone:
                    self._reader.join(min(CANCEL_GRACE_S, left))  # of a long answer, maybe
                    if self._messages.empty():
                        raise self._death() from None
                continue
            if message is None:
                self._wait(min(CANCEL_GRACE_S, left))
                raise self._death()
            return message
        raise self._timeout()

    def _watch(self) -> None:
        """Stop a worker that nobody waits for any more, or that holds too much memory.

        Its peak is asked for, so that one between two looks is seen. It is not left to RLIMIT_AS
        or RLIMIT_DATA: CUDA maps far more than it uses, and a library that is refused memory
        ends in some crash, not in a number. RSS is what builds report as their peak.
        """
        job = self._job
        if job.cancelled is not None and job.cancelled.is_set():
            raise BuildError("TF0611", f"{job.subject} was cancelled")
        if job.memory_limit_mib is None:
            return
        peak = peak_rss_of(self.process_id)
        if peak is not None and peak > job.memory_limit_mib << 20:
            self._kill()
            raise self._with_log(
                BuildError(
                    "TF0618",
                    f"{job.subject} was stopped: it took {peak / 2**20:.0f} MiB of memory, the "
                    f"limit is {job.memory_limit_mib} MiB",
                    hint=self._again(
                        "raise memory_limit_mib (about 2.7 times the weights, and 300)",
                        "the same again by hand, without the limit",
                    ),
                )
            )

    def _timeout(self) -> BuildError:
        self._signal(signal.SIGTERM)
        self._wait(CANCEL_GRACE_S)
        self._kill()
        return self._with_log(
            BuildError(
                "TF0612",
                f"{self._job.subject} took longer than {self._job.timeout_s:g} s and was stopped",
                hint=self._again("raise timeout_s"),
            )
        )

    def _death(self) -> BuildError:
        status = self._process.poll()
        if status is None:
            what = "the worker closed its line and did not end"
        elif status == -getattr(signal, "SIGKILL", 9):
            return self._with_log(
                BuildError(
                    "TF0610",
                    f"{self._job.subject} was killed (SIGKILL), most likely for want of memory",
                    hint=self._again("free memory or run fewer builds at once"),
                )
            )
        elif status < 0:
            what = f"it crashed ({signal.Signals(-status).name})"
        else:
            what = f"the worker ended with status {status} and no result"
        return self._with_log(
            BuildError(
                "TF0609",
                f"{self._job.subject} failed: {what}",
                hint=self._again(None, "the same again by hand, with the whole log", "--verbose"),
            )
        )

    def _again(
        self, hint: str | None, how: str = "the same again by hand", flag: str = ""
    ) -> str | None:
        """Add to a hint how the job is repeated, where it can be."""
        if not self._job.is_kept:
            return hint
        again = f"{how}: {self._job.repeat} {flag}".rstrip()
        return f"{hint}; {again}" if hint else again

    def _with_repeat(self, error: ForgeError) -> ForgeError:
        if not isinstance(error, BuildError):
            return error
        error.hint = self._again(error.hint, f"log: {self._job.log}; the same again by hand")
        return error

    def _with_log(self, error: BuildError) -> BuildError:
        try:
            error.details = _tail(self._job.log)
        except OSError as fault:
            error.details = f"its log cannot be read: {fault.strerror or fault}: {self._job.log}"
        return error

    def _remove_leftovers(self) -> None:
        if self._job.output is not None:
            with contextlib.suppress(OSError):
                partial_path(self._job.output, self.process_id).unlink(missing_ok=True)

    def _close_stdin(self) -> None:
        with contextlib.suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.close()

    def _wait(self, seconds: float) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)

    def _signal(self, number: int) -> None:
        with contextlib.suppress(OSError):
            self._process.send_signal(number)

    def _kill(self) -> None:
        """End the worker and whatever it started."""
        with contextlib.suppress(OSError):
            if sys.platform == "win32":
                self._process.kill()
            else:
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def _require_memory_watch(job: Job) -> None:
    if job.memory_limit_mib is not None and peak_rss_of("self") is None:
        raise MissingError(
            "TF0622",
            f"the memory of {job.subject} cannot be watched on this system",
            hint="leave memory_limit_mib out, or build on Linux",
        )


def _read(pipe: IO[bytes], into: "queue.SimpleQueue[dict[str, Any] | None]") -> None:
    with contextlib.suppress(OSError, ValueError):
        for line in pipe:
            if (message := messages.decode(line)) is not None:
                into.put(message)
    into.put(None)


def _tail(log: Path) -> str | None:
    """The last lines of a log."""
    with log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
        text = file.read().decode(errors="replace")
    return "\n".join(text.splitlines()[-_TAIL_LINES:]) or None
