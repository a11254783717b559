"""One command, measured: wall time, processor time and peak memory of its whole process tree.

The peak is the larger of two: the sum of resident memory over the tree, sampled from /proc (misses
short peaks), and the kernel's own high-water mark of the largest process in it (exact, but not a
sum). Resident memory holds mapped files too, so reading by mapping is not hidden. The kernel's
mark starts at what the parent had resident when it started the child: the parent must stay small,
which is why nothing here imports numpy or onnx.
"""

import os
import signal
import subprocess
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

SAMPLE_SECONDS = 0.05
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_STAT_PARENT = 1  # fields of /proc/PID/stat after the name, see proc_pid_stat(5)
_STAT_RESIDENT = 21


@dataclass(frozen=True)
class Limits:
    """When a command is stopped."""

    seconds: float
    memory_bytes: int


@dataclass(frozen=True)
class Outcome:
    """A command that has ended.

    Attributes:
        seconds: wall time from before the start to after the end of the process.
        processor_seconds: user and system time.
        peak_bytes: the most memory of the process tree.
        exit: exit status, negative for a signal.
        stopped: why it was stopped, None where it ended by itself.
        stdout: all of it.
        stderr: all of it.
    """

    seconds: float
    processor_seconds: float
    peak_bytes: int
    exit: int
    stopped: str | None
    stdout: str
    stderr: str

    @property
    def failed(self) -> str | None:
        """Why it failed, in a line; None where it did not."""
        if self.stopped is not None:
            return self.stopped
        if self.exit == 0:
            return None
        said = [line.strip() for line in (self.stdout + self.stderr).splitlines() if line.strip()]
        return f"exit {self.exit}: {said[-1] if said else 'said nothing'}"


class _Watch(threading.Thread):
    """Samples the memory of a process tree; stops the tree where it passes a limit."""

    def __init__(self, process: int, limits: Limits) -> None:
        super().__init__(daemon=True)
        self.peak_bytes = 0
        self.stopped: str | None = None
        self._process = process
        self._limits = limits
        self._ended = threading.Event()

    def run(self) -> None:
        deadline = time.monotonic() + self._limits.seconds
        while not self._ended.wait(SAMPLE_SECONDS):
            now_bytes = tree_bytes(self._process)
            self.peak_bytes = max(self.peak_bytes, now_bytes)
            if now_bytes > self._limits.memory_bytes:
                self._kill(f"stopped above {self._limits.memory_bytes / 2**30:.0f} GiB of memory")
            elif time.monotonic() > deadline:
                self._kill(f"stopped after {self._limits.seconds:.0f} s")

    def end(self) -> None:
        self._ended.set()
        self.join()

    def _kill(self, why: str) -> None:
        self.stopped = why
        self._ended.set()
        with suppress(ProcessLookupError):
            os.killpg(self._process, signal.SIGKILL)


def measure(command: list[str], folder: Path, limits: Limits) -> Outcome:
    """Run a command in `folder`, which must exist and gets what it says as two files."""
    stdout, stderr = folder / "stdout.txt", folder / "stderr.txt"
    with stdout.open("wb") as out, stderr.open("wb") as err:
        started = time.perf_counter()
        # Installed packages come compiled; so must a checkout be after its first, untimed run.
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
        watch = _Watch(process.pid, limits)
        watch.start()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        watch.end()
        process.returncode = os.waitstatus_to_exitcode(status)
    return Outcome(
        seconds=seconds,
        processor_seconds=usage.ru_utime + usage.ru_stime,
        peak_bytes=max(watch.peak_bytes, usage.ru_maxrss * 1024),
        exit=process.returncode,
        stopped=watch.stopped,
        stdout=stdout.read_text(encoding="utf-8", errors="replace"),
        stderr=stderr.read_text(encoding="utf-8", errors="replace"),
    )


def tree_bytes(root: int) -> int:
    """Return the resident memory of a process and all its descendants."""
    children: dict[int, list[int]] = {}
    resident: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and (facts := _parent_and_bytes(entry)) is not None:
            children.setdefault(facts[0], []).append(int(entry.name))
            resident[int(entry.name)] = facts[1]
    total, left = 0, [root]
    while left:
        process = left.pop()
        total += resident.get(process, 0)
        left += children.get(process, [])
    return total


def _parent_and_bytes(process: Path) -> tuple[int, int] | None:
    try:
        stat = (process / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None  # it has ended
    fields = stat.rpartition(")")[2].split()
    return int(fields[_STAT_PARENT]), int(fields[_STAT_RESIDENT]) * _PAGE_BYTES
