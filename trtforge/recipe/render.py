"""A problem as a block of plain text: message, place, source line, carets, hint."""

import re
import unicodedata

from trtforge.errors import Place, Problem

_WIDEST = 100
"""Columns of source text shown; longer lines are cut around the carets."""


def render_problem(problem: Problem) -> str:
    """Return the text of one problem, without colour and without a line end."""
    lines = [f"error[{problem.code}]: {_one_line(problem.message)}"]
    where = problem.where
    if where is not None and str(where):
        number = str(where.line) if where.line is not None and where.text is not None else ""
        gutter = " " * (len(number) or 1)
        lines.append(f"{gutter} --> {printable(str(where))}")
        if number:
            text, marks = _excerpt(where)
            lines += [f" {gutter} |", f" {number} | {text}".rstrip(), f" {gutter} | {marks}"]
    if problem.hint:
        lines.append(f"hint: {_one_line(problem.hint)}")
    return "\n".join(lines)


def _excerpt(where: Place) -> tuple[str, str]:
    """Return the source line and the line of carets under it."""
    text = where.text or ""
    start = max(0, (where.column or 1) - 1)
    end = max(start + 1, min(start + where.length, len(text)))
    first, last = 0, len(text)
    if len(text) > _WIDEST:
        first = max(0, min(start - _WIDEST // 3, len(text) - _WIDEST))
        last = first + _WIDEST
    before = "…" if first else ""
    after = "…" if last < len(text) else ""
    shown = f"{before}{printable(text[first:last])}{after}"
    padding = _width(before + text[first:start])
    marks = max(1, _width(text[start : min(end, last)]))
    return shown, " " * padding + "^" * marks


def _one_line(text: str) -> str:
    """Join what a library wrote in several lines."""
    return printable(re.sub(r"\s*[\r\n]+\s*", " ", text).strip())


def printable(text: str) -> str:
    """Replace what would move the cursor, hide or reorder text on a terminal; one line."""
    return "".join(_shown(character) for character in text)


def _shown(character: str) -> str:
    if character == "\t":
        return "→"
    hidden = unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")
    return "\N{REPLACEMENT CHARACTER}" if hidden else character


def _width(text: str) -> int:
    """Columns on a terminal: wide East Asian characters take two, combining ones none."""
    return sum(
        0
        if unicodedata.combining(character)
        else 2
        if unicodedata.east_asian_width(character) in "WF"
        else 1
        for character in text
    )
