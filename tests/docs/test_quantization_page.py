"""docs/quantization.md: the page runs from top to bottom and shows what is really printed.

To accept what is printed and the table: TRTFORGE_UPDATE_GOLDENS=1 pytest
tests/docs/test_quantization_page.py
"""

import re
from collections.abc import Iterator
from pathlib import Path

from documents import REPOSITORY, blocks_of, masked, run_script, transcripts, updates_goldens

from trtforge.cli.commands.quantize import quantize
from trtforge.pipeline.quantizing import list_techniques

PAGE = REPOSITORY / "docs" / "quantization.md"
BLOCKS = blocks_of(PAGE.read_text(encoding="utf-8"))
PRINTED = dict(transcripts(BLOCKS))


def table_of_techniques() -> str:
    rows = []
    for row in list_techniques():
        defaults = ", ".join(row["default_for"]) or "-"
        rows.append(f"| {row['name']} | {row['runs']} | {defaults} | {row['does']} |")
    head = ("| technique | runs | default for | what it does |", "|---|---|---|---|")
    return "\n".join((*head, *rows))


def test_the_table_of_techniques_is_what_the_code_says() -> None:
    page = PAGE.read_text(encoding="utf-8")
    place = re.compile(r"(<!-- techniques: generated -->\n).*?(<!-- end -->)", re.S)
    wanted = place.sub(lambda found: f"{found[1]}{table_of_techniques()}\n{found[2]}", page)
    if updates_goldens():
        PAGE.write_text(wanted, encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == wanted
    assert table_of_techniques() in wanted


def test_every_option_is_told() -> None:
    page = PAGE.read_text(encoding="utf-8")
    options = {name for parameter in quantize.params for name in parameter.opts if name[0] == "-"}
    assert not {name for name in options if not re.search(rf"`{name}[` ]", page)}


def test_the_page_runs_from_top_to_bottom(checkout: Path, environment: dict[str, str]) -> None:
    """In one checkout, as later blocks use what earlier ones wrote."""
    assert {block.language for block in BLOCKS} == {"sh", "text", "yaml"}
    assert sum(block.language == "text" for block in BLOCKS) == len(PRINTED)
    page = PAGE.read_text(encoding="utf-8")
    for shown, printed in _run_all(checkout, environment):
        if updates_goldens():
            page = page.replace(shown, f"{shown}```\n\n```text\n{printed}", 1)
        else:
            assert masked(printed) == masked(PRINTED[shown])
    if updates_goldens():
        doubled = re.compile(r"(```text\n(?:(?!```).*\n)*)```\n\n```text\n(?:(?!```).*\n)*```\n")
        PAGE.write_text(doubled.sub(r"\1```\n", page), encoding="utf-8")


def _run_all(checkout: Path, environment: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Execute the blocks; yield the scripts whose output is shown, and what they print."""
    for block in BLOCKS:
        if block.title:
            assert not (checkout / block.title).exists(), "the page shows a file that is there"
            (checkout / block.title).write_text(block.text)
        elif block.language == "sh":
            printed = run_script(block.text, checkout, environment)
            if block.text in PRINTED:
                yield block.text, printed
