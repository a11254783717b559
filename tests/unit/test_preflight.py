"""Preflight: each thing that can keep an engine from loading, and what is not known."""

import struct
from pathlib import Path
from typing import Any

import pytest
from bundle_samples import FILES, draft

from trtforge.bundle.manifest import TargetFacts
from trtforge.bundle.write import write_bundle
from trtforge.engine.environment import driver
from trtforge.errors import IntegrityError, UsageError
from trtforge.pipeline.preflight import Machine, Preflight, machine_here, preflight

HERE = Machine(device="8.6", version="1.7.1.116", platform="linux-x86_64")


def plan(version: str = "10.16.1.11", serialization: int = 0) -> bytes:
    """A file that begins as TensorRT's plans do; what follows is none."""
    numbers = bytes(int(part) for part in version.split("."))
    return b"ftrt" + struct.pack("<I", serialization) + bytes(16) + numbers + bytes(64)


def bundle(folder: Path, engine: bytes | None = None, **facts: Any) -> Path:
    files = dict(FILES)
    target = {
        "name": "rtx",
        "backend": "tensorrt_rtx",
        "version": "1.7.1.116",
        "engine": "engines/rtx/model.engine",
        "compute_capabilities": ("8.6",),
    } | facts
    if engine is not None:
        files["engines/rtx/model.engine"] = engine
    target["bytes"] = len(files["engines/rtx/model.engine"])
    return write_bundle(folder, draft(targets=(TargetFacts(**target),)), files)


def answers(result: Preflight) -> dict[str, str]:
    return {finding.what: finding.answer for finding in result.targets["rtx"]}


def test_an_engine_where_it_was_built_for(tmp_path: Path) -> None:
    result = preflight(bundle(tmp_path), HERE)
    assert set(answers(result).values()) == {"load"}
    assert result.answer("rtx") == "load"
    assert result.exit_status == 0


@pytest.mark.parametrize(
    ("machine", "what", "answer"),
    [
        ({"device": "12.0"}, "device", "no-load"),
        ({"device": None, "why_no_device": "no NVIDIA driver"}, "device", "unknown"),
        ({"version": "1.6.1.120"}, "library", "no-load"),
        ({"version": "1.7.1.120"}, "library", "unknown"),
        ({"platform": "windows-amd64"}, "platform", "no-load"),
    ],
)
def test_a_machine_that_differs(
    tmp_path: Path, machine: dict[str, Any], what: str, answer: str
) -> None:
    result = preflight(bundle(tmp_path), Machine(**(vars(HERE) | machine)))
    assert {key for key, one in answers(result).items() if one != "load"} == {what}
    assert result.answer("rtx") == answer
    assert result.exit_status == {"no-load": 4, "unknown": 3}[answer]


TRT = {"backend": "tensorrt", "version": "10.16.1.11"}


@pytest.mark.parametrize(
    ("engine", "machine", "wrong"),
    [
        (plan(), {}, {}),
        (plan("10.13.0.35"), {}, {"header": "no-load"}),
        (plan(serialization=7), {}, {"header": "unknown"}),
        (b"not a plan" * 9, {}, {"header": "no-load"}),
        (b"ftrt", {}, {"header": "no-load"}),
        (plan(), {"version": "11.4.0.106"}, {"library": "no-load"}),
    ],
    ids=["same", "header differs", "serialization", "text", "short", "library"],
)
def test_the_published_header_and_the_version_of_tensorrt(
    tmp_path: Path,
    engine: bytes,
    machine: dict[str, Any],
    wrong: dict[str, str],
) -> None:
    path = bundle(tmp_path, engine, **TRT)
    there = Machine(**(vars(HERE) | {"version": "10.16.1.11"} | machine))
    found = answers(preflight(path, there))
    assert {key: one for key, one in found.items() if one != "load"} == wrong


@pytest.mark.parametrize(
    ("there", "library"),
    [("11.4.0.106", "load"), ("10.17.0.1", "load"), ("10.3.0.26", "no-load")],
)
def test_version_compatible_engines_go_to_later_versions_and_bring_code(
    tmp_path: Path, there: str, library: str
) -> None:
    path = bundle(tmp_path, plan(), **TRT, options={"version_compatible": True})
    machine = Machine(**(vars(HERE) | {"version": there}))
    found = answers(preflight(path, machine))
    assert found["library"] == library
    assert found["host code"] == "no-load"
    allowed = Machine(**(vars(machine) | {"allow_host_code": True}))
    assert answers(preflight(path, allowed))["host code"] == "load"


def test_levels_of_hardware_compatibility_and_another_system(tmp_path: Path) -> None:
    options = {"hardware_compatibility": "ampere_plus", "runtime_platform": "windows_amd64"}
    path = bundle(tmp_path, plan(), **TRT, options=options)
    machine = Machine(device="9.0", version="10.16.1.11", platform="windows-amd64")
    assert preflight(path, machine).answer("rtx") == "load"
    turing = Machine(device="7.5", version="10.16.1.11", platform="windows-amd64")
    assert answers(preflight(path, turing))["device"] == "no-load"


def test_a_changed_engine_goes_no_further(tmp_path: Path) -> None:
    path = bundle(tmp_path)
    engine = path / "engines" / "rtx" / "model.engine"
    engine.chmod(0o644)
    engine.write_bytes(engine.read_bytes()[:-1] + b"x")
    with pytest.raises(IntegrityError):
        preflight(path, HERE)


@pytest.mark.parametrize(("text", "device"), [("8.9", "8.9"), ("sm89", "8.9"), ("SM120", "12.0")])
def test_devices_are_named_in_each_way(text: str, device: str) -> None:
    assert machine_here(text, None, allow_host_code=False).device == device


def test_what_is_no_device() -> None:
    with pytest.raises(UsageError, match="'H100' is no compute capability"):
        machine_here("H100", None, allow_host_code=False)


@pytest.mark.skipif(driver().reason is None, reason="not run: this machine has a driver")
def test_without_a_gpu_the_device_is_not_known() -> None:
    here = machine_here(None, None, allow_host_code=False)
    assert here.device is None
    assert "driver" in here.why_no_device
