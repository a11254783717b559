"""A migrated recipe as text, with what became of each flag as comments in front."""

import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from trtforge.recipe.migration.result import Finding

_ORDER = (
    *("version", "name", "model", "shapes", "passes", "precision", "calibration", "targets"),
    *("verify", "bundle"),
)
_WIDTH = 98


def recipe_text(values: Mapping[str, Any], source: str, findings: Sequence[Finding]) -> str:
    """Write a recipe.

    Args:
        values: the recipe's data.
        source: the command or file that it comes from.
        findings: what became of its flags.

    Returns:
        YAML, keys in the order of the schema; lists of numbers and small mappings on one line.
    """
    ordered = {key: values[key] for key in _ORDER if key in values}
    yaml = YAML()
    yaml.width = _WIDTH
    yaml.indent(mapping=2, sequence=4, offset=2)
    stream = io.StringIO()
    yaml.dump(_styled(ordered), stream)
    lines = ["Migrated from:", *textwrap.wrap(source, _WIDTH - 4, initial_indent="  ")]
    for finding in findings:
        if finding.action != "mapped" or finding.why:
            where = f" -> {finding.where}" if finding.where else ""
            text = f"{finding.flag}: {finding.action}{where}"
            text += f": {finding.why}" if finding.why else ""
            lines += textwrap.wrap(text, _WIDTH - 4, subsequent_indent="  ")
    head = "".join(f"# {_harmless(line)}\n" for line in lines)
    return f"{head}\n{stream.getvalue()}"


def _harmless(text: str) -> str:
    """A comment ends where its line does, whatever a flag holds."""
    return "".join(character if character.isprintable() else " " for character in text).rstrip()


def _styled(value: Any) -> Any:
    if isinstance(value, Mapping):
        styled = CommentedMap((key, _styled(one)) for key, one in value.items())
        if value and not any(isinstance(one, Mapping) for one in value.values()):
            shown = sum(len(str(key)) + len(str(one)) + 4 for key, one in value.items())
            if shown < _WIDTH - 20:
                styled.fa.set_flow_style()
        return styled
    if isinstance(value, list | tuple):
        items = CommentedSeq(_styled(one) for one in value)
        if not any(isinstance(one, Mapping) for one in value):
            items.fa.set_flow_style()
        return items
    return value
