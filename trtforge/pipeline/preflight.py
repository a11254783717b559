"""`trtforge preflight`: will the engines of a bundle load here, without loading them?

An engine is native code, and TensorRT has no check before deserializing (support matrix 11.4:
"deserialize during controlled startup"). So everything that is known without a runtime is held
together: the manifest, the plan's published header, the library's version, the device. What none
of these tells is `unknown`, never a guess.
"""

import platform
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from trtforge.engine.environment import driver
from trtforge.engine.flavour import FLAVOURS, installed_version
from trtforge.errors import EXIT_MISSING, EXIT_OK, UsageError
from trtforge.pipeline.inspect import PLAN_TAG, PLAN_VERSION_OFFSET

if TYPE_CHECKING:
    from trtforge.bundle.manifest import TargetFacts
    from trtforge.bundle.read import Bundle

Answer = Literal["load", "no-load", "unknown"]

EXIT_NO_LOAD = 4


@dataclass(frozen=True)
class Machine:
    """Where the engines are to run.

    Attributes:
        device: compute capability of the GPU, e.g. "8.9"; None where it is not known.
        version: of the TensorRT library there; None for the one installed here.
        platform: system and machine, e.g. "linux-x86_64".
        allow_host_code: whether the application lets an engine bring host code along.
        why_no_device: why the device is not known.
    """

    device: str | None = None
    version: str | None = None
    platform: str = ""
    allow_host_code: bool = False
    why_no_device: str = ""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: what, whether it lets the engine load, and why."""

    what: str
    answer: Answer
    why: str

    def as_json(self) -> dict[str, str]:
        """Return plain JSON data."""
        return {"what": self.what, "answer": self.answer, "why": self.why}


@dataclass(frozen=True)
class Preflight:
    """What was found for each engine of a bundle.

    Attributes:
        bundle: its folder.
        targets: target name -> findings; targets without an engine are left out.
    """

    bundle: Path
    targets: dict[str, tuple[Finding, ...]]

    def answer(self, target: str) -> Answer:
        """`no-load` if anything forbids it, `unknown` if anything is not known, else `load`."""
        answers = {finding.answer for finding in self.targets[target]}
        if "no-load" in answers:
            return "no-load"
        return "unknown" if "unknown" in answers else "load"

    @property
    def exit_status(self) -> int:
        """0 every engine loads, 4 one does not, 3 one is not known."""
        answers = {self.answer(name) for name in self.targets}
        if "no-load" in answers:
            return EXIT_NO_LOAD
        return EXIT_MISSING if "unknown" in answers else EXIT_OK

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {
            "bundle": str(self.bundle),
            "targets": {
                name: {
                    "answer": self.answer(name),
                    "findings": [finding.as_json() for finding in findings],
                }
                for name, findings in self.targets.items()
            },
        }


def machine_here(device: str | None, version: str | None, *, allow_host_code: bool) -> Machine:
    """Return this machine, with what was given in place of what it has.

    Raises:
        UsageError: TF0131, `device` is no compute capability; TF0133, `version` is no version.
    """
    here, why = f"{platform.system()}-{platform.machine()}".lower(), ""
    if version is not None and not re.fullmatch(r"\d+(\.\d+){1,3}", version):
        raise UsageError("TF0133", f"'{version}' is no version", "write --library-version 10.16.1")
    if device is None:
        found = driver()
        device = found.gpus[0].compute_capability if found.gpus else None
        why = found.reason or ""
    else:
        major, dot, minor = device.lower().removeprefix("sm").partition(".")
        if not dot and len(major) in (2, 3) and major.isdigit():
            major, minor = major[:-1], major[-1]
        if not (major.isdigit() and minor.isdigit()):
            raise UsageError(
                "TF0131", f"'{device}' is no compute capability", "write --device 8.9, or sm89"
            )
        device = f"{int(major)}.{int(minor)}"
    return Machine(device, version, here, allow_host_code, why)


def preflight(path: Path, machine: Machine) -> Preflight:
    """Look at every engine of a bundle; its digests are checked first.

    Raises:
        UsageError: it is no bundle, or holds no engine.
        IntegrityError: a file of it is not what its manifest says.
    """
    from trtforge.bundle.read import open_bundle

    bundle = open_bundle(path)
    engines = [target for target in bundle.manifest.targets if target.engine is not None]
    if not engines:
        raise UsageError("TF0132", f"bundle '{path}' holds no engine", "its targets build none")
    return Preflight(
        path, {target.name: tuple(_findings(bundle, target, machine)) for target in engines}
    )


def _findings(bundle: "Bundle", target: "TargetFacts", machine: Machine) -> Iterator[Finding]:
    yield Finding("digests", "load", "every file is what the manifest says")
    yield _header(bundle.file(str(target.engine)), target)
    yield _version(target, machine)
    yield _device(target, machine)
    yield _platform(bundle.manifest.provenance.platform, target, machine)
    yield _host_code(target, machine)


def _header(engine: Path, target: "TargetFacts") -> Finding:
    """The plan's header, as TensorRT's sampleEngines.cpp reads it (`printPlanVersion`)."""
    with engine.open("rb") as stream:
        head = stream.read(PLAN_VERSION_OFFSET + 4)
    if target.backend == "tensorrt_rtx":
        if len(head) < PLAN_VERSION_OFFSET + 4:
            return Finding("header", "no-load", "the file is too short for an engine")
        return Finding("header", "load", "TensorRT-RTX publishes no header; nothing is read there")
    if not head.startswith(PLAN_TAG) or len(head) < PLAN_VERSION_OFFSET + 4:
        return Finding("header", "no-load", "the file does not begin as a TensorRT plan does")
    (serialization,) = struct.unpack_from("<I", head, 4)
    if serialization != 0:
        return Finding("header", "unknown", f"serialization version {serialization} is not known")
    written = ".".join(map(str, head[PLAN_VERSION_OFFSET:]))
    if _release(written, 3) != _release(target.version, 3):
        return Finding(
            "header", "no-load", f"the plan says {written}, the manifest {target.version}"
        )
    return Finding("header", "load", f"a plan of TensorRT {written}")


def _release(version: str, parts: int) -> tuple[int, ...]:
    found = [int(part) for part in version.split(".") if part.isdigit()]
    return tuple(found[:parts])


def _version(target: "TargetFacts", machine: Machine) -> Finding:
    flavour = FLAVOURS[target.backend]
    there = machine.version or installed_version(flavour)
    if there is None:
        return Finding(
            "library", "unknown", f"{flavour.module} is not installed: {flavour.install}"
        )
    if _release(there, 4) == _release(target.version, 4):
        return Finding("library", "load", f"built with {there}, as it is here")
    pair = f"built with {target.version}, here is {there}"
    if target.backend == "tensorrt_rtx":
        same = _release(there, 3) == _release(target.version, 3)
        # Engines of TensorRT-RTX are not compatible between releases (its support matrix).
        return Finding("library", "unknown" if same else "no-load", pair)
    if target.options.get("version_compatible"):
        newer = _release(there, 3) >= _release(target.version, 3)
        majors = (_release(target.version, 1), _release(there, 1))
        # Version compatibility covers 8 to 10, and 10 to 11 (support matrix 11.4).
        covered = majors[0] == majors[1] or majors in (((8,), (10,)), ((10,), (11,)))
        return Finding(
            "library", "load" if newer and covered else "no-load", f"{pair}; version compatible"
        )
    return Finding("library", "no-load", f"{pair}; not built version_compatible")


def _device(target: "TargetFacts", machine: Machine) -> Finding:
    listed = ", ".join(target.compute_capabilities)
    if machine.device is None:
        why = f" ({machine.why_no_device})" if machine.why_no_device else ""
        return Finding("device", "unknown", f"the GPU is not known{why}: give --device")
    here = f"the GPU has {machine.device}"
    if not target.compute_capabilities:
        return Finding("device", "unknown", f"{here}; built for the library's default GPUs")
    if machine.device in target.compute_capabilities:
        return Finding("device", "load", f"{here}, built for {listed}")
    level = target.options.get("hardware_compatibility")
    if level == "ampere_plus" and _release(machine.device, 2) >= (8, 0):
        return Finding("device", "load", f"{here}; built for Ampere and later")
    return Finding("device", "no-load", f"{here}, built for {listed}")


def _platform(built_on: str, target: "TargetFacts", machine: Machine) -> Finding:
    wanted = built_on
    if target.options.get("runtime_platform") == "windows_amd64":
        wanted = "windows-amd64"
    if wanted == machine.platform:
        return Finding("platform", "load", f"built for {wanted}")
    return Finding("platform", "no-load", f"built for {wanted}, here is {machine.platform}")


def _host_code(target: "TargetFacts", machine: Machine) -> Finding:
    options = target.options
    if not options.get("version_compatible") or options.get("exclude_lean_runtime"):
        return Finding("host code", "load", "the engine brings none along")
    if machine.allow_host_code:
        return Finding("host code", "load", "the engine brings a lean runtime along; allowed")
    return Finding(
        "host code",
        "no-load",
        "the engine brings a lean runtime along, host code that runs on loading: allow it with "
        "--allow-host-code (and Runtime.engine_host_code_allowed) if you trust where it comes from",
    )
