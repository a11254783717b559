"""Adding keep rules to a recipe's text; all that its author wrote stays, to the byte.

The new rules go in front of the others, since the first rule that selects a node counts.
"""

import json
import re
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from trtforge.disk import write_bytes
from trtforge.errors import Place, RecipeError
from trtforge.recipe import codes
from trtforge.recipe.precision import KeepRule

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
"""Names written without quotes; none of these is a number, and YAML 1.2 knows few words."""

_WORDS = frozenset(["true", "false", "null", "yes", "no", "on", "off", "y", "n"])


def rule_text(rule: KeepRule) -> str:
    """Return a keep rule as one writes it in a recipe: `{name: "/head/MatMul"}`."""
    given = rule.model_dump(exclude_none=True)
    if given["type"] == "fp32":
        del given["type"]
    return "{" + ", ".join(f"{key}: {_scalar(value)}" for key, value in given.items()) + "}"


def add_keep_rules(path: Path, rules: Sequence[KeepRule], known: bytes) -> bool:
    """Put rules into `precision.keep` of a recipe file, whole or not at all.

    Args:
        path: the recipe.
        rules: what to add; those that it has already are left out.
        known: the file as it was when the work began.

    Returns:
        Whether anything was written; False where the recipe has all the rules.

    Raises:
        RecipeError: TF0217, the file is not what it was; TF0216, its `precision` is written in a
            form that cannot be extended.
        MissingError: the file cannot be written.
    """
    try:
        now = path.read_bytes()
    except OSError as error:
        raise _changed(path, "cannot be read any more") from error
    if now != known:
        raise _changed(path, "was changed meanwhile")
    text = now.decode("utf-8")
    edited = with_keep_rules(text, rules, str(path))
    if edited == text:
        return False
    write_bytes(path, edited.encode("utf-8"))
    return True


def with_keep_rules(text: str, rules: Sequence[KeepRule], name: str = "recipe") -> str:
    """Return a recipe's text with rules in front of its keep list; the text where it has them.

    Raises:
        RecipeError: TF0216, the text has no `precision` section, or shares it with another value,
            or its keep list is written in a form that cannot be extended.
    """
    mark = "\ufeff" if text.startswith("\ufeff") else ""
    body = text[len(mark) :]
    before = _data(body, name)
    present = _keep_of(before)
    new = [rule for rule in rules if _given(rule) not in [_normal(one) for one in present]]
    if not new:
        return text
    edited = _inserted(body, [rule_text(rule) for rule in new], name)
    section = dict(before["precision"]) | {"keep": [*map(_given, new), *map(_normal, present)]}
    after = _data(edited, name)
    found = after.get("precision")
    # What was written must read as what was meant, however odd the text was.
    if not isinstance(found, Mapping) or (
        dict(after) | {"precision": dict(found) | {"keep": [*map(_normal, _keep_of(after))]}}
        != dict(before) | {"precision": section}
    ):
        raise _refused(name, "its form is not understood")
    return mark + edited


def _inserted(text: str, rules: Sequence[str], name: str) -> str:
    section = _entry(YAML(typ="safe", pure=True).compose(StringIO(text, newline="")), "precision")
    if section is None or section[1].id != "mapping":
        raise _refused(name, "it has no section `precision`")
    _require_own(section, "precision", name)
    keep = _entry(section[1], "keep")
    if keep is None:
        if section[1].flow_style:
            where = section[1].start_mark.index + 1
            return f"{text[:where]}keep: [{', '.join(rules)}], {text[where:]}"
        indent = section[1].start_mark.column
        return _lines_behind(text, section[0], indent, ["keep:", *(f"  - {one}" for one in rules)])
    _require_own(keep, "precision.keep", name)
    node = keep[1]
    if node.id == "sequence" and node.flow_style:
        where = node.start_mark.index + 1
        comma = ", " if node.value else ""
        return f"{text[:where]}{', '.join(rules)}{comma}{text[where:]}"
    if node.id == "sequence":
        indent = node.start_mark.column
        return _lines_behind(text, keep[0], indent, [f"- {one}" for one in rules])
    raise _refused(name, "`precision.keep` is not a list")


def _lines_behind(text: str, key: Any, indent: int, lines: Sequence[str]) -> str:
    """Insert lines behind the one that a key stands in."""
    end = text.index("\n", key.end_mark.index)
    newline = "\r\n" if text[end - 1] == "\r" else "\n"
    added = "".join(f"{' ' * indent}{line}{newline}" for line in lines)
    return text[: end + 1] + added + text[end + 1 :]


def _entry(node: Any, key: str) -> tuple[Any, Any] | None:
    if node is None or node.id != "mapping":
        return None
    return next((pair for pair in node.value if pair[0].value == key), None)


def _require_own(entry: tuple[Any, Any], what: str, name: str) -> None:
    """Refuse a value that stands elsewhere, or that others refer to."""
    key, value = entry
    if value.anchor is not None or value.start_mark.index < key.end_mark.index:
        raise _refused(name, f"`{what}` is shared by an anchor or alias")


def _data(text: str, name: str) -> dict[str, Any]:
    try:
        data = YAML(typ="safe", pure=True).load(StringIO(text, newline=""))
    except (YAMLError, ValueError) as error:
        raise _refused(name, "its form is not understood") from error
    return data if isinstance(data, dict) else {}


def _keep_of(data: Mapping[str, Any]) -> list[Any]:
    section = data.get("precision")
    keep = section.get("keep") if isinstance(section, Mapping) else None
    return list(keep) if isinstance(keep, list) else []


def _normal(rule: Any) -> Any:
    return {"type": "fp32", **rule} if isinstance(rule, Mapping) else rule


def _given(rule: KeepRule) -> dict[str, Any]:
    return rule.model_dump(exclude_none=True)


def _scalar(value: str) -> str:
    if _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    # YAML 1.2's double quotes are JSON's, but beyond 16 bits it writes \U and eight digits.
    return "".join(
        one if one.isprintable() else f"\\U{ord(one):08x}"
        for one in json.dumps(value, ensure_ascii=False)
    )


def _changed(path: Path, what: str) -> RecipeError:
    hint = "run the command again on the recipe as it is now"
    return RecipeError(codes.CHANGED, f"'{path}' {what}", hint, Place(str(path)))


def _refused(name: str, why: str) -> RecipeError:
    hint = "write the rules in by hand, under precision.keep"
    message = f"no rules can be added to the recipe: {why}"
    return RecipeError(codes.NOT_EDITABLE, message, hint, Place(name))
