"""What comparing every tensor of two models costs, beside Polygraphy's `run` with all marked.

In turn and several times, each in its own process: Polygraphy compares a model with itself on
five sets of inputs (two ONNX Runtime runners, all outputs marked); `verify.layers` does the same,
and compares the model with its FP16 graph, emulated, typing included. One table with medians and
peak memory.

    python benchmarks/layers.py MODEL.onnx [--runs 3] [--output FILE.md]
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

SAMPLES = 5
LAYERS = """
import sys
from pathlib import Path
from trtforge.graph.inputs import random_feeds
from trtforge.graph.model import Model
from trtforge.verify.layers import compare_layers
model = Model.load(Path(sys.argv[1]))
candidate = model
if sys.argv[2] == "fp16":
    from trtforge.precision.cast import typed
    from trtforge.precision.emulate import emulate
    from trtforge.recipe.schema import Precision
    candidate = emulate(typed(model, None, Precision(type="fp16")).model)
else:
    candidate = Model.load(Path(sys.argv[1]))
shapes = {spec.name: tuple(dim if isinstance(dim, int) else 1 for dim in spec.dims)
          for spec in model.contract.inputs}
feeds = (random_feeds(model, shapes, seed) for seed in range(int(sys.argv[3])))
profile = compare_layers(model, candidate, feeds)
assert profile.samples == int(sys.argv[3])
print(len(profile.layers))
"""


def measured(command: list[str]) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds and peak resident MiB of one process, which must succeed."""
    started = time.perf_counter()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(process.pid, 0)
        if status:
            log.seek(0)
            raise SystemExit(log.read().decode(errors="replace")[-2000:])
    seconds = time.perf_counter() - started
    return seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def commands(model: Path) -> dict[str, list[str]]:
    """What is timed, by its row's name."""
    polygraphy = str(Path(sys.executable).parent / "polygraphy")
    own = [sys.executable, "-c", LAYERS, str(model)]
    bounds = ["--atol", "1e-4", "--rtol", "1e-4"]
    marked = ["--iterations", str(SAMPLES), *bounds, "--onnx-outputs", "mark", "all"]
    return {
        "polygraphy run, all marked": [polygraphy, "run", str(model), *["--onnxrt"] * 2, *marked],
        "trtforge, with itself": [*own, "same", str(SAMPLES)],
        "trtforge, with its FP16 graph": [*own, "fp16", str(SAMPLES)],
    }


def table(model: Path, runs: int) -> str:
    """Run everything in turn and return the table."""
    rows: dict[str, list[tuple[float, float, float]]] = {name: [] for name in commands(model)}
    for _ in range(runs):
        for name, command in commands(model).items():
            rows[name].append(measured(command))
    medians = {
        name: [statistics.median(column) for column in zip(*found, strict=True)]
        for name, found in rows.items()
    }
    peer = next(iter(medians.values()))
    lines = ["| | seconds | ratio | CPU seconds | ratio | peak MiB | ratio |", "|---" * 7 + "|"]
    for name, figures in medians.items():
        cells = [name]
        for figure, other, digits in zip(figures, peer, (2, 2, 0), strict=True):
            cells += [f"{figure:.{digits}f}", f"{figure / other:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Parse arguments, measure, print or write the page."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--output", type=Path)
    asked = parser.parse_args()
    packages = ("onnxruntime", "onnx", "polygraphy", "numpy")
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    text = (
        f"# Every tensor of {asked.model.stem}, compared\n\n"
        f"`python benchmarks/layers.py {asked.model.name} --runs {asked.runs}`: {SAMPLES} sets of"
        f" inputs, medians of {asked.runs} interleaved runs, {os.cpu_count()} cores, load"
        f" {os.getloadavg()[0]:.1f} at the start; {versions}.\n\n"
        f"{table(asked.model, asked.runs)}\n"
    )
    if asked.output is None:
        sys.stdout.write(text)
    else:
        asked.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
