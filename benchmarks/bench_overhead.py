"""Whether `trtforge bench` measures what a raw loop over ONNX Runtime measures.

For each model both run in processes of their own, in turns: `trtforge bench` (single stream), and
a loop of nothing but `session.run` and a clock, on the same inputs with the same session settings.
One table with the medians of each and the median of the ratios over the rounds.

    python benchmarks/bench_overhead.py MODEL.onnx ... [--rounds 7] [--seconds 2] [--output FILE.md]
"""

import argparse
import json
import statistics
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

PROGRAM = Path(sys.executable).parent / "trtforge"

RAW = """
import json, sys, time
from pathlib import Path
from trtforge.graph.execute import load_session
from trtforge.graph.inputs import random_feeds
from trtforge.graph.model import Model
from trtforge.pipeline.corners import free_shapes
model = Model.load(Path(sys.argv[1]))
shapes = dict(free_shapes(model.contract)["opt"])
for spec in model.contract.inputs:
    if spec.dims and not isinstance(spec.dims[0], int):
        shapes[spec.name] = (1, *shapes[spec.name][1:])
feeds = [random_feeds(model, shapes, seed) for seed in range(16)]
session, weights = load_session(model, optimize=True)
end = time.perf_counter() + 0.5
while time.perf_counter() < end:
    session.run(None, feeds[0])
times, end = [], time.perf_counter() + float(sys.argv[2])
while time.perf_counter() < end:
    one = feeds[len(times) % 16]
    before = time.perf_counter()
    session.run(None, one)
    times.append(time.perf_counter() - before)
times.sort()
print(json.dumps(times[len(times) // 2] * 1e3))
"""


def raw_ms(model: Path, seconds: float) -> float:
    """Median milliseconds of a loop of nothing but runs."""
    command = [sys.executable, "-c", RAW, str(model), str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout))


def bench_ms(model: Path, seconds: float) -> float:
    """Median milliseconds that `trtforge bench` finds."""
    command = [str(PROGRAM), "bench", str(model), "--seconds", str(seconds), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    percentiles = json.loads(done.stdout)["latencies"]["percentiles"]
    return float(next(one["ms"] for one in percentiles if one["percent"] == 50.0))


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--output", type=Path)
    asked = parser.parse_args()
    lines = [
        "# `trtforge bench` beside a raw loop over ONNX Runtime",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}, trtforge {version('trtforge')}, onnxruntime "
        f"{version('onnxruntime')}, {asked.rounds} rounds in turns of {asked.seconds:g} s each.",
        "",
        "| model | raw loop, median ms | trtforge bench, median ms | ratio, median of rounds |",
        "|---|---|---|---|",
    ]
    for model in asked.models:
        pairs = []
        for index in range(asked.rounds):
            if index % 2:
                found = bench_ms(model, asked.seconds)
                pairs.append((raw_ms(model, asked.seconds), found))
            else:
                pairs.append((raw_ms(model, asked.seconds), bench_ms(model, asked.seconds)))
        raw, ours = (statistics.median(pair[side] for pair in pairs) for side in (0, 1))
        ratio = statistics.median(b / a for a, b in pairs)
        lines.append(f"| {model.stem} | {raw:.4g} | {ours:.4g} | {ratio:.3f} |")
        print(lines[-1], flush=True)
    text = "\n".join(lines) + "\n"
    if asked.output is not None:
        asked.output.write_text(text, encoding="utf-8")
    else:
        print(text)


if __name__ == "__main__":
    main()
