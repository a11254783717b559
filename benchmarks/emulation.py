r"""What emulation costs beside the FP32 run, and whether its bits are those of the model.

For each network and type (fp16, bf16; with +int8, +fp8 or +int4_weight_only quantized as well,
calibrated on one random batch), in processes of their own:

- time: the FP32 network and its emulated twin in turn, with the session settings of graph parity;
- memory: the peak of a process that loads and runs the one or the other;
- bits: every tensor of the twin beside the per-operator model of the tests, tests/per_operator.py
  (each operator alone, rounded by numpy or ml_dtypes, control flow written out).

    python benchmarks/emulation.py --models DIR [--only NAME,...] [--types fp16,bf16+int8,...] \
        [--rounds 5] [--records FILE.jsonl] [--output FILE.md]

Records are added to those that are there; the page is made of all of them. Inputs are random
numbers; dimensions that are open become 2. The networks are the work set of the other benchmarks;
any folder of FP32 ONNX files will do.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from trtforge.engine.environment import peak_rss_bytes
from trtforge.graph.execute import Session
from trtforge.graph.inputs import random_feeds
from trtforge.graph.model import Model
from trtforge.precision.cache import CalibrationCache
from trtforge.precision.calibrate import CalibrationRequest, calibrate
from trtforge.precision.cast import typed
from trtforge.precision.emulate import emulate
from trtforge.precision.quantize import candidate_tensors
from trtforge.recipe.schema import Precision

REPOSITORY = Path(__file__).resolve().parent.parent
NETWORKS = (
    "resnet50 mobilenetv3_ts yolo_ts unet_ts densenet121 bert_ts gpt2_ts llama_ts vit_ts "
    "effnet_ts squeezenet shufflenet digits_cnn digits_mobile digits_vit"
)
PACKAGES = ("trtforge", "onnx", "onnxruntime", "numpy", "ml_dtypes")
OPEN_DIMENSION = 2
SHORTEST_S = 0.2
"""Runs are repeated until a measurement takes that long."""

Feeds = dict[str, np.ndarray]


def feeds_of(model: Model) -> Feeds:
    """Random inputs."""
    shapes = {
        spec.name: tuple(d if isinstance(d, int) else OPEN_DIMENSION for d in spec.dims)
        for spec in model.contract.inputs
    }
    return random_feeds(model, shapes, 0)


def write_typed(source: Path, kind: str, target: Path) -> None:
    """Cast, and quantize, a network as `trtforge build` does."""
    model = Model.load(source)
    name, _, quantize = kind.partition("+")
    precision = Precision.model_validate({"type": name, "quantize": quantize or "none"})
    cache = calibrated(model) if quantize in ("int8", "fp8") else None
    typed(model, cache, precision).model.save(target)


def calibrated(model: Model) -> CalibrationCache:
    """Ranges on one batch of random numbers, with the dimensions of all measurements."""
    sys.path.insert(0, str(REPOSITORY / "tests"))
    from precision_samples import samples_for

    tensors = candidate_tensors(model, Precision(quantize="int8"))
    samples = samples_for(model, feeds_of(model))
    return calibrate(model, samples, CalibrationRequest(tensors, "minmax"))


def measure_time(source: Path, cast: Path, rounds: int) -> dict[str, Any]:
    """Seconds of a run, both networks in turn so that a busy machine is busy for both."""
    model = Model.load(source)
    feeds = feeds_of(model)
    started = time.perf_counter()
    twin = emulate(Model.load(cast))
    made = time.perf_counter() - started
    sessions = {"fp32": Session(model), "emulated": Session(twin)}
    found: dict[str, list[float]] = {name: [] for name in sessions}
    repeats = max(1, int(SHORTEST_S / _seconds(sessions["fp32"], feeds, 2)))
    for _ in range(rounds):
        for name, session in sessions.items():
            found[name].append(_seconds(session, feeds, repeats))
    return {"make": made, **{name: statistics.median(times) for name, times in found.items()}}


def _seconds(session: Session, feeds: Feeds, repeats: int) -> float:
    session.run(feeds)
    started = time.perf_counter()
    for _ in range(repeats):
        session.run(feeds)
    return (time.perf_counter() - started) / repeats


def measure_memory(source: Path, cast: Path | None) -> dict[str, Any]:
    """Peak memory of this process, which runs one network twice."""
    model = Model.load(source)
    feeds = feeds_of(model)
    session = Session(model if cast is None else emulate(Model.load(cast)))
    for _ in range(2):
        session.run(feeds)
    return {"peak_bytes": peak_rss_bytes()}


def compare_bits(source: Path, cast: Path) -> dict[str, Any]:
    """Count the tensors in which the twin differs from the per-operator model."""
    sys.path.insert(0, str(REPOSITORY / "tests"))
    from per_operator import NARROW, PerOperator, same_bits

    model = Model.load(cast)
    feeds = feeds_of(Model.load(source))
    expected = PerOperator(model).run(feeds)
    twin = emulate(model)
    made = {name for node in twin.proto.graph.node for name in node.output}
    names = [name for node in model.proto.graph.node for name in node.output if name in made]
    got = Session(twin, outputs=names).run(feeds, names)
    with np.errstate(over="ignore"):
        different = [name for name in names if not same_bits(got[name], expected[name])]
    narrow = sum(expected[name].dtype in NARROW for name in names)
    return {"tensors": len(names), "narrow": narrow, "different": different}


TASKS: dict[str, Callable[..., Any]] = {
    "cast": lambda source, kind, target: write_typed(Path(source), kind, Path(target)),
    "time": lambda source, cast, rounds: measure_time(Path(source), Path(cast), int(rounds)),
    "memory": lambda source, cast="": measure_memory(Path(source), Path(cast) if cast else None),
    "bits": lambda source, cast: compare_bits(Path(source), Path(cast)),
}


def in_process(task: str, *words: object) -> dict[str, Any]:
    """Do a task in a new process.

    Raises:
        subprocess.CalledProcessError: it failed; its words are on the standard error.
    """
    command = [sys.executable, __file__, "--task", task, *map(str, words)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def bench(source: Path, kinds: list[str], rounds: int) -> Iterator[dict[str, Any]]:
    """Measure one network in several types."""
    plain = in_process("memory", source)["peak_bytes"]
    for kind in kinds:
        with tempfile.TemporaryDirectory() as folder:
            cast = Path(folder) / "typed.onnx"
            in_process("cast", source, kind, cast)
            row = {"network": source.stem, "type": kind, "fp32_peak_bytes": plain}
            row |= in_process("time", source, cast, rounds)
            yield row | in_process("memory", source, cast) | in_process("bits", source, cast)


def worst(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Say the largest ratio without quantization and with each."""
    found: dict[str, float] = {}
    for row in rows:
        kind = row["type"].partition("+")[2] or "floats alone"
        found[kind] = max(found.get(kind, 0.0), row["emulated"] / row["fp32"])
    yield from (f"{kind} {ratio:.2f}" for kind, ratio in found.items())


def page(rows: list[dict[str, Any]], note: str) -> str:
    """Return the page of results."""
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    differing = sum(bool(row["different"]) for row in rows)
    lines = [
        "# What emulation costs, and whether it is exact",
        "",
        f"Measured {datetime.now(tz=UTC):%Y-%m-%d} on {os.cpu_count()} cores; medians of several "
        "rounds, the two networks in turn, session settings as in graph parity "
        f"(no optimizations). {note}{versions}. `python benchmarks/emulation.py --models DIR`",
        "",
        f"{len(rows) - differing} of {len(rows)} twins have the per-operator model's bits in "
        f"every tensor, {sum(row['tensors'] for row in rows)} tensors together. Largest ratio: "
        f"{'; '.join(worst(rows))}.",
        "",
        "`make`: loading the typed file and making its twin. Peaks: of a process that loads a "
        "network and runs it; of the twin's, the typed file and the twin included.",
        "",
        "| network | type | FP32 ms | emulated ms | ratio | make s | FP32 peak MiB | emulated peak "
        "MiB | tensors | FP16/BF16 | differ |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [
            row["network"],
            row["type"],
            f"{row['fp32'] * 1e3:.1f}",
            f"{row['emulated'] * 1e3:.1f}",
            f"{row['emulated'] / row['fp32']:.2f}",
            f"{row['make']:.2f}",
            f"{row['fp32_peak_bytes'] / 2**20:.0f}",
            f"{row['peak_bytes'] / 2**20:.0f}",
            str(row["tensors"]),
            str(row["narrow"]),
            ", ".join(row["different"][:3]) or "none",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join((*lines, ""))


def main() -> None:
    """Measure, and write the page."""
    if sys.argv[1:2] == ["--task"]:
        print(json.dumps(TASKS[sys.argv[2]](*sys.argv[3:]) or {}))
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=Path, required=True, metavar="DIR")
    parser.add_argument("--only", default=NETWORKS.replace(" ", ","), metavar="NAME,...")
    parser.add_argument("--types", default="fp16,bf16", metavar="TYPE[+QUANTIZED],...")
    parser.add_argument("--rounds", type=int, default=5)
    records = REPOSITORY / "benchmarks" / "results" / "emulation.jsonl"
    parser.add_argument("--records", type=Path, default=records)
    results = REPOSITORY / "benchmarks" / "results" / "emulation.md"
    parser.add_argument("--note", default="", help="a sentence for the page")
    parser.add_argument("--output", type=Path, default=results)
    arguments = parser.parse_args()
    files = [arguments.models / f"{name}.onnx" for name in arguments.only.split(",")]
    if missing := [file.name for file in files if not file.is_file()]:
        parser.error(f"not in {arguments.models}: {', '.join(missing)}")
    for file in files:
        for row in bench(file, arguments.types.split(","), arguments.rounds):
            with arguments.records.open("a", encoding="utf-8") as stream:
                stream.write(f"{json.dumps(row)}\n")
    lines = arguments.records.read_text(encoding="utf-8").splitlines()
    arguments.output.write_text(
        page([json.loads(line) for line in lines], arguments.note), encoding="utf-8"
    )
    print(arguments.output)


if __name__ == "__main__":
    main()
