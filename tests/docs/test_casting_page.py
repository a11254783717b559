"""docs/casting.md: its examples print what is shown, every option is told, numbers are the code's.

To accept what is printed: TRTFORGE_UPDATE_GOLDENS=1 pytest tests/docs/test_casting_page.py
"""

import re
from pathlib import Path

from documents import REPOSITORY, blocks_of, masked, run_script, transcripts, updates_goldens

from trtforge.cli.commands.cast import cast
from trtforge.precision import float_ranges, masks, range_check, range_judgement

FILE = REPOSITORY / "docs" / "casting.md"


def test_the_examples_print_what_is_shown(checkout: Path, environment: dict[str, str]) -> None:
    page = FILE.read_text(encoding="utf-8")
    shown = list(transcripts(list(blocks_of(page))))
    assert len(shown) == 2
    for command, text in shown:
        printed = run_script(command, checkout, environment)
        page = page.replace(
            f"{command}```\n\n```text\n{text}", f"{command}```\n\n```text\n{printed}"
        )
        assert updates_goldens() or masked(printed) == masked(text)
    if updates_goldens():
        FILE.write_text(page, encoding="utf-8")


def test_every_option_is_told() -> None:
    page = FILE.read_text(encoding="utf-8")
    options = {name for parameter in cast.params for name in parameter.opts if name[:2] == "--"}
    common = {"--out", "--quiet", "--verbose"}
    assert not {name for name in options - common if not re.search(rf"`{name}[` ]", page)}


def test_the_numbers_are_those_of_the_code() -> None:
    page = FILE.read_text(encoding="utf-8")
    assert float_ranges.SAMPLES == 4
    assert "four samples" in page
    assert f"times {range_judgement.MARGIN:g}" in page
    assert "{fp16:g} dB (BF16: {bf16:g} dB)".format_map(range_check.ENOUGH_DB) in page
    assert f"become {masks.SMALL_MASK:g}" in page
