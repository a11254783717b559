"""The page and its tables: complete, escaped, self-contained, honest about what was not run."""

import html
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from report_samples import OPTIMIZE, SAMPLE, not_run, parity

from trtforge.report import figures, tables
from trtforge.report.data import Check, ReportData, checks_of, overall
from trtforge.report.decisions import decisions_tables, reasons_table
from trtforge.report.html import render_html

HOSTILE = "</style></title><script>alert(1)</script><img src=x onerror=alert(1)>\"'`{{7*7}}"


class Page(HTMLParser):
    """Collects tags, attributes and text, and checks that tags are closed in order."""

    VOID = frozenset({"meta", "link", "img", "br", "hr", "input", "rect", "circle", "path"})

    def __init__(self, source):
        super().__init__()
        self.tags, self.attributes, self.words, self.stack = [], [], [], []
        self.feed(source)
        assert self.stack == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attributes]
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attributes]

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.stack.pop() == tag

    def handle_data(self, data):
        if self.stack and self.stack[-1] != "style":
            self.words.append(data.strip())

    @property
    def text(self):
        return " ".join(word for word in self.words if word).replace("\u00a0", " ")


def test_everything_a_build_found_is_on_the_page():
    page = Page(render_html(SAMPLE))
    shown = [value for _, name, value in page.attributes if name in ("title", "aria-label")]
    text = " ".join([page.text, *shown])
    for word in (
        "digits-int8",
        "PASS",
        "Not run: engine parity: rtx",
        "no NVIDIA driver",
        "27.3 dB",
        "0.999071",
        "99.44 %",
        "98.33 % reference, 98.06 % candidate (−0.27 points)",
        "SQNR ≥ 20.0 dB, top-1 ≥ 99 %, accuracy drop ≤ 1 point",
        "corner max",
        "identical",
        "94.12 % of the multiply-accumulates are quantized; the recipe asks for at least 80 %",
        "61 → 29",
        "1 pass had nothing to do",
        "dead-code.",
        "50 % within 0.049 %, 99 % within 0.098 % of the range (32); the largest error is 2.73 %",
        "0.33 % are identical",
        "MACs in int8",
        "weight bytes in fp32",
        "≤ 5 %",
        "Activation bytes by type",
        "4 nodes in graph order: 1 in int8, 2 in fp16, 1 in fp32",
        "/stem/conv: Conv, int8, 1.483 M MACs (99.66 %)",
        "from 41.2 dB to 23.5 dB in tensor /head/gemm_output_0",
        "first jump: −17.8 dB",
        "3 mixes tried, 2 within the bound of 25.0 dB (SQNR); chosen: 27.2 dB at 37.5 %",
        "magnitudes from 0 to 7, counts on a log scale; amax 5.921",
        "original ONNX",
        "142.6 KiB",
        "trtforge verify BUNDLE --against model.onnx",
        "name: digits-int8",
        "judged on data and corner cases (12 data, 3 corner, 1 random)",
        "its output is also a graph output",
        "rolled back: SQNR fell to 31.0 dB at max",
        "lowest SQNR 131.4 dB",
        "/stem/relu_output_0",
        "86.91 %",
        "256 × 1 × 8 × 8",
        "tensorrt_rtx 1.7.1.116",
        "8.6, 8.9, 12.0",
        "1.3 MiB",
        "Converting conv activation scales to fp32.",
        "tensor '/stem/pad' is constant",
        "keep rule {op: Softmax, type: fp32}",
        "onnxruntime",
        "1.92 s",
    ):
        assert word in text, word


def test_equal_data_gives_equal_bytes():
    assert render_html(SAMPLE) == render_html(replace(SAMPLE))


def test_times_are_on_the_page_only_when_given():
    assert "Time taken" not in render_html(replace(SAMPLE, timings={}))


def test_the_page_needs_nothing_else():
    source = render_html(SAMPLE)
    page = Page(source)
    assert "script" not in page.tags
    assert not {"link", "img", "iframe", "object", "embed", "base", "form"} & set(page.tags)
    assert not re.search(r"@import|url\((?!#)", source)
    assert not [a for a in page.attributes if a[1] in ("src", "srcset", "data", "action")]
    links = [value for _, name, value in page.attributes if name == "href"]
    anchors = [value for _, name, value in page.attributes if name == "id"]
    assert {link.removeprefix("#") for link in links} <= set(anchors)
    assert len(anchors) == len(set(anchors))
    assert not [a for a in page.attributes if a[1].startswith("on")]
    assert "default-src 'none'" in source
    assert "://" not in source


def hostile(value):
    """Put hostile text into every string of some JSON data, keys of free mappings included."""
    if isinstance(value, str):
        return value if value in ("pass", "fail", "not_run", "refused", "quantized") else HOSTILE
    if isinstance(value, list):
        return [hostile(item) for item in value]
    if isinstance(value, dict):
        return {key: hostile(item) for key, item in value.items()}
    return value


def test_hostile_text_everywhere_stays_text():
    data = ReportData(
        name=HOSTILE,
        facts={HOSTILE: HOSTILE},
        graph_parity=hostile(parity())
        | {"outputs": {HOSTILE: hostile(parity())["outputs"]["logits"]}},
        engine_parity={HOSTILE: hostile(not_run("x"))},
        attest=hostile(SAMPLE.attest) | {"reason": HOSTILE},
        attested=hostile(SAMPLE.attested) | {"macs": {HOSTILE: 3, "int8": 1}},
        optimize=hostile(OPTIMIZE),
        decisions=hostile(SAMPLE.decisions),
        calibration=hostile(SAMPLE.calibration) | {"ranges": {HOSTILE: {"min": 0, "max": 1}}},
        contract=hostile(SAMPLE.contract),
        profiles=[{HOSTILE: {"min": [1], "opt": [1], "max": [1]}}],
        targets=hostile(SAMPLE.targets),
        environment={HOSTILE: HOSTILE},
        timings={HOSTILE: 1.0},
        layers=hostile(SAMPLE.layers),
        budget=hostile(SAMPLE.budget),
        sizes={HOSTILE: 7},
        recipe=HOSTILE,
        commands=[HOSTILE],
        warnings=[HOSTILE],
    )
    source = render_html(data)
    page = Page(source)
    assert not {"script", "img"} & set(page.tags)
    assert "<script" not in source
    assert "{{7*7}}" in page.text
    assert html.escape(HOSTILE, quote=False).split("&lt;img")[0] in source.replace("&#34;", '"')


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({}, "PASS"),
        ({"graph_parity": parity(verdict="fail", reason="SQNR 3 dB")}, "FAIL"),
        ({"attest": {"verdict": "fail", "reason": "12 % of the MACs"}}, "FAIL"),
        ({"engine_parity": {"rtx": parity(verdict="fail", reason="off")}}, "FAIL"),
        ({"graph_parity": not_run("no case"), "attest": not_run("nothing asked")}, "NOT RUN"),
        ({"graph_parity": {"verdict": "maybe"}}, "FAIL"),
        ({"graph_parity": {}}, "FAIL"),
    ],
)
def test_the_banner_says_the_verdict_as_a_word(change, word):
    source = render_html(replace(SAMPLE, **change))
    banner = re.search(r'<div class="banner (\w+)".*?<strong>(.*?)</strong>', source, re.DOTALL)
    assert banner[2] == word
    assert banner[1] == word.lower().replace(" ", "_")


def test_failures_are_listed_in_full():
    failures = [f"reason {number}" for number in range(7)]
    failed = parity(verdict="fail", reason="1", output={"verdict": "fail", "failures": failures})
    text = Page(render_html(replace(SAMPLE, graph_parity=failed | {"failures": ["beyond"]}))).text
    for failure in failures:
        assert f"logits: {failure}" in text
    assert "beyond" in text


def test_absent_parts_say_that_they_were_not_run_and_why():
    missing = {"calibration": "the recipe quantizes nothing", "graph_parity": "stopped before"}
    text = Page(render_html(ReportData("empty", missing=missing))).text
    assert "NOT RUN" in text
    assert "○ not run: the recipe quantizes nothing" in text
    assert "stopped before" in text
    assert text.count("no data for this part") >= 5
    assert "✓ pass" not in text.split("✓ pass: judged")[0]


@pytest.mark.parametrize(
    "part",
    [
        "graph_parity",
        "optimize",
        "calibration",
        "attested",
        "contract",
        "attest",
        "layers",
        "budget",
    ],
)
def test_empty_json_parts_do_not_break_the_page(part):
    Page(render_html(replace(SAMPLE, **{part: {}})))


def test_shares_fill_the_bar():
    source = render_html(SAMPLE)
    bar = re.search(r'<svg role="img" aria-label="([^"]*)">(.*?)</svg>', source, re.DOTALL)
    assert bar is not None
    assert bar[1] == "Multiply-accumulates by type: int8 94.12 %, fp16 5.85 %, fp32 0.03 %"
    parts = re.findall(r'x="([\d.]+)%" width="([\d.]+)%"[^>]*class="f-', bar[2])
    assert len(parts) == 3
    assert sum(float(width) for _, width in parts) == pytest.approx(100, abs=0.01)
    assert float(parts[1][0]) == pytest.approx(float(parts[0][1]), abs=0.01)


def test_overall_needs_a_pass_and_no_fail():
    def checks(*verdicts):
        return [Check("check", verdict) for verdict in verdicts]

    assert overall(checks("pass", "not_run")) == "pass"
    assert overall(checks("pass", "fail", "not_run")) == "fail"
    assert overall(checks("not_run", "not_run")) == "not_run"
    assert overall([]) == "not_run"
    assert [check.verdict for check in checks_of(ReportData("x"))] == ["not_run", "not_run"]


@pytest.mark.parametrize(
    ("function", "value", "text"),
    [
        (figures.percent, 1, "100 %"),
        (figures.percent, 0.99999, "> 99.99 %"),
        (figures.percent, 0.9999, "99.99 %"),
        (figures.percent, 0.5, "50 %"),
        (figures.percent, 0.125, "12.5 %"),
        (figures.percent, 0, "0 %"),
        (figures.percent, 1e-9, "< 0.01 %"),
        (figures.percent, None, "-"),
        (figures.percent, "nan", "NaN"),
        (figures.decibel, "inf", "identical"),
        (figures.decibel, "-inf", "−∞ dB"),
        (figures.decibel, -3.25, "−3.2 dB"),
        (figures.decibel, None, "-"),
        (figures.plain, "inf", "∞"),
        (figures.plain, -1.5, "−1.5"),
        (figures.plain, -1.5e-7, "−1.5e-07"),
        (figures.plain, True, "-"),
        (figures.plain, "text", "-"),
        (figures.points, 0.01, "1 point"),
        (figures.points, 0.005, "0.5 points"),
        (figures.size, 0, "0 B"),
        (figures.size, 1023, "1023 B"),
        (figures.size, 1024, "1.0 KiB"),
        (figures.size, 5 * 2**30, "5.0 GiB"),
        (figures.size, 2**60, "1048576.0 TiB"),
        (figures.size, -1, "-"),
        (figures.count, 999_999, "999 999"),
        (figures.count, 4_089_184_256, "4.089 G"),
        (figures.seconds, 0.123, "0.12 s"),
        (figures.seconds, 185, "3 min 5 s"),
        (figures.shape, ["N", 3, None], "N × 3 × ?"),
        (figures.shape, [], "scalar"),
        (figures.shape, None, "-"),
    ],
)
def test_numbers_as_people_read_them(function, value, text):
    assert function(value) == text


def test_every_table_has_as_many_cells_as_columns():
    made = [
        tables.outputs_table(SAMPLE.graph_parity),
        tables.cases_table(SAMPLE.graph_parity["outputs"]["logits"], ["data"]),
        tables.passes_table(OPTIMIZE),
        tables.refusals_table(OPTIMIZE),
        tables.checks_table(SAMPLE.attest),
        reasons_table(SAMPLE.decisions),
        *(table for _, table in decisions_tables(SAMPLE.decisions)),
        tables.contract_table(SAMPLE.contract),
        tables.profiles_table(SAMPLE.profiles),
        tables.targets_table(SAMPLE.targets),
        tables.timings_table(SAMPLE.timings),
    ]
    for table in made:
        assert table.rows
        assert {len(row) for row in table.rows} == {len(table.columns)}
        assert all(isinstance(cell, str) for row in table.rows for cell in row)


def test_cases_that_are_not_judged_are_marked():
    output = SAMPLE.graph_parity["outputs"]["logits"]
    random = {"name": "random", "group": "random", "metrics": None}
    table = tables.cases_table(output | {"cases": [*output["cases"], random]}, ["data", "corner"])
    names = [row[0] for row in table.rows]
    assert names == ["all data", "all corner", "corner min", "corner max", "random (not judged)"]


def test_bounds_and_groups_have_one_order_however_the_json_was_sorted():
    bounds = {"top1_agreement": 0.99, "accuracy_drop": 0.02, "sqnr_db": 20.0, "cosine": None}
    text = "SQNR ≥ 20.0 dB, top-1 ≥ 99 %, accuracy drop ≤ 2 points"
    assert tables.bounds_text(bounds) == text
    assert tables.bounds_text({}) == "-"
    cases = {"cases": {"random": 1, "data": 3}, "judged": ["data"]}
    assert tables.cases_text(cases) == "judged on data cases (3 data, 1 random)"


def test_warnings_of_the_typing_stand_on_the_page_once():
    known = "tensor '/stem/pad' is constant"  # the calibration's own
    text = " ".join(render_html(replace(SAMPLE, warnings=("nothing is quantized", known))).split())
    assert text.count("nothing is quantized") == 1
    assert text.count("/stem/pad") == 1


def test_the_share_asked_for_stays_with_its_unit():
    assert "at least 80\u00a0%" in render_html(SAMPLE)


def test_what_to_do_about_engines_is_said_of_what_may_ship():
    command = "trtforge verify BUNDLE --require-engine"
    assert command in render_html(SAMPLE)
    failed = replace(SAMPLE, graph_parity=parity(verdict="fail", reason="x"))
    assert command not in render_html(failed)
    assert "Do not ship. Out of bounds: graph parity." in render_html(failed)
    ready = render_html(replace(SAMPLE, engine_parity={"rtx": parity()}))
    assert "Every check was run and is within its bounds. Ready to ship." in ready


def test_profiles_tell_values_from_shapes() -> None:
    bounds = {"min": [-1, 4], "opt": [-1, 6], "max": [2, 12]}
    table = tables.profiles_table(
        [{"x": bounds | {"values": False}, "k": bounds | {"values": True}}]
    )
    assert [row[2] for row in table.rows] == ["-1 × 4", "values -1, 4"]
