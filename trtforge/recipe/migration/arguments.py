"""Command lines as they stand in scripts and documentation, taken apart into flags and values."""

import re
import shlex
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from trtforge.errors import UsageError

_VARIABLE = re.compile(r"\$(\w+|\{[^}]*\}|\()|`|%\w+%")
_COMMENT = re.compile(r"""('[^']*'|"(?:\\.|[^"\\])*"|\\.)|(?<!\S)\#[^\n]*""", re.DOTALL)
_CONTINUED = re.compile(r"[\\^`][ \t]*\r?\n")
"""A line that goes on in the next, in sh, cmd and PowerShell."""

_WINDOWS = re.compile(r"\b[A-Za-z]:\\|\.\\|\.exe\b", re.IGNORECASE)
_PROMPT = re.compile(r"^(.*\s)?\#\s")
_ENDS = ("|", "||", "&&", ";", "&")
_REDIRECTION = re.compile(r"(\d*|&)(>>?\|?|<)(&?[\d-]*$)?")

_Command = tuple[str, list[str]]
"""A program's name and its arguments."""


@dataclass(frozen=True)
class Word:
    """One flag with its value, or a word that is none.

    Attributes:
        name: the flag with its dashes; empty for a word that is none.
        value: what stands behind the `=`; None where there is none.
    """

    name: str
    value: str | None

    @property
    def text(self) -> str:
        """The word as it was written."""
        if not self.name:
            return self.value or ""
        return self.name if self.value is None else f"{self.name}={self.value}"


def split_command(
    line: str | Sequence[str], programs: Collection[str] = ()
) -> tuple[str, list[str]]:
    """Return the program's name and its arguments.

    What a shell would take away is taken away: continuation lines, comments, redirections, other
    commands of the line, and what stands in front of the program (variables, `sudo`, a profiler).

    Args:
        line: one text, or the words.
        programs: names of the programs that are looked for; the first word where none of them is
            there.

    Raises:
        UsageError: TF0120, it is empty, a quote is not closed, or it holds two such commands;
            TF0121, it holds a variable, whose value only the script knows.
    """
    commands, found = _looked_for(line, programs)
    if not found and isinstance(line, str):  # behind a prompt, or as trtexec's log repeats it
        _, found = _looked_for(_PROMPT.sub(" ", line, count=1), programs)
    if len(found) > 1:
        raise UsageError(
            "TF0120",
            f"there are {len(found)} commands: {', '.join(program for program, _ in found)}",
            "migrate them one by one: each makes a recipe",
        )
    chosen = next((command for command in (*found, *commands) if command), None)
    if chosen is None:
        raise UsageError("TF0120", "there is no command", "give it in quotes: 'trtexec --onnx=...'")
    program, arguments = chosen
    for word in arguments:
        if variable := _VARIABLE.search(word):
            raise UsageError(
                "TF0121",
                f"'{word}' holds the variable {variable[0]}, whose value only the script knows",
                'expand it first: put `echo` in front of the command, or write "..." around it',
            )
    return program, arguments


def _looked_for(
    line: str | Sequence[str], programs: Collection[str]
) -> tuple[list[_Command | None], list[_Command]]:
    """Return all commands, and those of the programs that are looked for."""
    words = _words(line) if isinstance(line, str) else list(line)
    commands = [_program(words, programs) for words in _commands(words)]
    return commands, [one for one in commands if one is not None and one[0] in programs]


def words_of(arguments: Sequence[str]) -> Iterator[Word]:
    """Yield flags and other words, a flag's value only where it stands behind `=`."""
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if argument.startswith("-") and len(argument) > 1:
            yield Word(name, value if equals else None)
        else:
            yield Word("", argument)


def _words(text: str) -> list[str]:
    if not _WINDOWS.search(text):
        text = _COMMENT.sub(lambda found: found[1] or "", text)
    lexer = shlex.shlex(_CONTINUED.sub(" ", text), posix=True, punctuation_chars="|;")
    lexer.whitespace_split = True
    lexer.commenters = ""
    if _WINDOWS.search(text):
        lexer.escape = ""  # its paths hold backslashes
    try:
        return list(lexer)
    except ValueError as error:
        raise UsageError(
            "TF0120", f"cannot read the command: {error}", "check its quotes"
        ) from error


def _commands(words: Sequence[str]) -> Iterator[list[str]]:
    """Yield the commands of a line, without redirections and where they go."""
    command, skip = list[str](), False
    for word in words:
        found = _REDIRECTION.match(word)
        if skip:
            skip = False
        elif word in _ENDS:
            yield command
            command = []
        elif found:
            skip = found[3] == "" and found.end() == len(word)
        else:
            command.append(word)
    yield command


def _program(words: Sequence[str], programs: Collection[str]) -> _Command | None:
    names = [re.split(r"[/\\]", word)[-1].removesuffix(".exe") for word in words]
    place = next((index for index, name in enumerate(names) if name in programs), None)
    if place is None:
        place = next((i for i, word in enumerate(words) if not re.match(r"\w+=|\$$", word)), None)
    if place is None:
        return None
    return names[place], [
        f"{Path.home()}{word[1:]}" if word.startswith("~/") else word for word in words[place + 1 :]
    ]
