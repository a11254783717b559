"""The steps of a command without a recipe: told while they run, and timed."""

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from glob import escape
from pathlib import Path

from trtforge.disk import is_special, write_error
from trtforge.pipeline.events import Sink, StageFinished, StageProgress, Warned, ignore


@dataclass
class Steps:
    """Steps one after the other.

    Attributes:
        emit: told what happens.
        seconds: wall time of each step that is over.
        note: what the step at hand will be remembered by; set it within the step.
    """

    emit: Sink = ignore
    seconds: dict[str, float] = field(default_factory=dict)
    note: str = ""
    _name: str = ""

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time a step, and tell when it is over."""
        self._name, self.note = name, ""
        started = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - started
        self.emit(StageFinished(name, "ran", self.seconds[name], self.note))

    def tell(self, share: float | None, text: str) -> None:
        """Say how far the step at hand is: 0..1, and what it does."""
        self.emit(StageProgress(self._name, share, text))

    @contextmanager
    def resumable(self, checkpoint: Path | None, where: str | None = None) -> Iterator[None]:
        """Say on Ctrl-C that the same command goes on from the checkpoint, where it left one."""
        try:
            yield
        except KeyboardInterrupt:
            if checkpoint is not None and left_behind(checkpoint):
                kept = f"what was measured is kept {where or f'beside {str(checkpoint)!r}'}"
                self.emit(Warned(f"{kept}; the same command goes on from there"))
            raise


def left_behind(checkpoint: Path) -> list[Path]:
    """Return the partial states that an interrupted calibration left."""
    pattern = f"{escape(checkpoint.name)}.*.partial"
    return sorted(checkpoint.parent.glob(pattern)) if checkpoint.parent.is_dir() else []


def check_writable(path: Path) -> None:
    """Find out before the work whether a file can be written where it shall stand.

    Raises:
        MissingError: TF0302, it cannot.
    """
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if is_special(path):
            return
        probe = path.with_name(f".{path.name}.probe")
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise write_error(OSError(error.errno, error.strerror, str(path)), path) from error
