"""What a test of `trtforge migrate` says of one command line."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Case:
    """One command, the values that the recipe must have, and what must be refused."""

    command: str
    values: dict[str, Any] = field(default_factory=dict)
    refused: tuple[str, ...] = ()


OPTIONS = "targets.0.options"
