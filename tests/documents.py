"""The blocks of a page of documentation, and how they are executed."""

import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]

_BLOCK = re.compile(r"^```(\w+)(?: title=(\S+))?\n(.*?)^```$", re.M | re.S)

_FIGURES = r"\d+\.\d+(?:e[-+]\d+)?|peak \d+|\d+ ms|\d+(?= samples/s)|\d+ other passes"
"""What differs from machine to machine, and how many passes there are."""


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes:
        language: what stands behind the fence.
        text: its lines.
        title: the file that it shows, "" for none.
        follows: whether nothing but blank lines stands between it and the block before.
    """

    language: str
    text: str
    title: str
    follows: bool


def blocks_of(page: str) -> list[Block]:
    """Return the fenced blocks of a page in order."""
    found, end = [], -1
    for match in _BLOCK.finditer(page):
        language, title, text = match.groups()
        follows = end >= 0 and not page[end : match.start()].strip()
        found.append(Block(language, text, title or "", follows))
        end = match.end()
    return found


def transcripts(blocks: list[Block]) -> Iterator[tuple[str, str]]:
    """Yield commands and what they print: a text block directly behind an sh block."""
    for before, after in pairwise(blocks):
        if (before.language, after.language) == ("sh", "text") and after.follows:
            yield before.text, after.text


def run_script(script: str, checkout: Path, environment: Mapping[str, str]) -> str:
    """Run a block in a checkout as a newcomer would; return both streams."""
    # Make looks at time stamps: the environment is set up, so its stamp is new.
    for stamp in (".base", ".dev"):
        (Path(environment["VENV"]) / stamp).touch()
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=checkout,
        env=dict(environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}"
    return done.stdout


def run_python(program: str, checkout: Path, environment: Mapping[str, str]) -> str:
    """Run a Python block in a checkout."""
    return run_script(f"python - <<'END'\n{program}END", checkout, environment)


def masked(text: str) -> list[str]:
    """Return lines with measured figures and a bundle's digits masked.

    Another processor rounds the last digits otherwise; the figures themselves are held to bounds in
    tests/e2e.
    """
    text = re.sub(r"digits-int8-[0-9a-f]{8}", "digits-int8-ID", text)
    text = re.sub(_FIGURES, "FIGURE", text)
    return [" ".join(line.split()) for line in text.splitlines()]


def updates_goldens() -> bool:
    """Return whether generated parts are to be written rather than compared."""
    return bool(os.environ.get("TRTFORGE_UPDATE_GOLDENS"))
