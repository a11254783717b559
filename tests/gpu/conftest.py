"""One engine for all tests of this folder, and what this machine's libraries build for."""

from pathlib import Path

import pytest
from engine_models import CONV_PROFILE, conv_net, save

from trtforge.engine.backend import BuildRequest, get_backend
from trtforge.engine.engine_worker import EngineSource
from trtforge.engine.environment import driver
from trtforge.engine.runner import EngineRunner
from trtforge.engine.supervisor import Job, run_worker
from trtforge.errors import BuildError, MissingError

WIDE = {"image": ((9, 3, 16, 16), (16, 3, 16, 16), (32, 3, 16, 16))}


@pytest.fixture(scope="session")
def not_for_here(tmp_path_factory: pytest.TempPathFactory) -> str | None:
    """Why engines of TensorRT-RTX need not load on this GPU; None where they must."""
    log = tmp_path_factory.mktemp("probe") / "probe.log"
    command = {"command": "probe", "backend": "tensorrt_rtx"}
    targets = run_worker(Job("probing", command, log, 120))["targets"]
    here = driver().gpus[0].compute_capability
    if here in targets:
        return None
    return f"not run: TensorRT-RTX builds for {', '.join(targets)}, not for {here}"


@pytest.fixture
def on_rtx_target(not_for_here: str | None) -> None:
    """Skip where TensorRT-RTX does not build for this GPU; benchmarks/gpu.py tells what it does."""
    if not_for_here is not None:
        pytest.skip(not_for_here)


@pytest.fixture(scope="module", params=["tensorrt_rtx", "tensorrt"])
def built(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path, Path]:
    """(backend, model, engine) with profiles for 1..8 and 9..32 images."""
    name = request.param
    try:
        backend = get_backend(name)
    except MissingError as error:
        pytest.skip(f"not run: {error.message}")
    folder = tmp_path_factory.mktemp(name)
    path = save(conv_net(), folder)
    build = BuildRequest(
        path, folder / "m.engine", folder / "build.log", name, (CONV_PROFILE, WIDE)
    )
    assert backend.build(build).engine_bytes > 0
    if name == "tensorrt_rtx":
        refused = request.getfixturevalue("not_for_here")
        try:
            with EngineRunner(EngineSource(build.output, name)):
                pass
        except BuildError as error:
            if refused is not None:
                pytest.skip(f"{refused}: {error.message}")
            raise
    return name, path, build.output
