"""NVIDIA's Python bindings of TensorRT 10 and 11 without the engine library behind them.

They are 1.3 MB each, come from the public package index, are kept in .cache/, and import when
three shared libraries that return null take the place of TensorRT.
"""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

VERSIONS = {"10": "10.16.1.11", "11": "11.4.0.106"}
"""Major version -> the release that tests speak of by it."""

OLDEST = "10.13.0.35"
"""The oldest release that trtforge takes."""

CACHE = Path(__file__).parents[2] / ".cache"

_STUBS = """
#define STUB(name) void *name(void) { return 0; }
STUB(createInferBuilder_INTERNAL) STUB(createInferRefitter_INTERNAL)
STUB(createInferRuntime_INTERNAL) STUB(createNvOnnxParser_INTERNAL)
STUB(createNvOnnxParserRefitter_INTERNAL) STUB(getBuilderPluginRegistry)
STUB(getPluginRegistry) STUB(getNvOnnxParserVersion) STUB(initLibNvInferPlugins)
"""


def bindings(version: str) -> Path:
    """The folder with NVIDIA's bindings of this version, from .cache/ or from the package index."""
    python = f"py{sys.version_info.major}{sys.version_info.minor}"
    folder = CACHE / "tensorrt-bindings" / f"{version}-{python}"
    if not (folder / "tensorrt_bindings").is_dir():
        download = folder.with_suffix(".download")
        # The oldest came out before CUDA 13 did.
        package = f"tensorrt-cu{12 if version == OLDEST else 13}-bindings"
        command = [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"),
            *("--only-binary", ":all:", "--dest", str(download)),
            f"{package}=={version}",
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode != 0:
            pytest.skip(f"not run: cannot get {package} {version}")
        with zipfile.ZipFile(next(download.glob("*.whl"))) as wheel:
            wheel.extractall(folder)
        shutil.rmtree(download)
    return folder


def stub_libraries(major: str, folder: Path) -> None:
    """Compile what the bindings load in place of TensorRT."""
    (folder / "stub.c").write_text(_STUBS)
    for library in ("nvinfer", "nvinfer_plugin", "nvonnxparser"):
        compile_library(folder / "stub.c", folder / f"lib{library}.so.{major}")


def compile_library(source: Path, library: Path, *options: str, soname: str | None = None) -> None:
    """Compile a shared library; skips the test where there is no C compiler."""
    if shutil.which("gcc") is None:
        pytest.skip("not run: no gcc")
    name = library.name if soname is None else soname
    naming = [f"-Wl,-soname,{name}"] if name else []
    command = ["gcc", "-shared", "-fPIC", "-O1", *naming, "-o", str(library), str(source)]
    subprocess.run([*command, *options], check=True)
