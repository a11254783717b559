r"""`trtforge quantize` beside ONNX Runtime, ModelOpt and NNCF: time, memory, what is left.

For each case every contender makes one INT8 file, which is judged on held-out samples and built
with TensorRT-RTX; then all are timed in N rounds, each in its own process, in another order every
round. Raw records go to a file of JSON lines as they come; with `--append` a run that was cut off
goes on. The page of tables is made of the records alone:

    python benchmarks/quantization.py --trtforge .venv/bin [--peers BIN] [--modelopt BIN] \
        [--nncf BIN] --case NAME=MODEL.onnx,DATA.npy,HELD.npy,SAMPLES ... [--rounds 3] \
        [--only NAME,...] [--tools 'trtforge mse,nncf'] [--results FILE.jsonl] [--append]
    python benchmarks/quantization.py --table [--results FILE.jsonl] [--output FILE.md]

A case whose name ends in `@SAMPLES` and that has a sibling with another number is compared with it
for memory. Environments of peers: pip install onnx onnxruntime; nvidia-modelopt[onnx]; nncf onnx
onnxruntime. Slow contenders run once: see SLOW_SECONDS.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from cleanup.measure import Limits, measure
from cleanup.records import Record, append, read
from cleanup.setting import describe_setting, digest, total_memory_bytes
from int8.cases import CALIBRATION, FLOOR, OURS, TOOLS, Case, Environments, command
from int8.tables import page

FOLDER = Path(__file__).resolve().parent
EXAMINE = FOLDER / "int8" / "examine.py"
MEMORY_SHARE = 0.85
SLOW_SECONDS = 40.0
"""A contender that takes longer is timed once: these are ten times the others."""

HALF = "trtforge fp16"
MIXED = "trtforge int8 in fp16"
"""Engines without a peer: the FP16 form of the model, and INT8 with FP16 for the rest."""


class Bench:
    """One session: measures what the records do not hold yet."""

    def __init__(self, arguments: argparse.Namespace, where: Environments) -> None:
        self.where = where
        self.tools: list[str] = arguments.tools
        self.rounds: int = arguments.rounds
        self.results: Path = arguments.results
        self.limits = Limits(arguments.limit_s, int(MEMORY_SHARE * total_memory_bytes()))
        self.records = read(self.results)
        facts = describe_setting(where)
        self.setting = digest(facts)
        if not self._has("setting"):
            self._write("setting", {"date": f"{datetime.now(UTC):%Y-%m-%d}", **facts})

    def run(self, cases: list[Case]) -> None:
        """Measure all cases."""
        for case in cases:
            with tempfile.TemporaryDirectory(prefix="quantization-") as folder:
                able = [tool for tool in self.tools if self._examine(case, tool, Path(folder))]
                if case.is_first:
                    self._engines(case, Path(folder))
                for number in range(self.rounds):
                    order = able.copy()
                    random.Random(f"{case.name}/{number}").shuffle(order)
                    for tool in order:
                        self._time(case, tool, number, Path(folder))

    def _examine(self, case: Case, tool: str, folder: Path) -> bool:
        """Make and judge one file; say whether the contender can take part."""
        target = _fresh(folder, case)
        words = command(tool, self.where, case, target)
        if words is None:
            return False
        if not self._has("file", case=case.name, tool=tool):
            outcome = measure(words, folder, self.limits)
            found: Record = {"case": case.name, "tool": tool}
            if outcome.failed is not None:
                found["failed"] = outcome.failed
            elif tool not in (FLOOR, CALIBRATION):
                found |= self._child("judge", case.model, target, case.held)
                found |= {f"build_{k}": v for k, v in self._child("build", target).items()}
            self._write("file", {**found, "seconds": outcome.seconds})
        return not self._has("file", case=case.name, tool=tool, failed=...)

    def _engines(self, case: Case, folder: Path) -> None:
        """Build FP32 and FP16 engines, and INT8 with FP16 for the rest."""
        if self._has("engine", case=case.name, tool=MIXED) or self.tools != list(TOOLS):
            return
        target = _fresh(folder, case)
        plain = self._child("build", case.model)
        self._write("engine", {"case": case.name, "tool": "fp32", **plain})
        self._child("fp16", case.model, target)
        self._write("engine", {"case": case.name, "tool": HALF, **self._child("build", target)})
        target = _fresh(folder, case)
        words = command(next(iter(OURS)), self.where, case, target)
        assert words is not None
        measure([*words, "--type", "fp16"], folder, self.limits)
        built = self._child("build", target)
        self._write("engine", {"case": case.name, "tool": MIXED, **built})

    def _time(self, case: Case, tool: str, number: int, folder: Path) -> None:
        if self._has("run", case=case.name, tool=tool, round=number):
            return
        if number and self._slow(case, tool):
            return
        words = command(tool, self.where, case, _fresh(folder, case))
        assert words is not None
        load = os.getloadavg()[0]
        outcome = measure(words, folder, self.limits)
        found: Record = {"case": case.name, "tool": tool, "round": number, "load": load}
        if outcome.failed is not None:
            self._write("lost", {**found, "failed": outcome.failed})
            return
        figures = {"seconds": outcome.seconds, "peak_bytes": outcome.peak_bytes}
        self._write("run", {**found, **figures})

    def _slow(self, case: Case, tool: str) -> bool:
        return any(
            record["kind"] == "run"
            and (record["case"], record["tool"]) == (case.name, tool)
            and record["seconds"] > SLOW_SECONDS
            for record in self.records
        )

    def _child(self, *words: str | Path) -> Record:
        """Run `examine.py` under trtforge's Python; a failure is told as `failed`."""
        program = [self.where.trtforge / "python", "-P", EXAMINE, *words]
        ended = subprocess.run(list(map(str, program)), capture_output=True, text=True, check=False)
        if ended.returncode != 0:
            said = ended.stderr.strip().splitlines()
            return {"failed": f"{words[0]}: {said[-1] if said else ended.returncode}"}
        found: Record = json.loads(ended.stdout.splitlines()[-1])
        return found

    def _has(self, kind: str, **wanted: object) -> bool:
        return any(
            record["kind"] == kind
            and record["setting"] == self.setting
            and all(k in record and (v is ... or record[k] == v) for k, v in wanted.items())
            for record in self.records
        )

    def _write(self, kind: str, facts: Record) -> None:
        record = {"kind": kind, "setting": self.setting, **facts}
        self.records.append(record)
        append(self.results, record)
        shown = ("case", "tool", "round", "seconds", "centred_db", "engine_bytes", "failed")
        said = [f"{key}={facts[key]}" for key in shown if key in facts]
        sys.stderr.write(" ".join([kind, *said]) + "\n")
        sys.stderr.flush()


def _fresh(folder: Path, case: Case) -> Path:
    """A file to write in an empty folder of its own."""
    own = Path(tempfile.mkdtemp(dir=folder)) / "out"
    own.mkdir()
    return own / f"{case.name.partition('@')[0]}.onnx"


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )

    def folder(text: str) -> Path:
        # Not resolved: the python of a virtual environment is a link that must stay one.
        return Path(text).absolute()

    add = parser.add_argument
    for name in ("trtforge", "peers", "modelopt", "nncf"):
        add(f"--{name}", type=folder, metavar="BIN", help="bin folder of its environment")
    add("--case", action="append", default=[], type=Case.parse, dest="cases", metavar="CASE")
    add("--only", type=lambda text: text.split(","), metavar="NAME,...", help="these cases")
    add("--tools", type=lambda text: text.split(","), default=list(TOOLS), metavar="NAME,...")
    add("--rounds", type=int, default=3, help="timed rounds (3)")
    add("--limit-s", type=float, default=300, help="seconds after which a process is stopped")
    add("--append", action="store_true", help="go on with the records that are there")
    add("--results", type=Path, default=FOLDER / "results" / "quantization.jsonl")
    add("--output", type=Path, default=FOLDER / "results" / "quantization.md")
    add("--table", action="store_true", help="write the page from the records; measure nothing")
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.tools) - set(TOOLS)):
        parser.error(f"no such tool: {', '.join(unknown)}; there are {', '.join(TOOLS)}")
    if not arguments.table:
        if arguments.trtforge is None or not arguments.cases:
            parser.error("--trtforge and --case are needed")
        if read(arguments.results) and not arguments.append:
            parser.error(f"{arguments.results} holds records: --append, or another --results")
    return arguments


def main() -> None:
    """Measure, and write the page."""
    arguments = parse_arguments()
    if not arguments.table:
        where = Environments(
            arguments.trtforge, arguments.peers, arguments.modelopt, arguments.nncf
        )
        cases = [c for c in arguments.cases if not arguments.only or c.name in arguments.only]
        Bench(arguments, where).run(cases)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(page(read(arguments.results)), encoding="utf-8")
    print(arguments.output)


if __name__ == "__main__":
    main()
