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
        ("digits-int8.attestation", "MACs in int8", "pass", None),
        ("digits-int8.attestation", "weight bytes in fp32", "pass", None),
    ]
    root = ET.fromstring(text)
    assert (root.get("tests"), root.get("failures"), root.get("skipped")) == ("4", "0", "1")
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


def test_an_attested_share_that_fails_says_what_was_found():
    checks = [
        {"what": "macs", "type": "int8", "share": 0.0, "min": 0.8, "max": None, "verdict": "fail"},
        {
            "what": "nodes",
            "type": "fp16",
            "share": 0.5,
            "min": None,
            "max": None,
            "verdict": "pass",
        },
        {
            "what": "macs",
            "type": "fp8",
            "verdict": "not_run",
            "reason": "no driver",
            "view": "engine",
        },
    ]
    attest = {"verdict": "fail", "reason": "0 % of the MACs", "checks": checks}
    assert [case[1:] for case in cases(render_junit("s", {}, attest))] == [
        ("MACs in int8", "failure", "found 0 %, asked ≥ 80 %"),
        ("nodes in fp16", "pass", None),
        ("MACs in fp8 (engine)", "skipped", "no driver"),
    ]


def test_a_verdict_that_no_attested_share_accounts_for_is_a_case_of_its_own():
    passed = {"what": "macs", "type": "int8", "share": 1.0, "min": 0.8, "verdict": "pass"}
    attest = {"verdict": "fail", "reason": "the network of 'rtx' is another", "checks": [passed]}
    assert cases(render_junit("s", {}, attest))[0][1:] == (
        "precision shares",
        "failure",
        "the network of 'rtx' is another",
    )


def test_figures_are_properties_and_no_order_of_keys_matters():
    report = parity()
    text = render_junit("s", {"g": report})
    found = {one.get("name"): one.get("value") for one in ET.fromstring(text).iter("property")}
    assert found["logits.sqnr_db"] == "27.3125"
    assert found["logits.max_rel"] == "inf"
    assert found["accuracy.samples"] == "360"
    assert found["candidate"] == "model.onnx (emulated)"
    output = report["outputs"]["logits"]
    turned = output | {"metrics": dict(reversed(output["metrics"].items()))}
    assert render_junit("s", {"g": report | {"outputs": {"logits": turned}}}) == text


# The order of children and the attributes of jenkins-junit.xsd, which build servers read.
ATTRIBUTES = {
    "testsuites": {"name", "tests", "failures", "skipped", "errors", "disabled", "time"},
    "testsuite": {
        "name",
        "tests",
        "failures",
        "errors",
        "skipped",
        "time",
        "timestamp",
        "hostname",
    },
    "properties": set(),
    "property": {"name", "value"},
    "testcase": {"name", "classname", "time", "status"},
    "skipped": {"message"},
    "failure": {"message", "type"},
    "system-out": set(),
}
CHILDREN = {
    "testsuites": ("testsuite",),
    "testsuite": ("properties", "testcase"),
    "properties": ("property",),
    "testcase": ("skipped", "failure", "system-out"),
}


def check_shape(element):
    assert set(element.keys()) <= ATTRIBUTES[element.tag]
    order = CHILDREN.get(element.tag, ())
    places = [order.index(child.tag) for child in element]
    assert places == sorted(places)
    for child in element:
        check_shape(child)


@pytest.mark.parametrize(
    "data",
    [
        SAMPLE,
        ReportData("empty"),
        replace(SAMPLE, graph_parity=parity(verdict="fail", failures=["x"], reason="x")),
        replace(SAMPLE, attest={"verdict": "fail", "reason": "12 %"}),
    ],
)
def test_the_xml_has_the_shape_that_build_servers_read(data):
    root = ET.fromstring(render_report_junit(data))
    check_shape(root)
    for suite in root:
        own = suite.findall("testcase")
        assert own
        assert suite.get("tests") == str(len(own))
        assert suite.get("failures") == str(len(suite.findall("testcase/failure")))
        assert suite.get("skipped") == str(len(suite.findall("testcase/skipped")))
        assert all(case.get("name") and case.get("classname") == suite.get("name") for case in own)
    assert root.get("tests") == str(len(list(root.iter("testcase"))))
