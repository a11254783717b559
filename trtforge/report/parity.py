"""Parity reports as the page shows them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from trtforge.report import tables
from trtforge.report.data import Json, ReportData, verdict_of
from trtforge.report.errors_chart import errors_chart, errors_text
from trtforge.report.figures import short
from trtforge.report.marks import Chart
from trtforge.report.tables import Table, cut

_MOST_OUTPUTS = 24
_MOST_DETAILS = 8
"""Outputs with a histogram and a table of their cases: those that failed first."""

_MOST_CASES = 40
_MOST_FAILURES = 30


@dataclass(frozen=True)
class OutputView:
    """One output in detail: its errors in words and as a chart, and its cases."""

    name: str
    source: str
    errors: str | None
    chart: Chart | None
    cases: Table


@dataclass(frozen=True)
class Parity:
    """One parity report as the page shows it.

    Attributes:
        id: of the section.
        title: its heading.
        verdict: pass, fail or not_run.
        report: the JSON.
        outputs: metrics and bounds by output.
        details: the outputs that are shown in detail.
        failures: what is out of bounds, one sentence each.
        accuracy: one sentence, None where none was measured.
        cases: how many cases were judged, None where none were.
    """

    id: str
    title: str
    verdict: str
    report: Json
    outputs: Table
    details: tuple[OutputView, ...]
    failures: tuple[str, ...]
    accuracy: str | None
    cases: str | None


def parities(context: ReportData) -> Iterator[Parity]:
    """Yield graph parity, then the parity of each engine."""
    absent: Json = {"verdict": "not_run", "reason": context.why_missing("graph_parity")}
    yield _parity("graph", "Graph parity", context.graph_parity or absent)
    for index, (name, report) in enumerate(context.engine_parity.items()):
        yield _parity(f"engine-{index}", f"Engine parity: {short(name)}", report)


def _parity(anchor: str, title: str, report: Json) -> Parity:
    outputs = _failed_first(report.get("outputs") or {})
    failures = [str(failure) for failure in report.get("failures") or ()]
    for name, output in outputs.items():
        failures += [f"{short(name)}: {failure}" for failure in output.get("failures") or ()]
    if len(failures) > _MOST_FAILURES:
        left = len(failures) - _MOST_FAILURES
        failures[_MOST_FAILURES:] = [f"… and {left} more: parity.json has them all"]
    return Parity(
        id=anchor,
        title=title,
        verdict=verdict_of(report),
        report=report,
        outputs=cut(tables.outputs_table({"outputs": outputs}), _MOST_OUTPUTS, where="parity.json"),
        details=tuple(
            _output(name, output, report) for name, output in list(outputs.items())[:_MOST_DETAILS]
        ),
        cases=tables.cases_text(report),
        failures=tuple(failures),
        accuracy=tables.accuracy_text(report),
    )


def _failed_first(outputs: Mapping[str, Json]) -> dict[str, Json]:
    """A page of many outputs shows the first of them, which must not hide what failed."""
    return dict(sorted(outputs.items(), key=lambda item: verdict_of(item[1]) != "fail"))


def _output(name: str, output: Json, report: Json) -> OutputView:
    cases = tables.cases_table(output, report.get("judged") or ())
    return OutputView(
        name=short(name),
        source=str(output.get("tolerance_source") or "-"),
        errors=errors_text(output),
        chart=errors_chart(short(name), output),
        cases=cut(cases, _MOST_CASES, where="parity.json"),
    )
