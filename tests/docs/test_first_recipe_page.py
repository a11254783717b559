"""docs/first-recipe.md: the page runs, and shows what is really printed.

To accept what is printed: TRTFORGE_UPDATE_GOLDENS=1 pytest tests/docs/test_first_recipe_page.py
"""

import re
from pathlib import Path

from documents import REPOSITORY, blocks_of, masked, run_script, transcripts, updates_goldens

PAGE = REPOSITORY / "docs" / "first-recipe.md"


def without_digits(text: str) -> list[str]:
    """Return the lines with what differs from machine to machine masked."""
    return masked(re.sub(r"first/digits-[0-9a-f]{8}", "first/digits-ID", text))


def test_the_page_runs_from_top_to_bottom(checkout: Path, environment: dict[str, str]) -> None:
    text = PAGE.read_text(encoding="utf-8")
    blocks = blocks_of(text)
    printed = dict(transcripts(blocks))
    assert len(printed) == 3
    for block in blocks:
        if block.language != "sh":
            continue
        shown = run_script(block.text, checkout, environment)
        if block.text in printed:
            old = f"```sh\n{block.text}```\n\n```text\n{printed[block.text]}```"
            if updates_goldens():
                text = text.replace(old, f"```sh\n{block.text}```\n\n```text\n{shown}```")
            else:
                assert without_digits(shown) == without_digits(printed[block.text])
    if updates_goldens():
        PAGE.write_text(text, encoding="utf-8")
