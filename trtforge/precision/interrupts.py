"""Ctrl-C between two steps rather than within one, so that what a step changes stays whole."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def interrupts_between() -> Iterator[Callable[[], None]]:
    """Hold back the first Ctrl-C until the yielded function is called; a second one comes at once.

    Native code holds it back anyway. In another thread than the main one nothing changes.

    Raises:
        KeyboardInterrupt: from the yielded function.
    """
    held = False

    def check() -> None:
        if held:
            raise KeyboardInterrupt

    previous = signal.getsignal(signal.SIGINT)
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or previous is not signal.default_int_handler:
        yield check
        return

    def hold(_signal: int, _frame: FrameType | None) -> None:
        nonlocal held
        held = True
        signal.signal(signal.SIGINT, previous)

    signal.signal(signal.SIGINT, hold)
    try:
        yield check
        check()
    finally:
        signal.signal(signal.SIGINT, previous)
