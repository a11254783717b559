"""How results, progress and errors are shown: results on stdout, everything else on stderr."""

import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import click

from trtforge.errors import ForgeError, Problem
from trtforge.pipeline.events import Event, StageFinished, StageProgress, StageStarted, Warned
from trtforge.recipe.render import printable, render_problem

_Function = TypeVar("_Function", bound=Callable[..., Any])


def common_options(function: _Function) -> _Function:
    """Add --json, -q and -v, which every command takes."""
    for option in (
        click.option("-v", "--verbose", is_flag=True, help="Say more."),
        click.option(
            "-q", "--quiet", is_flag=True, help="Print results, warnings and errors only."
        ),
        click.option(
            "--json", "as_json", is_flag=True, help="Print the result as one JSON document."
        ),
    ):
        function = option(function)
    return function


def print_json(schema: str, document: dict[str, Any]) -> None:
    """Print one versioned JSON document on stdout."""
    click.echo(json.dumps({"schema": schema, **document}, indent=1))


def say(text: str, *, err: bool = False) -> None:
    """Print one line for people; names in models may hold anything, terminal codes included."""
    click.echo(printable(text), err=err)


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print aligned columns on stdout."""
    lines = [tuple(header), *(tuple(row) for row in rows)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(header))]
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        say("  ".join(cells).rstrip())


def show_error(error: ForgeError, *, as_json: bool) -> int:
    """Show a failure with all its problems; return its exit status."""
    show_problems(error.problems, error.exit_status, as_json=as_json, details=error.details)
    return error.exit_status


def error_document(
    problems: Sequence[Problem], exit_status: int, details: str | None = None
) -> dict[str, Any]:
    """Return a failure as plain JSON data."""
    return {
        "exit_status": exit_status,
        "problems": [problem.as_json() for problem in problems],
        "details": details,
    }


def show_problems(
    problems: Sequence[Problem], exit_status: int, *, as_json: bool, details: str | None = None
) -> None:
    """Show problems on stderr, or with --json as a document on stdout."""
    if as_json:
        print_json("trtforge.error/1", error_document(problems, exit_status, details))
        return
    blocks = [render_problem(problem) for problem in problems]
    if details:
        blocks.append(details.rstrip())
    click.echo("\n\n".join(blocks), err=True)


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


class ProgressLines:
    """Shows a build's events on stderr: a live line on a terminal, plain lines elsewhere."""

    def __init__(self, *, quiet: bool, verbose: bool) -> None:
        self._quiet = quiet
        self._verbose = verbose
        self._live = sys.stderr.isatty() and not os.environ.get("NO_COLOR") and not quiet
        self._shown = ""
        self._step: tuple[str, object] = ("", None)

    def __call__(self, event: Event) -> None:
        """Take one event."""
        match event:
            case Warned():
                self._line(f"warning: {event.text}")
            case _ if self._quiet:
                return
            case StageStarted():
                if self._live:
                    self._replace(f"{event.stage}: {event.why}")
                elif self._verbose:
                    self._line(f"{event.stage}: runs ({event.why})")
            case StageProgress():
                self._progress(event)
            case StageFinished():
                what = "from the store" if event.outcome == "hit" else event.note
                self._line(f"{event.stage:<14} {event.seconds:7.2f} s  {what}".rstrip())

    def done(self) -> None:
        """Clear the live line."""
        if self._shown:
            self._replace("")
            sys.stderr.write("\r")
            self._shown = ""

    def _progress(self, event: StageProgress) -> None:
        share = "" if event.fraction is None else f"{event.fraction:4.0%} "
        if self._live:
            self._replace(f"{event.stage}: {share}{event.text}")
        elif self._verbose:
            # A builder reports hundreds of small steps: one line for each tenth, or new stage.
            step = (event.stage, event.text if event.fraction is None else int(event.fraction * 10))
            if step != self._step:
                self._line(f"{event.stage}: {share}{event.text}")
            self._step = step

    def _replace(self, text: str) -> None:
        text = text[: _columns() - 1]  # a line that wraps cannot be taken back
        sys.stderr.write(f"\r{printable(text):<{len(self._shown)}}")
        sys.stderr.flush()
        self._shown = text

    def _line(self, text: str) -> None:
        self.done()
        say(text, err=True)
