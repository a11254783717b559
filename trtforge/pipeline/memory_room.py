"""The memory that builds at once share: one begins only while the estimates of all fit."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_LOOK_S = 0.5
"""How often one that waits looks whether it is still wanted."""


class MemoryRoom:
    """A budget of memory.

    Args:
        bytes_: what all may take together; None for no bound.
    """

    def __init__(self, bytes_: int | None) -> None:
        self._bytes = bytes_
        self._taken: list[int] = []
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, wanted: int, while_waiting: Callable[[], None]) -> Iterator[None]:
        """Hold `wanted` bytes meanwhile; wait for them first, unless nobody else holds any.

        Args:
            wanted: bytes.
            while_waiting: called again and again while it waits; what it raises ends the wait.
        """
        with self._changed:
            while not self._fits(wanted):
                while_waiting()
                self._changed.wait(_LOOK_S)
            self._taken.append(wanted)
        try:
            yield
        finally:
            with self._changed:
                self._taken.remove(wanted)
                self._changed.notify_all()

    def _fits(self, wanted: int) -> bool:
        if self._bytes is None or not self._taken:
            return True
        return sum(self._taken) + wanted <= self._bytes
