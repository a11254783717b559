"""docs/calibration-caches.md: the page runs from top to bottom and shows what is really printed.

To accept what is printed and the table: TRTFORGE_UPDATE_GOLDENS=1 pytest
tests/docs/test_calibration_caches_page.py
"""

import re
from pathlib import Path

from documents import REPOSITORY, blocks_of, masked, run_script, transcripts, updates_goldens

from trtforge.cli.commands.calib import calib
from trtforge.precision.cache_lint import RULES
from trtforge.precision.cache_match import EXACT_MOVERS, NARROWING
from trtforge.precision.foreign import FORMATS

FILE = REPOSITORY / "docs" / "calibration-caches.md"
PAGE = FILE.read_text(encoding="utf-8")
BLOCKS = blocks_of(PAGE)
PRINTED = dict(transcripts(BLOCKS))


def table_of_rules() -> str:
    rows = [f"| {slug} | {severity} | {text} |" for slug, (severity, text) in RULES.items()]
    return "\n".join(("| rule | severity | what it means |", "|---|---|---|", *rows))


def test_the_table_of_rules_is_what_the_code_says() -> None:
    page = FILE.read_text(encoding="utf-8")
    place = re.compile(r"(<!-- rules: generated -->\n).*?(<!-- end -->)", re.S)
    wanted = place.sub(lambda found: f"{found[1]}{table_of_rules()}\n{found[2]}", page)
    if updates_goldens():
        FILE.write_text(wanted, encoding="utf-8")
    assert FILE.read_text(encoding="utf-8") == wanted
    assert table_of_rules() in wanted


def test_every_command_option_format_and_mover_is_told() -> None:
    for name, command in calib.commands.items():
        assert f"`trtforge calib {name} " in PAGE
        options = {text for one in command.params for text in one.opts if text[0] == "-"}
        assert not {text for text in options if not re.search(rf"`{text}[` ]", PAGE)}, name
    assert not [name for name in FORMATS if f"| `{name}` |" not in PAGE]
    assert not [op for op in EXACT_MOVERS | NARROWING if op not in PAGE]


def test_the_page_runs_from_top_to_bottom(checkout: Path, environment: dict[str, str]) -> None:
    """In one checkout, as later blocks use what earlier ones wrote."""
    assert {block.language for block in BLOCKS} == {"sh", "text", "yaml"}
    assert sum(block.language == "text" for block in BLOCKS) == len(PRINTED)
    page = FILE.read_text(encoding="utf-8")
    for block in BLOCKS:
        if block.title:
            assert not (checkout / block.title).exists(), "the page shows a file that is there"
            (checkout / block.title).write_text(block.text)
        elif block.language == "sh":
            printed = run_script(block.text, checkout, environment)
            if block.text in PRINTED:
                shown = f"{block.text}```\n\n```text\n"
                page = page.replace(f"{shown}{PRINTED[block.text]}", f"{shown}{printed}", 1)
                assert updates_goldens() or masked(printed) == masked(PRINTED[block.text])
    if updates_goldens():
        FILE.write_text(page, encoding="utf-8")
