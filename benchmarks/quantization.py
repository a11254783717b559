r"""`trtforge quantize` beside ONNX Runtime, ModelOpt and NNCF: time, memory, what is left.

For each case every contender makes one INT8 file, which is judged on held-out samples and built
with TensorRT-RTX; then all are timed in N rounds, each in its own process, in another order every
round. Raw records go to a file of JSON lines as they come; with `--append` a run that was cut off
goes on. The page of tables is made of the records alone:

    python benchmarks/quantization.py --trtforge .venv/bin [--peers BIN] [--modelopt BIN] \
        [--nncf BIN] --case NAME=MODEL.onnx,DATA.npy,HELD.npy,SAMPLES ... [--rounds 3] \
        [--only NAME,...] [--tools 'trtforge mse;nncf'] [--results FILE.jsonl] [--append]
    python benchmarks/quantization.py --table [--results FILE.jsonl] [--output FILE.md]

A case whose name ends in `@SAMPLES` and that has a sibling with another number is compared with it
for memory. Environments of peers: pip install onnx onnxruntime; nvidia-modelopt[onnx]; nncf onnx
onnxruntime. Slow contenders run once: see SLOW_SECONDS.
"""

import argparse
import tempfile
from pathlib import Path

from cleanup.measure import measure
from cleanup.records import Record, read
from contest import FOLDER, Contest, arguments_of, fresh, parsed
from int8.cases import CALIBRATION, FLOOR, OURS, TOOLS, Case, Environments, command
from int8.tables import page

EXAMINE = FOLDER / "int8" / "examine.py"
SLOW_SECONDS = 40.0
"""A contender that takes longer is timed once: these are ten times the others."""

HALF = "trtforge fp16"
MIXED = "trtforge int8 in fp16"
"""Engines without a peer: the FP16 form of the model, and INT8 with FP16 for the rest."""


class Bench(Contest):
    """INT8 files, their judgement, and their engines."""

    def run(self, cases: list[Case]) -> None:
        """Measure all cases."""
        for case in cases:
            with tempfile.TemporaryDirectory(prefix="quantization-") as name:
                folder = Path(name)
                able = [tool for tool in self.tools if self._examine(case, tool, folder)]
                if case.is_first:
                    self._engines(case, folder)
                self.run_rounds(case, able, folder)

    def words(self, case: Case, tool: str, folder: Path) -> tuple[list[str] | None, Path]:
        """Return a contender's command line, None where it takes no part; and what it writes."""
        target = fresh(folder, case.name.partition("@")[0])
        return command(tool, self.where, case, target), target

    def is_over(self, case: Case, tool: str, number: int) -> bool:
        """Whether it is a slow one that has been timed."""
        return number > 0 and any(
            record["kind"] == "run"
            and (record["case"], record["tool"]) == (case.name, tool)
            and record["seconds"] > SLOW_SECONDS
            for record in self.records
        )

    def _examine(self, case: Case, tool: str, folder: Path) -> bool:
        """Make and judge one file; say whether the contender can take part."""
        words, target = self.words(case, tool, folder)
        if words is None:
            return False
        if not self.has("file", case=case.name, tool=tool):
            outcome = measure(words, folder, self.limits)
            found: Record = {"case": case.name, "tool": tool}
            if outcome.failed is not None:
                found["failed"] = outcome.failed
            elif tool not in (FLOOR, CALIBRATION):
                found |= self.child(EXAMINE, "judge", case.model, target, case.held)
                found |= {f"build_{k}": v for k, v in self._built(target).items()}
            self.write("file", {**found, "seconds": outcome.seconds})
        return not self.has("file", case=case.name, tool=tool, failed=...)

    def _engines(self, case: Case, folder: Path) -> None:
        """Build FP32 and FP16 engines, and INT8 with FP16 for the rest."""
        if self.has("engine", case=case.name, tool=MIXED) or self.tools != list(TOOLS):
            return
        self.write("engine", {"case": case.name, "tool": "fp32", **self._built(case.model)})
        half = fresh(folder, case.name.partition("@")[0])
        self.child(EXAMINE, "fp16", case.model, half)
        self.write("engine", {"case": case.name, "tool": HALF, **self._built(half)})
        words, mixed = self.words(case, next(iter(OURS)), folder)
        assert words is not None
        measure([*words, "--type", "fp16"], folder, self.limits)
        self.write("engine", {"case": case.name, "tool": MIXED, **self._built(mixed)})

    def _built(self, model: Path) -> Record:
        return self.child(EXAMINE, "build", model)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    environments = ("trtforge", "peers", "modelopt", "nncf")
    parser = arguments_of(str(__doc__), environments, tuple(TOOLS), "quantization", rounds=3)
    add = parser.add_argument
    add("--case", action="append", default=[], type=Case.parse, dest="cases", metavar="CASE")
    add("--only", type=lambda text: text.split(","), metavar="NAME,...", help="these cases")
    return parsed(parser, tuple(TOOLS), "--case", "cases")


def main() -> None:
    """Measure, and write the page."""
    arguments = parse_arguments()
    if not arguments.table:
        where = Environments(
            arguments.trtforge, arguments.peers, arguments.modelopt, arguments.nncf
        )
        cases = [c for c in arguments.cases if not arguments.only or c.name in arguments.only]
        Bench(arguments, where, ("centred_db", "engine_bytes")).run(cases)
    arguments.output.write_text(page(read(arguments.results)), encoding="utf-8")
    print(arguments.output)


if __name__ == "__main__":
    main()
