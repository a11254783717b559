"""What a verified bundle costs beyond TensorRT-RTX's own parse and build.

For each recipe, in turn and several times: `trtforge build` from an empty store, the same again
from a full one, the bare builder (parse + build of the same typed ONNX, in its own process), and
Polygraphy's `convert` of it. One table with medians, peak memory and ratios to the bare builder:
of trtforge's own process (the builder runs in a worker, whose peak is a row of its own).

    python benchmarks/build_overhead.py [--runs 3] [--output FILE.md] [RECIPE.yaml ...]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
PROGRAMS = Path(sys.executable).parent
DEFAULT_RECIPES = (
    "recipes/digits/int8.yaml",
    "recipes/vision/fp16.yaml",
    "recipes/vision/int8.yaml",
    "recipes/nlp/fp16.yaml",
)
PACKAGES = ("trtforge", "tensorrt-rtx", "onnx", "onnxruntime", "onnx-graphsurgeon", "polygraphy")
FLOOR = "bare TensorRT-RTX, parse + build"
SAMPLE_SECONDS = 0.01
BARE_BUILD = """
import json, sys, time
import tensorrt_rtx as trt
onnx, engine, profiles, capabilities = sys.argv[1], sys.argv[2], *map(json.loads, sys.argv[3:])
logger = trt.Logger(trt.Logger.ERROR)
builder = trt.Builder(logger)
network = builder.create_network(0)
parser = trt.OnnxParser(network, logger)
started = time.perf_counter()
assert parser.parse_from_file(onnx)
parsed = time.perf_counter()
config = builder.create_builder_config()
config.num_compute_capabilities = len(capabilities)
for index, capability in enumerate(capabilities):
    config.set_compute_capability(getattr(trt.ComputeCapability, capability), index)
for shapes in profiles:
    profile = builder.create_optimization_profile()
    for name, triple in shapes.items():
        profile.set_shape(name, triple["min"], triple["opt"], triple["max"])
    config.add_optimization_profile(profile)
plan = builder.build_serialized_network(network, config)
assert plan is not None
print(json.dumps([parsed - started, time.perf_counter() - parsed]))
open(engine, "wb").write(plan)
"""


@dataclass
class Row:
    """Measurements of one thing on one recipe: seconds and peak MiB (None: not measured)."""

    seconds: list[float] = field(default_factory=list)
    peak_mib: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Run:
    """One command that has ended."""

    seconds: float
    peak_mib: float
    stdout: str


def timed(command: list[str], environment: dict[str, str]) -> Run:
    """Run a command; its peak is that of its own process, without its children."""
    peak_mib = 0.0
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        started = time.perf_counter()
        process = subprocess.Popen(
            command, env=environment, cwd=REPOSITORY, stdout=output, stderr=errors
        )
        while process.poll() is None:
            peak_mib = max(peak_mib, high_water_mib(process.pid))
            time.sleep(SAMPLE_SECONDS)
        seconds = time.perf_counter() - started
        output.seek(0)
        errors.seek(0)
        if process.returncode != 0:
            said = f"{output.read()}{errors.read()}"  # with --json, errors are on stdout
            raise SystemExit(f"{' '.join(command)}\nended with {process.returncode}:\n{said}")
        return Run(seconds, peak_mib, output.read())


def high_water_mib(process: int) -> float:
    """Return the most memory that a process has had so far; 0 when it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


def measure(recipe: str, runs: int) -> dict[str, Row]:
    """Measure all tools on one recipe, interleaved."""
    rows: dict[str, Row] = {}
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as folder:
            measure_once(recipe, Path(folder), rows)
    return rows


def measure_once(recipe: str, folder: Path, rows: dict[str, Row]) -> None:
    """Measure every tool once, into `rows`."""

    def note(name: str, seconds: float, peak_mib: float | None = None) -> None:
        row = rows.setdefault(name, Row())
        row.seconds.append(seconds)
        if peak_mib is not None:
            row.peak_mib.append(peak_mib)

    environment = {**os.environ, "TRTFORGE_CACHE": str(folder / "store")}
    command = [str(PROGRAMS / "trtforge"), "build", recipe, "--json", "--target", "rtx"]
    command += ["--out", str(folder / "out")]
    run = timed(command, environment)
    note("trtforge build", run.seconds, run.peak_mib)
    (built,) = json.loads(run.stdout)["builds"]
    worker_mib = measured(folder / "store")["peak_rss_bytes"] / 2**20
    for stage in built["stages"]:
        peak = worker_mib if stage["name"] == "build:rtx" else None
        note(f"- {stage['name']}", stage["seconds"], peak)
    run = timed(command, environment)
    note("trtforge build, all cached", run.seconds, run.peak_mib)
    bundle = Path(built["bundle"])
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    typed = str(bundle / "model.onnx")
    run = timed(bare(typed, folder, manifest), environment)
    note("bare TensorRT-RTX, whole process", run.seconds, run.peak_mib)
    note(FLOOR, sum(json.loads(run.stdout)))
    polygraphy = {**environment, "POLYGRAPHY_USE_TENSORRT_RTX": "1"}
    run = timed(convert(typed, folder, manifest), polygraphy)
    note("polygraphy convert", run.seconds, run.peak_mib)


def measured(store: Path) -> dict[str, Any]:
    """Return what the build stage's worker measured of itself."""
    (file,) = store.rglob("measured.json")
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def bare(typed: str, folder: Path, manifest: dict[str, Any]) -> list[str]:
    """Return the command of a process that parses and builds, and nothing else."""
    (target,) = manifest["targets"]
    capabilities = ["SM" + text.replace(".", "") for text in target["compute_capabilities"]]
    asked = [json.dumps(manifest["profiles"]), json.dumps(capabilities)]
    return [sys.executable, "-c", BARE_BUILD, typed, str(folder / "bare.engine"), *asked]


def convert(typed: str, folder: Path, manifest: dict[str, Any]) -> list[str]:
    """Return the `polygraphy convert` command that builds from the same ONNX and profiles."""
    command = [str(PROGRAMS / "polygraphy"), "convert", typed, "--convert-to", "trt"]
    command += ["-o", str(folder / "polygraphy.engine")]
    for shapes in manifest["profiles"]:
        for bound in ("min", "opt", "max"):
            command.append(f"--trt-{bound}-shapes")
            command += [f"{name}:{shape[bound]}".replace(" ", "") for name, shape in shapes.items()]
    return command


def table(recipe: str, rows: dict[str, Row]) -> list[str]:
    """Return one recipe's rows as Markdown."""
    floor = statistics.median(rows[FLOOR].seconds)
    lines = []
    for name, row in rows.items():
        median = statistics.median(row.seconds)
        spread = f"{min(row.seconds):.2f}..{max(row.seconds):.2f}"
        peak = f"{max(row.peak_mib):.0f}" if row.peak_mib else ""
        lines.append(
            f"| {recipe} | {name} | {median:.2f} | {spread} | {peak} | {median / floor:.2f} |"
        )
    return lines


def heading(runs: int) -> list[str]:
    """Return when, where and with what this was measured, and the table's head."""
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return [
        f"Measured {datetime.now(UTC):%Y-%m-%d}, {runs} runs, {os.cpu_count()} CPU cores, no GPU.",
        f"Python {sys.version.split()[0]}, {versions}.",
        "",
        "| recipe | what | median s | min..max s | peak MiB | / bare parse + build |",
        "|---|---|---|---|---|---|",
    ]


def main() -> None:
    """Measure; show and write one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipes", nargs="*", default=DEFAULT_RECIPES)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--output", type=Path, help="a Markdown file for the table")
    arguments = parser.parse_args()
    lines = ["# What a verified bundle costs", "", *heading(arguments.runs)]
    for recipe in arguments.recipes:
        lines += table(recipe, measure(recipe, arguments.runs))
    text = "\n".join(lines) + "\n"
    sys.stdout.write(text)
    if arguments.output is not None:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
