"""docs/emulation.md: its examples run and print what is shown; its lists are those of the code.

To accept what is printed and the list: TRTFORGE_UPDATE_GOLDENS=1 pytest
tests/docs/test_emulation_page.py
"""

import re
from pathlib import Path

from documents import REPOSITORY, blocks_of, run_script, transcripts, updates_goldens

from trtforge.precision.emulation.exact import EXACT

FILE = REPOSITORY / "docs" / "emulation.md"


def test_the_operators_without_casts_are_those_of_the_code() -> None:
    page = FILE.read_text(encoding="utf-8")
    names = ", ".join(sorted(EXACT))
    place = re.compile(r"(<!-- exact: generated -->\n).*?(<!-- end -->)", re.S)
    wanted = place.sub(lambda found: f"{found[1]}{names}.\n{found[2]}", page)
    if updates_goldens():
        FILE.write_text(wanted, encoding="utf-8")
    assert FILE.read_text(encoding="utf-8") == wanted
    assert names in wanted


def test_the_examples_print_what_is_shown(checkout: Path, environment: dict[str, str]) -> None:
    page = FILE.read_text(encoding="utf-8")
    shown = list(transcripts(list(blocks_of(page))))
    assert len(shown) == 2
    for command, text in shown:
        printed = run_script(command, checkout, environment)
        page = page.replace(
            f"{command}```\n\n```text\n{text}", f"{command}```\n\n```text\n{printed}"
        )
        assert updates_goldens() or printed == text
    if updates_goldens():
        FILE.write_text(page, encoding="utf-8")


def test_the_codes_are_told() -> None:
    page = FILE.read_text(encoding="utf-8")
    source = (REPOSITORY / "trtforge" / "precision" / "emulate.py").read_text(encoding="utf-8")
    assert set(re.findall(r"TF\d{4}", source)) - {"TF0531"} <= set(re.findall(r"TF\d{4}", page))
