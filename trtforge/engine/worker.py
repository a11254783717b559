"""The child process in which a native library may crash.

Started as `python -m trtforge.engine.worker JOB.json`.
Reads a job, writes JSON lines (progress, then a result or an error) to stdout; everything that
native code prints, and the builder's log, goes to stderr. SIGINT and SIGTERM cancel. Started by
`supervisor.run_worker`, the process dies with its parent; by hand it just runs, which is how a
failed build is repeated.
"""

import contextlib
import ctypes
import dataclasses
import json
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from trtforge.engine import messages
from trtforge.engine.backend import BuildRequest
from trtforge.errors import BuildError, ForgeError

PARENT_VARIABLE = "TRTFORGE_WORKER_PARENT"
"""Environment variable with the process id of the parent that the worker must not outlive."""

BACKEND_VARIABLE = "TRTFORGE_WORKER_BACKEND"
"""Environment variable with the backend whose library is loaded first of all; empty for none."""

_PR_SET_PDEATHSIG = 1  # Source: linux/prctl.h
_ORPHAN_GRACE_S = 5.0


_READ_BYTES = 65536

_HERE = Path("/proc/self/cwd" if sys.platform.startswith("linux") else ".")
"""The current folder under a name of one length: the library asks for the whole path of a bare name
and keeps it in memory."""


class Channel:
    """The line to the parent: stdout as it was, while stdout itself now leads to stderr."""

    def __init__(self) -> None:
        sys.stdout.flush()
        self._out = os.dup(1)
        os.dup2(2, 1)
        self._lock = threading.Lock()

    def send(self, message: Mapping[str, Any]) -> None:
        """Send one message; a parent that is gone is no error here, the watch ends the process."""
        line = messages.encode(message)
        with self._lock:
            try:
                while line:
                    line = line[os.write(self._out, line) :]
            except OSError:
                return


class Requests:
    """What the parent writes to stdin; also the watch for its end."""

    def __init__(self) -> None:
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        settled = threading.Event()
        threading.Thread(target=self._read, args=(settled,), name="parent", daemon=True).start()
        settled.wait()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield each request until the parent closes the line."""
        while (line := self._lines.get()) is not None:
            yield json.loads(line)

    def _read(self, settled: threading.Event) -> None:
        # glibc gives a thread its heap at its first allocation. If that came at some moment while
        # the main thread loads libraries, these would lie elsewhere (see `layout`).
        bytearray(_READ_BYTES)
        settled.set()
        # Not through sys.stdin: a thread that waits in its buffer blocks the interpreter's end.
        rest = b""
        while chunk := os.read(0, _READ_BYTES):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._lines.put(line.decode())
        self._lines.put(None)
        # The parent closed the line or died: what still runs after a while runs for nobody.
        threading.Event().wait(_ORPHAN_GRACE_S)
        os._exit(1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Do the job in the file named on the command line; returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    verbose = "--verbose" in arguments
    paths = [text for text in arguments if text != "--verbose"]
    if len(paths) != 1:
        sys.stderr.write("usage: python -m trtforge.engine.worker [--verbose] JOB.json\n")
        return 2
    parent = os.environ.get(PARENT_VARIABLE)
    if parent is not None:
        _die_with(int(parent))
    _no_core_files()
    channel = Channel()
    cancelled = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _setter(cancelled))
    requests = Requests() if parent is not None else None
    _preload(os.environ.get(BACKEND_VARIABLE, ""))
    job = json.loads(_content(paths[0]))
    work = _Work(job | {"verbose": verbose}, channel, requests, cancelled)
    work.prepare()
    # Signal handlers run in the main thread only, and native code would keep it from running them.
    thread = threading.Thread(target=work.run, name="work")
    thread.start()
    thread.join()
    return work.status


def _content(path: str) -> bytes:
    """Read a file; as a Path its name would be taken apart, into lists as long as it is."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.read(descriptor, os.fstat(descriptor).st_size)
    finally:
        os.close(descriptor)


def _preload(backend: str) -> None:
    """Import what a build needs before anything else is in memory.

    So the layout of the library's own data depends neither on the job nor on whether Python had
    to compile a module (see `layout`).
    """
    if backend:
        import trtforge.engine.tensorrt
        from trtforge.engine.flavour import FLAVOURS

        with contextlib.suppress(ForgeError, KeyError):  # said again by the build itself
            trtforge.engine.tensorrt.load_module(FLAVOURS[backend])


class _Work:
    """One job, done in its own thread; the outcome is sent and kept as exit status."""

    def __init__(
        self,
        job: dict[str, Any],
        channel: Channel,
        requests: Requests | None,
        cancelled: threading.Event,
    ) -> None:
        self._job = job
        self._channel = channel
        self._requests = requests
        self._cancelled = cancelled
        self.status = 1

    def prepare(self) -> None:
        """Handle a build's paths before its thread starts, which has a heap of its own.

        So the layout of that heap does not depend on how long they are (see `layout`). The library
        sees the bare name of the model.
        """
        if self._job.get("command") == "build":
            request = BuildRequest.from_json(self._job["request"])
            with contextlib.suppress(OSError):  # said again by the build itself
                os.chdir(request.onnx.parent)
                request = dataclasses.replace(request, onnx=_HERE / request.onnx.name)
            self._request = request

    def run(self) -> None:
        try:
            self._channel.send(messages.result(self._command()))
            self.status = 0
        except ForgeError as error:
            self._channel.send(messages.failure(error))
            self.status = error.exit_status
        except MemoryError:
            self._channel.send(messages.failure(_out_of_memory()))
        except Exception as error:
            traceback.print_exc()
            self._channel.send(messages.failure(_unexpected(error)))

    def _command(self) -> Any:
        commands: dict[str, Callable[[], Any]] = {
            "build": self._build,
            "infer": self._infer,
            "probe": self._probe,
            "layers": self._layers,
            "measure": self._measure,
            "network": self._network,
        }
        return commands[self._job["command"]]()

    def _build(self) -> Any:
        from trtforge.engine.tensorrt import Reporting, build_engine

        reporting = Reporting(
            sink=to_stderr,
            emit=lambda fraction, phase: self._channel.send(messages.progress(fraction, phase)),
            cancelled=self._cancelled,
            verbose=self._job["verbose"],
        )
        return build_engine(self._request, reporting).as_json()

    def _infer(self) -> Any:
        from trtforge.engine.infer import serve

        cases = self._job.get("cases") or self._requests or ()
        return serve(self._job, cases, self._channel.send)

    def _layers(self) -> Any:
        from trtforge.engine.inspector import inspect_engine

        return inspect_engine(self._job)

    def _measure(self) -> Any:
        from trtforge.engine.measuring.served import serve_loads

        return serve_loads(self._job, self._requests or (), self._channel.send)

    def _network(self) -> Any:
        from trtforge.engine.tensorrt import describe_network

        return describe_network(self._job, to_stderr)

    def _probe(self) -> Any:
        from trtforge.engine.probe import probe

        return probe(self._job)


def to_stderr(line: str) -> None:
    """Write one line of the log, past all buffers: a crash must not lose it."""
    os.write(2, f"{line}\n".encode(errors="replace"))


def _setter(cancelled: threading.Event) -> Callable[[int, FrameType | None], None]:
    def cancel(number: int, frame: FrameType | None) -> None:
        cancelled.set()

    return cancel


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent dies, however that dies (Linux)."""
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)


def _no_core_files() -> None:
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _out_of_memory() -> BuildError:
    return BuildError(
        "TF0610", "the worker ran out of memory", hint="free memory, or run fewer builds at once"
    )


def _unexpected(error: Exception) -> BuildError:
    return BuildError(
        "TF0609",
        f"the worker failed: {type(error).__name__}: {error}",
        hint="its log has the traceback",
        details=traceback.format_exc(),
    )


if __name__ == "__main__":
    status = main()
    sys.stderr.flush()
    # Not sys.exit: the outcome is out, and native libraries may crash while they are unloaded.
    os._exit(status)
