"""Every block of the README is executed, and its transcripts are what is really printed."""

import re
from pathlib import Path

import pytest
from documents import REPOSITORY, blocks_of, masked, run_python, run_script, transcripts

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
BLOCKS = blocks_of(README)
BUILD = "trtforge build recipes/digits/int8.yaml -q"


def blocks(language: str) -> list[str]:
    return [block.text for block in BLOCKS if block.language == language]


def test_make_demo_prints_the_transcript(checkout: Path, environment: dict[str, str]) -> None:
    assert blocks("sh")[0] == "make demo\n"
    transcript = next(text for text in blocks("text") if "\nimport  " in text)
    printed = run_script(blocks("sh")[0], checkout, environment)
    if "not_run: no NVIDIA driver" not in printed:
        pytest.skip("not run: the transcript was made on a machine without a GPU, this one has one")
    assert masked(printed) == masked(transcript)
    again = run_script(blocks("sh")[0], checkout, environment)
    assert again.count("from the store") == 8


@pytest.mark.parametrize("script", blocks("sh")[1:])
def test_every_command_block_runs(script: str, checkout: Path, environment: dict[str, str]) -> None:
    run_script(BUILD, checkout, environment)
    assert run_script(script, checkout, environment)


@pytest.mark.parametrize(("script", "transcript"), list(transcripts(BLOCKS)))
def test_a_block_prints_what_stands_below_it(
    script: str, transcript: str, checkout: Path, environment: dict[str, str]
) -> None:
    run_script(BUILD, checkout, environment)
    assert masked(run_script(script, checkout, environment)) == masked(transcript)


@pytest.mark.parametrize("program", blocks("python"))
def test_every_python_block_runs(program: str, checkout: Path, environment: dict[str, str]) -> None:
    assert run_python(program, checkout, environment).split()[-1] == "pass"


def test_the_recipe_shown_is_the_recipe_shipped() -> None:
    assert blocks("yaml") == [(REPOSITORY / "recipes/digits/int8.yaml").read_text()]


def test_no_block_is_left_out() -> None:
    assert {block.language for block in BLOCKS} == {"sh", "text", "yaml", "python"}


def test_the_exit_statuses_are_those_of_the_code() -> None:
    from trtforge import errors

    listed = {int(row) for row in re.findall(r"^\| (\d+) \| ", README, re.M)}
    assert listed == {value for name, value in vars(errors).items() if name.startswith("EXIT_")}
