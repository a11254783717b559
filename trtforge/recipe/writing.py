"""Recipes as text that people read: small mappings on one line, comments that stay comments."""

import io
import os
import re
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

WIDTH = 98
"""Columns of a line."""

_LONGEST_NAME = 63


def yaml_text(values: Mapping[str, Any]) -> str:
    """Write data as YAML, keys in the order given; lists of numbers and small mappings inline."""
    yaml = YAML()
    yaml.width = WIDTH
    yaml.indent(mapping=2, sequence=4, offset=2)
    stream = io.StringIO()
    yaml.dump(CommentedMap((key, _styled(one)) for key, one in values.items()), stream)
    return stream.getvalue()


def comment(lines: Iterable[str], hanging: str = "") -> str:
    """Write lines as comments, long ones wrapped; none can end early, whatever it holds.

    Args:
        lines: the text; an empty line stays one.
        hanging: what the second and further lines of a wrapped one begin with.
    """
    wrapped = [
        part
        for line in lines
        for part in textwrap.wrap(_printable(line), WIDTH - 4, subsequent_indent=hanging) or [""]
    ]
    return "".join(f"# {line}".rstrip() + "\n" for line in wrapped)


def recipe_name(text: str) -> str:
    """Make a recipe's name of a file's or another text."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:_LONGEST_NAME] or "model"


def relative_path(path: str | Path, folder: Path) -> str:
    """Write a path as a recipe in `folder` names it; an absolute one stays as it is."""
    if Path(path).is_absolute():
        return str(path)
    return Path(os.path.relpath(Path(path).absolute(), folder)).as_posix()


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text).rstrip()


def _styled(value: Any) -> Any:
    if isinstance(value, Mapping):
        styled = CommentedMap((key, _styled(one)) for key, one in value.items())
        if value and not any(isinstance(one, Mapping) for one in value.values()):
            shown = sum(len(str(key)) + len(str(one)) + 4 for key, one in value.items())
            if shown < WIDTH - 20:
                styled.fa.set_flow_style()
        return styled
    if isinstance(value, list | tuple):
        items = CommentedSeq(_styled(one) for one in value)
        if not any(isinstance(one, Mapping) for one in value):
            items.fa.set_flow_style()
        return items
    return value
