"""Signals that end a command: each ends it as Ctrl-C does, workers ended and nothing half-written.

CI systems stop a job by SIGTERM, a terminal that closes sends SIGHUP. The exit status is what a
shell reports of a program that a signal ended: 128 and the signal's number, so 130 for Ctrl-C.
"""

import contextlib
import signal
import sys
from types import FrameType
from typing import NoReturn


class Stopped(KeyboardInterrupt):
    """A signal asked this process to end; whoever cleans up after Ctrl-C does so after it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = signal.Signals(number)


def _signals() -> tuple[signal.Signals, ...]:
    """SIGTERM and, where there is one, SIGHUP."""
    names = ("SIGTERM", "SIGHUP")
    return tuple(getattr(signal, name) for name in names if hasattr(signal, name))


def stop_on_signals() -> None:
    """Have SIGTERM and SIGHUP raise `Stopped`, but for those that the caller ignores (nohup)."""
    for number in _signals():
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _stop)


def _stop(number: int, _: FrameType | None) -> NoReturn:
    for one in _signals():  # which come in pairs, and must not end the cleaning up
        signal.signal(one, _pass_over)
    raise Stopped(number)


def _pass_over(_: int, __: FrameType | None) -> None:
    """Do nothing; SIG_IGN would make Python complain of one that is on its way already."""


def say_stopped(error: KeyboardInterrupt) -> int:
    """Say in one line what ended the command; return its exit status."""
    number = error.number if isinstance(error, Stopped) else signal.SIGINT
    with contextlib.suppress(OSError):  # a terminal that closed takes no line
        behind_live_line = "\n" if sys.stderr.isatty() else ""
        name = "" if number is signal.SIGINT else f" ({number.name})"
        sys.stderr.write(f"{behind_live_line}interrupted{name}\n")
    return 128 + number
