"""docs/calibration-data.md: every block runs, and every source of the same data agrees."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from documents import REPOSITORY, Block, blocks_of, run_python, run_script

from trtforge.graph.sources.images import SUFFIXES
from trtforge.recipe.calibration import ImageData
from trtforge.recipe.load import load_recipe

PAGE = (REPOSITORY / "docs" / "calibration-data.md").read_text(encoding="utf-8")
BLOCKS = blocks_of(PAGE)
RECIPE = "recipes/digits/data.yaml"


def with_section(checkout: Path, section: str) -> Path:
    """Write the recipe int8.yaml with another section `calibration`."""
    text = (checkout / "recipes/digits/int8.yaml").read_text()
    changed, count = re.subn(r"^calibration: .*\n", lambda _: section, text, flags=re.M)
    assert count == 1
    path = checkout / RECIPE
    path.write_text(changed)
    return path


@pytest.fixture(scope="module")
def caches(checkout: Path, environment: dict[str, str]) -> list[dict[str, object]]:
    """Run the page from top to bottom; the caches that its sections give."""
    return list(_execute(checkout, environment))


def _execute(checkout: Path, environment: dict[str, str]) -> Iterator[dict[str, object]]:
    for block in BLOCKS:
        if block.language == "sh":
            assert run_script(block.text, checkout, environment)
        elif block.language == "python" and not block.title:
            assert run_python(block.text, checkout, environment)
        elif block.language == "python":
            assert not (checkout / block.title).exists()
            (checkout / block.title).write_text(block.text)
        elif block.title:
            load_recipe(with_section(checkout, block.text))
        else:
            with_section(checkout, block.text)
            # The store takes equal samples for the same data, whatever they are called.
            run_script(f"trtforge calibrate {RECIPE} -q --force", checkout, environment)
            yield json.loads((checkout / "calibration/cache.json").read_text())


def sections() -> list[Block]:
    return [block for block in BLOCKS if block.language == "yaml" and not block.title]


def test_every_source_gives_the_same_ranges(caches: list[dict[str, object]]) -> None:
    assert len(caches) == len(sections()) == 7
    *real, synthetic = caches
    for cache in real:
        assert cache["samples"] == 256
        assert cache["ranges"] == real[0]["ranges"]
    assert synthetic["samples"] == 64
    assert synthetic["ranges"] != real[0]["ranges"]


def test_the_cache_says_where_samples_came_from(caches: list[dict[str, object]]) -> None:
    told = [cache["data"][0] for cache in caches]  # type: ignore[index]
    assert [use["source"] for use in told] == [
        "calib.npz",
        "samples/ (256 files)",
        "inputs.json",
        "loader.py:load_data",
        "digits_data:batches",
        "photos/ (colour grey, scale 0.0625)",
        "synthetic samples",
    ]
    assert [use["synthetic"] for use in told] == [False] * 6 + [True]


def test_no_block_and_no_key_is_left_out() -> None:
    assert {block.language for block in BLOCKS} == {"python", "yaml", "sh"}
    assert not [key for key in ImageData.model_fields if f"`{key}`" not in PAGE]
    assert ".png" in SUFFIXES
