"""Signals that end a command: each as Ctrl-C does, and between two steps rather than within one.

CI systems stop a job by SIGTERM, a terminal that closes sends SIGHUP. The exit status is what a
shell reports of a program that a signal ended: 128 and the signal's number, so 130 for Ctrl-C.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_IMPORT_LOOK_S = 0.05
"""How long a signal waits for an import to end, before it looks again."""

_LONGEST_IMPORT_S = 4.0
"""A module of the user's may do its whole work while it is imported."""


class Stopped(KeyboardInterrupt):
    """A signal asked this process to end; whoever cleans up after Ctrl-C does so after it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = signal.Signals(number)


def stop_on_signals() -> None:
    """Have Ctrl-C, SIGTERM and SIGHUP raise `Stopped`, but for those that the caller ignores."""
    for number in (signal.SIGINT, *_pair()):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup does
            signal.signal(number, _stop)


@contextmanager
def interrupts_between() -> Iterator[Callable[[], bool]]:
    """Hold back the first signal; a second one comes at once, but for SIGHUP beside SIGTERM.

    The yielded function tells whether one is held back: the place to put things in order and to
    raise KeyboardInterrupt. In another thread than the main one, and of signals that somebody else
    handles, nothing changes.

    Raises:
        KeyboardInterrupt: what the signal would have raised; at the end, when one was held back and
            nobody raised it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    held: list[signal.Signals] = []
    ours = (signal.default_int_handler, _stop)
    before = {
        number: handler
        for number in (signal.SIGINT, *_pair())
        if (handler := signal.getsignal(number)) in ours
    }

    def hold(number: int, _: FrameType | None) -> None:
        held.append(signal.Signals(number))
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)
        if held:
            _pass_over_beside(held[0])

    for number in before:
        signal.signal(number, hold)
    try:
        yield lambda: bool(held)
    except KeyboardInterrupt as error:
        if not held or isinstance(error, Stopped):
            raise
    finally:
        restore()
    if held and before[held[0]] is _stop:
        raise Stopped(held[0])
    if held:
        raise KeyboardInterrupt


def _pair() -> tuple[signal.Signals, ...]:
    """SIGTERM and, where there is one, SIGHUP."""
    names = ("SIGTERM", "SIGHUP")
    return tuple(getattr(signal, name) for name in names if hasattr(signal, name))


def _stop(number: int, frame: FrameType | None) -> None:
    _wait_for_imports(number, frame, time.monotonic() + _LONGEST_IMPORT_S)


def _wait_for_imports(number: int, frame: FrameType | None, deadline: float) -> None:
    """Raise `Stopped`, or look again soon: an exception that meets C++ in an import aborts."""
    is_early = time.monotonic() < deadline
    if is_early and hasattr(signal, "pthread_kill") and _is_importing(frame):
        me = threading.get_ident()  # the main thread, whose sleep a signal to another does not end
        is_time = threading.Event()

        def look() -> None:
            is_time.set()
            signal.pthread_kill(me, number)

        def again(_: int, now: FrameType | None) -> None:
            """Look once per timer: whoever presses Ctrl-C again meanwhile has no timer of his."""
            if is_time.is_set() or not _is_importing(now):
                timer.cancel()
                _wait_for_imports(number, now, deadline)

        signal.signal(number, again)
        timer = threading.Timer(_IMPORT_LOOK_S, look)
        timer.daemon = True
        timer.start()
        return
    signal.signal(number, _stop)
    _pass_over_beside(number)
    raise Stopped(number)


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _pass_over_beside(number: int) -> None:
    """Let nothing but Ctrl-C end the cleaning up: SIGTERM and SIGHUP come in pairs."""
    if number != signal.SIGINT:
        for one in _pair():
            signal.signal(one, _pass_over)


def _pass_over(_: int, __: FrameType | None) -> None:
    """Do nothing; SIG_IGN would make Python complain of one that is on its way already."""
