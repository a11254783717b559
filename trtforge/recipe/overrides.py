"""`--set a.b=c`: one value of a recipe changed from the command line."""

import re
from dataclasses import dataclass
from typing import Any

from trtforge.errors import Problem, RecipeError
from trtforge.recipe import codes
from trtforge.recipe.compose import compose
from trtforge.recipe.nodes import Entry, Mapping, Node, Scalar, Sequence, Source, Span, plain
from trtforge.recipe.sections import closest

_PART = re.compile(r'(?:"([^"]*)"|([^."]+))(?:\.|$)')


@dataclass(frozen=True)
class Override:
    """One change, applied or not.

    Attributes:
        path: as written, `targets.0.timeout_s`.
        value: plain data.
        root: the recipe after the change.
        problems: why it could not be applied; then `root` is unchanged.
    """

    path: str
    value: Any
    root: Node
    problems: tuple[Problem, ...] = ()


class _BadPathError(Exception):
    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def apply_override(root: Node, text: str) -> Override:
    """Apply `a.b=c` to a recipe.

    The value is YAML. Parts of the path are keys, or positions in a list from 0; a part with a
    dot in it is put in double quotes, and needs none where such a key stands in the recipe.
    Sections on the way that are not in the recipe are made; whether the schema has them is
    checked later, with everything else.
    """
    path, equals, written = text.partition("=")
    source = Source(f"--set {text}", written, has_lines=False)
    if not equals or not path.strip():
        return _failed(root, source, path, "is not of the form a.b=c", "write --set key.key=value")
    if not written.strip():
        return _failed(root, source, path, "has no value", f"write --set {path}=null to unset it")
    try:
        value, problems = compose(source)
    except RecipeError as error:
        return Override(path, None, root, error.problems)
    if problems:
        return Override(path, None, root, tuple(problems))
    span = Span(source, 1, 1, 1, 2)
    value = Scalar(span, None, "null") if value is None else value
    try:
        changed = _set(root, _parts(path), value, ())
    except _BadPathError as error:
        return _failed(root, source, path, str(error), error.hint)
    return Override(path, plain(value), changed)


def _failed(root: Node, source: Source, path: str, message: str, hint: str) -> Override:
    problem = Problem(codes.BAD_OVERRIDE, f"--set {path} {message}", hint, source.whole())
    return Override(path, None, root, (problem,))


def _parts(path: str) -> list[str]:
    parts, position = [], 0
    while position < len(path):
        match = _PART.match(path, position)
        if match is None:
            raise _BadPathError("has an empty or half-quoted part", 'write a.b."c.d"')
        parts.append(match[1] if match[1] is not None else match[2].strip())
        position = match.end()
    if path.endswith("."):
        raise _BadPathError("ends with a dot", "write a.b=c")
    if len(parts) > 16:
        raise _BadPathError("has too many parts", "a recipe is at most six levels deep")
    return parts


def _set(node: Node, parts: list[str], value: Node, walked: tuple[str, ...]) -> Node:
    if not parts:
        return value
    if isinstance(node, Mapping):
        return _set_in_mapping(node, parts, value, walked)
    if isinstance(node, Sequence):
        return _set_in_list(node, parts, value, walked)
    if node.value is None:
        return _set_in_mapping(Mapping(_origin(value), ()), parts, value, walked)
    raise _BadPathError(
        f"goes below '{'.'.join(walked)}', which is a single value",
        f"set it as a whole: --set {'.'.join(walked)}=...",
    )


def _set_in_mapping(
    node: Mapping, parts: list[str], value: Node, walked: tuple[str, ...]
) -> Mapping | Node:
    count = _known_key_length(node, parts)
    if count is None and walked == ("shapes",) and parts[0] == "0":
        return _set(node, parts[1:], value, walked)
    name = ".".join(parts[: count or 1])
    entry = node.get(name)
    below = entry.value if entry is not None else Scalar(_origin(value), None, "")
    changed = _set(below, parts[count or 1 :], value, (*walked, name))
    key = entry.key if entry is not None else Scalar(_origin(value), name, name)
    if not parts[count or 1 :]:
        key = Scalar(_origin(value), name, name)
    return node.with_entry(Entry(key, changed))


def _known_key_length(node: Mapping, parts: list[str]) -> int | None:
    """How many parts make up a key that stands here: ONNX names such as `input.1` have dots."""
    for count in range(len(parts), 0, -1):
        if node.get(".".join(parts[:count])) is not None:
            return count
    return None


def _set_in_list(
    node: Sequence, parts: list[str], value: Node, walked: tuple[str, ...]
) -> Sequence:
    name = ".".join(walked)
    names = [_name_of(item) for item in node.items]
    if parts[0] in names:
        index = names.index(parts[0])
    elif re.fullmatch("[0-9]{1,6}", parts[0]) and int(parts[0]) < len(node.items):
        index = int(parts[0])
    else:
        close = closest(parts[0], [item for item in names if item is not None])
        raise _BadPathError(
            f"names '{parts[0]}' in '{name}', which is a list of {len(node.items)}",
            f"did you mean {name}.{close}?"
            if close is not None
            else f"give a position from 0 to {len(node.items) - 1}, as in {name}.0"
            if node.items
            else f"the list is empty; set it as a whole: --set {name}=[...]",
        )
    items = list(node.items)
    items[index] = _set(items[index], parts[1:], value, (*walked, parts[0]))
    return Sequence(node.span, tuple(items))


def _name_of(item: Node) -> str | None:
    entry = item.get("name") if isinstance(item, Mapping) else None
    value = entry.value.value if entry is not None and isinstance(entry.value, Scalar) else None
    return value if isinstance(value, str) else None


def _origin(value: Node) -> Span:
    return value.span
