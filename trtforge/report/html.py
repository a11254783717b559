"""The report as one HTML file: no script, no external resource, equal bytes for equal data."""

import re
from functools import cache
from typing import Any

import jinja2

from trtforge.report import tables
from trtforge.report.budget_chart import budget_view
from trtforge.report.data import Json, ReportData, checks_of, overall, verdict_of
from trtforge.report.decisions import decisions_tables, reasons_table
from trtforge.report.figures import count, decibel, percent, plain, short, size
from trtforge.report.layers_chart import layer_view
from trtforge.report.overview import banner, tiles
from trtforge.report.parity import parities
from trtforge.report.precision_map import precision_map, share_bars
from trtforge.report.ranges import ranges_view
from trtforge.report.tables import Table, cut
from trtforge.report.types import LETTERS

_MOST_ROWS = 100
"""Of tables that grow with the model."""

_MOST_WARNINGS = 50
_LONGEST_RECIPE = 20_000


def render_html(context: ReportData) -> str:
    """Return the report as one self-contained HTML page.

    It reads without colour (verdicts and types are words, signs and patterns), without script, on
    paper and at the width of a phone; text of models and recipes is escaped, and tables that grow
    with the model are cut and say so. Pages of equal data are equal.
    """
    checks = checks_of(context)
    verdict = overall(checks)
    page = (
        _environment()
        .get_template("report.html.j2")
        .render(
            data=context,
            verdict=verdict,
            banner=banner(context, verdict),
            tiles=tuple(tiles(context)),
            checks=checks,
            parities=tuple(parities(context)),
            recipe=_shortened(context.recipe),
            warnings=_warnings(context),
            sections=_sections(context),
            **_model_parts(context),
            **_build_parts(context),
        )
    )
    # A lone surrogate, which JSON can hold, has no UTF-8.
    return page.replace("\r\n", "\n").encode("utf-8", "replace").decode("utf-8")


def _model_parts(context: ReportData) -> dict[str, Any]:
    """What was found out of the model: precision, layers, passes, ranges."""
    decisions = context.decisions
    return {
        "layers": layer_view(context.layers, context.attested),
        "attest_checks": tables.checks_table(context.attest or {}),
        "bars": tuple(share_bars(context.attested)),
        "map": precision_map(context.attested),
        "reasons": None if decisions is None else reasons_table(decisions),
        "decisions": tuple(decisions_tables(decisions or ())),
        "budget": budget_view(context.budget),
        "optimize": _optimize(context.optimize),
        "ranges": ranges_view(context.calibration),
    }


def _build_parts(context: ReportData) -> dict[str, Any]:
    """What was built, and from what."""
    contract = context.contract
    return {
        "contract": None if contract is None else _cut(tables.contract_table(contract)),
        "profiles": _cut(tables.profiles_table(context.profiles)),
        "targets": tables.targets_table(context.targets),
        "sizes": _sizes(context),
        "timings": tables.timings_table(context.timings),
    }


def _sections(context: ReportData) -> tuple[tuple[str, str], ...]:
    """Return anchor and title of what one may want to go to."""
    found = [
        ("graph", "Graph parity", True),
        ("engine-0", "Engine parity", bool(context.engine_parity)),
        ("layers", "Error along the graph", True),
        ("precision", "Precision", True),
        ("budget", "Budget", budget_view(context.budget) is not None),
        ("graph-passes", "Graph passes", True),
        ("calibration", "Calibration", True),
        ("engines", "Engines", True),
        ("interface", "Inputs and outputs", True),
        ("warnings", "Warnings", bool(_warnings(context))),
        ("environment", "How to repeat this", True),
    ]
    return tuple((anchor, title) for anchor, title, there in found if there)


def _unbroken(text: str) -> str:
    """Keep a number and its unit on one line."""
    return re.sub(r"(?<=\d) (?=%|dB|points?\b|[KMGT]iB)|(?<=[≥≤]) ", "\u00a0", text)


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("trtforge.report", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals |= {
        "verdict_text": tables.verdict_text,
        "verdict_of": verdict_of,
        "percent": percent,
        "short": short,
        "unbroken": _unbroken,
        "types": tuple(LETTERS),
        "verdict_words": {text: name for name, text in tables.VERDICT_TEXT.items()},
    }
    return environment


def _cut(table: Table) -> Table:
    return cut(table, _MOST_ROWS, where="manifest.json")


def _shortened(recipe: str) -> str:
    if len(recipe) <= _LONGEST_RECIPE:
        return recipe
    return f"{recipe[:_LONGEST_RECIPE]}\n# … the rest is in recipe.yaml"


def _sizes(context: ReportData) -> tuple[tuple[str, str, float], ...]:
    """Return label, size, and length of its bar in percent of the largest."""
    sizes = {label: found for label, found in context.sizes.items() if found > 0}
    largest = max(sizes.values(), default=0)
    return tuple(
        (label, size(found), round(100.0 * found / largest, 2)) for label, found in sizes.items()
    )


def _optimize(report: Json | None) -> dict[str, Any] | None:
    if report is None:
        return None
    proof = report.get("proof") or {}
    return {
        "passes": tables.passes_table(report),
        "refusals": cut(tables.refusals_table(report), _MOST_ROWS, where="optimize.json"),
        "idle": tables.idle_passes(report),
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


def _warnings(context: ReportData) -> tuple[str, ...]:
    found = [*context.warnings, *map(str, (context.calibration or {}).get("warnings") or ())]
    for target in context.targets:
        found += [f"{target.get('name')}: {text}" for text in target.get("warnings") or ()]
    unique = list(dict.fromkeys(found))
    if len(unique) > _MOST_WARNINGS:
        unique[_MOST_WARNINGS:] = [f"… and {len(unique) - _MOST_WARNINGS} more"]
    return tuple(unique)
