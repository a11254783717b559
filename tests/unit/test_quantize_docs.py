"""docs/quantization-placement.md tells the rules that the code follows.

To accept changed tables: TRTFORGE_UPDATE_GOLDENS=1 pytest tests/unit/test_quantize_docs.py
"""

import re
from collections.abc import Mapping

from documents import REPOSITORY, updates_goldens

from trtforge.precision.compact import COSTLY, KERNEL_BYTES
from trtforge.precision.placement_rules import (
    FLOAT_ONLY,
    JOINING,
    PASSING,
    TARGETS,
    UNITE_WITHIN,
    WEIGHTED,
)
from trtforge.precision.scales import SCALE_STEPS
from trtforge.precision.sharing import CONDITIONS

PAGE = REPOSITORY / "docs" / "quantization-placement.md"


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def by_target(sources: Mapping[str, str]) -> list[str]:
    return [sources.get(target, "-") for target in TARGETS]


def head(*cells: str) -> list[str]:
    return [row(*cells), "|" + "---|" * len(cells)]


def tables() -> dict[str, str]:
    weighted = head("operator", "weight", "one scale per", *TARGETS)
    for op, rule in WEIGHTED.items():
        for index, axis in rule.channels.items():
            place = {0: "first axis", 1: "second axis", -1: "last axis", -2: "last axis but one"}
            turned = f" (with {rule.turned_by[index]}: the other)" if rule.turned_by else ""
            side = ("left", "right")[index] if rule.products else "second input"
            weighted.append(row(op, side, place[axis] + turned, *by_target(rule.sources)))
    passing = head("operator", "condition", "its range", *TARGETS)
    for op, moved in PASSING.items():
        span = "the same" if moved.whole else "the same or narrower"
        passing.append(row(op, moved.only or "-", span, *by_target(moved.sources)))
    for op, joined in JOINING.items():
        passing.append(row(op, "see below", "of all its inputs", *by_target(joined.sources)))
    floats = [*head("operator", "why"), *(row(op, why) for op, why in FLOAT_ONLY.items())]
    costly = [*head("what", "why"), *(row(rule.what, rule.why) for rule in COSTLY)]
    parts = {"weighted": weighted, "passing": passing, "floats": floats, "compact": costly}
    return {name: "\n".join(lines) for name, lines in parts.items()}


def test_the_tables_are_the_rules() -> None:
    page = PAGE.read_text(encoding="utf-8")
    wanted = page
    for name, table in tables().items():
        place = re.compile(rf"(<!-- {name}: generated -->\n).*?(<!-- end -->)", re.S)
        wanted, count = place.subn(lambda found, t=table: f"{found[1]}{t}\n{found[2]}", wanted)
        assert count == 1
    if updates_goldens():
        PAGE.write_text(wanted, encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == wanted


def test_the_numbers_and_conditions_exist() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert f"a factor of {UNITE_WITHIN:g}" in page
    assert f"about {KERNEL_BYTES / 1000:.0f} KB for each" in page
    assert f"step of 2^(1/{SCALE_STEPS})" in page
    assert {rule.only for rule in (*PASSING.values(), *JOINING.values())} == set(CONDITIONS)
    assert not FLOAT_ONLY.keys() & (WEIGHTED.keys() | JOINING.keys())
