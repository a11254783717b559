"""What can go wrong, as values: code, message, hint, place and exit status.

Third-party exceptions are wrapped once, at the adapter, with `from`; the command line has the
one boundary that turns a ForgeError into text or JSON and an exit status.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

EXIT_OK = 0
EXIT_BUG = 1
EXIT_USAGE = 2
EXIT_MISSING = 3
EXIT_REFUSED = 4
EXIT_PARITY = 5
EXIT_BUDGET = 6
EXIT_INTEGRITY = 7

READABLE = "name a file that is there and that you may read"
"""The remedy for whatever cannot be read."""


@dataclass(frozen=True)
class Place:
    """Where something is wrong.

    Attributes:
        file: the file as the user named it, or as close to that as is known.
        line: 1-based line, None when the file has no lines (a binary) or is meant as a whole.
        column: 1-based column.
        length: how many characters the caret line underlines.
        text: the source line itself, to be shown above the caret.
        node: the ONNX node or tensor concerned.
    """

    file: str | None = None
    line: int | None = None
    column: int | None = None
    length: int = 1
    text: str | None = None
    node: str | None = None

    def __str__(self) -> str:
        parts = [str(part) for part in (self.file, self.line, self.column) if part is not None]
        at = ":".join(parts)
        if self.node is not None:
            return f"{at} (node '{self.node}')" if at else f"node '{self.node}'"
        return at


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: `error[CODE]: message`, its place, and a hint."""

    code: str
    message: str
    hint: str | None = None
    where: Place | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the problem as plain JSON data."""
        where = self.where
        return {
            "code": self.code,
            "message": self.message,
            "hint": self.hint,
            "where": None
            if where is None
            else {
                "file": where.file,
                "line": where.line,
                "column": where.column,
                "node": where.node,
            },
        }


@dataclass(eq=False)
class ForgeError(Exception):
    """The base of all expected failures.

    Args:
        code: `TF` and four digits; the first two name the room (02 recipe, 03 this machine,
            04 graph, 05 precision and data, 06 engine, 07 verification, 08 bundle, 09 store).
        message: what is wrong, one sentence, with the names and numbers concerned.
        hint: what the user can do about it.
        where: the place.
        details: further text worth keeping, such as the tail of a builder's log.
        more: further problems that are told with this one.
    """

    exit_status: ClassVar[int] = EXIT_BUG

    code: str
    message: str
    hint: str | None = None
    where: Place | None = None
    details: str | None = field(default=None, kw_only=True)
    more: Sequence[Problem] = field(default=(), kw_only=True)

    @classmethod
    def of(cls, problems: Sequence[Problem]) -> Self:
        """Bundle several problems (at least one) into one error."""
        first = problems[0]
        return cls(first.code, first.message, first.hint, first.where, more=tuple(problems[1:]))

    @property
    def problems(self) -> tuple[Problem, ...]:
        """All problems that this error reports, at least one, in reading order."""
        return (Problem(self.code, self.message, self.hint, self.where), *self.more)

    def __str__(self) -> str:
        at = f"{self.where}: " if self.where is not None else ""
        return f"{at}{self.message}"


class UsageError(ForgeError):
    """The command line or an argument is wrong (exit 2)."""

    exit_status = EXIT_USAGE


class RecipeError(ForgeError):
    """A recipe is wrong (exit 2); carries every problem found, not only the first."""

    exit_status = EXIT_USAGE


class DataError(ForgeError):
    """Calibration or verification data is missing, malformed or empty (exit 2)."""

    exit_status = EXIT_USAGE


class MissingError(ForgeError):
    """This machine lacks something: a library, a GPU, disk space, a writable folder (exit 3)."""

    exit_status = EXIT_MISSING


class GraphError(ForgeError):
    """An ONNX model is refused, or a graph or precision step cannot be done on it (exit 4).

    Where several places of the model are refused, it carries all of them.
    """

    exit_status = EXIT_REFUSED


class BuildError(ForgeError):
    """An engine could not be built (exit 4)."""

    exit_status = EXIT_REFUSED


class ParityError(ForgeError):
    """Parity or attestation failed, or two results cannot be compared (exit 5)."""

    exit_status = EXIT_PARITY


class BudgetError(ForgeError):
    """A budget was not met (exit 6)."""

    exit_status = EXIT_BUDGET


class IntegrityError(ForgeError):
    """A digest or a signature does not match (exit 7)."""

    exit_status = EXIT_INTEGRITY
