"""Verdicts as JUnit XML, for the test tabs of build servers.

A suite per comparison and one for attestation; in them a case per output and per attested share.
A fail is a `<failure>`; a not_run is a `<skipped>` with its reason, so that it can never be read as
a pass. Figures are the suites' properties. The XML holds no time and no host name: the same
verdicts give the same bytes, and a build from the store has no times of its own.
"""

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from typing import Any

from trtforge.report.data import Check, Json, JsonReport, ReportData, as_data, verdict_of
from trtforge.report.figures import percent
from trtforge.report.tables import (
    asked_text,
    bounds_text,
    cases_table,
    check_name,
    outputs_table,
)

_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 cannot hold, not even escaped (https://www.w3.org/TR/xml/#charsets)."""


def render_junit(
    suite: str, checks: Mapping[str, Json | JsonReport], attest: Json | None = None
) -> str:
    """Return JUnit XML with one test case per check and output.

    Args:
        suite: the suite's name, e.g. the recipe's.
        checks: check's name ("graph parity", "engine parity: rtx") -> its parity report.
        attest: the attestation's verdict and reason, None where attestation is no part of this.
    """
    root = ET.Element("testsuites")
    for name, report in checks.items():
        found = as_data(report)
        _add_suite(root, f"{suite}.{name}", _parity_cases(found), _parity_properties(found))
    if attest is not None:
        properties = {
            name: value
            for name in ("quantized_macs_share", "min_quantized_macs")
            if (value := attest.get(name)) is not None
        }
        _add_suite(root, f"{suite}.attestation", _attest_cases(attest), properties)
    root.set("name", _clean(suite))
    for count in ("tests", "failures", "skipped"):
        root.set(count, str(sum(int(group.get(count, "0")) for group in root)))
    ET.indent(root)
    text = ET.tostring(root, encoding="unicode", xml_declaration=False)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'


def render_report_junit(data: ReportData) -> str:
    """Return the JUnit XML of a whole report: graph parity, each engine's parity, attestation."""
    absent: Json = {"verdict": "not_run", "reason": data.why_missing("graph_parity")}
    checks: dict[str, Json | JsonReport] = {"graph parity": data.graph_parity or absent}
    checks |= {f"engine parity: {name}": found for name, found in data.engine_parity.items()}
    missing: Json = {"verdict": "not_run", "reason": data.why_missing("attest")}
    return render_junit(data.name, checks, data.attest or missing)


def _parity_cases(report: Json) -> list[ET.Element]:
    """Return a case per output, and one more for what no output accounts for."""
    outputs = report.get("outputs") or {}
    cases = [
        _case(_output_check(name, output), _figures(report, name, output))
        for name, output in outputs.items()
    ]
    beyond = list(report.get("failures") or ())
    if beyond:
        cases.insert(0, _case(Check("outputs", "fail", "; ".join(map(str, beyond))), ""))
    settled = {verdict_of(output) for output in outputs.values()}
    verdict = verdict_of(report)
    if not beyond and verdict not in settled:
        cases.insert(0, _case(Check("comparison", verdict, report.get("reason")), ""))
    return cases


def _parity_properties(report: Json) -> dict[str, Any]:
    """Return who was compared, and every figure of every output."""
    found = {name: report[name] for name in ("reference", "candidate") if report.get(name)}
    for output, verdict in (report.get("outputs") or {}).items():
        for name, value in sorted((verdict.get("metrics") or {}).items()):
            if value is not None:
                found[f"{output}.{name}"] = value
    accuracy = report.get("accuracy") or {}
    return found | {f"accuracy.{name}": value for name, value in accuracy.items()}


def _attest_cases(attest: Json) -> list[ET.Element]:
    """Return a case per attested share, and one more for what no share accounts for."""
    checks = attest.get("checks") or ()
    cases = []
    for share in checks:
        found = f"found {percent(share.get('share'))}, asked {asked_text(share)}"
        reason = str(share.get("reason") or found)
        cases.append(_case(Check(check_name(share), verdict_of(share), reason), found))
    verdict = verdict_of(attest)
    if verdict not in {verdict_of(check) for check in checks}:
        cases.insert(0, _case(Check("precision shares", verdict, attest.get("reason")), ""))
    return cases


def _output_check(name: str, output: Json) -> Check:
    failures = "; ".join(str(failure) for failure in output.get("failures") or ())
    return Check(f"output {name}", verdict_of(output), failures or output.get("reason"))


def _figures(report: Json, name: str, output: Json) -> str:
    table = outputs_table({"outputs": {name: output}})
    single = cases_table(output, report.get("judged") or ())
    lines = [
        f"reference: {report.get('reference')}",
        f"candidate: {report.get('candidate')}",
        f"asked: {bounds_text(output.get('tolerance') or {})}; {output.get('tolerance_source')}",
        _line(table.columns, table.rows[0]),
        *(_line(single.columns, row) for row in single.rows),
    ]
    return "\n".join(lines)


def _line(columns: tuple[str, ...], cells: tuple[str, ...]) -> str:
    return ", ".join(f"{column} {cell}" for column, cell in zip(columns, cells, strict=True))


def _case(check: Check, details: str) -> ET.Element:
    case = ET.Element("testcase", name=_clean(check.name))
    reason = _clean(str(check.reason or "no reason given"))
    if check.verdict == "fail":
        failure = ET.SubElement(case, "failure", message=reason, type="parity")
        failure.text = _clean(details) or reason
    elif check.verdict == "not_run":
        ET.SubElement(case, "skipped", message=reason)
    elif details:
        ET.SubElement(case, "system-out").text = _clean(details)
    return case


def _add_suite(
    root: ET.Element, name: str, cases: list[ET.Element], properties: Mapping[str, Any]
) -> None:
    suite = ET.SubElement(
        root,
        "testsuite",
        name=_clean(name),
        tests=str(len(cases)),
        failures=str(sum(case.find("failure") is not None for case in cases)),
        errors="0",
        skipped=str(sum(case.find("skipped") is not None for case in cases)),
    )
    if properties:
        group = ET.SubElement(suite, "properties")
        for key, value in properties.items():
            ET.SubElement(group, "property", name=_clean(str(key)), value=_clean(str(value)))
    for case in cases:
        case.set("classname", _clean(name))
        suite.append(case)


def _clean(text: str) -> str:
    return _NOT_XML.sub("\ufffd", text)
