"""docs/budgets.md: the page runs from top to bottom and shows what is really printed.

To accept what is printed: TRTFORGE_UPDATE_GOLDENS=1 pytest tests/docs/test_budgets_page.py
"""

import re
from pathlib import Path

import numpy as np
from documents import REPOSITORY, blocks_of, masked, run_script, transcripts, updates_goldens

from trtforge.precision.mixes import RELATIVE_TIME
from trtforge.recipe.precision import Budget

PAGE = REPOSITORY / "docs" / "budgets.md"


def settled(text: str) -> list[str]:
    """Lines without what another processor may round otherwise, and so choose otherwise."""
    text = re.sub(r"digits-budget-[0-9a-f]{8}", "ID", text)
    text = re.sub(r"(  - \{op: \w+, name: .*, type: fp16\}\n)+", "RULES\n", text)
    text = re.sub(r"\d+ (?=int8|fp16|fp32|mixes|kernels)", "N ", text)
    return masked(text)


def test_the_page_runs_from_top_to_bottom(checkout: Path, environment: dict[str, str]) -> None:
    page = PAGE.read_text(encoding="utf-8")
    for command, shown in transcripts(blocks_of(page)):
        printed = run_script(command, checkout, environment)
        if updates_goldens():
            page = page.replace(
                f"{command}```\n\n```text\n{shown}", f"{command}```\n\n```text\n{printed}", 1
            )
        else:
            assert settled(printed) == settled(shown)
    if updates_goldens():
        PAGE.write_text(page, encoding="utf-8")


def test_the_metric_of_the_page_is_one() -> None:
    (block,) = [
        one.text for one in blocks_of(PAGE.read_text(encoding="utf-8")) if one.language == "python"
    ]
    room: dict[str, object] = {}
    exec(block, room)
    outputs = [{"mask": np.array([[1.0, -1.0, 2.0]])}]
    assert room["mean_iou"](outputs, outputs) == 1.0  # type: ignore[operator]


def test_numbers_of_the_page_are_those_of_the_code() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert "times 1 for INT8 and FP8, 2 for FP16 and BF16, 4 for FP32" in page
    assert RELATIVE_TIME == {"int8": 1, "fp8": 1, "fp16": 2, "bf16": 2, "fp32": 4}
    assert f"`budget.evaluations` ({Budget(sqnr_db=1).evaluations})" in page
