"""Options, markers and the folders that every test may need."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

REPOSITORY = Path(__file__).parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require-gpu",
        action="store_true",
        help="tests marked gpu fail instead of being skipped where no NVIDIA GPU can be used",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    from trtforge.engine.environment import driver

    reason = driver().reason
    if reason is None or config.getoption("--require-gpu"):
        return
    for item in marked:
        item.add_marker(pytest.mark.skip(reason=f"not run: {reason}"))


@pytest.fixture(scope="session")
def digits() -> Path:
    """The folder of the quickstart recipes."""
    return REPOSITORY / "recipes" / "digits"
