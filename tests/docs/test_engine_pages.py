"""docs/migrating.md, engines.md and measuring.md: the pages run, and show what is really printed.

To accept the table of options: TRTFORGE_UPDATE_GOLDENS=1 pytest tests/docs/test_engine_pages.py
"""

import re
from pathlib import Path

import pytest
from documents import (
    REPOSITORY,
    Block,
    blocks_of,
    masked,
    run_script,
    transcripts,
    updates_goldens,
)

from trtforge.recipe.engine_options import REFUSED, EngineOptions

PAGES = [REPOSITORY / "docs" / name for name in ("migrating.md", "engines.md", "measuring.md")]
ENGINES, MEASURING = PAGES[1:]


def blocks(page: Path) -> list[Block]:
    return blocks_of(page.read_text(encoding="utf-8"))


def table_of_options() -> str:
    rows = ["| option | what it does | tensorrt_rtx |", "|---|---|---|"]
    for name, field in EngineOptions.model_fields.items():
        refusal = REFUSED["tensorrt_rtx"].get(name)
        takes = "yes" if refusal is None else f"refused: {refusal[1]}"
        rows.append(f"| {name} | {field.description} | {takes} |")
    return "\n".join(rows)


def test_the_table_of_options_is_what_the_code_says() -> None:
    page = ENGINES.read_text(encoding="utf-8")
    place = re.compile(r"(<!-- options: generated -->\n).*?(<!-- end -->)", re.S)
    wanted = place.sub(lambda found: f"{found[1]}{table_of_options()}\n{found[2]}", page)
    if updates_goldens():
        ENGINES.write_text(wanted, encoding="utf-8")
    assert ENGINES.read_text(encoding="utf-8") == wanted
    assert table_of_options() in wanted


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_runs_from_top_to_bottom(
    page: Path, checkout: Path, environment: dict[str, str]
) -> None:
    """In one checkout, as later blocks use what earlier ones wrote."""
    printed = dict(transcripts(blocks(page)))
    assert {block.language for block in blocks(page)} <= {"sh", "text", "yaml"}
    assert sum(block.language == "text" for block in blocks(page)) == len(printed)
    for block in blocks(page):
        if block.language == "sh":
            shown = run_script(block.text, checkout, environment)
            if block.text in printed:
                assert masked(shown) == masked(printed[block.text])


def test_the_recipe_on_the_page_is_one() -> None:
    from trtforge.recipe.schema import Target

    found = [block.text for block in blocks(ENGINES) if block.language == "yaml"]
    (text,) = [text for text in found if text.startswith("targets:")]
    from trtforge.recipe.compose import compose
    from trtforge.recipe.nodes import Source, plain

    root, problems = compose(Source("page", text))
    assert problems == []
    assert root is not None
    targets = [Target.model_validate(one) for one in plain(root)["targets"]]
    assert [target.backend for target in targets] == ["tensorrt_rtx", "tensorrt", "onnxruntime"]


def test_the_page_names_scenarios_figures_and_a_section_that_are_there() -> None:
    from trtforge.engine.measuring.scenarios import SCENARIOS
    from trtforge.recipe.compose import compose
    from trtforge.recipe.limits import FIGURES
    from trtforge.recipe.nodes import Source, plain
    from trtforge.recipe.performance import Performance

    page = MEASURING.read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| ")][1:]
    named = {row.split(" | ")[0].removeprefix("| "): row for row in rows}
    assert set(named) == set(SCENARIOS)
    for name, percent in SCENARIOS.items():
        wanted = "samples per second" if name == "offline" else f"p{percent:g} of latency"
        assert named[name].endswith(f"{wanted} |")
    assert all(f"`{figure}`" in page for figure in FIGURES)
    (text,) = [block.text for block in blocks(MEASURING) if block.language == "yaml"]
    root, problems = compose(Source("page", text))
    assert problems == []
    assert root is not None
    assert Performance.model_validate(plain(root)["performance"]).limits
