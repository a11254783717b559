"""What the page draws: marks stay inside, counts are right, odd numbers and no data do no harm."""

import math
import re
import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_giant import LONG, giant
from report_samples import SAMPLE, layer, parity, point

from trtforge.report.budget_chart import budget_view
from trtforge.report.decisions import decisions_tables, reasons_table
from trtforge.report.errors_chart import errors_chart, errors_text
from trtforge.report.html import render_html
from trtforge.report.layers_chart import layer_view
from trtforge.report.precision_map import precision_map, share_bars
from trtforge.report.ranges import ranges_view, widest

ODD = ("nan", "inf", "-inf", None, True, "text", -1, 0, 1e300, math.nan, math.inf, -math.inf)


def output(counts, lowest=-10, exact=0, **metrics):
    errors = {"unit": 8.0, "exact": exact, "lowest": lowest, "counts": counts}
    return {"errors": errors, "metrics": metrics}


def inside(chart):
    """Check that every mark lies in the chart, and return its rectangles."""
    for rect in chart.rects:
        assert -0.01 <= rect.x <= rect.x + rect.width <= 100.01
        assert -0.01 <= rect.y <= rect.y + rect.height <= 100.01
    for dot in chart.dots:
        assert 0 <= dot.x <= 100
        assert 0 <= dot.y <= 100
    for text in chart.texts:
        assert 0 <= text.x <= 100
    return chart.rects


def test_errors_are_said_in_words():
    assert errors_text(output([50, 49, 1], max_abs=0.04)) == (
        "50 % within 0.2 %, 99 % within 0.39 % of the range (8); the largest error is 0.5 % of it"
    )
    assert errors_text(output([], exact=7)) == "all 7 values are identical"
    assert errors_text(output([1], lowest=-40, exact=1)) == (
        "50 % within 0 %, 99 % within 2⁻³⁹ of the range (8); 50 % are identical"
    )
    assert errors_text(output([], nonfinite=3)) == (
        "most are beyond all of the range (8); 3 differ by NaN or Inf"
    )
    assert errors_text({"metrics": {}}) is None
    assert errors_text(output([0, 0])) is None


def test_an_error_chart_has_a_bar_for_each_kind_of_value():
    rects = inside(errors_chart("y", output([3, 0, 9, 1], -2, exact=5, nonfinite=1)))
    styles = [rect.style for rect in rects]
    # Two bins below the range, one of the errors as large as it, and NaN or Inf.
    assert styles == ["b-exact", "b-error", "b-broken", "b-broken", "b-broken"]
    assert max(rect.height for rect in rects) == 100
    lowest = min(rect.height for rect in rects)
    assert lowest == pytest.approx(100 / 9, abs=0.01)


@given(st.lists(st.integers(0, 10**12), max_size=60), st.integers(-40, 8), st.integers(0, 9))
def test_any_histogram_fits_its_chart(counts, lowest, exact):
    if chart := errors_chart("y", output(counts, lowest, exact)):
        rects = inside(chart)
        assert len(rects) == sum(count > 0 for count in counts) + (exact > 0)


def test_a_layer_chart_marks_the_first_jump_and_what_broke():
    layers = [
        layer("a", 60.0),
        layer("b", 30.0),
        layer("c", "-inf", type="fp32"),
        layer("d", 50.0, nonfinite=2),
    ]
    jump = {"tensor": "b", "node": "n", "op": "Add", "from_db": 60.0, "to_db": 30.0}
    view = layer_view({"samples": 3, "layers": layers, "first_jump": jump})
    rects = inside(view.chart)
    assert [rect.style for rect in rects] == ["f-fp16", "f-fp16", "b-broken", "b-broken"]
    assert [rect.height for rect in rects][2:] == [100.0, 100.0]
    (line,) = [line for line in view.chart.lines if line.style == "jump"]
    assert line.x1 == pytest.approx(37.5)
    assert "first jump: −30 dB" in view.chart.texts[-1].words
    assert "from 60.0 dB to 30.0 dB in tensor b" in view.jump
    assert [row[1] for row in view.worst.rows] == ["c", "d", "b", "a"]
    assert [letter for _, letter, _ in view.legend] == ["H", "F"]


def test_each_bar_of_a_long_chart_is_the_worst_of_its_layers():
    layers = [layer(f"t{i}", 70.0) for i in range(1000)]
    layers[501] = layer("bad", 5.0)
    view = layer_view({"layers": layers})
    assert len(view.chart.rects) == 334
    low = [i for i, rect in enumerate(view.chart.rects) if rect.height < 20]
    assert low == [501 // 3]
    assert "each bar the worst of 3 layers" in view.chart.title
    assert view.worst.rest == "… and 988 more: layers.json has them all"
    assert view.jump.startswith("No jump")


def test_a_layer_has_the_type_that_its_node_was_attested():
    layers = [layer("a_output_0", 40.0), layer("b_output_0", 40.0, node="")]
    attested = {"per_node": [{"name": "a", "type": "int8"}, {"name": "", "type": "fp32"}]}
    rects = layer_view({"layers": layers}, attested).chart.rects
    assert [rect.style for rect in rects] == ["f-int8", "f-fp16"]


def test_a_range_that_is_kept_whole_has_nothing_beyond_it():
    found = {"min": 0, "max": 4.0, "amax": 4.0, "spark": {"limit": 8.0, "counts": [6, 2, 1, 0]}}
    (row,) = ranges_view({"ranges": {"x": found}}).rows
    assert row.spark.beyond == ""
    assert row.spark.title.endswith("0 % of the values beyond it")


@pytest.mark.parametrize("report", [None, {}, {"layers": []}, {"layers": None}])
def test_no_layers_are_no_chart(report):
    assert layer_view(report) is None


def test_cells_are_the_nodes_in_order_weighted_by_their_work():
    found = precision_map(SAMPLE.attested)
    assert [cell.letter for cell in found.cells] == ["8", "H", "H", "F"]
    assert [cell.style for cell in found.cells] == ["int8 l", "fp16", "fp16 m", "fp32"]
    rects = inside(found.strip)
    assert rects[0].style == "f-int8"
    assert sum(rect.width for rect in rects) == pytest.approx(100, abs=0.01)


def test_a_map_of_many_nodes_joins_them_and_says_so():
    nodes = [{"name": f"n{i}", "op": "Add", "type": "fp16", "macs": 0} for i in range(10_000)]
    nodes[4] = {"name": "heavy", "op": "Conv", "type": "int8", "macs": 5}
    found = precision_map({"per_node": nodes})
    assert (found.per_cell, len(found.cells)) == (3, 3334)
    assert [cell.letter for cell in found.cells[:3]] == ["H", "8", "H"]
    assert all(not cell.note for cell in found.cells)
    assert "Each cell stands for 3 nodes" in render_html(
        replace(SAMPLE, attested={"per_node": nodes})
    )


@pytest.mark.parametrize("attested", [None, {}, {"per_node": []}, {"macs": {}, "nodes": None}])
def test_no_nodes_are_no_map(attested):
    assert precision_map(attested) is None
    assert list(share_bars(attested)) == []


def test_a_range_shows_what_lies_beyond_amax():
    found = {"min": 0, "max": 7.5, "amax": 4.0, "spark": {"limit": 8.0, "counts": [6, 2, 1, 1]}}
    (row,) = ranges_view({"ranges": {"x": found}}).rows
    assert row.cells == ("0", "7.5", "4", "53.33 %")
    assert row.spark.amax == 50
    assert row.spark.title.endswith("amax 4, 20 % of the values beyond it")
    assert row.spark.inside.startswith("M0 24V1H25")
    assert row.spark.beyond.startswith("M50 24")


def test_the_widest_ranges_are_shown_and_the_others_counted():
    ranges = {f"t{i:02}": {"min": 0, "max": i, "amax": i} for i in range(75)}
    view = ranges_view({"ranges": ranges})
    names = [row.name for row in (*view.rows, *view.folded)]
    assert names == [f"t{i:02}" for i in range(74, 14, -1)] == widest(ranges)
    assert view.rest.startswith("… and 15 more")
    assert (view.tensors, view.clipped) == (75, 0)


def test_a_budget_shows_its_bound_and_what_was_chosen():
    view = budget_view(SAMPLE.budget)
    inside(view.chart)
    assert [dot.style for dot in view.chart.dots] == ["misses", "chosen", "meets"]
    assert [row[0] for row in view.table.rows] == ["○ misses", "◉ chosen", "● meets"]
    low, mid, high = (dot.y for dot in view.chart.dots)
    assert low > mid > high
    bound = next(line for line in view.chart.lines if line.style == "bound")
    assert high < mid < bound.y1 < low


@pytest.mark.parametrize("value", ODD)
@pytest.mark.parametrize("cost", ODD)
def test_odd_costs_and_values_do_no_harm(cost, value):
    points = [point(cost, value, {"int8": 1}), point(0.5, 20.0, {"fp16": 1}, meets=True)]
    view = budget_view({"measure": "metric", "bound": value, "points": points})
    assert len(view.table.rows) == 2
    inside(view.chart)
    single = budget_view({"measure": "metric", "bound": None, "points": points[:1]})
    assert single.chart is None or inside(single.chart) == ()


@pytest.mark.parametrize("value", ODD)
def test_odd_numbers_everywhere_do_not_break_the_page(value):
    def odd(data):
        if isinstance(data, dict):
            return {key: odd(item) for key, item in data.items()}
        if isinstance(data, list):
            return [odd(item) for item in data]
        return value if isinstance(data, (int, float)) and not isinstance(data, bool) else data

    page = render_html(
        replace(
            SAMPLE,
            graph_parity=odd(parity()),
            attest=odd(SAMPLE.attest),
            attested=odd(SAMPLE.attested),
            layers=odd(SAMPLE.layers),
            budget=odd(SAMPLE.budget),
            calibration=odd(SAMPLE.calibration),
        )
    )
    assert not re.search(r'(?:x|y|x1|y1|cx|cy|width|height)="-?(?:nan|inf)', page)


def test_reasons_that_differ_in_names_and_numbers_are_one():
    made = [
        {"node": f"n{i}", "op": op, "action": "kept", "reason": f"as 'n{i}' has {i} axes"}
        for i, op in enumerate(["Add", "Mul", "Add"])
    ]
    cast = {"node": "s", "op": "Softmax", "type": "fp32", "reason": "exp overflows"}
    table = reasons_table([*made, cast])
    assert table.rows == (
        ("kept", "3", "Add × 2, Mul × 1", "as 'n0' has 0 axes (for example)", "n0, n1"),
        ("in fp32", "1", "Softmax × 1", "exp overflows", "s"),
    )
    assert [title for title, _ in decisions_tables([*made, cast])] == ["kept (3)", "in fp32 (1)"]


@pytest.mark.parametrize("nodes", [2000, 10_000])
def test_a_page_of_many_nodes_with_long_names_stays_small_and_quick(nodes):
    data = giant(nodes, lambda i: f"{i}{LONG}")
    start = time.perf_counter()
    page = render_html(data)
    # 0.3 and 0.8 s on one idle core; the rest is for a busy machine.
    assert time.perf_counter() - start < 5
    assert len(page.encode()) < 1_000_000
    assert "parity.json has them all" in page
    assert page == render_html(data)


@settings(max_examples=30, deadline=None)
@given(st.text(max_size=40))
def test_any_name_gives_a_page_that_can_be_written(name):
    page = render_html(giant(5, lambda i: f"{name}{i}"))
    assert page.encode("utf-8")
    assert "<script" not in page


def test_a_lone_surrogate_is_replaced():
    assert "a?b" in render_html(replace(SAMPLE, name="a\ud800b"))
