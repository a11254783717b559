"""Ctrl-C between two steps rather than within one, so that what a step changes stays whole."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def interrupts_between() -> Iterator[Callable[[], bool]]:
    """Hold back the first Ctrl-C; a second one comes at once.

    The yielded function tells whether one is held back: the place to put things in order and to
    raise KeyboardInterrupt. In another thread than the main one, or where somebody else handles
    the signal, nothing changes.

    Raises:
        KeyboardInterrupt: at the end, when one was held back and nobody raised it.
    """
    held = False
    previous = signal.getsignal(signal.SIGINT)
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or previous is not signal.default_int_handler:
        yield lambda: False
        return

    def hold(_signal: int, _frame: FrameType | None) -> None:
        nonlocal held
        held = True
        signal.signal(signal.SIGINT, previous)

    signal.signal(signal.SIGINT, hold)
    try:
        yield lambda: held
        if held:
            raise KeyboardInterrupt
    finally:
        signal.signal(signal.SIGINT, previous)
