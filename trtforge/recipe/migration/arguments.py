"""Command lines as they stand in scripts and documentation, taken apart into flags and values."""

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from trtforge.errors import UsageError

_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
_VARIABLE = re.compile(r"\$(\w+|\{[^}]*\}|\()")
_ENDS = ("|", "||", "&&", ";", "&", ">", ">>", "2>", "2>&1", "&>", "<")
_WRAPPERS = ("sudo", "time", "nohup", "exec", "env", "$")


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


def split_command(line: str | Sequence[str]) -> tuple[str, list[str]]:
    """Return the program's name and its arguments.

    What a shell would take away is taken away: continuation lines, comments, variables set for
    the command, `sudo`, and whatever follows a pipe or redirection.

    Args:
        line: one text, or the words.

    Raises:
        UsageError: TF0120, it is empty or a quote is not closed; TF0121, it holds a variable, whose
            value only the script knows.
    """
    if isinstance(line, str):
        text = re.sub(r"\\\s*\n", " ", line)
        try:
            words = shlex.split(text, comments=True)
        except ValueError as error:
            raise UsageError(
                "TF0120", f"cannot read the command: {error}", "check its quotes"
            ) from error
    else:
        words = list(line)
    while words and (words[0] in _WRAPPERS or _ASSIGNMENT.match(words[0])):
        words.pop(0)
    if not words:
        raise UsageError("TF0120", "there is no command", "give it in quotes: 'trtexec --onnx=...'")
    program, *rest = words
    end = next((index for index, word in enumerate(rest) if word in _ENDS), len(rest))
    for word in rest[:end]:
        if found := _VARIABLE.search(word):
            raise UsageError(
                "TF0121",
                f"'{word}' holds the variable {found[0]}, whose value only the script knows",
                'expand it first: put `echo` in front of the command, or write "..." around it',
            )
    return re.split(r"[/\\]", program)[-1].removesuffix(".exe"), rest[:end]


def words_of(arguments: Sequence[str]) -> Iterator[Word]:
    """Yield flags and other words, a flag's value only where it stands behind `=`."""
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if argument.startswith("-") and len(argument) > 1:
            yield Word(name, value if equals else None)
        else:
            yield Word("", argument)
