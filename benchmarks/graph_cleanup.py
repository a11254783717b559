r"""What `trtforge optimize` leaves of a graph, how fast and in how much memory, beside its peers.

For each model, smallest first: every contender makes one output that is examined (nodes, opset,
outputs as written against the original's, for trtforge a second run on its own output), then all
contenders are timed in N rounds, each in its own process, in another order every round, and with
`--tensorrt-rtx` the original and trtforge's graph are built in turn. Raw records go to a file of
JSON lines as they come; with `--append` a run that was cut off goes on, and what is missing for
the versions at hand is measured. The page of tables is made of the records alone:

    python benchmarks/graph_cleanup.py --trtforge .venv/bin --peers PEERS/bin --models DIR \
        [--peers-protobuf6 DIR/bin] [--trtforge-protobuf6 DIR/bin] [--rounds 3] [--tensorrt-rtx] \
        [--only bert_ts,gpt2_ts] [--tools trtforge,onnxslim] [--results FILE.jsonl] [--append]
    python benchmarks/graph_cleanup.py --table [--results FILE.jsonl] [--output FILE.md]

The environment of peers: pip install onnx onnxruntime onnxslim onnxsim onnxscript onnx-ir; that
for onnxslim above 2 GB: pip install 'protobuf<7' onnx onnxruntime onnxslim. Timings want a machine
that does nothing else.
"""

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cleanup import contenders
from cleanup.contenders import NO_PROOF, OURS, PROTOBUF_LIMIT, TRTFORGE, Environments
from cleanup.measure import Limits, Outcome, measure
from cleanup.records import Record, Results, append, read
from cleanup.setting import describe_setting, digest, total_memory_bytes
from cleanup.tables import page

FOLDER = Path(__file__).resolve().parent
EXAMINE = FOLDER / "cleanup" / "examine.py"
ENGINE_ROUNDS = 3
BLOCK_BYTES = 2**24
MEMORY_SHARE = 0.85


@dataclass(frozen=True)
class Model:
    """A model of the work set: its name, its file, and what `examine.py describe` says of it."""

    name: str
    path: Path
    facts: Record

    @property
    def large(self) -> bool:
        """Whether it does not fit into one protobuf message."""
        return bool(self.facts["bytes"] >= PROTOBUF_LIMIT)


class Bench:
    """One session: measures what the records do not hold yet for the setting at hand."""

    def __init__(self, arguments: argparse.Namespace, environments: Environments) -> None:
        self.environments = environments
        self.tools: list[str] = arguments.tools
        self.rounds: int = arguments.rounds
        self.build_engines: bool = arguments.tensorrt_rtx
        self.results: Path = arguments.results
        self.limits = Limits(arguments.limit_s, int(MEMORY_SHARE * total_memory_bytes()))
        self.records = read(self.results)
        self.setting = self._write_setting()

    def run(self, models: list[Model]) -> None:
        """Measure all models, smallest first."""
        for model in models:
            self._check_setting()
            with tempfile.TemporaryDirectory(prefix="graph-cleanup-") as folder:
                self._measure_model(model, Path(folder))

    def _measure_model(self, model: Model, folder: Path) -> None:
        if not self._has("model", model=model.name):
            facts = {key: value for key, value in model.facts.items() if key != "files"}
            self._write("model", {"model": model.name, **facts})
        self._examine_all(model, folder)
        able = [tool for tool in self._taking_part(model) if not self._failed(model, tool)]
        for number in range(self.rounds):
            order = able.copy()
            random.Random(f"{model.name}/{number}").shuffle(order)
            for position, tool in enumerate(order):
                if not self._has("run", model=model.name, tool=tool, round=number):
                    self._time(model, tool, (number, position), folder)
        if self.build_engines:
            self._build_all(model, folder)

    def _taking_part(self, model: Model) -> Iterator[str]:
        for tool in self.tools:
            if self._command(model, tool, model.path) is not None:
                yield tool

    def _command(self, model: Model, tool: str, target: Path) -> list[str] | None:
        return contenders.command(tool, self.environments, model.path, target, large=model.large)

    def _examine_all(self, model: Model, folder: Path) -> None:
        """Make one output with each contender, outside of the timing, and look at it."""
        missing = [
            tool
            for tool in self._taking_part(model)
            if not self._has("examination", model=model.name, tool=tool)
        ]
        if not missing:
            return
        outputs = folder / "outputs.npz"
        original = self._child("reference", model.path, outputs)
        self._write("reference", {"model": model.name, **original})
        for tool in missing:
            with self._output(model, tool, folder) as (outcome, target):
                found = self._examine(model, tool, outcome, target, outputs)
            if "failed" in original and "failed" not in found:
                found["cannot_run"] = f"the original: {original['failed']}"
            self._write("examination", {"model": model.name, "tool": tool, **found})

    def _examine(
        self, model: Model, tool: str, outcome: Outcome, target: Path, outputs: Path
    ) -> Record:
        if outcome.failed is not None or not target.exists():
            return {"failed": outcome.failed or "wrote no output"}
        if outputs.exists():
            found = self._child("compare", model.path, outputs, target)
        else:
            found = {**self._child("describe", target), "contract_kept": True}
            found["foreign_domains"] = []
            found.pop("files", None)
        if "failed" in found:
            return {"failed": f"the output cannot be examined: {found['failed']}"}
        if tool in OURS:
            found["proof"] = _optimize_report(outcome)["proof"]["verdict"]
            found["second_run"] = self._second_run(tool, target)
        return found

    def _second_run(self, tool: str, first: Path) -> Record:
        """Run trtforge on its own output, with the same options."""
        with tempfile.TemporaryDirectory(dir=first.parent.parent) as folder:
            target = Path(folder) / "second.onnx"
            command = contenders.command(tool, self.environments, first, target, large=True)
            assert command is not None
            outcome = measure([*command, "--json"], Path(folder), self.limits)
        if outcome.failed is not None:
            return {"failed": outcome.failed}
        report = _optimize_report(outcome)
        rewrites = sum(row["rewrites"] for row in report["passes"] if not row["rolled_back"])
        return {"rewrites": rewrites, "nodes": report["nodes_after"]}

    @contextmanager
    def _output(self, model: Model, tool: str, folder: Path) -> Iterator[tuple[Outcome, Path]]:
        """Run a contender with its report, where it has one; its output is there meanwhile."""
        with tempfile.TemporaryDirectory(dir=folder) as own:
            target = Path(own) / "output" / f"{model.name}.onnx"
            target.parent.mkdir()
            command = self._command(model, tool, target)
            assert command is not None
            report = ["--json"] if tool in OURS else []
            yield measure([*command, *report], Path(own), self.limits), target

    def _time(self, model: Model, tool: str, place: tuple[int, int], folder: Path) -> None:
        with tempfile.TemporaryDirectory(dir=folder) as own:
            target = Path(own) / "output" / f"{model.name}.onnx"
            target.parent.mkdir()
            command = self._command(model, tool, target)
            assert command is not None
            _read_through(model.facts["files"])
            load = os.getloadavg()[0]
            outcome = measure(command, Path(own), self.limits)
            size = sum(file.stat().st_size for file in target.parent.iterdir())
        if outcome.failed is not None:
            lost = {"model": model.name, "tool": tool, "round": place[0], "failed": outcome.failed}
            self._write("lost", lost)
            return
        figures = {
            "seconds": outcome.seconds,
            "processor_seconds": outcome.processor_seconds,
            "peak_bytes": outcome.peak_bytes,
            "output_bytes": size,
            "load": load,
        }
        where = {"model": model.name, "tool": tool, "round": place[0], "position": place[1]}
        self._write("run", {**where, **figures})

    def _build_all(self, model: Model, folder: Path) -> None:
        """Build the original and the cleaned graph in turn."""
        rounds = [
            number
            for number in range(ENGINE_ROUNDS)
            if not self._has("engine", model=model.name, graph="cleaned", round=number)
            or not self._has("engine", model=model.name, graph="original", round=number)
        ]
        tool = next((name for name in (TRTFORGE, NO_PROOF) if name in self.tools), None)
        if not rounds or tool is None or self._failed(model, tool):
            return
        with self._output(model, tool, folder) as (outcome, target):
            if outcome.failed is not None:
                _say(f"{model.name}: no engine: {outcome.failed}")
                return
            sides = [("original", model.path), ("cleaned", target)]
            for number in rounds:
                for graph, path in sides if number % 2 == 0 else reversed(sides):
                    self._build(model, (graph, number), path)

    def _build(self, model: Model, place: tuple[str, int], path: Path) -> None:
        found = self._child("build", path)
        if "failed" in found:
            found = {"cannot_build": found["failed"]}
        elif "bytes" in found:
            found["seconds"] = found["parse_seconds"] + found["build_seconds"]
        where = {"model": model.name, "graph": place[0], "round": place[1]}
        self._write("engine", {**where, **found})

    def _child(self, *words: str | Path) -> Record:
        return examine(self.environments, self.limits.seconds, *words)

    def _failed(self, model: Model, tool: str) -> bool:
        return self._has("examination", model=model.name, tool=tool, failed=...)

    def _has(self, kind: str, **wanted: Any) -> bool:
        """Say whether there is such a record in this setting; `...` stands for any value."""
        return any(
            record["kind"] == kind
            and record["setting"] == self.setting
            and all(
                key in record and (value is ... or record[key] == value)
                for key, value in wanted.items()
            )
            for record in self.records
        )

    def _write(self, kind: str, facts: Record) -> None:
        record = {"kind": kind, "setting": self.setting, **_without_folders(facts)}
        self.records.append(record)
        append(self.results, record)
        shown = {key: facts[key] for key in _SHOWN if key in facts}
        _say(" ".join([kind, *(f"{key}={value}" for key, value in shown.items())]))

    def _write_setting(self) -> str:
        facts = describe_setting(self.environments)
        self.setting = digest(facts)
        if not self._has("setting"):
            self._write("setting", {"date": f"{datetime.now(UTC):%Y-%m-%d}", **facts})
        return self.setting

    def _check_setting(self) -> None:
        """Stop where trtforge or a peer has changed: what follows would be of something else."""
        if digest(describe_setting(self.environments)) != self.setting:
            raise SystemExit("the programs changed while they were measured: start again, --append")


_FOLDERS = re.compile(r"(?<![\w.])/(?:[\w.+-]+/)+")
_SHOWN = (
    "model",
    "tool",
    "graph",
    "round",
    "nodes",
    "seconds",
    "sqnr_db",
    "perturbed_db",
    "failed",
)


def examine(environments: Environments, limit_s: float, *words: str | Path) -> Record:
    """Run `examine.py` under trtforge's Python; a failure is told as `failed`."""
    command = [environments.trtforge / "python", "-P", EXAMINE, *words]
    try:
        ended = subprocess.run(
            list(map(str, command)), capture_output=True, text=True, timeout=limit_s, check=False
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"{words[0]} took more than {limit_s:.0f} s"}
    if ended.returncode != 0:
        said = ended.stderr.strip().splitlines()
        return {"failed": f"{words[0]} ended with {ended.returncode}: {said[-1] if said else ''}"}
    found: Record = json.loads(ended.stdout.splitlines()[-1])
    return found


def _optimize_report(outcome: Outcome) -> Record:
    report: Record = json.loads(outcome.stdout)
    return report


def _read_through(files: list[str]) -> None:
    """Read the model's files, so that nobody pays for a cold page cache."""
    for name in files:
        with Path(name).open("rb", buffering=0) as file:
            while file.read(BLOCK_BYTES):
                pass


def _without_folders(facts: Record) -> Record:
    """Cut folders from messages: they say where this machine keeps things, and nothing else."""
    return {
        key: _FOLDERS.sub("", value) if isinstance(value, str) else value
        for key, value in facts.items()
    }


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def find_models(arguments: argparse.Namespace, environments: Environments) -> list[Model]:
    """Describe the models of the folder and its subfolders, smallest first."""
    folder: Path = arguments.models.resolve()
    paths = {path.stem: path for path in (*folder.glob("*.onnx"), *folder.glob("*/*.onnx"))}
    wanted = arguments.only or sorted(paths)
    if unknown := [name for name in wanted if name not in paths]:
        raise SystemExit(f"no such model in {arguments.models}: {', '.join(unknown)}")
    models = []
    for name in wanted:
        facts = examine(environments, arguments.limit_s, "describe", paths[name])
        if "failed" in facts:
            raise SystemExit(f"{name}: {facts['failed']}")
        models.append(Model(name, paths[name], facts))
    return sorted(models, key=lambda model: (model.facts["bytes"], model.name))


def check_programs(environments: Environments, tools: list[str]) -> None:
    """Stop before any work where a contender's program is missing."""
    for tool in tools:
        for large in (False, True):
            command = contenders.command(tool, environments, Path(), Path(), large=large)
            if command is not None and not Path(command[0]).exists():
                raise SystemExit(f"{tool}: there is no {command[0]}")


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )

    def names(text: str) -> list[str]:
        return text.split(",")

    def folder(text: str) -> Path:
        # Not resolved: the python of a virtual environment is a link that must stay one.
        return Path(text).absolute()

    add = parser.add_argument
    add(
        "--trtforge", type=folder, metavar="BIN", help="bin folder of the environment with trtforge"
    )
    add("--peers", type=folder, metavar="BIN", help="likewise, with the peers")
    add("--peers-protobuf6", type=folder, metavar="BIN", help="onnxslim for models above 2 GB")
    add("--trtforge-protobuf6", type=folder, metavar="BIN", help="also on models above 2 GB")
    add("--models", type=Path, metavar="DIR", help="*.onnx here and one folder below")
    add("--only", type=names, metavar="NAME,...", help="these models")
    add("--tools", type=names, default=list(contenders.NAMES), metavar="NAME,...")
    add("--rounds", type=int, default=3, help="timed rounds (3)")
    add("--limit-s", type=float, default=900, help="seconds after which a process is stopped")
    add("--tensorrt-rtx", action="store_true", help="also build engines")
    add("--append", action="store_true", help="go on with the records that are there")
    add("--results", type=Path, default=FOLDER / "results" / "graph_cleanup.jsonl")
    add("--output", type=Path, default=FOLDER / "results" / "graph_cleanup.md")
    add("--table", action="store_true", help="write the page from the records; measure nothing")
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.tools) - set(contenders.NAMES)):
        parser.error(f"no such tool: {', '.join(unknown)}; there are {', '.join(contenders.NAMES)}")
    if not arguments.table:
        if missing := [n for n in ("trtforge", "peers", "models") if not getattr(arguments, n)]:
            parser.error(f"--{missing[0]} is needed")
        if read(arguments.results) and not arguments.append:
            parser.error(f"{arguments.results} holds records: --append, or another --results")
    return arguments


def main() -> None:
    """Measure, and write the page."""
    arguments = parse_arguments()
    if not arguments.table:
        environments = Environments(
            trtforge=arguments.trtforge,
            peers=arguments.peers,
            peers_protobuf6=arguments.peers_protobuf6,
            trtforge_protobuf6=arguments.trtforge_protobuf6,
        )
        check_programs(environments, arguments.tools)
        Bench(arguments, environments).run(find_models(arguments, environments))
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(page(Results(read(arguments.results))), encoding="utf-8")
    print(arguments.output)


if __name__ == "__main__":
    main()
