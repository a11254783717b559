"""What ruamel.yaml says about malformed text, in our own words."""

import re
from dataclasses import dataclass
from typing import Any

from ruamel.yaml.reader import ReaderError

from trtforge.errors import Place, Problem
from trtforge.recipe import codes
from trtforge.recipe.nodes import Source


@dataclass(frozen=True)
class _Saying:
    pattern: str
    message: str
    hint: str


_SAYINGS = (
    _Saying(
        r"found character '\\t'",
        "a tab stands where only spaces may",
        "YAML is indented with spaces; replace the tab",
    ),
    _Saying(
        r"mapping values are not allowed here",
        "there is a ':' where no key may stand",
        "check this line's indentation and the line above; a text with ': ' in it needs quotes",
    ),
    _Saying(
        r"expected ',' or '\]'|while parsing a flow sequence",
        "this list is not closed, or a comma is missing",
        "write [a, b, c]",
    ),
    _Saying(
        r"expected ',' or '\}'|while parsing a flow mapping",
        "this mapping is not closed, or a comma is missing",
        "write {a: 1, b: 2}",
    ),
    _Saying(
        r"while parsing a (flow|block) node",
        "a value is missing here, or a bracket is not closed",
        "write a value; a text that starts with one of , [ ] { } needs quotes",
    ),
    _Saying(
        r"could not find expected ':'",
        "this line has no ':' after its key",
        "write `key: value`",
    ),
    _Saying(
        r"expected <block end>, but found '<scalar>'",
        "this text does not belong here",
        "is a quote further up not closed, or one too many?",
    ),
    _Saying(
        r"expected <block end>",
        "this line does not fit in with the lines above",
        "keys of one mapping start in the same column; items of one list each start with '- '",
    ),
    _Saying(
        r"while scanning a quoted scalar .*(end of stream|document separator)",
        "the quoted text is not closed",
        "add the closing quote",
    ),
    _Saying(
        r"while scanning a double-quoted scalar|unknown escape|hexdecimal numbers",
        "a backslash in double quotes is followed by something that is no escape",
        "use single quotes, or write \\\\ for a backslash",
    ),
    _Saying(
        r"found character '.*' that cannot start any token",
        "a value starts with a character that YAML keeps for itself",
        "put the value in quotes",
    ),
    _Saying(
        r"while scanning an? (alias|anchor)",
        "'&' and '*' start an anchor or an alias in YAML",
        "put the value in quotes if it is meant as text",
    ),
    _Saying(
        r"while scanning a block scalar",
        "the line after '|' or '>' is not indented as it should be",
        "indent the text with more spaces than its key",
    ),
    _Saying(
        r"expected '<document start>'",
        "there is something after the end of the recipe",
        "check the indentation of this line",
    ),
    _Saying(r"directive", "a line starting with '%' is a YAML directive", "remove this line"),
)


def _find_saying(text: str) -> tuple[str, str]:
    for saying in _SAYINGS:
        if re.search(saying.pattern, text):
            return saying.message, saying.hint
    return "this is not well-formed YAML", "check the indentation, the quotes and the brackets here"


def syntax_problem(source: Source, error: Exception) -> Problem:
    """Translate what the YAML parser raised.

    Args:
        source: the text.
        error: a YAMLError, or one of the bare exceptions that the parser lets through on some
            malformed escapes (OverflowError, ValueError).
    """
    if isinstance(error, ReaderError):
        return _unprintable(source, error)
    said = f"{getattr(error, 'context', None) or ''} {getattr(error, 'problem', None) or ''}"
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    opened = getattr(error, "context_mark", None)
    message, hint = _find_saying(said)
    if mark is None:
        return Problem(codes.SYNTAX, message, hint, source.whole())
    if _starts_with_tab(source, mark.line):
        message, hint = _SAYINGS[0].message, _SAYINGS[0].hint
    place = _place(source, mark, opened)
    return Problem(codes.SYNTAX, message, hint, place)


def _unprintable(source: Source, error: Any) -> Problem:
    code = error.character if isinstance(error.character, int) else ord(error.character)
    before = Source(source.name, source.text[: error.position]).lines
    return Problem(
        codes.NOT_TEXT,
        f"there is a control character (U+{code:04X}) in the text",
        "remove it; a recipe is plain UTF-8 text",
        source.place(len(before), len(before[-1]) + 1),
    )


def _starts_with_tab(source: Source, line: int) -> bool:
    lines = source.lines
    if line >= len(lines):
        return False
    indentation = lines[line][: len(lines[line]) - len(lines[line].lstrip())]
    return "\t" in indentation


def _place(source: Source, mark: Any, opened: Any) -> Place:
    """Return the parser's own mark, or the opening one where a bracket or quote is left open."""
    lines = source.lines
    here = lines[mark.line][mark.column :] if mark.line < len(lines) else ""
    ends = not (here + "".join(lines[mark.line + 1 :])).strip()
    if opened is not None and (ends or here.startswith(("]", "}"))):
        mark = opened
    tab = lines[mark.line].find("\t") if _starts_with_tab(source, mark.line) else mark.column
    return source.place(mark.line + 1, tab + 1)
