"""What benchmarks of contenders share: each in its own process, in rounds, with records kept."""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cleanup.measure import Limits, measure
from cleanup.records import Record, append, read
from cleanup.setting import describe_setting, digest, total_memory_bytes

FOLDER = Path(__file__).resolve().parent
MEMORY_SHARE = 0.85


class Contest:
    """One session: measures what the records do not hold yet.

    A benchmark gives `words`, and may give `is_over`.

    Args:
        arguments: of the command line, see `parse_arguments`.
        where: the environments of the contenders; `trtforge` is the bin folder of its own.
        shown: facts of a record that are printed as it is written.
    """

    def __init__(self, arguments: argparse.Namespace, where: Any, shown: Sequence[str]) -> None:
        self.where = where
        self.shown = ("case", "tool", "round", "seconds", *shown, "failed")
        self.tools: list[str] = arguments.tools
        self.rounds: int = arguments.rounds
        self.results: Path = arguments.results
        self.limits = Limits(arguments.limit_s, int(MEMORY_SHARE * total_memory_bytes()))
        self.records = read(self.results)
        facts = describe_setting(where)
        self.setting = digest(facts)
        if not self.has("setting"):
            self.write("setting", {"date": f"{datetime.now(UTC):%Y-%m-%d}", **facts})

    def words(self, case: Any, tool: str, folder: Path) -> tuple[list[str] | None, Path]:
        """Return a contender's command line, None where it takes no part; and what it writes."""
        raise NotImplementedError

    def is_over(self, case: Any, tool: str, number: int) -> bool:
        """Whether a contender need not be timed in a round."""
        return False

    def run_rounds(self, case: Any, able: Iterable[str], folder: Path) -> None:
        """Time contenders in all rounds, in another order every round."""
        for number in range(self.rounds):
            order = list(able)
            random.Random(f"{case.name}/{number}").shuffle(order)
            for tool in order:
                self._time(case, tool, number, folder)

    def _time(self, case: Any, tool: str, number: int, folder: Path) -> None:
        known = self.has("run", case=case.name, tool=tool, round=number)
        if known or self.is_over(case, tool, number):
            return
        words, _ = self.words(case, tool, folder)
        assert words is not None
        load = os.getloadavg()[0]
        outcome = measure(words, folder, self.limits)
        found: Record = {"case": case.name, "tool": tool, "round": number, "load": load}
        if outcome.failed is not None:
            self.write("lost", {**found, "failed": outcome.failed})
            return
        figures = {"seconds": outcome.seconds, "peak_bytes": outcome.peak_bytes}
        self.write("run", {**found, **figures, "processor_seconds": outcome.processor_seconds})

    def child(self, script: Path, *words: str | Path) -> Record:
        """Run a script under trtforge's Python; a failure is told as `failed`."""
        program = [self.where.trtforge / "python", "-P", script, *words]
        ended = subprocess.run(list(map(str, program)), capture_output=True, text=True, check=False)
        if ended.returncode != 0:
            said = ended.stderr.strip().splitlines()
            return {"failed": f"{words[0]}: {said[-1] if said else ended.returncode}"}
        found: Record = json.loads(ended.stdout.splitlines()[-1])
        return found

    def has(self, kind: str, **wanted: object) -> bool:
        """Whether there is a record of this setting with these facts; `...` stands for any."""
        return any(
            record["kind"] == kind
            and record["setting"] == self.setting
            and all(k in record and (v is ... or record[k] == v) for k, v in wanted.items())
            for record in self.records
        )

    def write(self, kind: str, facts: Record) -> None:
        """Keep a record."""
        record = {"kind": kind, "setting": self.setting, **facts}
        self.records.append(record)
        append(self.results, record)
        said = [f"{key}={facts[key]}" for key in self.shown if key in facts]
        sys.stderr.write(" ".join([kind, *said]) + "\n")
        sys.stderr.flush()


def fresh(folder: Path, name: str) -> Path:
    """Return an ONNX file to write, in an empty folder of its own."""
    own = Path(tempfile.mkdtemp(dir=folder)) / "out"
    own.mkdir()
    return own / f"{name}.onnx"


def arguments_of(
    description: str, environments: Iterable[str], tools: Sequence[str], name: str, rounds: int
) -> argparse.ArgumentParser:
    """Return a parser of what all such benchmarks take.

    Args:
        description: the benchmark's docstring.
        environments: each an option for the bin folder of a virtual environment.
        tools: the contenders.
        name: of the records and of the page.
        rounds: how many there are unless told otherwise.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )

    def folder(text: str) -> Path:
        # Not resolved: the python of a virtual environment is a link that must stay one.
        return Path(text).absolute()

    add = parser.add_argument
    for one in environments:
        add(f"--{one}", type=folder, metavar="BIN", help="bin folder of its environment")
    add("--tools", type=lambda text: text.split(";"), default=list(tools), metavar="NAME;...")
    add("--rounds", type=int, default=rounds, help=f"timed rounds ({rounds})")
    add("--limit-s", type=float, default=300, help="seconds after which a process is stopped")
    add("--append", action="store_true", help="go on with the records that are there")
    add("--results", type=Path, default=FOLDER / "results" / f"{name}.jsonl")
    add("--output", type=Path, default=FOLDER / "results" / f"{name}.md")
    add("--table", action="store_true", help="write the page from the records; measure nothing")
    return parser


def parsed(
    parser: argparse.ArgumentParser, tools: Sequence[str], needed: str, is_given: str
) -> argparse.Namespace:
    """Read the command line; end with what is wrong with it.

    Args:
        parser: of `arguments_of`, with the benchmark's own arguments.
        tools: the contenders.
        needed: what must be given to measure, in words.
        is_given: names of arguments of which one must be, with spaces between them.
    """
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.tools) - set(tools)):
        parser.error(f"no such tool: {', '.join(unknown)}; there are {'; '.join(tools)}")
    if not arguments.table:
        cases = any(getattr(arguments, one) for one in is_given.split())
        if arguments.trtforge is None or not cases:
            parser.error(f"--trtforge and {needed} are needed")
        if read(arguments.results) and not arguments.append:
            parser.error(f"{arguments.results} holds records: --append, or another --results")
    return arguments
