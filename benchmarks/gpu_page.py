"""How benchmarks/gpu.py does one thing after the other until time is up, and writes it down."""

import contextlib
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import ml_dtypes
import numpy as np

from trtforge.engine.environment import driver
from trtforge.engine.measuring.scenarios import Load, Measurement
from trtforge.errors import ForgeError
from trtforge.verify.metrics import OutputStats

PACKAGES = (
    *("trtforge", "tensorrt-rtx", "tensorrt", "onnx", "onnxruntime", "polygraphy"),
    "nvidia-ml-py",
)
NO_TIME = "not_run: time"

_LONGEST_S = 90.0
"""No single step may take longer."""

_SHORTEST_S = 4.0
"""Less time than this is not enough to begin anything."""

_CELL = 300
"""Characters of an error that are shown."""

_TYPES: dict[str, tuple[Any, Any]] = {
    "fp32": (np.float32, np.int32),
    "fp16": (np.float16, np.int16),
    "bf16": (ml_dtypes.bfloat16, np.int16),
}
"""Type -> itself, and the integer of its size."""

Result = TypeVar("Result")


class Steps:
    """Takes steps until time is up; what fails is a finding, and the next step is taken.

    Args:
        budget_s: how long all of them may take together.
    """

    def __init__(self, budget_s: float) -> None:
        self._begun = time.monotonic()
        self._budget_s = budget_s

    def seconds(self) -> float:
        """How long it has taken so far."""
        return time.monotonic() - self._begun

    def is_over(self) -> bool:
        """Whether too little time is left to begin anything."""
        return self._budget_s - self.seconds() < _SHORTEST_S

    def take(self, work: Callable[..., Result], *arguments: Any) -> Result | str:
        """Do one thing; returns a text where it failed.

        `work` is told first how many seconds it has.
        """
        if self.is_over():
            return NO_TIME
        try:
            return work(min(self._budget_s - self.seconds(), _LONGEST_S), *arguments)
        except ForgeError as error:
            return in_a_cell(f"error {error.code}: {error.message}")
        except Exception as error:
            traceback.print_exc()  # the page must be written whatever it was
            return in_a_cell(f"a bug: {type(error).__name__}: {error}")

    @staticmethod
    def trtforge(*arguments: object, limit: float) -> None:
        """Run a command of trtforge in a process of its own.

        Raises:
            RuntimeError: it failed, or took longer than `limit` seconds; says how.
        """
        command = [sys.executable, "-m", "trtforge.cli.main", *map(str, arguments), "--quiet"]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=limit
            )
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"`trtforge {arguments[0]}` took over {limit:.0f} s") from None
        if done.returncode != 0:
            first = (done.stderr or done.stdout).strip().splitlines()[:1]
            raise RuntimeError(f"`trtforge {arguments[0]}`: {' '.join(first)}")


def head() -> str:
    """When, on what, and with what."""
    facts = driver()
    gpus = [f"{gpu.name} (compute capability {gpu.compute_capability})" for gpu in facts.gpus]
    spare = f"; not used: {', '.join(gpus[1:])}" if gpus[1:] else ""
    return "\n".join(
        [
            "# Engines on a GPU",
            "",
            f"- date: {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
            f"- device: {gpus[0]}{spare}",
            f"- driver: {driver_version()}; takes CUDA up to {facts.cuda_version}",
            f"- versions: {', '.join(f'{name} {installed(name)}' for name in PACKAGES)}",
        ]
    )


def driver_version() -> str:
    """As NVML says it; where it is not there, the kernel module."""
    with contextlib.suppress(Exception):
        import pynvml

        pynvml.nvmlInit()
        return str(pynvml.nvmlSystemGetDriverVersion())
    path = Path("/proc/driver/nvidia/version")
    return path.read_text().splitlines()[0] if path.is_file() else "version not known"


def installed(name: str) -> str:
    """A package's version, or that it is not there."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def answers(findings: Sequence[tuple[str, str, Any]]) -> list[str]:
    """The three questions, answered from (question, subject, what was found)."""
    capability = driver().gpus[0].compute_capability
    lines = ["## In short", ""]
    for backend in dict.fromkeys(subject for kind, subject, _ in findings if kind == "runs"):
        said = [text for kind, subject, text in findings if (kind, subject) == ("runs", backend)]
        ran = sum(text.endswith("and ran") for text in said)
        why = "" if ran == len(said) else f"; first of the others: {_first_failed(said)}"
        lines.append(
            f"- Engines of {backend} on compute capability {capability}: {ran} of {len(said)} ran"
            f"{why}"
        )
    lines += [f"- {subject}: {text}" for kind, subject, text in findings if kind == "weights"]
    for kind, subject, figures in findings:
        if kind == "exact" and figures[0] != "-":
            lines.append(
                f"- {subject} beside its emulation: {figures[0]} dB, at most {figures[1]} ULP"
            )
    return lines


def _first_failed(said: Sequence[str]) -> str:
    return next(text for text in said if not text.endswith("and ran"))


def sqnr_db(reference: Any, candidate: Any) -> float:
    """SQNR of one output in floats, dB."""
    found = OutputStats().update(reference, candidate).metrics()
    assert found is not None
    assert found.sqnr_db is not None
    return found.sqnr_db


def compared(precision: str, emulated: Any, original: Any, found: Any) -> list[str]:
    """SQNR and ULP to the emulation, and SQNR to the original; the worst of all outputs."""
    if found is None:
        return ["-"] * 4
    cells = []
    if isinstance(emulated, str):
        cells += [emulated, "-", "-"]
    else:
        kind = precision if precision in ("fp32", "bf16") else "fp16"
        steps = [ulp_distance(emulated[name], found[name], kind) for name in emulated]
        worst = min(sqnr_db(emulated[name], found[name]) for name in emulated)
        cells += [f"{worst:.1f}", f"{max(most for most, _ in steps):.0f}"]
        cells.append(f"{max(usual for _, usual in steps):.0f}")
    if isinstance(original, str):
        return [*cells, original]
    return [*cells, f"{min(sqnr_db(original[name], found[name]) for name in original):.1f}"]


def shown(load: Load) -> str:
    """A load as a cell."""
    return f"{load.scenario}, batch {load.samples_per_query}, {load.streams} stream(s)"


def figures_of(found: Measurement, facts: Mapping[str, Any]) -> list[str]:
    """The cells of a measurement."""
    one = found.as_json()
    own = {entry["percent"]: entry["ms"] for entry in one["device"]["percentiles"]}
    joules, memory = one["joules_per_sample"], facts.get("device_memory_bytes")
    return [
        f"{found.latencies.at(50.0).value:.3f}",
        f"{found.latencies.at(99.0).value:.3f}",
        f"{own[50.0]:.3f}",
        f"{found.throughput:.0f}",
        "not known" if memory is None else f"{memory / 1e6:.0f}",
        "not known" if joules is None else f"{joules * 1e3:.3f}",
    ]


def state(facts: Mapping[str, Any]) -> str:
    """Clocks and idle power, or why they are not known."""
    gpu = dict(facts["gpu"])
    if "reason" in gpu:
        return f"energy and clocks are not known: {gpu['reason']}"
    idle, held = facts["idle_watts"], ", ".join(gpu.get("held_back_by", ())) or "nothing"
    energy = f"energy is not known: {gpu.get('energy_reason')}"
    if idle is not None:
        energy = f"idle power {idle:.0f} W, included in mJ"
    return (
        f"clock {gpu.get('sm_mhz')} of {gpu.get('max_sm_mhz')} MHz, held back by {held}; {energy}"
    )


def ulp_distance(expected: Any, found: Any, kind: str) -> tuple[int, int]:
    """How many numbers of a type lie between two arrays: the most, and what 99.9 % are within.

    Both are rounded to the type first. Bits of floats, read as integers, are in the order of their
    values once those of negative numbers are turned round. Not-a-number is as far as can be.
    """
    narrow, whole = _TYPES[kind]
    limits = np.iinfo(whole)
    sides = []
    for one in (expected, found):
        bits = np.asarray(one, np.float64).astype(narrow).view(whole).astype(np.int64)
        sides.append(np.where(bits < 0, limits.min - bits, bits).ravel())
    apart = np.abs(sides[0] - sides[1])
    apart[~np.isfinite(np.asarray(found, np.float64)).ravel()] = limits.max
    return int(apart.max()), int(np.quantile(apart, 0.999, method="higher"))


def in_a_cell(text: str) -> str:
    """A text as one cell of a table, cut where it is long."""
    whole = " ".join(text.replace("|", "/").split())
    return whole if len(whole) <= _CELL else f"{whole[:_CELL]} ..."


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """Lines of a table in Markdown."""
    cells = [columns, ["---"] * len(columns), *rows]
    return [f"| {' | '.join('-' if one is None else str(one) for one in row)} |" for row in cells]
