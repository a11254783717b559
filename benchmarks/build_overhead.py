"""What a verified bundle costs beyond TensorRT-RTX's own parse and build.

For each recipe, in turn and several times: the bare builder (parse + build of the same typed
ONNX, in its own process), Polygraphy's `convert` of it, `trtforge build --force` from an empty
store, and the same build again from a full one. One table with medians, peak memory of the
largest process, and ratios to the bare builder.

    python benchmarks/build_overhead.py [--runs 3] [RECIPE.yaml ...]
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
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
DEFAULT_RECIPES = (
    "recipes/digits/int8.yaml",
    "recipes/vision/fp16.yaml",
    "recipes/vision/int8.yaml",
    "recipes/nlp/fp16.yaml",
)
BARE_BUILD = """
import json, sys, time
import tensorrt_rtx as trt
onnx, engine, profiles = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
logger = trt.Logger(trt.Logger.ERROR)
builder = trt.Builder(logger)
network = builder.create_network(0)
parser = trt.OnnxParser(network, logger)
started = time.perf_counter()
assert parser.parse_from_file(onnx)
parsed = time.perf_counter()
config = builder.create_builder_config()
for shapes in profiles:
    profile = builder.create_optimization_profile()
    for name, triple in shapes.items():
        profile.set_shape(name, triple["min"], triple["opt"], triple["max"])
    config.add_optimization_profile(profile)
plan = builder.build_serialized_network(network, config)
print(json.dumps([parsed - started, time.perf_counter() - parsed]))
open(engine, "wb").write(plan)
"""


@dataclass
class Cell:
    """Measurements of one tool on one recipe: wall seconds and peak MiB of each run."""

    seconds: list[float] = field(default_factory=list)
    peak_mib: list[float] = field(default_factory=list)


def timed(command: list[str], environment: dict[str, str]) -> tuple[float, float, str]:
    """Run a command; return its wall seconds, the peak MiB of its largest process, its stdout."""
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            command, env=environment, cwd=REPOSITORY, stdout=output, stderr=subprocess.DEVNULL
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        output.seek(0)
        text = output.read()
    if status != 0:
        raise SystemExit(f"{' '.join(command)} ended with status {status}")
    return seconds, usage.ru_maxrss / 1024, text


def measure(recipe: str, runs: int) -> dict[str, Cell]:
    """Measure all tools on one recipe, interleaved."""
    cells: dict[str, Cell] = {}

    def note(name: str, seconds: float, peak_mib: float) -> None:
        cell = cells.setdefault(name, Cell())
        cell.seconds.append(seconds)
        cell.peak_mib.append(peak_mib)

    for _ in range(runs):
        with tempfile.TemporaryDirectory() as folder:
            environment = {**os.environ, "TRTFORGE_CACHE": f"{folder}/store"}
            command = [sys.executable, "-m", "trtforge.cli.main", "build", recipe, "--json"]
            command += ["--out", f"{folder}/out", "--target", "rtx"]
            seconds, peak, text = timed(command, environment)
            note("trtforge build", seconds, peak)
            (built,) = json.loads(text)["builds"]
            for row in built["stages"]:
                note(f"  {row['name']}", row["seconds"], 0.0)
            note("trtforge build, cached", *timed(command, environment)[:2])
            bundle = Path(built["bundle"])
            manifest = json.loads((bundle / "manifest.json").read_text())
            typed, profiles = str(bundle / "model.onnx"), json.dumps(manifest["profiles"])
            bare = [sys.executable, "-c", BARE_BUILD, typed, f"{folder}/bare.engine", profiles]
            seconds, peak, text = timed(bare, environment)
            note("bare TensorRT-RTX, whole process", seconds, peak)
            note("bare TensorRT-RTX, parse + build", sum(json.loads(text)), peak)
            note("polygraphy convert", *timed(polygraphy(typed, folder, manifest), environment)[:2])
    return cells


def polygraphy(typed: str, folder: str, manifest: dict) -> list[str]:
    """Return the `polygraphy convert` command that builds the same engine."""
    program = str(Path(sys.executable).parent / "polygraphy")
    command = ["env", "POLYGRAPHY_USE_TENSORRT_RTX=1", program, "convert", typed]
    command += ["-o", f"{folder}/polygraphy.engine", "--convert-to", "trt"]
    for shapes in manifest["profiles"]:
        for bound in ("min", "opt", "max"):
            command.append(f"--trt-{bound}-shapes")
            command += [
                f"{name}:{triple[bound]}".replace(" ", "") for name, triple in shapes.items()
            ]
    return command


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipes", nargs="*", default=DEFAULT_RECIPES)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    print("| recipe | what | median s | min..max s | peak MiB | / bare parse + build |")
    print("|---|---|---|---|---|---|")
    for recipe in arguments.recipes:
        cells = measure(recipe, arguments.runs)
        floor = statistics.median(cells["bare TensorRT-RTX, parse + build"].seconds)
        for name, cell in cells.items():
            median = statistics.median(cell.seconds)
            peak = f"{max(cell.peak_mib):.0f}" if max(cell.peak_mib) else ""
            spread = f"{min(cell.seconds):.2f}..{max(cell.seconds):.2f}"
            print(
                f"| {recipe} | {name} | {median:.2f} | {spread} | {peak} | {median / floor:.2f} |"
            )


if __name__ == "__main__":
    main()
