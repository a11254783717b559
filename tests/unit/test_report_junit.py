"""JUnit XML: one case per check and output, skipped for not run, well-formed whatever the names."""

import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_samples import SAMPLE, not_run, parity

from trtforge.report.data import ReportData
from trtforge.report.junit import render_junit, render_report_junit
from trtforge.verify.types import ParityReport


def cases(text):
    """Return (class name, name, outcome, message) of every test case."""
    found = []
    for case in ET.fromstring(text).iter("testcase"):
        outcome = next((child for child in case if child.tag in ("failure", "skipped")), None)
        tag = "pass" if outcome is None else outcome.tag
        message = None if outcome is None else outcome.get("message")
        found.append((case.get("classname"), case.get("name"), tag, message))
    return found


def test_a_build_has_a_case_per_output_engine_and_attestation():
    text = render_report_junit(SAMPLE)
    assert cases(text) == [
        ("digits-int8.graph parity", "output logits", "pass", None),
        ("digits-int8.engine parity: rtx", "comparison", "skipped", "no NVIDIA driver"),
        ("digits-int8.attestation", "precision shares", "pass", None),
    ]
    root = ET.fromstring(text)
    assert (root.get("tests"), root.get("failures"), root.get("skipped")) == ("3", "0", "1")
    assert text == render_report_junit(replace(SAMPLE))
    assert text.startswith('<?xml version="1.0" encoding="UTF-8"?>')


def test_a_failed_output_says_why_and_shows_its_figures():
    failed = parity(
        verdict="fail", reason="x", output={"verdict": "fail", "failures": ["SQNR 3", "top-1 5"]}
    )
    text = render_junit("suite", {"graph": failed})
    assert cases(text) == [("suite.graph", "output logits", "failure", "SQNR 3; top-1 5")]
    details = ET.fromstring(text).find(".//failure").text
    assert "SQNR 27.3 dB" in details
    assert "corner max" in details
    assert ET.fromstring(text).find("testsuite").get("failures") == "1"


def test_what_no_output_accounts_for_is_a_case_of_its_own():
    failed = parity(verdict="fail", reason="x", failures=["the candidate has no output 'b'"])
    assert cases(render_junit("s", {"g": failed}))[0] == (
        "s.g",
        "outputs",
        "failure",
        "the candidate has no output 'b'",
    )
    unknown = parity(verdict="fail", reason="something else")
    assert cases(render_junit("s", {"g": unknown}))[0][1:3] == ("comparison", "failure")


@pytest.mark.parametrize("verdict", ["maybe", None, "PASS", 1])
def test_an_unknown_verdict_never_passes(verdict):
    outcomes = [case[2] for case in cases(render_junit("s", {"g": {"verdict": verdict}}))]
    assert outcomes == ["failure"]


def test_parts_that_were_not_run_are_skipped_with_their_reason():
    text = render_report_junit(ReportData("x", missing={"graph_parity": "stopped"}))
    assert [case[1:] for case in cases(text)] == [
        ("comparison", "skipped", "stopped"),
        ("precision shares", "skipped", "no data for this part"),
    ]
    failed = render_report_junit(replace(SAMPLE, attest={"verdict": "fail", "reason": "12 %"}))
    assert cases(failed)[-1][2:] == ("failure", "12 %")


def test_reports_and_their_json_give_the_same():
    report = ParityReport.not_run("no NVIDIA driver")
    assert render_junit("s", {"g": report}) == render_junit("s", {"g": report.as_json()})
    assert cases(render_junit("s", {"g": not_run("why")}))[0][3] == "why"


@settings(max_examples=200, deadline=None)
@given(st.text(), st.text(), st.text())
def test_any_text_gives_well_formed_xml(name, output, failure):
    failed = parity(verdict="fail", reason=failure)
    entry = failed["outputs"].pop("logits") | {"verdict": "fail", "failures": [failure]}
    failed["outputs"][output] = entry
    (found,) = cases(render_junit(name, {output: failed}))
    assert found[2] == "failure"
