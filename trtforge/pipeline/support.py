"""A model that a backend would not take is refused before anything is built."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trtforge.errors import GraphError, Place, Problem

if TYPE_CHECKING:
    from trtforge.graph.model import Model

_MOST_SHOWN = 50
"""A model of the wrong kind has the same to say of a thousand nodes."""


def refuse_unsupported(model: "Model", backends: Sequence[str], file: Path) -> None:
    """Look through a model for what backends do not take.

    Args:
        model: as the passes left it.
        backends: those that will build it.
        file: the original, for the message.

    Raises:
        GraphError: TF0415; carries one problem per node and reason.
    """
    from trtforge.graph.readiness.support import support_problems

    problems = [
        Problem(
            "TF0415",
            f"{backend} does not take {_subject(found.operator, found.node)}: {found.reason}",
            found.remedy,
            Place(file=file.name, node=found.node),
        )
        for backend in backends
        for found in support_problems(model, backend)
    ]
    if len(problems) > _MOST_SHOWN:
        rest = len(problems) - _MOST_SHOWN
        problems[_MOST_SHOWN:] = [
            Problem("TF0415", f"and {rest} more", "see `trtforge optimize --explain`")
        ]
    if problems:
        raise GraphError.of(problems)


def _subject(operator: str, node: str) -> str:
    return f"{operator} node '{node}'" if operator else f"'{node}'"
