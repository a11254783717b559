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
import tempfile
from pathlib import Path

from casts.cases import TOOLS, Case, Environments, command
from casts.tables import page
from cleanup.measure import measure
from cleanup.records import Record, read
from contest import FOLDER, Contest, arguments_of, fresh, parsed

EXAMINE = FOLDER / "casts" / "examine.py"
BUILD = FOLDER / "int8" / "examine.py"
SAMPLES = 4
"""As many as `trtforge cast` measures; AutoCast gets the same."""


class Bench(Contest):
    """Casts and their judgement."""

    def planted(self) -> None:
        """Judge the models with planted faults."""
        with tempfile.TemporaryDirectory(prefix="casting-") as name:
            folder = Path(name)
            for fault, text in self.child(EXAMINE, "planted", folder).items():
                data = folder / f"{fault}.npz"
                case = Case(fault, folder / f"{fault}.onnx", data, data, is_planted=True)
                if not self.has("fault", case=fault):
                    self.write("fault", {"case": fault, "fault": text})
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
                self.run_rounds(case, able, folder)

    def _batches(self, case: Case, folder: Path) -> None:
        data = f"{case.model}::{case.data}"
        self.child(EXAMINE, "samples", data, folder / f"{case.name}.batches", str(SAMPLES))

    def words(self, case: Case, tool: str, folder: Path) -> tuple[list[str] | None, Path]:
        """Return a contender's command line, None where it takes no part; and what it writes."""
        target = fresh(folder, case.name)
        return command(tool, self.where, case, target, folder / f"{case.name}.batches"), target

    def _examine(self, case: Case, tool: str, folder: Path) -> bool:
        """Make and judge one file; say whether the contender can take part."""
        words, target = self.words(case, tool, folder)
        if words is None:
            return False
        if not self.has("file", case=case.name, tool=tool):
            outcome = measure(words, folder, self.limits)
            found: Record = {"case": case.name, "tool": tool, "planted": case.is_planted}
            if outcome.failed is not None:
                found["failed"] = outcome.failed
            else:
                found |= self.child(EXAMINE, "judge", case.model, target, case.held)
                found |= {f"build_{k}": v for k, v in self.child(BUILD, "build", target).items()}
            self.write("file", {**found, "seconds": outcome.seconds})
        return not self.has("file", case=case.name, tool=tool, failed=...)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    environments = ("trtforge", "peers", "modelopt")
    parser = arguments_of(str(__doc__), environments, tuple(TOOLS), "casting", rounds=5)
    add = parser.add_argument
    add("--case", action="append", default=[], type=Case.parse, dest="cases", metavar="CASE")
    add("--planted", action="store_true", help="also judge the models with planted faults")
    return parsed(parser, tuple(TOOLS), "--case or --planted", "cases planted")


def main() -> None:
    """Measure, and write the page."""
    arguments = parse_arguments()
    if not arguments.table:
        where = Environments(arguments.trtforge, arguments.peers, arguments.modelopt)
        bench = Bench(arguments, where, ("emulated_db", "casts"))
        if arguments.planted:
            bench.planted()
        bench.run(arguments.cases)
    arguments.output.write_text(page(read(arguments.results)), encoding="utf-8")
    print(arguments.output)


if __name__ == "__main__":
    main()
