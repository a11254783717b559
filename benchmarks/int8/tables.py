"""The Markdown page of `benchmarks/quantization.py`: what came out, how long it took, targets."""

import statistics
from collections.abc import Callable, Iterable, Sequence

from cleanup.records import Record, geometric_mean, spread

from int8.cases import CALIBRATION, FLOOR, MODELOPT, ONNXRUNTIME, OURS, PEERS, TOOLS

MIB = 2**20
MB = 1e6
HISTOGRAM = ("trtforge entropy", "trtforge percentile", "trtforge mse")
DEFAULT = next(iter(OURS))

Row = Sequence[str]


class Records:
    """Records of the newest setting, asked by case and contender."""

    def __init__(self, records: Iterable[Record]) -> None:
        found = list(records)
        self.setting = next(r for r in reversed(found) if r["kind"] == "setting")
        self._records = [r for r in found if r["setting"] == self.setting["setting"]]
        names = [r["case"] for r in self._records if r["kind"] == "file"]
        self.all_cases = list(dict.fromkeys(names))
        self.cases = [name for name in self.all_cases if "@" not in name]

    def file(self, case: str, tool: str) -> Record | None:
        """What was found out about the file that a contender made."""
        found = self._find("file", case, tool)
        return found[-1] if found else None

    def engine_mb(self, case: str, tool: str) -> float | None:
        """Size of an engine that has no peer, MB."""
        found = self._find("engine", case, tool)
        return found[-1]["engine_bytes"] / MB if found and "engine_bytes" in found[-1] else None

    def runs(self, case: str, tool: str, key: str = "seconds") -> list[float]:
        """One figure of the timed runs."""
        return [r[key] for r in self._find("run", case, tool)]

    def median(self, case: str, tool: str, key: str = "seconds") -> float | None:
        """The median of one figure over the timed runs."""
        found = self.runs(case, tool, key)
        return statistics.median(found) if found else None

    def ratio(self, case: str, tool: str, base: str, key: str = "seconds") -> float | None:
        """The ratio of two medians."""
        ours, theirs = self.median(case, tool, key), self.median(case, base, key)
        return ours / theirs if ours is not None and theirs else None

    def _find(self, kind: str, case: str, tool: str) -> list[Record]:
        wanted = (kind, case, tool)
        return [r for r in self._records if (r["kind"], r.get("case"), r.get("tool")) == wanted]


def page(records: Iterable[Record]) -> str:
    """Return the whole page."""
    found = Records(records)
    lines = ["# trtforge quantize beside its peers", "", *_heading(found)]
    for title, note, table in (
        ("How close is the INT8 model?", _QUALITY, _quality(found)),
        ("How long does it take?", _TIME, _grid(found, _seconds)),
        ("How much memory does it take?", _MEMORY, _grid(found, _memory)),
        ("What does TensorRT-RTX make of it?", _ENGINES, _engines(found)),
    ):
        lines += ["", f"## {title}", "", note, "", *table]
    return "\n".join([*lines, "", "## Targets", "", *_targets(found)]) + "\n"


_QUALITY = (
    "On held-out samples, both graphs as written (ONNX Runtime, no optimizations). SQNR in dB for "
    "each output; centred: after taking away the mean over the samples, which is most of what a "
    "network with random weights gives. Agreement: share of samples with the same arg-max. "
    "Products: matrix products and convolutions with both operands in INT8, of all."
)
_TIME = (
    "Whole process from the FP32 file to the INT8 file, seconds: median (min..max). `floor`: one "
    "pass of ONNX Runtime with minimum and maximum of each activation in the graph, and no more; "
    "`trtforge calibrate`: min-max calibration alone."
)
_MEMORY = "Peak resident memory of the process tree, MiB: median."
_ENGINES = (
    "Engine size in MB of the default build for each file; INT8 files have FP32 for the rest, "
    "except `int8 in fp16`."
)


def _heading(found: Records) -> list[str]:
    setting = found.setting
    lines = [
        f"Measured {setting['date']} on {setting['cores']} cores of {setting['processor']}, "
        f"{setting['memory_bytes'] / 2**30:.0f} GiB, Python {setting['python']}, trtforge source "
        f"{setting['source']}."
    ]
    for name, versions in setting["versions"].items():
        lines.append(f"- {name}: " + ", ".join(f"{k} {v}" for k, v in versions.items()))
    return lines


def _table(heads: Row, rows: Iterable[Row]) -> list[str]:
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows)]


def _quality(found: Records) -> list[str]:
    rows = []
    for case in found.cases:
        for tool in (*OURS, *PEERS):
            one = found.file(case, tool)
            if one is None:
                continue
            if "failed" in one:
                rows.append([case, tool, f"fails: {one['failed'][:80]}", "", "", "", ""])
                continue
            rows.append(
                [
                    case,
                    tool,
                    ", ".join(f"{value:.2f}" for value in one["sqnr_db"]),
                    ", ".join(f"{value:.2f}" for value in one["centred_db"]),
                    f"{one['agreement']:.4f}",
                    f"{one['quantized']}/{one['products']}",
                    f"{one['bytes'] / MB:.2f}",
                ]
            )
    heads = ["model", "tool", "SQNR", "centred", "agreement", "products", "MB"]
    return _table(heads, rows)


def _grid(found: Records, cell: Callable[[Records, str, str], str]) -> list[str]:
    tools = [tool for tool in TOOLS if any(found.runs(case, tool) for case in found.all_cases)]
    rows = [[case, *(cell(found, case, tool) for tool in tools)] for case in found.all_cases]
    return _table(["model", *tools], rows)


def _seconds(found: Records, case: str, tool: str) -> str:
    runs = found.runs(case, tool)
    if not runs:
        return ""
    return spread(runs) if len(runs) > 1 else f"{runs[0]:.2f} (once)"


def _memory(found: Records, case: str, tool: str) -> str:
    peak = found.median(case, tool, "peak_bytes")
    return "" if peak is None else f"{peak / MIB:.0f}"


def _engines(found: Records) -> list[str]:
    rows = []
    for case in found.cases:
        sizes = [found.engine_mb(case, t) for t in ("fp32", "trtforge fp16", MIXED)]
        row = [case, *("" if size is None else f"{size:.2f}" for size in sizes)]
        for tool in (DEFAULT, *PEERS):
            one = found.file(case, tool) or {}
            built = one.get("build_engine_bytes")
            refused = "refused" if "build_failed" in one else ""
            row.append(f"{built / MB:.2f}" if built else refused)
        rows.append(row)
    return _table(["model", "fp32", "fp16", "int8 in fp16", DEFAULT, *PEERS], rows)


MIXED = "trtforge int8 in fp16"


def _targets(found: Records) -> list[str]:
    lines = []

    def tell(name: str, ratios: dict[str, float | None], limit: float, *, mean: bool) -> None:
        known = {case: value for case, value in ratios.items() if value is not None}
        if not known:
            lines.append(f"- {name}: not_run: no figures")
            return
        worst = max(known, key=lambda case: known[case])
        value = geometric_mean(known.values()) if mean else known[worst]
        verdict = "met" if value <= limit else "MISSED"
        what = "geometric mean" if mean else f"worst ({worst})"
        lines.append(f"- {name}: {what} {value:.2f}, at most {limit}: {verdict}")

    cases = found.cases
    floor = {case: found.ratio(case, CALIBRATION, FLOOR) for case in cases}
    tell("min-max calibration / floor, each model", floor, 1.3, mean=False)
    theirs = {c: found.ratio(c, "trtforge minmax", "onnxruntime MinMax") for c in cases}
    tell("min-max / ONNX Runtime MinMax", theirs, 0.7, mean=True)
    for tool in HISTOGRAM:
        resnet = {"resnet50": found.ratio("resnet50", tool, "onnxruntime Percentile")}
        tell(f"{tool} / ONNX Runtime Percentile, time", resnet, 0.25, mean=False)
        memory = found.ratio("resnet50", tool, "onnxruntime Percentile", "peak_bytes")
        tell(f"{tool} / ONNX Runtime Percentile, memory", {"resnet50": memory}, 0.15, mean=False)
        entropy = {"resnet50": found.ratio("resnet50", tool, "modelopt entropy")}
        tell(f"{tool} / ModelOpt entropy, time", entropy, 0.5, mean=False)
        mobile = {c: found.ratio(c, tool, FLOOR) for c in cases if c.startswith("mobilenet")}
        tell(f"{tool} / floor", mobile, 4.0, mean=False)
    for tool in OURS:
        tell(f"{tool}: memory at 512 samples / 32", _growth(found, tool), 1.1, mean=False)
    return [*lines, *_against_peers(found)]


def _growth(found: Records, tool: str) -> dict[str, float | None]:
    names = [name.partition("@")[0] for name in found.all_cases if name.endswith("@512")]
    return {
        name: _over(
            found.median(f"{name}@512", tool, "peak_bytes"),
            found.median(f"{name}@32", tool, "peak_bytes"),
        )
        for name in names
    }


def _over(above: float | None, below: float | None) -> float | None:
    return above / below if above is not None and below else None


def _against_peers(found: Records) -> list[str]:
    """Our default beside the best peer that quantizes every product, and the best of all."""
    lines, margins = [], []
    for case in found.cases:
        ours = found.file(case, DEFAULT)
        if ours is None or "failed" in ours:
            continue
        for index, value in enumerate(ours["centred_db"]):
            peers = {
                tool: one["centred_db"][index]
                for tool in (*ONNXRUNTIME, *MODELOPT, PEERS[-1])
                if (one := found.file(case, tool)) is not None
                and "failed" not in one
                and one["quantized"] == one["products"]
            }
            if not peers:
                continue
            best = max(peers, key=lambda tool: peers[tool])
            margins.append(value - peers[best])
            lines.append(
                f"- {case}, output {index}, centred SQNR: {value:.2f} dB ({ours['quantized']}/"
                f"{ours['products']} products), best peer at full coverage {best} "
                f"{peers[best]:.2f}: {'met' if margins[-1] >= 0 else 'MISSED'}"
            )
    if margins:
        middle = statistics.median(margins)
        verdict = "met" if middle >= 1 else "MISSED"
        lines.append(f"- median margin {middle:.2f} dB, at least 1: {verdict}")
    return lines
