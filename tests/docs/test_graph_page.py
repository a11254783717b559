"""docs/graph.md: its tables are those of the code, and the page runs from top to bottom.

To accept changed tables: TRTFORGE_UPDATE_GOLDENS=1 pytest tests/docs/test_graph_page.py
"""

import re
from pathlib import Path
from typing import Any

import pytest
from documents import (
    REPOSITORY,
    Block,
    blocks_of,
    masked,
    run_python,
    run_script,
    transcripts,
    updates_goldens,
)

from trtforge.cli.commands.optimize import optimize
from trtforge.engine.backend import OPSET_LIMITS
from trtforge.graph.passes import DEFAULT_OPSET_LIMIT
from trtforge.pipeline.rooms import list_passes

PAGE = REPOSITORY / "docs" / "graph.md"
BLOCKS = blocks_of(PAGE.read_text(encoding="utf-8"))
PRINTED = dict(transcripts(BLOCKS))


def table_of_passes() -> str:
    rows = [
        f"| {row['name']} | {'' if row['default'] else 'optional'} | {row['does']} |"
        for row in list_passes()
    ]
    return "\n".join(("| pass | | what it does |", "|---|---|---|", *rows)).replace("|  |", "| |")


def table_of_limits() -> str:
    rows = [f"| {backend} | {limit} |" for backend, limit in OPSET_LIMITS.items()]
    rows.append(f"| none: `trtforge optimize` | {DEFAULT_OPSET_LIMIT} |")
    return "\n".join(("| target's backend | newest opset |", "|---|---|", *rows))


@pytest.mark.parametrize(
    ("mark", "generated"), [("passes", table_of_passes()), ("limits", table_of_limits())]
)
def test_a_table_is_what_the_code_says(mark: str, generated: str) -> None:
    page = PAGE.read_text(encoding="utf-8")
    place = re.compile(rf"(<!-- {mark}: generated -->\n).*?(\n<!-- end -->)", re.S)
    wanted = place.sub(lambda found: f"{found[1]}{generated}{found[2]}", page)
    assert generated in wanted, f"the page has no place for the table of {mark}"
    if updates_goldens():
        PAGE.write_text(wanted, encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == wanted


def test_every_option_is_told() -> None:
    page = PAGE.read_text(encoding="utf-8")
    options = {name for parameter in optimize.params for name in parameter.opts if name[0] == "-"}
    assert not {name for name in options if not re.search(rf"`{name}[` ]", page)}


def test_no_block_is_left_out() -> None:
    languages = {block.language for block in BLOCKS}
    assert languages == {"sh", "text", "yaml", "python", "diff"}
    shown = [block.text for block in BLOCKS if block.language == "text"]
    assert shown == list(PRINTED.values())


def test_the_page_runs_from_top_to_bottom(checkout: Path, environment: dict[str, str]) -> None:
    """In one checkout, as later blocks use what earlier ones wrote."""
    really = {**environment, "PYTEST_ADDOPTS": "-p no:cacheprovider"}
    for block in BLOCKS:
        _execute(block, checkout, really)


def _execute(block: Block, checkout: Path, environment: dict[str, str]) -> None:
    if block.language == "sh":
        printed = run_script(block.text, checkout, environment)
        if block.text in PRINTED:
            assert masked(printed) == masked(PRINTED[block.text])
    elif block.language == "diff":
        _patch(checkout / block.title, block.text)
    elif block.title:
        assert not (checkout / block.title).exists(), "the page shows a file that is there already"
        (checkout / block.title).write_text(block.text)
    elif block.language == "python":
        assert run_python(block.text, checkout, environment).split()[-1] == "pass"
    elif block.language == "yaml":
        _build_with(block.text, checkout, environment)


def _patch(file: Path, diff: str) -> None:
    """Put lines in behind the line that stands before them, which is there once."""
    lines: list[Any] = file.read_text().splitlines()
    place = None
    for line in diff.splitlines():
        if line[0] == " ":
            assert lines.count(line[1:]) == 1, line
            place = lines.index(line[1:])
        else:
            assert line[0] == "+"
            assert place is not None, "new lines need a line before them"
            place += 1
            lines.insert(place, line[1:])
    file.write_text("\n".join(lines) + "\n")


def _build_with(section: str, checkout: Path, environment: dict[str, str]) -> None:
    recipe = checkout / "recipes" / "digits" / "passes.yaml"
    recipe.write_text((checkout / "recipes/digits/fp32.yaml").read_text() + section)
    run_script(f"trtforge build {recipe} -q", checkout, environment)
