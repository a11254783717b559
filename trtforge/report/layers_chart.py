"""The error of every layer along the graph, and where it first jumps."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from trtforge.report.data import Json
from trtforge.report.figures import decibel, number, percent, plain, short
from trtforge.report.marks import Chart, Dot, Line, Rect, Text, anchor, level, levels, percents
from trtforge.report.tables import Table, cut
from trtforge.report.types import LETTERS, style_of, type_name

_MOST_BARS = 360
"""Bars of at least 3 pixels on a desktop; each stands for the worst of the layers in it."""

_TOP_DB = 160.0
"""float32 rounding is at some 150 dB; a chart that reached higher would show nothing else."""

_WORST = 12
"""Layers in the table of the worst."""


@dataclass(frozen=True)
class LayerView:
    """The error profile as the page shows it.

    Attributes:
        summary: one sentence: layers, samples, and the worst of them.
        jump: one sentence on the first jump.
        chart: SQNR along the graph.
        legend: (style, letter, type) of each type that is there.
        worst: the layers of lowest SQNR.
    """

    summary: str
    jump: str
    chart: Chart
    legend: tuple[tuple[str, str, str], ...]
    worst: Table


def layer_view(report: Json | None, attested: Json | None = None) -> LayerView | None:
    """Return the profile of a verification's `layers.json`; None where it has no layer.

    Args:
        report: the profile; its types are those that tensors are handed on in.
        attested: tells what nodes compute in, which is another type before a QuantizeLinear.
    """
    nodes = (attested or {}).get("per_node") or ()
    kinds = {node.get("name"): node.get("type") for node in nodes if node.get("name")}
    layers = [
        {**entry, "type": kinds.get(entry.get("node")) or entry.get("type")}
        for entry in (report or {}).get("layers") or ()
    ]
    if not layers:
        return None
    jump = (report or {}).get("first_jump") or None
    types = dict.fromkeys(type_name(layer.get("type")) for layer in layers)
    order = sorted(types, key=lambda kind: list(LETTERS).index(style_of(kind)))
    samples = (report or {}).get("samples")
    on_samples = f" on {samples} samples" if samples else ""
    lost = len((report or {}).get("missing") or ())
    without = f"; {lost} that only the original has are left out" if lost else ""
    return LayerView(
        summary=f"{len(layers)} tensors compared{on_samples}{without}",
        jump=_jump_text(jump),
        chart=_chart(layers, jump),
        legend=tuple((style_of(kind), LETTERS[style_of(kind)], kind) for kind in order),
        worst=_worst(layers),
    )


def _jump_text(jump: Json | None) -> str:
    if jump is None:
        return "No jump: the error grows evenly from node to node."
    node, tensor = short(jump.get("node") or "-"), short(jump.get("tensor"))
    return (
        f"The error first jumps at node {node}: from {decibel(jump.get('from_db'))} to "
        f"{decibel(jump.get('to_db'))} in tensor {tensor}."
    )


def _chart(layers: Sequence[Json], jump: Json | None) -> Chart:
    per_bar = -(-len(layers) // _MOST_BARS)
    groups = [layers[start : start + per_bar] for start in range(0, len(layers), per_bar)]
    worst = [min(group, key=_sqnr) for group in groups]
    finite = [value for one in worst if math.isfinite(value := _sqnr(one))]
    top = min(_TOP_DB, 20.0 * math.ceil(max([40.0, *finite]) / 20.0))
    width = 100.0 / len(worst)
    lines, texts = levels(_grid(top))
    marker = _marker(layers, jump)
    scope = f", each bar the worst of {per_bar} layers" if per_bar > 1 else ""
    return Chart(
        title=f"SQNR of {len(layers)} layers in graph order{scope}; {_jump_text(jump)}",
        height=210,
        rects=tuple(
            rect for i, one in enumerate(worst) for rect in _bar(i * width, width, one, top)
        ),
        lines=(*lines, *marker[0]),
        dots=marker[1],
        texts=(*texts, *marker[2]),
    )


def _bar(x: float, width: float, layer: Json, top: float) -> Iterator[Rect]:
    value = _sqnr(layer)
    wide = percents(width * 0.86)
    if value == -math.inf:
        yield Rect(percents(x), 0.0, wide, 100.0, "b-broken")
        return
    height = percents(100.0 * min(max(value / top, 0.012), 1.0))
    style = style_of(type_name(layer.get("type")))
    yield Rect(percents(x), percents(100.0 - height), wide, height, f"f-{style}")


def _grid(top: float) -> Iterator[tuple[Line, Text]]:
    step = 40 if top > 80 else 20
    for value in range(step, int(top) + 1, step):
        yield level(100.0 - 100.0 * value / top, f"{value} dB")


_Marker = tuple[tuple[Line, ...], tuple[Dot, ...], tuple[Text, ...]]


def _marker(layers: Sequence[Json], jump: Json | None) -> _Marker:
    """A line at the first jump, with its name."""
    names = [layer.get("tensor") for layer in layers]
    if jump is None or jump.get("tensor") not in names:
        return (), (), ()
    x = percents(100.0 * (names.index(jump.get("tensor")) + 0.5) / len(names))
    line = Line(x, -4.0, x, 100.0, "jump")
    said = f"▼ first jump: −{plain(_drop(jump), 3)} dB"
    return (line,), (), (Text(x, 0.0, said, anchor(x, 20.0), "over"),)


def _drop(jump: Json) -> float:
    before, after = number(jump.get("from_db")), number(jump.get("to_db"))
    return math.nan if before is None or after is None else before - after


def _worst(layers: Sequence[Json]) -> Table:
    chosen = sorted(enumerate(layers), key=lambda item: (_sqnr(item[1]), item[0]))[:_WORST]
    rows = tuple(
        (
            f"{index + 1}",
            str(layer.get("tensor")),
            str(layer.get("op")),
            type_name(layer.get("type")),
            decibel(layer.get("sqnr_db")),
            plain(layer.get("max_abs"), 3),
            _relative(layer),
            plain(layer.get("nonfinite")),
        )
        for index, layer in chosen
    )
    columns = ("place", "tensor", "operator", "type", "SQNR", "max abs", "of amax", "NaN/Inf")
    table = Table(columns, rows, frozenset({0, 4, 5, 6, 7}), frozenset({1}))
    return cut(table, _WORST, len(layers), "layers.json")


def _relative(layer: Json) -> str:
    error, amax = number(layer.get("max_abs")), number(layer.get("reference_amax"))
    return percent(error / amax) if error is not None and amax else "-"


def _sqnr(layer: Json) -> float:
    """The SQNR; what cannot be read counts as the worst."""
    if number(layer.get("nonfinite")):
        return -math.inf
    value = number(layer.get("sqnr_db"))
    return -math.inf if value is None or math.isnan(value) else value
