"""How far a build is, estimated from the phases that the builder announces."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

_SMALLEST_STEP = 0.002
"""Progress below this share is not worth a message: large networks time thousands of nodes."""


@dataclass
class _Phase:
    steps: int
    low: float
    high: float
    done: int = 0
    reached: float = 0.0

    def step_end(self) -> float:
        """Where the step that is going on ends."""
        return self.low + (self.high - self.low) * min(self.done + 1, self.steps) / self.steps

    def position(self) -> float:
        """Where the work is: after the last complete step, or after the last phase below."""
        complete = self.low + (self.high - self.low) * min(self.done, self.steps) / self.steps
        return max(complete, self.reached)


@dataclass
class PhaseTree:
    """A share of work done, from nested phases with steps; it never falls and never passes 1.

    Steps of one phase count alike. How many phases a step of its parent will have is not known
    beforehand, so each gets half of what is left of that step. The share is an estimate.
    """

    fraction: float = 0.0
    _open: dict[str, _Phase] = field(default_factory=dict)
    _parents: dict[str, str | None] = field(default_factory=dict)

    def start(self, name: str, parent: str | None, steps: int) -> float:
        """A phase begins; returns the share done."""
        above = self._open.get(parent) if parent is not None else None
        low = above.position() if above else 0.0
        high = (low + above.step_end()) / 2 if above else 1.0
        self._open[name] = _Phase(max(steps, 1), low, max(low, high))
        self._parents[name] = parent
        return self._advance(low)

    def step(self, name: str, index: int) -> float:
        """Step `index` (from 0) of a phase is complete; returns the share done."""
        phase = self._open.get(name)
        if phase is None:
            return self.fraction
        phase.done = max(phase.done, index + 1)
        return self._advance(phase.position())

    def finish(self, name: str) -> float:
        """A phase is over; returns the share done."""
        phase = self._open.pop(name, None)
        if phase is None:
            return self.fraction
        above = self._open.get(self._parents.pop(name) or "")
        if above is not None:
            above.reached = max(above.reached, phase.high)
        return self._advance(phase.high)

    def _advance(self, position: float) -> float:
        self.fraction = min(1.0, max(self.fraction, position))
        return self.fraction


class Progress:
    """Passes on a share of the work, scaled to a range, only when something new is to be said."""

    def __init__(self, emit: Callable[[float, str], None], low: float, high: float) -> None:
        self._emit = emit
        self._low = low
        self._high = high
        self._last: tuple[float, str] | None = None

    def __call__(self, fraction: float, phase: str) -> None:
        """Say that `fraction` (0..1 of this range) is done and that `phase` goes on."""
        share = self._low + (self._high - self._low) * fraction
        if self._last and self._last[1] == phase and share - self._last[0] < _SMALLEST_STEP:
            return
        self._last = (share, phase)
        self._emit(share, phase)


def make_monitor(trt: Any, progress: Progress, cancelled: threading.Event) -> Any:
    """Return an IProgressMonitor of the module `trt` that reports to `progress`.

    Once `cancelled` is set the next completed step tells the builder to stop.
    """

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._tree = PhaseTree()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            progress(self._tree.start(phase_name, parent_phase, num_steps), phase_name)

        def step_complete(self, phase_name: str, step: int) -> bool:
            progress(self._tree.step(phase_name, step), phase_name)
            return not cancelled.is_set()

        def phase_finish(self, phase_name: str) -> None:
            progress(self._tree.finish(phase_name), phase_name)

    return Monitor()
