"""Raw records in a file of JSON lines, and what can be asked of them.

Kinds: `setting` (machine, versions), `model`, `reference` (its outputs, and what a comparison with
them sees), `examination` (one output graph, or why there is none), `run` (one timed process),
`lost` (one that failed), `engine` (one build). All name their setting: times are only ever divided
by times of the same machine, versions and round.
"""

import json
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from cleanup.contenders import FLOOR, PEERS, TRTFORGE

Record = dict[str, Any]

WRONG_BELOW_DB = 60.0
"""An output graph below this is another function; it is no peer to be measured against."""


def read(path: Path) -> list[Record]:
    """Return the records of a file, none where there is no file; a torn last line is left out."""
    if not path.exists():
        return []
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            continue  # the process was ended while it wrote
    return records


def append(path: Path, record: Record) -> None:
    """Write one record at the end of a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torn = path.exists() and path.stat().st_size > 0 and not path.read_bytes().endswith(b"\n")
    with path.open("a", encoding="utf-8") as file:
        file.write(("\n" if torn else "") + json.dumps(record) + "\n")


class Results:
    """Records, asked by model and contender; of several settings the last one counts."""

    def __init__(self, records: Iterable[Record]) -> None:
        self.records = list(records)
        self.settings = {r["setting"]: r for r in self.records if r["kind"] == "setting"}
        described = {r["model"]: r for r in self.records if r["kind"] == "model"}
        self.models = sorted(described, key=lambda name: described[name]["bytes"])
        self.described = described

    def runs(self, model: str, tool: str) -> list[Record]:
        """Return the timed runs."""
        return self._newest("run", model=model, tool=tool)

    def examination(self, model: str, tool: str) -> Record | None:
        """Return what was found out about the output graph."""
        found = self._newest("examination", model=model, tool=tool)
        return found[-1] if found else None

    def graph(self, model: str, tool: str) -> Record | None:
        """Return the examination of an output that is there; None where the contender failed."""
        found = self.examination(model, tool)
        return found if found is not None and "failed" not in found else None

    def perturbed_db(self, model: str) -> str:
        """Return what a small change of a weight leaves of the SQNR; empty where not measured."""
        found = self._newest("reference", model=model)
        shown = found[-1].get("perturbed_db", "None") if found else "None"
        return "" if shown == "None" else f"{float(shown):.1f}"

    def engines(self, model: str, graph: str) -> list[Record]:
        """Return the TensorRT-RTX builds of the `original` or the `cleaned` graph."""
        return self._newest("engine", model=model, graph=graph)

    def median(self, model: str, tool: str, key: str) -> float | None:
        """Return the median of one figure over the timed runs."""
        runs = self.runs(model, tool)
        return statistics.median(run[key] for run in runs) if runs else None

    def ratios(self, model: str, tool: str, base: str, key: str = "seconds") -> list[float]:
        """Return tool / base for every round in which both ran."""
        beneath = {(run["setting"], run["round"]): run[key] for run in self.runs(model, base)}
        return [
            run[key] / beneath[place]
            for run in self.runs(model, tool)
            if (place := (run["setting"], run["round"])) in beneath
        ]

    def ratio(self, model: str, tool: str, base: str, key: str = "seconds") -> float | None:
        """Return the median over the rounds of tool / base."""
        found = self.ratios(model, tool, base, key)
        return statistics.median(found) if found else None

    def peer_nodes(self, model: str) -> dict[str, int]:
        """Return the node counts that count: of graphs in standard operators that are right."""
        graphs = {tool: self.graph(model, tool) for tool in PEERS}
        return {
            tool: graph["nodes"]
            for tool, graph in graphs.items()
            if graph is not None and not graph["foreign_domains"] and is_right(graph)
        }

    def node_margin(self, model: str, tool: str = TRTFORGE) -> int | None:
        """Return the nodes of `tool` beyond those of the smallest peer; None where unknown."""
        ours, peers = self.graph(model, tool), self.peer_nodes(model)
        return ours["nodes"] - min(peers.values()) if ours is not None and peers else None

    def with_figure(self, figure: Callable[[str], float | None]) -> dict[str, float]:
        """Return a figure for each model that has it."""
        found = {model: figure(model) for model in self.models}
        return {model: value for model, value in found.items() if value is not None}

    def memory_ratio(self, model: str, tool: str) -> float | None:
        """Return peak memory beside that of onnx.load + onnx.save."""
        return self.ratio(model, tool, FLOOR, "peak_bytes")

    def engine_ratio(self, model: str, key: str) -> float | None:
        """Return cleaned / original of one figure of the engine builds, median over rounds."""
        before = {(r["setting"], r["round"]): r for r in self.engines(model, "original")}
        found = [
            run[key] / before[place][key]
            for run in self.engines(model, "cleaned")
            if (place := (run["setting"], run["round"])) in before
            and key in run
            and key in before[place]
        ]
        return statistics.median(found) if found else None

    def _newest(self, kind: str, **wanted: str) -> list[Record]:
        found = [
            record
            for record in self.records
            if record["kind"] == kind and all(record[key] == wanted[key] for key in wanted)
        ]
        return [record for record in found if record["setting"] == found[-1]["setting"]]


def sqnr(graph: Record) -> float:
    """Return the lowest signal-to-noise ratio in dB; -inf where the graph cannot be run."""
    return float(graph.get("sqnr_db", "-inf"))


def is_right(graph: Record) -> bool:
    """Say whether the output graph is still the same function."""
    return sqnr(graph) >= WRONG_BELOW_DB


def geometric_mean(values: Iterable[float]) -> float:
    """Return the geometric mean of positive numbers."""
    logarithms = [math.log(value) for value in values]
    return math.exp(sum(logarithms) / len(logarithms))


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Show a median with its smallest and largest value."""
    middle = statistics.median(values)
    return f"{middle:.{digits}f} ({min(values):.{digits}f}..{max(values):.{digits}f})"
