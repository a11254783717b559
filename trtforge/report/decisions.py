"""Why nodes have the type that they have: decisions with the same reason together."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from trtforge.report.data import Json
from trtforge.report.figures import count, short
from trtforge.report.tables import Table, cut
from trtforge.report.types import type_name

_MOST_REASONS = 40
_MOST_ROWS = 150
"""Of each kind of decision; precision.json in the bundle has them all."""

_EXAMPLES = 2

_VARYING = re.compile(r"'[^']*'|[-+]?\b\d+(?:\.\d+)?(?:e[-+]?\d+)?\b")
"""What differs between reasons that say the same of several nodes: names in quotes, and numbers."""


@dataclass
class _Group:
    """Decisions of the same kind for the same reason."""

    outcome: str
    reason: str
    operators: Counter[str] = field(default_factory=Counter)
    nodes: list[str] = field(default_factory=list)
    varies: bool = False

    def row(self) -> tuple[str, ...]:
        operators = ", ".join(f"{op} × {n}" for op, n in self.operators.most_common(4))
        more = len(self.operators) - 4
        examples = ", ".join(short(node) for node in self.nodes[:_EXAMPLES])
        return (
            self.outcome,
            count(sum(self.operators.values())),
            f"{operators}, …" if more > 0 else operators,
            f"{self.reason} (for example)" if self.varies else self.reason,
            examples,
        )


def reasons_table(decisions: Sequence[Json]) -> Table:
    """Return one row for each outcome and reason, with counts by operator.

    Reasons that differ only in names and numbers are one; the first of them is shown.
    """
    groups: dict[tuple[str, str], _Group] = {}
    for entry in decisions:
        outcome, reason = outcome_of(entry), str(entry.get("reason") or "no reason given")
        key = (outcome, _VARYING.sub("#", reason))
        group = groups.setdefault(key, _Group(outcome, reason))
        group.varies |= reason != group.reason
        group.operators[str(entry.get("op") or "?")] += 1
        if name := str(entry.get("node") or entry.get("tensor") or ""):
            group.nodes.append(name)
    largest = sorted(groups.values(), key=lambda group: -group.operators.total())
    rows = tuple(group.row() for group in largest)
    columns = ("outcome", "nodes", "operators", "because", "such as")
    table = Table(columns, rows, frozenset({1}), frozenset({4}))
    return cut(table, _MOST_REASONS, where="precision.json")


def decisions_tables(decisions: Sequence[Json]) -> Iterator[tuple[str, Table]]:
    """Yield outcome with its count, and its decisions one by one."""
    outcomes: dict[str, list[tuple[str, ...]]] = {}
    for entry in decisions:
        cells = tuple(str(entry.get(key) or "") for key in ("node", "op", "tensor", "reason"))
        outcomes.setdefault(outcome_of(entry), []).append(cells)
    for outcome, rows in outcomes.items():
        columns = ("node", "operator", "tensor", "reason")
        table = Table(columns, tuple(rows), names=frozenset({0, 2}))
        yield f"{outcome} ({count(len(rows))})", cut(table, _MOST_ROWS, where="precision.json")


def outcome_of(entry: Mapping[str, object]) -> str:
    """Return what was decided: "quantized", "kept", "passes", or "fp32" for a cast's exception."""
    if action := entry.get("action"):
        return str(action)
    return f"in {type_name(entry.get('type'))}"
