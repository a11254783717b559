"""`trtforge preflight`: will engines load here, without loading them?

An engine is native code, and TensorRT has no check before deserializing (support matrix 11.4:
"deserialize during controlled startup"). So everything that is known without a runtime is held
together: the manifest, the plan's published header, the library's version, the device. What none
of these tells is `unknown`, never a guess.
"""

import importlib.metadata
import platform
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from trtforge.engine.environment import driver
from trtforge.engine.flavour import FLAVOURS, Flavour, installed_version
from trtforge.errors import EXIT_MISSING, EXIT_OK, UsageError
from trtforge.pipeline.file_kinds import (
    PLAN_HEADER_BYTES,
    PLAN_TAG,
    first_bytes,
    plan_versions,
    run_kind_of,
)
from trtforge.pipeline.gpu_names import compute_capability_of

if TYPE_CHECKING:
    from trtforge.bundle.manifest import TargetFacts
    from trtforge.bundle.read import Bundle

Answer = Literal["load", "no-load", "unknown"]

EXIT_NO_LOAD = 4

_PORTABLE = ("linux-x86_64", "windows-amd64")
"""An engine of TensorRT-RTX goes from one of these to the other.

Source: TensorRT-RTX documentation, "CPU-Only AOT and TensorRT-RTX Engines"."""

_RTX_DEFAULT = ((8, 6), (8, 9), (12, 0))
"""GPUs that an engine of TensorRT-RTX runs on where none are listed; beside them 12.1 and later.

Source: the same page; Turing (7.5) must be listed."""


@dataclass(frozen=True)
class Machine:
    """Where the engines are to run.

    Attributes:
        device: compute capability of the GPU, e.g. "8.9"; None where it is not known.
        version: of the TensorRT library there; None for the one installed here.
        platform: system and machine, e.g. "linux-x86_64".
        allow_host_code: whether the application lets an engine bring host code along.
        why_no_device: why the device is not known.
        cuda: the newest CUDA version that the driver takes; None where it is not known.
    """

    device: str | None = None
    version: str | None = None
    platform: str = ""
    allow_host_code: bool = False
    why_no_device: str = ""
    cuda: str | None = None


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


def machine_here(
    device: str | None, version: str | None, *, allow_host_code: bool, system: str | None = None
) -> Machine:
    """Return this machine, with what was given in place of what it has.

    Args:
        device: compute capability or name of the GPU.
        version: of the library.
        allow_host_code: as `Machine` has it.
        system: as manifests name it, e.g. "windows-amd64"; None for this machine's.

    Raises:
        UsageError: TF0131, `device` is no compute capability; TF0133, `version` is no version.
    """
    here, why, cuda = system or f"{platform.system()}-{platform.machine()}".lower(), "", None
    if version is not None and not re.fullmatch(r"\d+(\.\d+){1,3}", version):
        raise UsageError("TF0133", f"'{version}' is no version", "write --library-version 10.16.1")
    if device is None:
        found = driver()
        device = found.gpus[0].compute_capability if found.gpus else None
        why = found.reason or ""
        cuda = found.cuda_version
    else:
        device = compute_capability_of(device)
    return Machine(device, version, here, allow_host_code, why, cuda)


def preflight(path: Path, machine: Machine) -> Preflight:
    """Look at every engine of a bundle, or at a single engine file; digests are checked first.

    Of an engine outside of a bundle only its header tells something.

    Raises:
        UsageError: it is neither a bundle nor an engine, or a bundle that holds no engine.
        IntegrityError: a file of the bundle is not what its manifest says.
    """
    from trtforge.bundle.read import open_bundle
    from trtforge.pipeline.engine_files import bundle_of

    if path.is_file() and run_kind_of(path) == "engine":
        around = bundle_of(path)
        if around is None:
            return Preflight(path, {path.name: tuple(_of_a_file(path, machine))})
        bundle, target = around
        return Preflight(path, {target.name: tuple(_findings(bundle, target, machine))})
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
    yield from _driver(target, machine)
    yield _device(target, machine, bundle.manifest.precision.quantize)
    yield _platform(bundle.manifest.provenance.platform, target, machine)
    yield _host_code(target, machine)
    if target.options.get("strip_weights"):
        yield _weights(included=bundle.manifest.model.included)


def _of_a_file(engine: Path, machine: Machine) -> Iterator[Finding]:
    """What a file says that lies in no bundle: its header, and nothing of how it was built."""
    head = first_bytes(engine)
    nothing = "nothing tells how it was built: build it with trtforge, and name the bundle"
    if not head.startswith(PLAN_TAG):
        if head.startswith(FLAVOURS["tensorrt_rtx"].plan_tag):
            yield Finding("header", "unknown", "TensorRT-RTX publishes no header")
        else:
            yield Finding("header", "no-load", "the file does not begin as an engine does")
    elif (versions := plan_versions(head)) is None:
        yield Finding("header", "no-load", "the file is too short for an engine")
    elif versions[0] != 0:
        yield Finding("header", "unknown", f"serialization version {versions[0]} is not known")
    else:
        written = versions[1]
        yield Finding("header", "load", f"a plan of TensorRT {written}")
        there = machine.version or installed_version(FLAVOURS["tensorrt"])
        pair = f"built with {written}, here is {there or 'no TensorRT'}"
        yield Finding("library", _plan_answer(written, there), pair)
    for what in ("device", "host code", "weights"):
        yield Finding(what, "unknown", nothing)


def _plan_answer(written: str, there: str | None) -> Answer:
    """A later library may load it, which the header does not tell; an earlier one does not."""
    if there is None or _release(there, 4) > _release(written, 4):
        return "unknown"
    return "load" if _release(there, 4) == _release(written, 4) else "no-load"


def _weights(*, included: bool) -> Finding:
    """Stripped weights: the engine loads, and runs once they are put back."""
    if included:
        return Finding("weights", "load", "stripped; put back from the bundle's ONNX by a refit")
    return Finding(
        "weights", "unknown", "stripped, and the bundle holds no ONNX: the application needs them"
    )


def _header(engine: Path, target: "TargetFacts") -> Finding:
    """The plan's header, as TensorRT's sampleEngines.cpp reads it (`printPlanVersion`)."""
    head = first_bytes(engine)
    if target.backend == "tensorrt_rtx":
        if len(head) < PLAN_HEADER_BYTES:
            return Finding("header", "no-load", "the file is too short for an engine")
        if head.startswith(PLAN_TAG):
            return Finding("header", "no-load", "it is a plan of TensorRT, not of TensorRT-RTX")
        if not head.startswith(FLAVOURS["tensorrt_rtx"].plan_tag):
            return Finding("header", "unknown", "it does not begin as engines of 1.7 do")
        return Finding("header", "load", "TensorRT-RTX publishes no header; nothing is read there")
    if (versions := plan_versions(head)) is None:
        return Finding("header", "no-load", "the file does not begin as a TensorRT plan does")
    serialization, written = versions
    if serialization != 0:
        return Finding("header", "unknown", f"serialization version {serialization} is not known")
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


def _device(target: "TargetFacts", machine: Machine, quantize: str) -> Finding:
    listed = ", ".join(target.compute_capabilities)
    if machine.device is None:
        why = f" ({machine.why_no_device})" if machine.why_no_device else ""
        return Finding("device", "unknown", f"the GPU is not known{why}: give --device")
    here = f"the GPU has {machine.device}"
    if not target.compute_capabilities:
        if quantize == "fp8" and _release(machine.device, 2) < (8, 9):
            return Finding("device", "no-load", f"{here}; FP8 needs 8.9 or later")
        return _default_device(target, here, _release(machine.device, 2))
    if machine.device in target.compute_capabilities:
        return Finding("device", "load", f"{here}, built for {listed}")
    level = target.options.get("hardware_compatibility")
    if level == "ampere_plus" and _release(machine.device, 2) >= (8, 0):
        return Finding("device", "load", f"{here}; built for Ampere and later")
    return Finding("device", "no-load", f"{here}, built for {listed}")


def _default_device(target: "TargetFacts", here: str, device: tuple[int, ...]) -> Finding:
    if target.backend != "tensorrt_rtx":
        return Finding("device", "unknown", f"{here}; the manifest does not tell what it is for")
    why = f"{here}; built for the library's default GPUs"
    if device in _RTX_DEFAULT or device >= (12, 1):
        return Finding("device", "load", why)
    if device < (8, 0):
        return Finding("device", "no-load", f"{why}, which are Ampere and later")
    return Finding("device", "unknown", f"{why}, which its documentation does not list")


def _driver(target: "TargetFacts", machine: Machine) -> Iterator[Finding]:
    """A driver takes libraries for its own CUDA version and older ones (CUDA compatibility)."""
    library = None if machine.version else _installed_cuda(FLAVOURS[target.backend])
    if library is None or machine.cuda is None:
        return
    is_old = _release(machine.cuda, 1) < (library,)
    why = f"the driver takes CUDA {machine.cuda}, the library is for CUDA {library}"
    yield Finding("driver", "no-load" if is_old else "load", why)


def _installed_cuda(flavour: Flavour) -> int | None:
    """The CUDA version that the installed package of a flavour is for, by its name."""
    for name in flavour.distributions:
        if found := re.search(r"-cu(\d+)$", name):
            try:
                importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                continue
            return int(found[1])
    return None


def _platform(built_on: str, target: "TargetFacts", machine: Machine) -> Finding:
    wanted = built_on
    if target.options.get("runtime_platform") == "windows_amd64":
        wanted = "windows-amd64"
    if wanted == machine.platform:
        return Finding("platform", "load", f"built for {wanted}")
    if target.backend == "tensorrt_rtx" and {wanted, machine.platform} <= {*_PORTABLE}:
        return Finding("platform", "load", f"built on {wanted}; engines go to {machine.platform}")
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
