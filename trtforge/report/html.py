"""The report as one HTML file: no script, no external resource, equal bytes for equal data."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import jinja2

from trtforge.report import tables
from trtforge.report.data import Json, ReportData, checks_of, overall, verdict_of
from trtforge.report.figures import count, decibel, number, percent, plain, size
from trtforge.report.tables import Table

_HEADLINES = {
    "pass": "Every check that was run is within its bounds",
    "fail": "Out of bounds",
    "not_run": "Nothing was verified",
}
_TYPE_ORDER = ("fp8", "int8", "int4", "fp16", "bf16", "fp32", "other")
_TYPE_NAMES = {
    "float32": "fp32",
    "float16": "fp16",
    "bfloat16": "bf16",
    "float8_e4m3fn": "fp8",
    "float": "fp32",
}


@dataclass(frozen=True)
class Share:
    """One part of a precision bar.

    Attributes:
        type: "int8", "fp16", ...
        start: where it begins, percent of the bar.
        width: its length, percent of the bar.
        text: its share, "87.5 %".
        amount: MACs, bytes or nodes as text.
        style: which of the page's fills it has.
    """

    type: str
    start: float
    width: float
    text: str
    amount: str
    style: str


@dataclass(frozen=True)
class Bar:
    """How something is divided between types."""

    title: str
    shares: tuple[Share, ...]


@dataclass(frozen=True)
class Parity:
    """One parity report as the page shows it."""

    id: str
    title: str
    verdict: str
    report: Json
    outputs: Table
    details: tuple[tuple[str, Table], ...]
    failures: tuple[str, ...]
    sources: tuple[tuple[str, str], ...]
    accuracy: str | None
    cases: str | None


def render_html(context: ReportData) -> str:
    """Return the report as one self-contained HTML page.

    It reads without colour (verdicts are words and signs), without script, on paper and at the
    width of a phone; text of models and recipes is escaped. Pages of equal data are equal.
    """
    checks = checks_of(context)
    verdict = overall(checks)
    page = (
        _environment()
        .get_template("report.html.j2")
        .render(
            data=context,
            verdict=verdict,
            headline=_headline(verdict, context),
            checks=checks,
            parities=tuple(_parities(context)),
            bars=tuple(_bars(context.attested)),
            optimize=_optimize(context.optimize),
            quantized=_decisions(context, "quantized"),
            kept=_decisions(context, "kept"),
            ranges=None
            if context.calibration is None
            else tables.ranges_table(context.calibration),
            calibrated_on=_calibrated_on(context.calibration),
            contract=None if context.contract is None else tables.contract_table(context.contract),
            profiles=tables.profiles_table(context.profiles),
            targets=tables.targets_table(context.targets),
            warnings=_warnings(context),
            timings=tables.timings_table(context.timings),
            verdict_text=tables.verdict_text,
            verdict_of=verdict_of,
            percent=percent,
            unbroken=_unbroken,
        )
    )
    return page.replace("\r\n", "\n")


def _unbroken(text: str) -> str:
    """Keep a number and its unit on one line."""
    return re.sub(r"(?<=\d) (?=%|dB|points?\b|[KMGT]iB)|(?<=[≥≤]) ", "\u00a0", text)


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("trtforge.report", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _headline(verdict: str, context: ReportData) -> str:
    named = {
        kind: ", ".join(check.name for check in checks_of(context) if check.verdict == kind)
        for kind in ("fail", "not_run")
    }
    if verdict == "fail":
        return f"{_HEADLINES[verdict]}: {named['fail']}"
    waiting = f". Not run: {named['not_run']}" if named["not_run"] else ""
    return _HEADLINES[verdict] + (waiting if verdict == "pass" else "")


def _parities(context: ReportData) -> Iterator[Parity]:
    absent: Json = {"verdict": "not_run", "reason": context.why_missing("graph_parity")}
    yield _parity("graph", "Graph parity", context.graph_parity or absent)
    for index, (name, report) in enumerate(context.engine_parity.items()):
        yield _parity(f"engine-{index}", f"Engine parity: {name}", report)


def _parity(anchor: str, title: str, report: Json) -> Parity:
    outputs = report.get("outputs") or {}
    failures = [str(failure) for failure in report.get("failures") or ()]
    for name, output in outputs.items():
        failures += [f"{name}: {failure}" for failure in output.get("failures") or ()]
    return Parity(
        id=anchor,
        title=title,
        verdict=verdict_of(report),
        report=report,
        outputs=tables.outputs_table(report),
        details=tuple(
            (name, tables.cases_table(output, report.get("judged") or ()))
            for name, output in outputs.items()
        ),
        cases=tables.cases_text(report),
        failures=tuple(failures),
        sources=tuple(
            (name, str(output.get("tolerance_source") or "-")) for name, output in outputs.items()
        ),
        accuracy=tables.accuracy_text(report),
    )


def _bars(attested: Json | None) -> Iterator[Bar]:
    parts = (("macs", "Multiply-accumulates", count), ("weights_bytes", "Weight bytes", size))
    for key, title, say in (*parts, ("nodes", "Nodes", count)):
        amounts = _amounts((attested or {}).get(key))
        total = sum(amounts.values())
        if total <= 0:
            continue
        start, shares = 0.0, []
        for kind, amount in amounts.items():
            width = 100.0 * amount / total
            shares.append(
                Share(
                    type=kind,
                    start=round(start, 4),
                    width=round(width, 4),
                    text=percent(amount / total),
                    amount=say(amount),
                    style=kind if kind in _TYPE_ORDER else "other",
                )
            )
            start += width
        yield Bar(f"{title} by type", tuple(shares))


def _amounts(found: Any) -> dict[str, float]:
    """Return the amounts by type, narrow types first; zero amounts are left out."""
    amounts: dict[str, float] = {}
    for kind, value in found.items() if isinstance(found, Mapping) else ():
        name = _TYPE_NAMES.get(str(kind), str(kind))
        if (amount := number(value)) is not None and amount > 0:
            amounts[name] = amounts.get(name, 0.0) + amount
    rank = {kind: index for index, kind in enumerate(_TYPE_ORDER)}
    return dict(sorted(amounts.items(), key=lambda item: (rank.get(item[0], 99), item[0])))


def _optimize(report: Json | None) -> dict[str, Any] | None:
    if report is None:
        return None
    proof = report.get("proof") or {}
    return {
        "passes": tables.passes_table(report),
        "refusals": tables.refusals_table(report),
        "idle": ", ".join(tables.idle_passes(report)),
        "nodes": (count(report.get("nodes_before")), count(report.get("nodes_after"))),
        "bytes": (
            size(report.get("initializer_bytes_before")),
            size(report.get("initializer_bytes_after")),
        ),
        "rounds": report.get("rounds"),
        "proof": tables.verdict_text(verdict_of(proof)),
        "proof_text": _proof_text(proof),
    }


def _proof_text(proof: Json) -> str:
    if verdict_of(proof) != "pass":
        return str(proof.get("reason") or "")
    cases = count(proof.get("cases"))
    level = decibel(proof.get("min_sqnr_db"))
    error = plain(proof.get("max_abs"), 3)
    compared = proof.get("scope") or "all outputs"
    return (
        f"{cases} sets of inputs against the original ({compared}); "
        f"lowest SQNR {level}, largest error {error}"
    )


def _decisions(context: ReportData, action: str) -> Table | None:
    if context.decisions is None:
        return None
    return tables.decisions_table(context.decisions, action=action)


def _calibrated_on(calibration: Json | None) -> dict[str, Any]:
    """Return the names of the data that ranges were measured on, and whether any was made up."""
    uses = (calibration or {}).get("data") or ()
    return {
        "names": list(dict.fromkeys(use["source"] for use in uses if use.get("source"))),
        "synthetic": any(use.get("synthetic") for use in uses),
    }


def _warnings(context: ReportData) -> tuple[str, ...]:
    found = [*context.warnings, *map(str, (context.calibration or {}).get("warnings") or ())]
    for target in context.targets:
        found += [f"{target.get('name')}: {text}" for text in target.get("warnings") or ()]
    return tuple(dict.fromkeys(found))
