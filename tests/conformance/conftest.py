"""The simulated TensorRT 10 and 11, for the tests that ask for one; nothing else sees it."""

from collections.abc import Iterator

import pytest
from simulator.bindings import VERSIONS
from simulator.simulation import Simulation, simulation

from trtforge.engine import environment


@pytest.fixture(scope="session")
def simulations(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Simulation]:
    """Major version -> where its simulator lies; skips where bindings or a compiler are missing."""
    folder = tmp_path_factory.mktemp("simulated")
    return {major: simulation(major, folder / major) for major in VERSIONS}


@pytest.fixture(params=list(VERSIONS))
def simulated(
    request: pytest.FixtureRequest,
    simulations: dict[str, Simulation],
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
