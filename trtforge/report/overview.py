"""What stands at the top of the page: the verdict in words, and the figures that matter most."""

from collections.abc import Iterator
from dataclasses import dataclass

from trtforge.report.data import Check, Json, ReportData, checks_of
from trtforge.report.figures import count, decibel, number, percent, size
from trtforge.report.types import amounts

_NARROW = ("int8", "fp8", "int4", "fp16", "bf16")


@dataclass(frozen=True)
class Banner:
    """The verdict in words.

    Attributes:
        word: PASS, FAIL or NOT RUN.
        headline: may it ship?
        not_run: the checks that were not run, each with its reason.
        advice: what to do about those; empty for nothing.
        command: the command that does it.
    """

    word: str
    headline: str
    not_run: tuple[Check, ...]
    advice: str
    command: str


@dataclass(frozen=True)
class Tile:
    """One figure at a glance."""

    label: str
    figure: str
    note: str = ""


def banner(context: ReportData, verdict: str) -> Banner:
    """Return what the page begins with."""
    checks = checks_of(context)
    failed = ", ".join(check.name for check in checks if check.verdict == "fail")
    waiting = tuple(check for check in checks if check.verdict == "not_run")
    if verdict == "fail":
        lead = "" if context.comparison_only else "Do not ship. "
        headline = f"{lead}Out of bounds: {failed}."
    elif verdict == "not_run":
        lead = "" if context.comparison_only else ": not fit to ship on this report"
        headline = f"Nothing was verified{lead}."
    elif waiting:
        headline = "Every check that was run is within its bounds."
    else:
        headline = "Every check was run and is within its bounds."
        headline += "" if context.comparison_only else " Ready to ship."
    word = {"pass": "PASS", "fail": "FAIL"}.get(verdict, "NOT RUN")
    engines = any(check.name.startswith("engine parity") for check in waiting)
    if not engines or verdict == "fail" or context.comparison_only:
        return Banner(word, headline, waiting, "", "")
    advice = "An engine runs on its GPU only. Before shipping, run it there:"
    return Banner(word, headline, waiting, advice, "trtforge verify BUNDLE --require-engine")


def tiles(context: ReportData) -> Iterator[Tile]:
    """Yield the figures at a glance; what is not known has no tile."""
    makers = (_sqnr, _accuracy, _macs, _nodes, _weights, _engine)
    yield from (tile for make in makers if (tile := make(context)) is not None)


def _sqnr(context: ReportData) -> Tile | None:
    outputs = (context.graph_parity or {}).get("outputs") or {}
    levels = {
        name: level
        for name, output in outputs.items()
        if (level := number((output.get("metrics") or {}).get("sqnr_db"))) is not None
    }
    if not levels:
        return None
    worst = min(levels, key=lambda name: levels[name])
    bound = (outputs[worst].get("tolerance") or {}).get("sqnr_db")
    asked = f"asked ≥ {decibel(bound)}" if bound is not None else ""
    label = "SQNR" if len(levels) == 1 else f"Lowest SQNR of {len(levels)} outputs"
    return Tile(label, decibel(levels[worst]), asked)


def _accuracy(context: ReportData) -> Tile | None:
    found = (context.graph_parity or {}).get("accuracy")
    if not found:
        return None
    before, after = number(found.get("reference")), number(found.get("candidate"))
    if before is None or after is None:
        return None
    change = f"{(after - before) * 100:+.2f}".replace("-", "−")
    return Tile("Top-1 accuracy", percent(after), f"{change} points to the original")


def _macs(context: ReportData) -> Tile | None:
    found = amounts((context.attested or {}).get("macs"))
    total = sum(found.values())
    narrow = [kind for kind in _NARROW if kind in found]
    if not total or not narrow:
        return None
    kind = max(narrow, key=lambda one: found[one])
    asked = (context.attest or {}).get("min_quantized_macs")
    note = f"asked ≥ {percent(asked)} quantized" if asked is not None else f"{count(total)} in all"
    return Tile(f"MACs in {kind}", percent(found[kind] / total), note)


def _nodes(context: ReportData) -> Tile | None:
    report = context.optimize
    if not report:
        return None
    change = f"{count(report.get('nodes_before'))} → {count(report.get('nodes_after'))}"
    return Tile("Nodes", change, "clean-up and fusion")


def _weights(context: ReportData) -> Tile | None:
    before = number((context.optimize or {}).get("initializer_bytes_before"))
    after = sum(amounts((context.attested or {}).get("weights_bytes")).values())
    if not before or not after:
        return None
    return Tile("Weights", _change(size(before), size(after)), _times(before / after))


def _change(before: str, after: str) -> str:
    """Return "97.7 → 24.4 MiB": a unit that both have is said once."""
    amount, _, unit = before.partition(" ")
    return f"{amount if after.endswith(f' {unit}') else before} → {after}"


def _times(ratio: float) -> str:
    return f"{ratio:.1f} times smaller" if ratio >= 1.05 else ""


def _engine(context: ReportData) -> Tile | None:
    built = [target for target in context.targets if target.get("engine_bytes")]
    if not built:
        return None
    return Tile(
        f"Engine {built[0].get('name')}", size(built[0]["engine_bytes"]), _backend(built[0])
    )


def _backend(target: Json) -> str:
    return f"{target.get('backend', '')} {target.get('version') or ''}".strip()
