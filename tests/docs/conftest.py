"""A newcomer's checkout and environment, in which pages of documentation are executed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from documents import REPOSITORY

MAKES_OWN = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MAKEOVERRIDES")


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
