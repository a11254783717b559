"""Energy and clocks through NVIDIA's real nvidia-ml-py, over a library that the test compiles.

So every name and argument that we use is there in its newest and in its oldest release; the fake
stands in for libnvidia-ml.so.1 and tells no GPU's figures.
"""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from simulator.bindings import CACHE, compile_library

VERSIONS = ("12.535.133", "13.615.71")

FAKE = """
#include <stdlib.h>
#include <string.h>
#define NOT_SUPPORTED 3
static int refuses(const char *what) {
  const char *said = getenv("NVML_REFUSES");
  return said && strstr(said, what) ? NOT_SUPPORTED : 0;
}
int nvmlInitWithFlags(unsigned flags) { (void)flags; return refuses("init"); }
int nvmlDeviceGetHandleByPciBusId_v2(const char *bus, void **device) {
  *device = (void *)bus;
  return strcmp(bus, "0000:01:00.0") ? 2 : 0;
}
int nvmlDeviceGetTotalEnergyConsumption(void *device, unsigned long long *millijoules) {
  static unsigned long long taken = 5000;
  (void)device;
  *millijoules = taken += 1000;
  return refuses("energy");
}
int nvmlDeviceGetClockInfo(void *device, unsigned kind, unsigned *mhz) {
  (void)device;
  *mhz = 1000 + kind;
  return refuses("clocks");
}
int nvmlDeviceGetMaxClockInfo(void *device, unsigned kind, unsigned *mhz) {
  (void)device;
  *mhz = 2000 + kind;
  return 0;
}
int nvmlDeviceGetTemperature(void *device, unsigned kind, unsigned *celsius) {
  (void)device;
  *celsius = 40 + kind;
  return 0;
}
int nvmlDeviceGetCurrentClocksThrottleReasons(void *device, unsigned long long *reasons) {
  (void)device;
  *reasons = 0x24;
  return 0;
}
const char *nvmlErrorString(int status) { (void)status; return "said by the fake"; }
"""

PROGRAM = """
import json
from trtforge.engine.measuring.power import Power
power = Power("0000:01:00.0")
before = power.joules()
print(json.dumps([before, power.joules(), power.state()]))
"""


@pytest.fixture(params=VERSIONS)
def said(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Ask through one release; what the GPU refuses is to be given."""
    folder = CACHE / "nvml" / request.param
    if not (folder / "pynvml.py").is_file():
        package = f"nvidia-ml-py=={request.param}"
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--only-binary", ":all:", "--dest", str(folder), package]
        if subprocess.run(command, capture_output=True, timeout=60, check=False).returncode:
            pytest.skip(f"not run: cannot get {package}")
        wheel = next(folder.glob("*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            archive.extract("pynvml.py", folder)
        wheel.unlink()
    (tmp_path / "nvml.c").write_text(FAKE)
    compile_library(tmp_path / "nvml.c", tmp_path / "libnvidia-ml.so.1")

    def ask(refused: str = "") -> Any:
        more = {"LD_LIBRARY_PATH": str(tmp_path), "NVML_REFUSES": refused}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env={**os.environ, **more, "PYTHONPATH": str(folder)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return ask


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a Linux library")
def test_energy_and_clocks_are_told(said: Any) -> None:
    before, after, state = said()
    assert (before, after) == (7.0, 8.0), "joules; the first was taken to see whether it is told"
    assert state == {
        "sm_mhz": 1001,
        "max_sm_mhz": 2001,
        "memory_mhz": 1002,
        "celsius": 40,
        "held_back_by": ["power cap", "software thermal slowdown"],
    }


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a Linux library")
def test_what_is_refused_is_said(said: Any) -> None:
    before, _, state = said("energy clocks")
    assert before is None
    assert state["energy_reason"].startswith("NVML: ")
    assert set(state) == {"energy_reason", "max_sm_mhz", "celsius", "held_back_by"}
    assert list(said("init")[2]) == ["reason"]
