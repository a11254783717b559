r"""`trtforge cast` beside onnxconverter-common, ONNX Runtime's float16 and ModelOpt AutoCast.

For each case every contender makes one FP16 file, which is judged on held-out samples (as ONNX
Runtime runs it, and emulated) and built with TensorRT-RTX; then all are timed in N rounds, each in
its own process, in another order every round. Models with planted faults (tests/planted_faults.py)
are judged only. Raw records go to a file of JSON lines as they come; with `--append` a run that was
cut off goes on. The page is made of the records alone:

    python benchmarks/casting.py --trtforge .venv/bin [--peers BIN] [--modelopt BIN] [--planted] \
        --case NAME=MODEL.onnx,DATA.npy,HELD.npy ... [--rounds 5] [--tools 'trtforge;AutoCast'] \
        [--results FILE.jsonl] [--append]
    python benchmarks/casting.py --table [--results FILE.jsonl] [--output FILE.md]

Environments of peers: pip install onnx onnxruntime onnxconverter-common; nvidia-modelopt[onnx].
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

from casts.cases import TOOLS, Case, Environments, command
from casts.tables import page
from cleanup.measure import Limits, measure
from cleanup.records import Record, append, read
from cleanup.setting import describe_setting, digest, total_memory_bytes

FOLDER = Path(__file__).resolve().parent
EXAMINE = FOLDER / "casts" / "examine.py"
BUILD = FOLDER / "int8" / "examine.py"
MEMORY_SHARE = 0.85
SAMPLES = 4
"""As many as `trtforge cast` measures; AutoCast gets the same."""


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

    def planted(self) -> None:
        """Judge the models with planted faults."""
        with tempfile.TemporaryDirectory(prefix="casting-") as name:
            folder = Path(name)
            for fault, text in self._child(EXAMINE, "planted", folder).items():
                data = folder / f"{fault}.npz"
                case = Case(fault, folder / f"{fault}.onnx", data, data, is_planted=True)
                if not self._has("fault", case=fault):
                    self._write("fault", {"case": fault, "fault": text})
                self._batches(case, folder)
                for tool in self.tools:
                    self._examine(case, tool, folder)

    def run(self, cases: list[Case]) -> None:
        """Judge and time all cases."""
        for case in cases:
            with tempfile.TemporaryDirectory(prefix="casting-") as name:
                folder = Path(name)
                self._batches(case, folder)
                able = [tool for tool in self.tools if self._examine(case, tool, folder)]
                for number in range(self.rounds):
                    order = able.copy()
                    random.Random(f"{case.name}/{number}").shuffle(order)
                    for tool in order:
                        self._time(case, tool, number, folder)

    def _batches(self, case: Case, folder: Path) -> None:
        data = f"{case.model}::{case.data}"
        self._child(EXAMINE, "samples", data, folder / f"{case.name}.batches", str(SAMPLES))

    def _command(self, case: Case, tool: str, folder: Path) -> tuple[list[str] | None, Path]:
        own = Path(tempfile.mkdtemp(dir=folder)) / "out"
        own.mkdir()
        target = own / f"{case.name}.onnx"
        return command(tool, self.where, case, target, folder / f"{case.name}.batches"), target

    def _examine(self, case: Case, tool: str, folder: Path) -> bool:
        """Make and judge one file; say whether the contender can take part."""
        words, target = self._command(case, tool, folder)
        if words is None:
            return False
        if not self._has("file", case=case.name, tool=tool):
            outcome = measure(words, folder, self.limits)
            found: Record = {"case": case.name, "tool": tool, "planted": case.is_planted}
            if outcome.failed is not None:
                found["failed"] = outcome.failed
            else:
                found |= self._child(EXAMINE, "judge", case.model, target, case.held)
                found |= {f"build_{k}": v for k, v in self._child(BUILD, "build", target).items()}
            self._write("file", {**found, "seconds": outcome.seconds})
        return not self._has("file", case=case.name, tool=tool, failed=...)

    def _time(self, case: Case, tool: str, number: int, folder: Path) -> None:
        if self._has("run", case=case.name, tool=tool, round=number):
            return
        words, _ = self._command(case, tool, folder)
        assert words is not None
        load = os.getloadavg()[0]
        outcome = measure(words, folder, self.limits)
        found: Record = {"case": case.name, "tool": tool, "round": number, "load": load}
        if outcome.failed is not None:
            self._write("lost", {**found, "failed": outcome.failed})
            return
        figures = {"seconds": outcome.seconds, "peak_bytes": outcome.peak_bytes}
        self._write("run", {**found, **figures, "processor_seconds": outcome.processor_seconds})

    def _child(self, script: Path, *words: str | Path) -> Record:
        """Run a script under trtforge's Python; a failure is told as `failed`."""
        program = [self.where.trtforge / "python", "-P", script, *words]
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
        shown = ("case", "tool", "round", "seconds", "emulated_db", "casts", "failed")
        said = [f"{key}={facts[key]}" for key in shown if key in facts]
        sys.stderr.write(" ".join([kind, *said]) + "\n")
        sys.stderr.flush()


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )

    def folder(text: str) -> Path:
        # Not resolved: the python of a virtual environment is a link that must stay one.
        return Path(text).absolute()

    add = parser.add_argument
    for name in ("trtforge", "peers", "modelopt"):
        add(f"--{name}", type=folder, metavar="BIN", help="bin folder of its environment")
    add("--case", action="append", default=[], type=Case.parse, dest="cases", metavar="CASE")
    add("--planted", action="store_true", help="also judge the models with planted faults")
    add("--tools", type=lambda text: text.split(";"), default=list(TOOLS), metavar="NAME;...")
    add("--rounds", type=int, default=5, help="timed rounds (5)")
    add("--limit-s", type=float, default=300, help="seconds after which a process is stopped")
    add("--append", action="store_true", help="go on with the records that are there")
    add("--results", type=Path, default=FOLDER / "results" / "casting.jsonl")
    add("--output", type=Path, default=FOLDER / "results" / "casting.md")
    add("--table", action="store_true", help="write the page from the records; measure nothing")
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.tools) - set(TOOLS)):
        parser.error(f"no such tool: {', '.join(unknown)}; there are {'; '.join(TOOLS)}")
    if not arguments.table:
        if arguments.trtforge is None or not (arguments.cases or arguments.planted):
            parser.error("--trtforge, and --case or --planted are needed")
        if read(arguments.results) and not arguments.append:
            parser.error(f"{arguments.results} holds records: --append, or another --results")
    return arguments


def main() -> None:
    """Measure, and write the page."""
    arguments = parse_arguments()
    if not arguments.table:
        where = Environments(arguments.trtforge, arguments.peers, arguments.modelopt)
        bench = Bench(arguments, where)
        if arguments.planted:
            bench.planted()
        bench.run(arguments.cases)
    arguments.output.write_text(page(read(arguments.results)), encoding="utf-8")


if __name__ == "__main__":
    main()
