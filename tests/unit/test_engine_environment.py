"""Facts about the machine, asked of a driver library that a test can compile, and of this one."""

import shutil
import subprocess
import sys

import pytest

from trtforge.engine import environment
from trtforge.engine.environment import Driver, Gpu, engine_facts, peak_rss_bytes, read_driver

FAKE = """
#include <string.h>
int cuInit(unsigned f) {{ return {init}; }}
int cuDriverGetVersion(int *v) {{ *v = 13010; return 0; }}
int cuDeviceGetCount(int *n) {{ *n = {count}; return 0; }}
int cuDeviceGet(int *d, int i) {{ *d = i; return 0; }}
int cuDeviceGetName(char *s, int n, int d) {{ strcpy(s, "Fake GPU"); return 0; }}
int cuDeviceGetAttribute(int *v, int a, int d) {{ *v = a == 75 ? 12 : a == 76 ? 1 : -1; return 0; }}
"""


def fake_driver(folder, init=0, count=1, source=FAKE):
    if shutil.which("gcc") is None:
        pytest.skip("not run: no gcc")
    (folder / "cuda.c").write_text(source.format(init=init, count=count))
    library = folder / "libcuda.so.1"
    command = ["gcc", "-shared", "-fPIC", "-o", str(library), str(folder / "cuda.c")]
    subprocess.run(command, check=True)
    return str(library)


def test_a_machine_without_the_library_has_no_driver():
    assert read_driver("libcuda-that-is-not-there.so.1") == Driver(None, (), "no NVIDIA driver")


def test_a_gpu_is_named_with_its_compute_capability(tmp_path):
    found = read_driver(fake_driver(tmp_path, count=2))
    assert found == Driver("13.1", (Gpu("Fake GPU", "12.1"),) * 2, None)
    assert found.as_json()["gpus"][0] == {"name": "Fake GPU", "compute_capability": "12.1"}


@pytest.mark.parametrize(
    ("init", "count", "reason"),
    [
        (100, 1, "no NVIDIA GPU is visible"),
        (0, 0, "no NVIDIA GPU is visible"),
        (999, 1, "error 999"),
    ],
)
def test_a_driver_without_a_usable_gpu_says_why(tmp_path, init, count, reason):
    found = read_driver(fake_driver(tmp_path, init, count))
    assert reason in found.reason
    assert found.gpus == ()


def test_a_library_that_is_no_driver_is_no_crash(tmp_path):
    found = read_driver(fake_driver(tmp_path, source="int nothing;"))
    assert "unusable" in found.reason


def test_facts_for_keys_are_those_that_change_the_engine(monkeypatch):
    monkeypatch.setattr(
        environment, "driver", lambda: Driver("13.1", (Gpu("Fake GPU", "12.1"),), None)
    )
    assert set(engine_facts("tensorrt_rtx")) == {"backend", "version"}
    assert engine_facts("tensorrt")["gpu"] == "Fake GPU"
    assert engine_facts("onnxruntime")["version"]


def test_peak_memory_is_this_processs_own():
    program = (
        "from trtforge.engine.environment import peak_rss_bytes\n"
        "print(peak_rss_bytes()); block = bytearray(b'x' * 100_000_000); print(peak_rss_bytes())"
    )
    ballast = bytearray(b"x" * 300_000_000)
    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    before, after = map(int, said.stdout.split())
    assert before < 150e6, "the parent's memory must not be counted"
    assert after - before > 90e6
    assert peak_rss_bytes() > len(ballast)
