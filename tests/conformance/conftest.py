"""The simulated TensorRT 10 and 11, for the tests that ask for one; nothing else sees it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from simulator.bindings import OLDEST, VERSIONS
from simulator.simulation import Simulation, simulation

from trtforge.engine import environment


class Simulations(dict[str, Simulation]):
    """By "10", "11" and "oldest", each made when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __missing__(self, name: str) -> Simulation:
        version = OLDEST if name == "oldest" else VERSIONS[name]
        self[name] = simulation(version, self._folder / name)
        return self[name]


@pytest.fixture(scope="session")
def simulations(tmp_path_factory: pytest.TempPathFactory) -> Simulations:
    """Where the simulators lie; skips where bindings or a compiler are missing."""
    return Simulations(tmp_path_factory.mktemp("simulated"))


@pytest.fixture(params=list(VERSIONS))
def simulated(
    request: pytest.FixtureRequest,
    simulations: Simulations,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Simulation]:
    """Let workers and command lines started by this test find the simulator and its fake GPU."""
    found = simulations[request.param]
    for name, value in found.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.syspath_prepend(found.modules)
    monkeypatch.setattr(environment, "DRIVER_LIBRARY", str(found.driver))
    environment.driver.cache_clear()
    yield found
    environment.driver.cache_clear()
