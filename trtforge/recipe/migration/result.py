"""What a migration says of each flag, and the recipe that comes of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

from trtforge.errors import UsageError

Action = Literal["mapped", "not needed", "elsewhere", "refused"]


@dataclass(frozen=True)
class Finding:
    """What became of one flag.

    Attributes:
        flag: as it was written, with its value.
        action: `mapped` into the recipe; `not needed`, since it is always so or the tool's own
            housekeeping; `elsewhere`, where another command does it; `refused`, where nothing
            does the same.
        where: the key of the recipe, or the command.
        why: what it means here, and what to use instead.
    """

    flag: str
    action: Action
    where: str = ""
    why: str = ""

    def as_json(self) -> dict[str, str]:
        """Return the finding as plain JSON data."""
        return {"flag": self.flag, "action": self.action, "where": self.where, "why": self.why}


@dataclass(frozen=True)
class KnownTensor:
    """An input or output of the model: numpy type name, and dims (None where dynamic)."""

    dtype: str
    dims: tuple[int | None, ...] | None


@dataclass(frozen=True)
class KnownModel:
    """What is known of the model that a command names, where the file is here.

    Attributes:
        has_pairs: whether it has Q/DQ pairs of its own.
        inputs: name -> tensor, in the model's order.
        outputs: likewise.
    """

    has_pairs: bool
    inputs: Mapping[str, KnownTensor]
    outputs: Mapping[str, KnownTensor]


@dataclass
class Draft:
    """A recipe while flags are put into it, and what was found on the way.

    Attributes:
        backend: the backend that the tool stands for.
        values: the recipe as plain data, in the order of its keys.
        model_at: path -> what is known of the model there; None where it cannot be read.
        data: calibration data that was given beside the command.
        findings: one per flag, in order.
    """

    backend: str
    model_at: Callable[[str], KnownModel | None] = lambda _path: None
    data: str | None = None
    values: dict[str, Any] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    @property
    def model(self) -> KnownModel | None:
        """What is known of the model that was named."""
        path = self.get("model.onnx")
        return None if path is None else self.model_at(path)

    def put(self, flag: str, place: str, value: Any, why: str = "") -> None:
        """Put a value at a dotted key, and say so; a second, other value is refused."""
        if self.get(place) not in (None, value):
            self.refuse(flag, f"{place} is {self.get(place)} by another flag: remove one of them")
            return
        self.set(place, value)
        self.note(flag, place, why)

    def set(self, place: str, value: Any) -> None:
        """Put a value at a dotted key; numbers are places in a list."""
        here: Any = self.values
        keys = place.split(".")
        for key, following in pairwise(keys):
            empty: Any = [] if following.isdigit() else {}
            here = _below(here, key, empty)
        if isinstance(here, list):
            here.append(value)
        else:
            here[keys[-1]] = value

    def get(self, place: str) -> Any:
        """Return what stands at a dotted key; None where there is nothing."""
        here: Any = self.values
        for key in place.split("."):
            if isinstance(here, list):
                here = here[int(key)] if int(key) < len(here) else None
            else:
                here = here.get(key) if isinstance(here, Mapping) else None
        return here

    def note(self, flag: str, place: str, why: str = "") -> None:
        """Say that a flag's value went to a key; `set` puts it there."""
        self.findings.append(Finding(flag, "mapped", place, why))

    def skip(self, flag: str, why: str) -> None:
        """Say that a flag needs no counterpart."""
        self.findings.append(Finding(flag, "not needed", "", why))

    def send(self, flag: str, command: str, why: str) -> None:
        """Say that another command does what a flag asks for."""
        self.findings.append(Finding(flag, "elsewhere", command, why))

    def refuse(self, flag: str, why: str) -> None:
        """Say that nothing does what a flag asks for, and what to use instead."""
        self.findings.append(Finding(flag, "refused", "", why))


def _below(here: Any, key: str, empty: Any) -> Any:
    if isinstance(here, list):
        index = int(key)
        while len(here) <= index:
            here.append(type(empty)())
        return here[index]
    return here.setdefault(key, empty)


def malformed(flag: str, expected: str) -> UsageError:
    """The error for a value that cannot be read.

    Args:
        flag: the flag as it was written.
        expected: the form, with an example.
    """
    return UsageError("TF0120", f"cannot read {flag}", f"expected {expected}")
