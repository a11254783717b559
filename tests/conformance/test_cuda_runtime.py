"""Every call that sessions make fits NVIDIA's real CUDA runtimes 12 and 13: name and arguments.

Their libraries load without a driver; they come from the public package index with their header,
and are kept in .cache/.
"""

import ctypes
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from trtforge.engine import cuda
from trtforge.engine.environment import driver
from trtforge.errors import BuildError

CACHE = Path(__file__).parents[2] / ".cache" / "cuda-runtime"
WHEELS = {
    "12": ("nvidia-cuda-runtime-cu12==12.9.79", "libcudart.so.12"),
    "13": ("nvidia-cuda-runtime==13.0.96", "libcudart.so.13"),
}
HEADER = "cuda_runtime_api.h"
NAMES = set(re.findall(r"\bcuda(?!Error)[A-Z]\w+", Path(cuda.__file__).read_text(encoding="utf-8")))


@pytest.fixture(params=list(WHEELS))
def library(request: pytest.FixtureRequest) -> Path:
    package, name = WHEELS[request.param]
    folder = CACHE / request.param
    if not list(folder.rglob(name)) or not list(folder.rglob(HEADER)):
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
            wanted = [one for one in archive.namelist() if Path(one).name in (name, HEADER)]
            archive.extractall(folder, wanted)
        wheel.unlink()
    return next(folder.rglob(name))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux libraries")
def test_every_function_is_there(library: Path) -> None:
    runtime = ctypes.CDLL(str(library))
    assert len(NAMES) > 15
    assert [name for name in sorted(NAMES) if not hasattr(runtime, name)] == []


class Recorder:
    """A runtime that does nothing, and notes what it is given; host memory it really makes."""

    def __init__(self) -> None:
        self.given: dict[str, tuple[Any, ...]] = {}
        self._memory = ctypes.create_string_buffer(64)

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("cuda"):
            raise AttributeError(name)

        def call(*arguments: Any) -> int:
            self.given[name] = arguments
            if name == "cudaHostAlloc":
                arguments[0]._obj.value = ctypes.addressof(self._memory)
            return 0

        return call


def everything(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[Any, ...]]:
    """Call each of our functions; return what the runtime was given, by its function's name."""
    recorder = Recorder()
    monkeypatch.setattr("polygraphy.cuda.wrapper", lambda: SimpleNamespace(handle=recorder))
    ours = cuda.Cuda()
    ours.bus_id()
    ours.free_bytes()
    stream, event = ours.create_stream(), ours.create_event()
    held, host = ours.allocate(8), cuda.PinnedArray(ours, (2,), np.dtype(np.float32))
    ours.to_device(held, host, stream)
    ours.to_host(host, held, stream)
    ours.record(event, stream)
    ours.seconds_between(event, event)
    ours.synchronize(stream)
    graph = ours.capture(stream, lambda: None)
    ours.launch(graph, stream)
    ours.destroy_graph(graph)
    host.free()
    ours.free(held)
    ours.destroy_event(event)
    ours.destroy_stream(stream)
    return recorder.given


def declared(header: str, name: str) -> list[str]:
    """Types of a function's parameters, as the header has them."""
    found = re.findall(rf"extern [^;]*?CUDARTAPI\s+{name}\s*\(([^;]*)\)\s*;", header)
    assert found, name
    parameters = [one.split("__dv")[0].strip() for one in found[0].split(",")]
    return [re.sub(r"\s*(\**)\w+$", r" \1", one).strip() for one in parameters]


def fits(argument: Any, declared_type: str) -> bool:
    """Whether ctypes hands over what a parameter of this C type takes."""
    kinds: dict[str, Any] = {
        "size_t": ctypes.c_size_t,
        "unsigned int": ctypes.c_uint,
        "unsigned long long": ctypes.c_ulonglong,
        "float": ctypes.c_float,
    }
    if declared_type in kinds:
        return isinstance(argument, kinds[declared_type])
    if declared_type.endswith(("*", "_t")):  # a pointer, or a handle, which is one
        if type(argument).__name__ == "CArgObject":  # of byref: what it points to matters
            pointed = declared_type.removesuffix("*").strip()
            return isinstance(argument._obj, kinds.get(pointed, ctypes.c_void_p))
        return argument is None or isinstance(argument, ctypes.c_void_p | ctypes.Array)
    is_whole = declared_type == "int" or declared_type.startswith("enum ")
    return is_whole and isinstance(argument, int | ctypes.c_int)


def test_every_call_hands_over_what_the_header_says(
    library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = next(library.parents[1].rglob(HEADER)).read_text(encoding="utf-8")
    given = everything(monkeypatch)
    on_failure = {"cudaGetErrorString", "cudaGetLastError"}
    assert set(given) == NAMES - on_failure, "a new call is to be made above as well"
    for name, arguments in given.items():
        types = declared(header, name)
        assert len(types) == len(arguments), name
        for one, kind in zip(arguments, types, strict=True):
            assert fits(one, kind), f"{name}: {one} for {kind}"


def test_a_wrong_argument_would_be_seen() -> None:
    assert not fits(ctypes.c_int(1), "size_t")
    assert not fits(3, "void *")
    assert not fits(ctypes.byref(ctypes.c_float()), "size_t *")
    assert not fits(ctypes.c_void_p(), "int")
    assert fits(ctypes.byref(ctypes.c_float()), "float *")


@pytest.mark.skipif(driver().reason is None, reason="there is a GPU: make test-gpu")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux libraries")
def test_without_a_driver_it_says_so_itself(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrapper:
        handle = ctypes.CDLL(str(library))

    monkeypatch.setattr("polygraphy.cuda.wrapper", Wrapper)
    with pytest.raises(BuildError, match="CUDA driver version is insufficient"):
        cuda.Cuda()
