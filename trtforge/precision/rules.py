"""Keep rules of a recipe, applied to nodes."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from trtforge.recipe.schema import KeepRule


def kept_by(op: str, name: str, rules: Sequence[KeepRule]) -> KeepRule | None:
    """The first rule that selects a node, by operator, by glob on its name, or by both."""
    for rule in rules:
        op_fits = rule.op is None or rule.op == op
        name_fits = rule.name is None or fnmatchcase(name, rule.name)
        if op_fits and name_fits:
            return rule
    return None


def unmatched(nodes: Iterable[tuple[str, str]], rules: Sequence[KeepRule]) -> tuple[KeepRule, ...]:
    """Rules that select no node, which is most often a slip of the pen.

    Args:
        nodes: (operator, name) of every node.
        rules: the keep rules.
    """
    known = list(nodes)
    return tuple(rule for rule in rules if not any(kept_by(*node, [rule]) for node in known))


def describe(rule: KeepRule) -> str:
    """The rule as a user wrote it, for reasons in reports."""
    parts = [f"op: {rule.op}"] if rule.op is not None else []
    parts += [f"name: {rule.name}"] if rule.name is not None else []
    return f"keep rule {{{', '.join(parts)}, type: {rule.type}}}"
