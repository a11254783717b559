"""What trtforge adds to TensorRT-RTX's own parse and build of a typed ONNX file.

For each model, in turns: a bare process that imports TensorRT-RTX, parses, builds and writes the
engine; trtforge's backend doing the same from a process of its own (the worker that it starts, the
checks, the log and the digest included); `polygraphy convert`. Wall time and memory are those of
whole processes: memory, of one run, is the highest sum over a process and what it started (PSS, so
that shared pages count once).

    python benchmarks/engine_overhead.py MODEL.onnx ... [--rounds 3] [--output FILE.md]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

PROGRAMS = Path(sys.executable).parent
SAMPLE_SECONDS = 0.02
PACKAGES = ("trtforge", "tensorrt-rtx", "polygraphy")

BARE = """
import json, sys
import tensorrt_rtx as trt
onnx, engine, shapes = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
logger = trt.Logger(trt.Logger.ERROR)
builder = trt.Builder(logger)
network = builder.create_network(0)
parser = trt.OnnxParser(network, logger)
assert parser.parse_from_file(onnx)
config = builder.create_builder_config()
profile = builder.create_optimization_profile()
for name, shape in shapes.items():
    profile.set_shape(name, shape, shape, shape)
if shapes:
    config.add_optimization_profile(profile)
plan = builder.build_serialized_network(network, config)
assert plan is not None
with open(engine, "wb") as file:
    file.write(plan)
"""

OURS = """
import json, sys
from pathlib import Path
from trtforge.engine.backend import BuildRequest, get_backend
onnx, engine, shapes = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
profiles = ({name: (tuple(shape),) * 3 for name, shape in shapes.items()},) if shapes else ()
request = BuildRequest(onnx=onnx, output=engine, log=engine.with_suffix(".log"),
    backend="tensorrt_rtx", profiles=profiles)
get_backend("tensorrt_rtx").build(request)
"""


@dataclass
class Row:
    """Measurements of one tool on one model."""

    seconds: list[float] = field(default_factory=list)
    peak_mib: list[float] = field(default_factory=list)


def tree_mib(process: int) -> float:
    """Memory of a process and all that it started, MiB; shared pages are shared out (PSS)."""
    total, waiting = 0.0, [process]
    while waiting:
        one = waiting.pop()
        try:
            lines = Path(f"/proc/{one}/smaps_rollup").read_text(encoding="utf-8").splitlines()
            for thread in Path(f"/proc/{one}/task").iterdir():
                waiting += map(int, (thread / "children").read_text(encoding="utf-8").split())
        except OSError:
            continue
        total += next((int(line.split()[1]) / 1024 for line in lines if line[:4] == "Pss:"), 0.0)
    return total


def measured(
    command: list[str], environment: Mapping[str, str], row: Row, with_memory: bool
) -> None:
    """Run a command for its time, and once more for its memory, which costs time to look at."""
    for watched in (False, True)[: 1 + with_memory]:
        with tempfile.TemporaryFile("w+") as said:
            started = time.perf_counter()
            process = subprocess.Popen(command, env=environment, stdout=said, stderr=said)
            peak = 0.0
            while watched and process.poll() is None:
                peak = max(peak, tree_mib(process.pid))
                time.sleep(SAMPLE_SECONDS)
            process.wait()
            seconds = time.perf_counter() - started
            said.seek(0)
            if process.returncode != 0:
                raise SystemExit(f"{' '.join(command)}\nended {process.returncode}:\n{said.read()}")
        if watched:
            row.peak_mib.append(peak)
        else:
            row.seconds.append(seconds)


def concrete_shapes(model: Path) -> dict[str, list[int]]:
    """Shapes of the inputs that have an open dimension; 1 stands for each."""
    import onnx

    graph = onnx.load(str(model), load_external_data=False).graph
    held = {tensor.name for tensor in graph.initializer}
    found = {}
    for value in graph.input:
        dims = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        if value.name not in held and not all(dims):
            found[value.name] = [dim or 1 for dim in dims]
    return found


def measure(model: Path, rounds: int) -> dict[str, Row]:
    """Measure all tools on one model, in turns."""
    shapes = concrete_shapes(model)
    rows = {name: Row() for name in ("bare", "trtforge", "polygraphy")}
    environment = {**os.environ, "POLYGRAPHY_USE_TENSORRT_RTX": "1"}
    for turn in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            given = [str(model), f"{folder}/model.engine", json.dumps(shapes)]
            asked = [f"{name}:{dims}".replace(" ", "") for name, dims in shapes.items()]
            bounds = [["--trt-" + bound + "-shapes", *asked] for bound in ("min", "opt", "max")]
            commands = {
                "bare": [sys.executable, "-c", BARE, *given],
                "trtforge": [sys.executable, "-c", OURS, *given],
                "polygraphy": [
                    *(str(PROGRAMS / "polygraphy"), "convert", given[0], "--convert-to", "trt"),
                    *("-o", given[1], *(word for bound in bounds if asked for word in bound)),
                ],
            }
            names = list(commands)
            for name in names[turn % 3 :] + names[: turn % 3]:
                measured(commands[name], environment, rows[name], with_memory=turn == 0)
    return rows


def line(model: Path, rows: Mapping[str, Row]) -> str:
    """One model as a row of the table: medians, and ratios of them to the bare process."""
    seconds = {name: statistics.median(row.seconds) for name, row in rows.items()}
    peaks = {name: max(row.peak_mib) for name, row in rows.items()}
    ratios = [seconds[name] / seconds["bare"] for name in ("trtforge", "polygraphy")]
    more = peaks["trtforge"] / peaks["bare"]
    cells = [
        model.stem,
        f"{model.stat().st_size / 1e6:.1f}",
        *(f"{seconds[name]:.2f}" for name in ("bare", "trtforge", "polygraphy")),
        f"{seconds['trtforge'] - seconds['bare']:+.2f}",
        *(f"{ratio:.2f}" for ratio in ratios),
        *(f"{peaks[name]:.0f}" for name in ("bare", "trtforge")),
        f"{more:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path)
    asked = parser.parse_args()
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    lines = [
        "# What trtforge adds to parse and build",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}, {asked.rounds} rounds, {os.cpu_count()} CPU cores, no GPU; "
        f"Python {sys.version.split()[0]}, {versions}.",
        "",
        "| model | MB | bare s | trtforge s | polygraphy s | trtforge - bare | trtforge / bare "
        "| polygraphy / bare | bare MiB | trtforge MiB | / bare |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for model in asked.models:
        lines.append(line(model, measure(model, asked.rounds)))
        print(lines[-1], flush=True)
    if asked.output is not None:
        asked.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
