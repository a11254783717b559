"""Where the simulator is put for a test: a folder for PYTHONPATH and one for the fake GPU."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from .bindings import compile_library
from .specification import specification_file

_HERE = Path(__file__).parent

_MODULE = """
import tensorrt_simulator.module
tensorrt_simulator.module.populate(globals(), {specification!r})
del tensorrt_simulator
"""


@dataclass(frozen=True)
class Simulation:
    """One release of TensorRT, simulated.

    Attributes:
        version: e.g. "10.16.1.11".
        modules: what goes on PYTHONPATH: tensorrt.py, the simulator, metadata of the package.
        libraries: what goes on LD_LIBRARY_PATH: the fake driver and the fake CUDA runtime.
        driver: the fake driver under a name that no loader finds by itself.
    """

    version: str
    modules: Path
    libraries: Path
    driver: Path

    @property
    def major(self) -> str:
        """E.g. "10"."""
        return self.version.split(".")[0]

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to find the simulator."""
        known = os.environ.get("PYTHONPATH")
        path = f"{self.modules}{os.pathsep}{known}" if known else str(self.modules)
        return {
            "PYTHONPATH": path,
            "LD_LIBRARY_PATH": str(self.libraries),
        }

    def python(self, program: str, *arguments: str) -> str:
        """Run a program that may `import tensorrt as trt`; returns what it prints."""
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments],
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


def simulation(version: str, folder: Path) -> Simulation:
    """Make the folders; skips the test where the bindings or a compiler are missing."""
    modules, libraries = (folder / "modules", folder / "libraries")
    modules.mkdir(parents=True)
    libraries.mkdir()
    specification = str(specification_file(version))
    (modules / "tensorrt.py").write_text(_MODULE.format(specification=specification))
    (modules / "tensorrt_simulator").symlink_to(_HERE)
    metadata = modules / f"tensorrt-{version}.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(f"Metadata-Version: 2.1\nName: tensorrt\nVersion: {version}\n")
    compile_library(_HERE / "fake_driver.c", libraries / "libcuda.so.1")
    compile_library(_HERE / "fake_runtime.c", libraries / "libcudart.so.13")
    driver = folder / "fake_driver.so"
    compile_library(_HERE / "fake_driver.c", driver, soname="")
    return Simulation(version, modules, libraries, driver)
