"""The Markdown page of `benchmarks/casting.py`: what came out, how long it took, targets."""

import statistics
from collections.abc import Iterable, Sequence

from cleanup.records import Record, spread

from casts.cases import (
    AUTOCAST,
    AUTOCAST_DATA,
    BARE,
    COMMON,
    DATA,
    ORT,
    PLAIN,
    TOOLS,
)

MIB = 2**20
MB = 1e6
OURS = (BARE, PLAIN, DATA)
PEERS = (COMMON, ORT, AUTOCAST, AUTOCAST_DATA)
LEAST_DB, WIDE_SHARE, WITHIN_DB = 45.0, 0.05, 0.5

Row = Sequence[str]


class Records:
    """Records of the newest setting, asked by case and contender."""

    def __init__(self, records: Iterable[Record]) -> None:
        found = list(records)
        self.setting = next(r for r in reversed(found) if r["kind"] == "setting")
        self._records = [r for r in found if r["setting"] == self.setting["setting"]]
        files = [r for r in self._records if r["kind"] == "file"]
        self.planted = list(dict.fromkeys(r["case"] for r in files if r["planted"]))
        self.cases = list(dict.fromkeys(r["case"] for r in files if not r["planted"]))
        self.faults = {r["case"]: r["fault"] for r in self._records if r["kind"] == "fault"}

    def file(self, case: str, tool: str) -> Record | None:
        """What was found out about the file that a contender made."""
        found = self._find("file", case, tool)
        return found[-1] if found else None

    def runs(self, case: str, tool: str, key: str = "seconds") -> list[float]:
        """One figure of the timed runs."""
        return [r[key] for r in self._find("run", case, tool)]

    def median(self, case: str, tool: str, key: str = "seconds") -> float | None:
        """The median of one figure over the timed runs."""
        found = self.runs(case, tool, key)
        return statistics.median(found) if found else None

    def _find(self, kind: str, case: str, tool: str) -> list[Record]:
        wanted = (kind, case, tool)
        return [r for r in self._records if (r["kind"], r.get("case"), r.get("tool")) == wanted]


def page(records: Iterable[Record]) -> str:
    """Return the whole page."""
    found = Records(records)
    lines = ["# trtforge cast beside its peers", "", *_heading(found)]
    for title, note, table in (
        ("Planted faults", _PLANTED, _planted(found)),
        ("The work set", _WORK, _work(found)),
        ("How long does it take?", _TIME, _grid(found, "seconds")),
        ("How much memory does it take?", _MEMORY, _grid(found, "peak_bytes")),
    ):
        lines += ["", f"## {title}", "", note, "", *table]
    return "\n".join([*lines, "", "## Targets", "", *_targets(found)]) + "\n"


_PLANTED = (
    "Small models with a fault for FP16 (tests/planted_faults.py), all contenders given the same "
    "file, and those with data the same samples. A cell: SQNR in dB of the worst output on eight "
    "samples, emulated (every result rounded to its type); casts added; share of the MACs in FP32."
)
_WORK = (
    "On held-out samples, the worst output, dB: as ONNX Runtime runs the file (its CPU kernels "
    "compute FP16 in FP32), and emulated. Casts: added to those of the original. Wide: share of "
    "the MACs in FP32."
)
_TIME = (
    "Whole process from the FP32 file to the FP16 file, seconds: median (min..max), in rounds that "
    "take turns. `graph as it is` does what the converters do; the others clean the graph up "
    "first. AutoCast runs the model on one random sample, or on the samples given."
)
_MEMORY = "Largest resident memory of the process tree, MiB, median."


def _heading(found: Records) -> list[str]:
    facts = found.setting
    where = f"{facts['cores']} cores of {facts['processor']}"
    lines = [
        f"Measured {facts['date']} on {where}, {facts['memory_bytes'] / 2**30:.0f} GiB, Python "
        f"{facts['python']}, trtforge source {facts['source']}."
    ]
    for name, versions in facts["versions"].items():
        lines.append(f"- {name}: {', '.join(f'{k} {v}' for k, v in versions.items())}")
    return lines


def _planted(found: Records) -> list[str]:
    tools = [t for t in TOOLS if t != BARE and any(found.file(c, t) for c in found.planted)]
    rows = [
        [name, found.faults.get(name, ""), *(_cell(found.file(name, tool)) for tool in tools)]
        for name in found.planted
    ]
    return _table(["model", "fault", *tools], rows)


def _cell(one: Record | None) -> str:
    if one is None:
        return ""
    if "emulated_db" not in one:
        return "fails"
    share = f"{one['wide_macs']:.0%}" if "wide_macs" in one else "?"
    loads = "" if "written_db" in one else ", no load"
    return f"{_db(one['emulated_db'])}; {one['casts']}; {share}{loads}"


def _db(text: str) -> str:
    return {"-inf": "inf or NaN", "inf": "exact"}.get(text, text)


def _work(found: Records) -> list[str]:
    rows = []
    for case in found.cases:
        for tool in TOOLS:
            one = found.file(case, tool)
            if one is None:
                continue
            if "failed" in one:
                rows.append([case, tool, f"fails: {one['failed'][:80]}", *[""] * 6])
                continue
            engine = one.get("build_engine_bytes")
            rows.append(
                [
                    case,
                    tool,
                    _db(one["written_db"]) if "written_db" in one else "does not load",
                    _db(one["emulated_db"]) if "emulated_db" in one else "does not load",
                    str(one["casts"]),
                    f"{one['wide_macs']:.1%}" if "wide_macs" in one else "",
                    str(one["nodes"]),
                    f"{one['bytes'] / MB:.1f}",
                    f"{engine / MB:.1f}" if engine else "refused",
                ]
            )
    heads = ["model", "tool", "written", "emulated", "casts", "wide", "nodes", "MB", "engine MB"]
    return _table(heads, rows)


def _grid(found: Records, key: str) -> list[str]:
    tools = [tool for tool in TOOLS if any(found.runs(case, tool) for case in found.cases)]
    rows = []
    for case in found.cases:
        cells = []
        for tool in tools:
            runs = found.runs(case, tool, key)
            if key == "peak_bytes":
                cells.append(f"{statistics.median(runs) / MIB:.0f}" if runs else "")
            else:
                cells.append(spread(runs) if runs else "")
        rows.append([case, *cells])
    return _table(["model", *tools], rows)


def _table(heads: Row, rows: Iterable[Row]) -> list[str]:
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    return lines + [f"| {' | '.join(row)} |" for row in rows]


def _targets(found: Records) -> list[str]:
    lines = []
    good = [name for name in found.planted if _is_good(found.file(name, DATA))]
    lines.append(_verdict(f"planted, above {LEAST_DB:g} dB with 5 % wide", good, found.planted))
    fewer = [n for n in found.planted if _casts(found, n, DATA) <= _casts(found, n, AUTOCAST_DATA)]
    lines.append(_verdict("planted, no more casts than AutoCast", fewer, found.planted))
    for tool in PEERS:
        held = [name for name in found.planted if _is_good(found.file(name, tool))]
        lines.append(f"- planted, {tool} reaches the same: {len(held)} of {len(found.planted)}")
    for tool in OURS:
        whole = [name for name in found.cases if _is_whole(found.file(name, tool))]
        lines.append(_verdict(f"{tool}: loads and builds", whole, found.cases))
        near = [name for name in found.cases if _is_near(found, name, tool)]
        lines.append(_verdict(f"{tool}: within 0.5 dB of the best peer", near, found.cases))
        fewer = [n for n in found.cases if _casts(found, n, tool) <= _casts(found, n, AUTOCAST)]
        lines.append(_verdict(f"{tool}: casts at most AutoCast's", fewer, found.cases))
    for name, tool, base, key, limit in (
        ("time, graph as it is / onnxruntime float16", BARE, ORT, "seconds", 1.0),
        ("time, cleaned / onnxruntime float16", PLAIN, ORT, "seconds", 1.0),
        ("time, by data / AutoCast", DATA, AUTOCAST, "seconds", 1 / 3),
        ("memory, by data / AutoCast", DATA, AUTOCAST, "peak_bytes", 0.5),
    ):
        ratios = {}
        for case in found.cases:
            ours, theirs = found.median(case, tool, key), found.median(case, base, key)
            if ours is not None and theirs:
                ratios[case] = ours / theirs
        met = [case for case, value in ratios.items() if value <= limit]
        shown = ", ".join(f"{case} {value:.2f}" for case, value in ratios.items())
        lines.append(f"{_verdict(f'{name}, at most {limit:.2f}', met, list(ratios))} ({shown})")
    return lines


def _verdict(what: str, met: Sequence[str], of: Sequence[str]) -> str:
    if not of:
        return f"- {what}: not_run"
    missed = [name for name in of if name not in met]
    return f"- {what}: {len(met)} of {len(of)}" + (f", MISSED {', '.join(missed)}" * bool(missed))


def _is_good(one: Record | None) -> bool:
    if one is None or "emulated_db" not in one or "written_db" not in one:
        return False
    return float(one["emulated_db"]) > LEAST_DB and one.get("wide_macs", 1) <= WIDE_SHARE


def _is_whole(one: Record | None) -> bool:
    return one is not None and "written_db" in one and "build_engine_bytes" in one


def _is_near(found: Records, case: str, tool: str) -> bool:
    one = found.file(case, tool)
    peers = [found.file(case, peer) for peer in PEERS]
    # A file that ONNX Runtime does not load has types that contradict each other.
    loads = [peer for peer in peers if peer and "emulated_db" in peer and "written_db" in peer]
    best = [float(peer["emulated_db"]) for peer in loads]
    if one is None or "emulated_db" not in one:
        return False
    return float(one["emulated_db"]) >= max(best, default=0.0) - WITHIN_DB


def _casts(found: Records, case: str, tool: str) -> float:
    one = found.file(case, tool)
    return float("inf") if one is None or "casts" not in one else one["casts"]
