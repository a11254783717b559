"""The steps of a command without a recipe: told while they run, and timed."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING

from trtforge.pipeline.events import Sink, StageFinished, StageProgress, Warned, ignore

if TYPE_CHECKING:
    from trtforge.pipeline.settings import Asked


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


def files_read(asked: "Asked", model: Path) -> tuple[Path, ...]:
    """Return the files that a command reads, which it must not write: the model's own first.

    Raises:
        GraphError: TF0401, TF0402, TF0404, the model or its weights cannot be read.
    """
    from trtforge.graph.model import source_files

    others = (asked.data, asked.held_out, asked.reuse)
    return (*source_files(model), *(Path(one) for one in others if one is not None))
