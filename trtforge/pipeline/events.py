"""What a running build tells its face: plain values, pushed into one callable."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class StageStarted:
    """A stage missed the store and begins to run.

    Attributes:
        stage: the stage's name, e.g. `optimize` or `build:rtx`.
        why: the reason for the miss, one sentence.
    """

    stage: str
    why: str


@dataclass(frozen=True)
class StageProgress:
    """A running stage got further.

    Attributes:
        stage: the stage's name.
        fraction: 0..1, or None when it cannot be known.
        text: what it is doing.
    """

    stage: str
    fraction: float | None
    text: str


@dataclass(frozen=True)
class StageFinished:
    """A stage's artifacts are there.

    Attributes:
        stage: the stage's name.
        outcome: `hit` (taken from the store) or `ran`.
        seconds: wall time; for a hit, the time to check the entry's digests.
        note: one line worth showing, e.g. `rewrites: 7`.
    """

    stage: str
    outcome: Literal["hit", "ran"]
    seconds: float
    note: str = ""


@dataclass(frozen=True)
class Warned:
    """Something the user should know, but that fails nothing."""

    text: str


Event = StageStarted | StageProgress | StageFinished | Warned
Sink = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Drop the event: the sink for callers who want silence."""
