"""Every block of the README is executed, and its transcript is what is really printed."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
MAKES_OWN = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MAKEOVERRIDES")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.M | re.S)


def blocks(language: str) -> list[str]:
    return [text for found, text in BLOCKS if found == language]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what git tracks, as a newcomer has it."""
    folder = tmp_path_factory.mktemp("checkout") / "trtforge"
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (REPOSITORY / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment that runs these tests serves as the newcomer's virtual environment."""
    here = Path(sys.executable).parent
    # `make test` runs these tests: its own variables would make the inner make talk of folders.
    inherited = {name: value for name, value in os.environ.items() if name not in MAKES_OWN}
    return {
        **inherited,
        "PATH": f"{here}{os.pathsep}{os.environ['PATH']}",
        "VENV": str(here.parent),
        "TRTFORGE_CACHE": str(tmp_path_factory.mktemp("store")),
        # `make test` runs for real, but only collects: it would run this very test otherwise.
        "PYTEST_ADDOPTS": "--collect-only -p no:cacheprovider",
    }


def run(script: str, checkout: Path, environment: dict[str, str]) -> str:
    # Make looks at time stamps: the environment is set up, so its stamp is new.
    for stamp in (".base", ".dev"):
        (Path(environment["VENV"]) / stamp).touch()
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=checkout,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def masked(text: str) -> list[str]:
    """Return lines with measured figures and the bundle's digits masked.

    Another processor rounds the last digits otherwise; the figures themselves are held to bounds in
    tests/e2e.
    """
    text = re.sub(r"digits-int8-[0-9a-f]{8}", "digits-int8-ID", text)
    text = re.sub(r"\d+\.\d+|peak \d+", "FIGURE", text)
    return [" ".join(line.split()) for line in text.splitlines()]


def test_make_demo_prints_the_transcript(checkout: Path, environment: dict[str, str]) -> None:
    assert blocks("sh")[0] == "make demo\n"
    transcript = next(text for text in blocks("text") if text.startswith("import "))
    printed = run(blocks("sh")[0], checkout, environment)
    if "not_run: no NVIDIA driver" not in printed:
        pytest.skip("not run: the transcript was made on a machine without a GPU, this one has one")
    assert masked(printed) == masked(transcript)
    again = run(blocks("sh")[0], checkout, environment)
    assert again.count("from the store") == 8


@pytest.mark.parametrize("script", blocks("sh")[1:])
def test_every_command_block_runs(script: str, checkout: Path, environment: dict[str, str]) -> None:
    run("trtforge build recipes/digits/int8.yaml -q", checkout, environment)
    assert run(script, checkout, environment)


@pytest.mark.parametrize("program", blocks("python"))
def test_every_python_block_runs(program: str, checkout: Path, environment: dict[str, str]) -> None:
    assert run(f"python - <<'END'\n{program}END", checkout, environment).split()[-1] == "pass"


def test_the_recipe_shown_is_the_recipe_shipped() -> None:
    assert blocks("yaml") == [(REPOSITORY / "recipes/digits/int8.yaml").read_text()]


def test_no_block_is_left_out() -> None:
    assert {language for language, _ in BLOCKS} == {"sh", "text", "yaml", "python"}


def test_the_exit_statuses_are_those_of_the_code() -> None:
    from trtforge import errors

    listed = {int(row) for row in re.findall(r"^\| (\d+) \| ", README, re.M)}
    assert listed == {value for name, value in vars(errors).items() if name.startswith("EXIT_")}
