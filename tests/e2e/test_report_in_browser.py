"""The report in a real browser: nothing fails, nothing is fetched, nothing overflows."""

from dataclasses import replace

import pytest
from browser import Browser, chromium
from report_giant import LONG, RIGHT_TO_LEFT, SCRIPT, giant
from report_samples import SAMPLE, parity

from trtforge.report.data import ReportData
from trtforge.report.html import render_html

pytestmark = pytest.mark.skipif(chromium() is None, reason="skipped: no Chromium")

WIDTHS = {"phone": 390, "desktop": 1280}

PAGES = {
    "sample": SAMPLE,
    "failed": replace(
        SAMPLE,
        graph_parity=parity(
            verdict="fail", reason="x", output={"verdict": "fail", "failures": ["SQNR 3 dB"] * 9}
        ),
    ),
    "empty": ReportData("empty"),
    "comparison": ReportData("a.onnx", graph_parity=parity(), comparison_only=True),
    "long names": giant(2000, lambda i: f"{i}{LONG}"),
    "right to left": giant(40, lambda i: f"{i}{RIGHT_TO_LEFT}"),
    "script": giant(40, lambda i: f"{i}{SCRIPT}"),
}

# What reaches beyond the window and is not inside a box that scrolls by itself.
OUTSIDE = """
[...document.querySelectorAll('main *')].filter(one =>
  one.getBoundingClientRect().right > innerWidth + 1 && !one.closest('.scroll, pre, svg')
).map(one => one.outerHTML.slice(0, 120))
"""
UNNAMED = """
[...document.querySelectorAll('[role=img]')].filter(one =>
  !(one.getAttribute('aria-label') || one.querySelector(':scope > title')?.textContent)
).length
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(chromium(), tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    for name, data in PAGES.items():
        (folder / f"{name}.html").write_text(render_html(data), encoding="utf-8")
    return folder


@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS.keys())
@pytest.mark.parametrize("name", PAGES)
def test_a_page_loads_alone_and_fits(browser, pages, name, width):
    path = pages / f"{name}.html"
    seen = browser.open(path, width)
    assert seen.faults == []
    assert seen.requests == [path.as_uri()]
    browser.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert browser.evaluate("innerWidth") == width
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate(OUTSIDE) == []


@pytest.mark.parametrize("name", PAGES)
def test_a_page_can_be_read_aloud(browser, pages, name):
    browser.open(pages / f"{name}.html", 1280)
    assert browser.evaluate("document.documentElement.lang") == "en"
    assert browser.evaluate("document.querySelectorAll('h1').length") == 1
    assert browser.evaluate("document.querySelectorAll('th:not([scope])').length") == 0
    assert browser.evaluate(UNNAMED) == 0
    assert browser.evaluate("document.title") not in ("", "owned")
    assert browser.evaluate("document.scripts.length") == 0


def test_every_link_has_its_place(browser, pages):
    browser.open(pages / "sample.html", 1280)
    dead = "[...document.links].filter(one => !document.querySelector(one.hash)).length"
    assert browser.evaluate("document.links.length") > 5
    assert browser.evaluate(dead) == 0


def test_what_is_wrong_with_a_page_is_seen(browser, tmp_path):
    broken = tmp_path / "broken.html"
    broken.write_text(
        "<title>x</title><img src='no-such-file.png'><script>nowhere()</script>"
        "<main><p style='width:2000px'>wide</p></main>"
    )
    seen = browser.open(broken, 1280)
    assert len(seen.requests) == 2
    assert any("exception" in fault for fault in seen.faults)
    assert any("failed request" in fault for fault in seen.faults)
    assert browser.evaluate("document.documentElement.scrollWidth") > 1280
    assert browser.evaluate(OUTSIDE) != []
