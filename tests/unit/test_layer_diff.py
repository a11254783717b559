"""Layers of two engines: matched by ONNX nodes, in every form in which they are written."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trtforge.engine.layer_diff import LayerRow, diff_layers, layer_rows, layer_times
from trtforge.errors import UsageError
from trtforge.pipeline.diff import diff_paths
from trtforge.pipeline.inspect import inspect_path
from trtforge.pipeline.layer_documents import read_layers
from trtforge.report.changes import sections
from trtforge.report.layer_changes import bundle_sections


def old(name: str, nodes: list[str], kind: str, text: str, dims: list[int]) -> dict[str, Any]:
    """A layer as TensorRT 8 to 10 write it."""
    metadata = "\x1e".join(f"[ONNX Layer: {node}]" for node in nodes)
    tensor = {"Name": "t", "Dimensions": dims, "Format/Datatype": f"Row major linear {text} format"}
    facts = {"Name": name, "LayerType": kind, "Metadata": metadata}
    return {**facts, "Inputs": [], "Outputs": [tensor]}


def new(name: str, nodes: list[str], kind: str, text: str, dims: list[int]) -> dict[str, Any]:
    """The same as TensorRT 11 writes it."""
    layer = old(name, nodes, kind, text, dims)
    tensor = {"Name": "t", "Dimensions": dims, "Format": "Row major linear", "Datatype": text}
    return {**layer, "Outputs": [tensor]}


@pytest.fixture(params=[old, new], ids=["TensorRT 10", "TensorRT 11"])
def form(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_precision_fusion_and_memory(form: Any) -> None:
    before = [
        form("conv1", ["conv1"], "CaskConvolution", "FP32", [1, 8, 4, 4]),
        form("relu1", ["relu1"], "PointWise", "FP32", [1, 8, 4, 4]),
        form("fc", ["fc"], "gemm", "FP16", [1, 10]),
        form("gone", ["gone"], "PointWise", "FP16", [1, 10]),
    ]
    after = [
        form("conv1 + relu1", ["conv1", "relu1"], "CaskConvolution", "FP16", [1, 8, 4, 4]),
        form("fc", ["fc"], "gemm", "FP16", [1, 10]),
        form("fresh", ["fresh"], "PointWise", "FP16", [1, 10]),
    ]
    found = diff_layers(*(layer_rows({"Layers": layers}) or () for layers in (before, after)))
    (change,) = found.changes
    assert change.what == ("precision", "fusion", "memory")
    assert [layer.name for layer in change.before] == ["conv1", "relu1"]
    assert [layer.name for layer in found.removed] == ["gone"]
    assert [layer.name for layer in found.added] == ["fresh"]
    assert found.totals["before"]["bytes"] == 4 * 128 * 2 + 20 + 20
    assert found.totals["after"]["types"] == {"fp16": 3}
    assert not found.identical


def test_times_say_what_became_slower() -> None:
    layers = [old("a", ["a"], "k", "FP16", [4]), old("b", ["b"], "k", "FP16", [4])]
    profile = [{"count": 9}, {"name": "a", "averageMs": 1.0}, {"name": "b", "averageMs": 1.0}]
    times = layer_times(profile)
    assert times == {"a": 1.0, "b": 1.0}
    before = layer_rows(layers, times) or ()
    after = layer_rows(layers, {"a": 2.0, "b": 1.02}) or ()
    found = diff_layers(before, after)
    assert [change.what for change in found.changes] == [("slower",)]
    assert [change.what for change in diff_layers(after, before).changes] == [("faster",)]
    assert found.totals["after"]["ms"] == pytest.approx(3.02)
    assert layer_times({}) is None


def test_layers_without_metadata_are_matched_by_name() -> None:
    rows = layer_rows({"Layers": ["one", "two"]}) or ()
    assert [row.name for row in rows] == ["one", "two"]
    assert diff_layers(rows, rows).identical
    found = diff_layers(rows, rows[:1])
    assert [layer.name for layer in found.removed] == ["two"]


ROWS = st.lists(
    st.builds(
        LayerRow,
        name=st.sampled_from("abcdef"),
        kind=st.sampled_from(["conv", "gemm"]),
        nodes=st.frozensets(st.sampled_from("nopqrs"), max_size=3),
        type=st.sampled_from(["fp16", "int8"]),
        bytes=st.one_of(st.none(), st.integers(0, 100)),
        weights_bytes=st.integers(0, 100),
        ms=st.one_of(st.none(), st.floats(0.01, 2)),
    ),
    max_size=8,
)


@given(ROWS, ROWS)
def test_every_layer_is_told_at_most_once_and_the_other_way_round_is_the_mirror(
    before: list[LayerRow], after: list[LayerRow]
) -> None:
    found, mirror = diff_layers(before, after), diff_layers(after, before)
    assert diff_layers(before, before).identical
    assert len(found.removed) == len(mirror.added)
    assert len(found.changes) == len(mirror.changes)
    told = [layer for change in found.changes for layer in change.before] + list(found.removed)
    assert len(told) <= len(before)


NETWORK = [
    {
        "name": "w",
        "type": "CONSTANT",
        "onnx_nodes": [],
        "inputs": [],
        "outputs": [{"name": "w", "dtype": "float16", "shape": [4, 4]}],
    },
    {
        "name": "mm",
        "type": "MATRIX_MULTIPLY",
        "onnx_nodes": ["mm"],
        "inputs": [],
        "outputs": [{"name": "y", "dtype": "float16", "shape": [-1, 4]}],
    },
]


def test_files_are_told_apart_compared_and_shown(tmp_path: Path) -> None:
    network = tmp_path / "layers.json"
    network.write_text(json.dumps(NETWORK))
    facts = inspect_path(network)
    assert (facts["kind"], facts["layers"], facts["weights_bytes"]) == ("engine layers", 2, 32)
    assert facts["bytes"] is None, "a dynamic dimension has no size"
    other = tmp_path / "other.json"
    wide = json.loads(json.dumps(NETWORK).replace("float16", "float32"))
    other.write_text(json.dumps(wide[1:]))
    result = diff_paths(network, other)
    text = "\n".join(
        line for one in sections(result.as_json(), details=True) for line in one.lines(None)
    )
    assert "fp16 -> fp32" in text
    assert "removed" not in text, "constants are weights and no layers"
    assert diff_paths(network, network).identical


def test_a_profile_beside_the_layers_is_read(tmp_path: Path) -> None:
    layers = tmp_path / "layers.json"
    layers.write_text(json.dumps({"Layers": [old("a", ["a"], "k", "FP16", [4])]}))
    (tmp_path / "profile.json").write_text(json.dumps([{"name": "a", "averageMs": 0.25}]))
    assert [row.ms for row in read_layers(layers)] == [0.25]


@pytest.mark.parametrize(
    "content",
    ["[]", "[1]", '{"Layers": []}', "[{", '[{"name": "x"}]', "[" * 99_999],
    ids=["empty", "a number", "no layer", "cut off", "a name", "too deep"],
)
def test_what_tells_no_layers_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "layers.json"
    path.write_text(content)
    with pytest.raises(UsageError) as caught:
        read_layers(path)
    assert caught.value.code == "TF0753"


def test_layers_that_tell_names_alone_are_matched_by_the_names_that_they_are_joined_of() -> None:
    """So they show fusion, also beside an engine that tells its nodes; copies stay apart."""
    copy = "Reformatting CopyNode for Input Tensor 0 to conv1 + relu1"
    before = layer_rows({"Layers": [copy, "conv1 + relu1", "fc"]}) or ()
    after = layer_rows({"Layers": ["conv1", "PWN(relu1)", "fc"]}) or ()
    found = diff_layers(before, after)
    (change,) = found.changes
    assert change.what == ("fusion",)
    assert [layer.name for layer in change.after] == ["conv1", "PWN(relu1)"]
    assert [layer.name for layer in found.removed] == [copy]
    detailed = [old("c", ["conv1", "relu1"], "k", "FP16", [1]), old("fc", ["fc"], "k", "FP16", [1])]
    mixed = diff_layers(after, layer_rows(detailed) or ())
    assert mixed.removed == mixed.added == ()
    assert "fusion" in mixed.changes[0].what


def test_profiles_are_compared_by_themselves(tmp_path: Path) -> None:
    """What trtexec --exportProfile writes, and first what time changed most by."""
    names = ["small", "large", "same"]
    for file, times in (("a", (1.0, 1.0, 1.0)), ("b", (1.2, 3.0, 1.0))):
        entries = [
            {"name": name, "timeMs": 9.0, "averageMs": ms, "percentage": 1.0}
            for name, ms in zip(names, times, strict=True)
        ]
        (tmp_path / f"{file}.json").write_text(json.dumps([{"count": 9}, *entries]))
    result = diff_paths(tmp_path / "a.json", tmp_path / "b.json")
    totals, layers = sections(result.as_json(), details=False)
    assert [item.row for item in totals.groups[0][1]] == [("~", "time", "3 ms -> 5.2 ms")]
    shown = [item.row for item in layers.groups[0][1]]
    assert [row[2] for row in shown] == ["large", "small"]
    assert inspect_path(tmp_path / "a.json")["timed"] == 3


def test_two_engines_in_one_folder_have_profiles_of_their_own(tmp_path: Path) -> None:
    layers = [old("a", ["a"], "k", "FP16", [4]), old("b", ["b"], "k", "FP16", [4])]
    for name, ms in (("x", 1.0), ("y", 2.0), ("z", 9.0)):
        (tmp_path / f"{name}.json").write_text(json.dumps({"Layers": layers}))
        profile = tmp_path / f"{name}.profile.json" if name != "z" else tmp_path / "profile.json"
        profile.write_text(json.dumps([{"name": "a", "averageMs": ms}]))
    times = {name: [row.ms for row in read_layers(tmp_path / f"{name}.json")] for name in "xyz"}
    assert times == {"x": [1.0, None], "y": [2.0, None], "z": [None, None]}
    result = diff_paths(tmp_path / "x.json", tmp_path / "y.json")
    document = result.as_json()
    assert [change["what"] for change in document["changes"]] == [["slower"]]
    assert (document["totals"]["after"]["ms"], document["totals"]["after"]["timed"]) == (2.0, 1)


def test_the_document_of_a_difference_keeps_its_form() -> None:
    before = layer_rows([old("a", ["a"], "k", "FP32", [4]), old("b", ["b"], "k", "FP32", [4])])
    after = layer_rows([old("a", ["a"], "k", "FP16", [4]), old("c", ["c"], "k", "FP32", [4])])
    document = diff_layers(before or (), after or ()).as_json()
    assert set(document) == {"totals", "changes", "removed", "added"}
    row = {"name", "kind", "nodes", "type", "bytes", "weights_bytes", "ms"}
    for side in ("before", "after"):
        totals = {"layers", "types", "bytes", "weights_bytes", "ms", "timed"}
        assert set(document["totals"][side]) == totals
        assert set(document["changes"][0][side][0]) == row
    assert set(document["removed"][0]) == set(document["added"][0]) == row
    assert set(document["changes"][0]) == {"before", "after", "what"}
    assert json.loads(json.dumps(document)) == document


def test_names_of_any_kind_stay_in_their_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Names that are long, wide or hold what moves a terminal's cursor, on a narrow terminal."""
    odd = "卷积\u202e\x1b[31m\n" + "x" * 200
    before = layer_rows([old(odd, [odd], "k", "FP32", [4])]) or ()
    after = layer_rows([old(odd, [odd], "k", "FP16", [4])]) or ()
    document = {"kind": "engine layers", **diff_layers(before, after).as_json()}
    from trtforge.cli.console import say

    lines = [line for one in sections(document, details=True) for line in one.lines(None)]
    for line in lines:
        say(line)
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert len(printed.splitlines()) == len(lines)
    assert max(map(len, lines)) < 120


def test_ten_thousand_layers_are_compared_in_seconds() -> None:
    import time

    before = [old(f"l{i}", [f"a{i}", f"b{i}"], "k", "FP16", [8]) for i in range(10_000)]
    after = [old(f"l{i}", [f"a{i}"], "k", "Int8", [8]) for i in range(10_000)]
    started = time.process_time()
    found = diff_layers(layer_rows(before) or (), layer_rows(after) or ())
    assert len(found.changes) == 10_000
    assert time.process_time() - started < 10


def test_figures_have_as_many_digits_as_tell_them_apart() -> None:
    fields = {"cosine": [0.99999969, 0.99999932], "sqnr_db": [62.091, 58.02], "bytes": [1, 2]}
    document = {"kind": "bundle", "fields": fields, "missing": {}, "targets": {}}
    (section,) = bundle_sections(document, details=False)
    texts = [item.row[2] for item in section.groups[0][1]]
    assert texts == ["0.99999969 -> 0.99999932", "62.09 -> 58.02", "1 -> 2"]
