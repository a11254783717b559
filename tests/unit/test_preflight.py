"""Preflight: each thing that can keep an engine from loading, and what is not known."""

import json
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bundle_samples import FILES, draft

from trtforge.bundle.manifest import PrecisionFacts, TargetFacts
from trtforge.bundle.write import write_bundle
from trtforge.engine.environment import driver
from trtforge.errors import IntegrityError, UsageError
from trtforge.pipeline.gpu_names import GPUS, compute_capability_of
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
    files["engines/rtx/model.engine"] = b"vtrt" + bytes(96) if engine is None else engine
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
        ({"platform": "linux-aarch64"}, "platform", "no-load"),
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


@pytest.mark.parametrize(
    ("text", "device"),
    [
        *[("8.9", "8.9"), ("sm89", "8.9"), ("SM120", "12.0"), ("sm_90a", "9.0"), ("8_6", "8.6")],
        *[("RTX 4090", "8.9"), ("NVIDIA GeForce RTX 3060 Ti", "8.6"), ("h100", "9.0")],
        *[
            ("GTX 1660 Ti", "7.5"),
            ("NVIDIA H200", "9.0"),
            ("A100-SXM4-80GB", "8.0"),
            ("GH200", "9.0"),
        ],
        *[("orin", "8.7"), ("Jetson AGX Orin 64GB", "8.7"), ("Jetson Thor", "11.0")],
        *[("rtx-5090", "12.0"), ("NVIDIA RTX PRO 6000 Blackwell", "12.0"), ("L40S", "8.9")],
        *[("RTX 6000 Ada", "8.9"), ("RTX A6000", "8.6"), ("Tesla T4", "7.5"), ("GB200", "10.0")],
        *[("NVIDIA GeForce RTX 4060 Laptop GPU", "8.9"), ("Orin (nvgpu)", "8.7")],
        *[("NVIDIA GeForce RTX 3050 6GB Laptop GPU", "8.6"), ("Tesla V100-SXM2-16GB", "7.0")],
        *[("NVIDIA H100 80GB HBM3", "9.0"), ("NVIDIA RTX 4000 SFF Ada Generation", "8.9")],
        *[("GeForce RTX 2070 with Max-Q Design", "7.5"), ("RTX 4090 D", "8.9"), ("A10G", "8.6")],
        *[("DGX Spark", "12.1"), ("GB10", "12.1"), ("4070", "8.9"), ("B300", "10.3")],
        *[("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "8.0"), ("compute_89", "8.9"), ("sm_120f", "12.0")],
    ],
)
def test_devices_are_named_in_each_way(text: str, device: str) -> None:
    assert machine_here(text, None, allow_host_code=False).device == device


@pytest.mark.parametrize(
    "text", ["", "9", "12", "٨.٩", "gpu0", "8.99", "RTX 9090", "-1.0", "H100.5", "NVIDIA"]
)
def test_what_is_no_device_is_told_which_are_known(text: str) -> None:
    with pytest.raises(UsageError, match="is no compute capability") as caught:
        machine_here(text, None, allow_host_code=False)
    assert caught.value.code == "TF0131"
    assert "RTX 40xx (8.9), " in (caught.value.hint or "")


def test_every_name_that_is_shown_is_one() -> None:
    for shown, _, capability in GPUS:
        for name in (shown, shown.replace("xx", "60").partition(" (")[0]):
            if "xx" not in name and "Turing" not in shown:
                assert compute_capability_of(name) == capability


@pytest.mark.parametrize(
    ("device", "answer"),
    [
        *[("8.6", "load"), ("8.9", "load"), ("12.0", "load"), ("12.1", "load"), ("7.5", "no-load")],
        *[("8.7", "unknown"), ("9.0", "unknown"), ("10.0", "unknown"), ("12.2", "load")],
    ],
)
def test_engines_of_tensorrt_rtx_without_a_list_go_where_its_documentation_says(
    tmp_path: Path, device: str, answer: str
) -> None:
    path = bundle(tmp_path, compute_capabilities=())
    assert answers(preflight(path, replace(HERE, device=device)))["device"] == answer
    other = bundle(tmp_path, plan(), **TRT, compute_capabilities=())
    there = replace(HERE, device=device, version="10.16.1.11")
    assert answers(preflight(other, there))["device"] == "unknown"


@pytest.mark.parametrize(("device", "answer"), [("8.6", "no-load"), ("8.9", "load")])
def test_fp8_engines_need_a_gpu_that_computes_in_it(
    tmp_path: Path, device: str, answer: str
) -> None:
    facts = {"name": "rtx", "backend": "tensorrt_rtx", "version": "1.7.1.116"}
    target = TargetFacts(**facts, engine="engines/rtx/model.engine", bytes=100)
    files = dict(FILES) | {"engines/rtx/model.engine": b"vtrt" + bytes(96)}
    precision = PrecisionFacts(type="fp16", quantize="fp8")
    path = write_bundle(tmp_path, draft(targets=(target,), precision=precision), files)
    assert answers(preflight(path, replace(HERE, device=device)))["device"] == answer


@pytest.mark.parametrize(
    ("engine", "answer"),
    [
        (b"", "no-load"),
        (b"vtrt", "no-load"),
        (plan(), "no-load"),
        (b"garbage " * 16, "unknown"),
        (b"vtrt" + bytes(60), "load"),
    ],
    ids=["empty", "short", "of TensorRT", "garbage", "as it should"],
)
def test_how_an_engine_of_tensorrt_rtx_begins(tmp_path: Path, engine: bytes, answer: str) -> None:
    assert answers(preflight(bundle(tmp_path, engine), HERE))["header"] == answer


@pytest.mark.parametrize("system", ["linux-x86_64", "windows-amd64"])
def test_engines_of_tensorrt_rtx_go_from_linux_to_windows(tmp_path: Path, system: str) -> None:
    """And those of TensorRT do not."""
    there = machine_here("8.6", "1.7.1.116", allow_host_code=False, system=system)
    assert preflight(bundle(tmp_path), there).answer("rtx") == "load"
    there = machine_here("8.6", "10.16.1.11", allow_host_code=False, system=system)
    answer = "load" if system == "linux-x86_64" else "no-load"
    assert answers(preflight(bundle(tmp_path, plan(), **TRT), there))["platform"] == answer


@pytest.mark.parametrize(
    ("cuda", "answer"), [("12.9", "no-load"), ("13.0", "load"), ("14.1", "load"), (None, None)]
)
def test_a_driver_that_is_too_old_for_the_library(
    tmp_path: Path, cuda: str | None, answer: str | None
) -> None:
    """The package that is installed here is for CUDA 13."""
    machine = replace(HERE, version=None, cuda=cuda)
    assert answers(preflight(bundle(tmp_path), machine)).get("driver") == answer
    there = replace(machine, version="1.7.1.116")
    assert "driver" not in answers(preflight(bundle(tmp_path), there)), "its library is not known"


@pytest.mark.parametrize(
    ("level", "device", "answer"),
    [
        (None, "8.6", "load"),
        (None, "8.9", "no-load"),
        ("same_compute_capability", "8.6", "load"),
        ("same_compute_capability", "8.9", "no-load"),
        ("ampere_plus", "8.0", "load"),
        ("ampere_plus", "12.1", "load"),
        ("ampere_plus", "7.5", "no-load"),
    ],
)
def test_each_level_of_hardware_compatibility(
    tmp_path: Path, level: str | None, device: str, answer: str
) -> None:
    options = {} if level is None else {"hardware_compatibility": level}
    path = bundle(tmp_path, plan(), **TRT, options=options)
    machine = replace(HERE, device=device, version="10.16.1.11")
    assert answers(preflight(path, machine))["device"] == answer


@pytest.mark.parametrize(
    ("built", "there", "answer"),
    [
        *[("8.6.1.6", "10.0.0.6", "load"), ("8.6.1.6", "11.0.0.114", "no-load")],
        *[("10.16.1.11", "11.4.0.106", "load"), ("11.4.0.106", "10.16.1.11", "no-load")],
        *[("11.0.0.114", "11.4.0.106", "load"), ("11.4.0.106", "11.0.0.114", "no-load")],
        *[("10.16.1.11", "10.16.1.11", "load"), ("10.16.1.11", "12.0.0.1", "no-load")],
    ],
)
def test_which_versions_a_version_compatible_engine_goes_to(
    tmp_path: Path, built: str, there: str, answer: str
) -> None:
    options = {"version_compatible": True, "exclude_lean_runtime": True}
    facts = TRT | {"version": built}
    path = bundle(tmp_path, plan(built), **facts, options=options)
    found = answers(preflight(path, replace(HERE, version=there)))
    assert found["library"] == answer
    assert found["host code"] == "load"


def two_targets(folder: Path) -> Path:
    """One engine that loads, one that does not, and a target that builds none."""
    files = dict(FILES) | {"engines/dc/model.engine": plan()}
    files["engines/rtx/model.engine"] = b"vtrt" + bytes(96)
    common = {"version": "1.7.1.116", "compute_capabilities": ("8.6",), "bytes": 100}
    targets = (
        TargetFacts(
            name="rtx", backend="tensorrt_rtx", engine="engines/rtx/model.engine", **common
        ),
        TargetFacts(
            name="dc",
            backend="tensorrt",
            engine="engines/dc/model.engine",
            **common | {"version": "10.16.1.11", "bytes": len(plan())},
        ),
        TargetFacts(name="cpu", backend="onnxruntime", version="1.31.1"),
    )
    return write_bundle(folder, draft(targets=targets), files)


def test_each_target_has_its_answer_and_the_worst_is_the_exit_status(tmp_path: Path) -> None:
    result = preflight(two_targets(tmp_path), HERE)
    assert {name: result.answer(name) for name in result.targets} == {
        "rtx": "load",
        "dc": "no-load",
    }
    assert result.exit_status == 4
    document = json.loads(json.dumps(result.as_json()))
    assert set(document) == {"bundle", "targets"}
    for facts in document["targets"].values():
        assert set(facts) == {"answer", "findings"}
        for finding in facts["findings"]:
            assert set(finding) == {"what", "answer", "why"}
            assert finding["answer"] in ("load", "no-load", "unknown")
            assert finding["why"]


def test_a_bundle_without_engines_is_told_so(tmp_path: Path) -> None:
    cpu = TargetFacts(name="cpu", backend="onnxruntime", version="1.31.1")
    path = write_bundle(tmp_path, draft(targets=(cpu,)), dict(FILES))
    with pytest.raises(UsageError, match="holds no engine"):
        preflight(path, HERE)


def test_nothing_is_deserialized(tmp_path: Path) -> None:
    """Neither library is imported, in a process of its own."""
    path = two_targets(tmp_path)
    program = (
        "import sys\nfrom pathlib import Path\n"
        "from trtforge.pipeline.preflight import machine_here, preflight\n"
        "machine = machine_here('8.6', None, allow_host_code=True)\n"
        f"preflight(Path({str(path)!r}), machine)\n"
        "loaded = [name for name in sys.modules if name.startswith('tensorrt')]\n"
        "sys.exit(str(loaded) if loaded else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(driver().reason is None, reason="not run: this machine has a driver")
def test_without_a_gpu_the_device_is_not_known() -> None:
    here = machine_here(None, None, allow_host_code=False)
    assert here.device is None
    assert "driver" in here.why_no_device


@pytest.mark.parametrize(
    ("content", "there", "found"),
    [
        (plan(), "10.16.1.11", {"header": "load", "library": "load"}),
        (plan(), "10.17.0.1", {"header": "load", "library": "unknown"}),
        (plan("11.4.0.106"), "10.16.1.11", {"header": "load", "library": "no-load"}),
        (plan(serialization=9), "10.16.1.11", {"header": "unknown"}),
        (b"ftrt" + bytes(9), "10.16.1.11", {"header": "no-load"}),
        (b"vtrt" + bytes(96), "1.7.1.116", {"header": "unknown"}),
        (b"garbage " * 9, "10.16.1.11", {"header": "no-load"}),
    ],
    ids=["same", "later", "earlier", "serialization", "short", "RTX", "garbage"],
)
def test_a_file_outside_of_a_bundle(
    tmp_path: Path, content: bytes, there: str, found: dict[str, str]
) -> None:
    path = tmp_path / "model.plan"
    path.write_bytes(content)
    result = preflight(path, replace(HERE, version=there))
    answers = {one.what: one.answer for one in result.targets["model.plan"]}
    nothing = dict.fromkeys(("device", "host code", "weights"), "unknown")
    assert answers == found | nothing
    assert result.exit_status == (4 if "no-load" in found.values() else 3)
