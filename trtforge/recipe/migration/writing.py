"""A migrated recipe as text, with what became of each flag as comments in front."""

from collections.abc import Mapping, Sequence
from typing import Any

from trtforge.recipe.migration.result import Finding
from trtforge.recipe.writing import comment, yaml_text

_ORDER = (
    *("version", "name", "model", "shapes", "passes", "precision", "calibration", "targets"),
    *("verify", "bundle"),
)


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
    told = []
    for finding in findings:
        if finding.action != "mapped" or finding.why:
            where = f" -> {finding.where}" if finding.where else ""
            why = f": {finding.why}" if finding.why else ""
            told.append(f"{finding.flag}: {finding.action}{where}{why}")
    head = comment(["Migrated from:", f"  {source}"]) + comment(told, hanging="  ")
    return f"{head}\n{yaml_text(ordered)}"
