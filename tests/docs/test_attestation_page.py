"""docs/attestation.md: its example prints what is shown, and it tells every code and type.

To accept what is printed: TRTFORGE_UPDATE_GOLDENS=1 pytest tests/docs/test_attestation_page.py
"""

import re
from pathlib import Path

from documents import REPOSITORY, blocks_of, masked, run_script, transcripts, updates_goldens

from trtforge.precision.macs import MACS

FILE = REPOSITORY / "docs" / "attestation.md"


def test_the_example_prints_what_is_shown(checkout: Path, environment: dict[str, str]) -> None:
    page = FILE.read_text(encoding="utf-8")
    ((command, text),) = transcripts(list(blocks_of(page)))
    printed = run_script(command, checkout, environment)
    if updates_goldens():
        shown = page.replace(
            f"{command}```\n\n```text\n{text}", f"{command}```\n\n```text\n{printed}"
        )
        FILE.write_text(shown, encoding="utf-8")
        return
    assert masked(printed) == masked(text)


def test_the_operators_and_codes_are_those_of_the_code() -> None:
    page = FILE.read_text(encoding="utf-8")
    assert all(re.search(rf"\b{operator}\b", page) for operator in MACS)
    sources = [
        *(REPOSITORY / "trtforge" / "pipeline").glob("attest*.py"),
        REPOSITORY / "trtforge" / "engine" / "inspector.py",
    ]
    raised = {code for file in sources for code in re.findall(r"TF\d{4}", file.read_text())}
    assert raised - {"TF0303", "TF0603"} <= set(re.findall(r"TF\d{4}", page))
