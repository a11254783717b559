"""Every function that sessions call is in NVIDIA's real CUDA runtimes 12 and 13, under its name.

Their libraries load without a driver; they come from the public package index, kept in .cache/.
"""

import ctypes
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from trtforge.engine import cuda
from trtforge.engine.environment import driver
from trtforge.errors import BuildError

CACHE = Path(__file__).parents[2] / ".cache" / "cuda-runtime"
WHEELS = {
    "12": ("nvidia-cuda-runtime-cu12==12.9.79", "libcudart.so.12"),
    "13": ("nvidia-cuda-runtime==13.0.96", "libcudart.so.13"),
}
NAMES = set(re.findall(r"\bcuda[A-Z]\w+", Path(cuda.__file__).read_text(encoding="utf-8")))


@pytest.fixture(params=list(WHEELS))
def library(request: pytest.FixtureRequest) -> Path:
    package, name = WHEELS[request.param]
    folder = CACHE / request.param
    if not list(folder.rglob(name)):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        done = subprocess.run(
            [*command, "--only-binary", ":all:", "--dest", str(folder), package],
            capture_output=True,
            timeout=60,
            check=False,
        )
        if done.returncode != 0:
            pytest.skip(f"not run: cannot get {package}")
        wheel = next(folder.glob("*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder, [one for one in archive.namelist() if name in one])
        wheel.unlink()
    return next(folder.rglob(name))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux libraries")
def test_every_function_is_there(library: Path) -> None:
    runtime = ctypes.CDLL(str(library))
    assert len(NAMES) > 15
    assert [name for name in sorted(NAMES) if not hasattr(runtime, name)] == []


@pytest.mark.skipif(driver().reason is None, reason="there is a GPU: make test-gpu")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux libraries")
def test_without_a_driver_it_says_so_itself(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrapper:
        handle = ctypes.CDLL(str(library))

    monkeypatch.setattr("polygraphy.cuda.wrapper", Wrapper)
    with pytest.raises(BuildError, match="CUDA driver version is insufficient"):
        cuda.Cuda()
