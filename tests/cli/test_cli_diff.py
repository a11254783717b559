"""`trtforge diff`: what is printed, as text and as JSON, and with which exit status."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import models_graph as mg
import numpy as np
import onnx
import pytest
from onnx import ModelProto

from trtforge.cli.main import _run

Capture = pytest.CaptureFixture[str]


def saved(folder: Path, name: str, *changes: Callable[[ModelProto], object]) -> Path:
    proto = mg.conv_bn()
    for change in changes:
        change(proto)
    onnx.save(proto, str(folder / name))
    return folder / name


def other_weights(proto: ModelProto) -> None:
    proto.graph.initializer[1].CopyFrom(mg.tensor("b", mg.weights(4) + np.float32(0.25)))


def sigmoid(proto: ModelProto) -> None:
    proto.graph.node[2].op_type = "Sigmoid"


def extra_weights(proto: ModelProto) -> None:
    proto.graph.initializer.extend(
        mg.tensor(f"extra.{i}", mg.weights(2, seed=i)) for i in range(50)
    )


def run(capfd: Capture, *args: object, status: int = 0) -> str:
    capfd.readouterr()
    got = _run(["diff", *map(str, args)])
    out, err = capfd.readouterr()
    assert got == status, err
    assert err == ""
    return out


@pytest.fixture
def before(tmp_path: Path) -> Path:
    return saved(tmp_path, "a.onnx")


def test_identical_models(before: Path, tmp_path: Path, capfd: Capture) -> None:
    same = saved(tmp_path, "b.onnx")
    assert run(capfd, before, same) == "no differences\n"
    assert run(capfd, before, same, "--exit-code") == "no differences\n"


def test_the_text_word_for_word(before: Path, tmp_path: Path, capfd: Capture) -> None:
    after = saved(tmp_path, "b.onnx", sigmoid, other_weights)
    assert run(capfd, before, after).splitlines() == [
        "operators: 2 changed",
        "  - Relu    1 -> 0 -1",
        "  + Sigmoid 0 -> 1 +1",
        "nodes: 3; 1 changed",
        "  ~ /Relu_y Sigmoid",
        "      op: Relu -> Sigmoid",
        "initializers: 6 (512 -> 512 bytes); 1 changed",
        "  ~ b float32[4], 4 of 4 values differ, max abs 0.25",
    ]


def test_quiet_and_verbose(before: Path, tmp_path: Path, capfd: Capture) -> None:
    after = saved(tmp_path, "b.onnx", other_weights)
    (title,) = run(capfd, before, after, "-q").splitlines()
    assert title == "initializers: 6 (512 -> 512 bytes); 1 changed"
    verbose = run(capfd, before, after, "-v").splitlines()
    assert verbose[0] == title
    assert verbose[2].startswith("      sha256:")
    nodes = run(capfd, before, saved(tmp_path, "c.onnx", sigmoid), "-v").splitlines()
    assert "      makes y" in nodes


def test_long_sections_are_cut(before: Path, tmp_path: Path, capfd: Capture) -> None:
    after = saved(tmp_path, "b.onnx", extra_weights, other_weights)
    short = run(capfd, before, after).splitlines()
    assert "  ... and 31 more added" in short
    assert len(short) == 1 + 19 + 1 + 1, "title, rows, what was left out, and what changed"
    assert any(line.startswith("  ~ b ") for line in short)
    everything = run(capfd, before, after, "--all").splitlines()
    assert len(everything) == 1 + 50 + 1
    assert not any("more" in line for line in everything)


@pytest.mark.parametrize("form", [[], ["--json"], ["-q"]])
def test_exit_code(form: list[str], before: Path, tmp_path: Path, capfd: Capture) -> None:
    after = saved(tmp_path, "b.onnx", sigmoid)
    assert run(capfd, before, after, *form)
    assert run(capfd, before, after, "--exit-code", *form, status=5)


def test_json_is_one_document(before: Path, tmp_path: Path, capfd: Capture) -> None:
    after = saved(tmp_path, "b.onnx", sigmoid, extra_weights)
    document: dict[str, Any] = json.loads(run(capfd, before, after, "--json"))
    assert list(document) == [
        "schema",
        "kind",
        "before",
        "after",
        "identical",
        "contract",
        "model",
        "operators",
        "nodes",
        "initializers",
        "functions",
    ]
    assert document["schema"] == "trtforge.diff/1"
    assert document["kind"] == "onnx"
    assert (document["before"], document["after"]) == (str(before), str(after))
    assert document["identical"] is False
    assert document["operators"][0] == {"op": "Relu", "before": 1, "after": 0, "delta": -1}
    assert len(document["initializers"]["added"]) == 50, "nothing is cut in JSON"
    same = json.loads(run(capfd, before, before, "--json"))
    assert same["identical"] is True


def test_every_section_can_be_shown(tmp_path: Path, capfd: Capture) -> None:
    def change(proto: ModelProto) -> None:
        graph = proto.graph
        graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
        graph.output.append(mg.info("n", [None, 4, 6, 6]))
        graph.initializer[0].name = graph.node[0].input[1] = "W2"
        proto.producer_version = "line\nend"
        graph.value_info.append(mg.info("c", ["N", 4, 6, 6]))

    function = onnx.helper.make_function(
        "local",
        "block",
        ["a"],
        ["b"],
        [onnx.helper.make_node("Relu", ["a"], ["b"])],
        [onnx.helper.make_opsetid("", 18)],
    )

    def with_function(proto: ModelProto) -> None:
        proto.functions.append(function)
        proto.opset_import.append(onnx.helper.make_opsetid("local", 1))

    first = saved(tmp_path, "a.onnx", with_function)
    lines = run(capfd, first, saved(tmp_path, "b.onnx", change)).splitlines()
    for expected in (
        "  ~ input  x float32[N,3,6,6] -> float64[N,3,6,6]",
        "  + output n float32[?,4,6,6]",
        "  ~ producer_version '' -> line end",
        "  ~ graph value_info 0 -> 1 (0 removed, 1 added)",
        "  ~ opset local      1 -> none",
        "      input 1: W -> W2",
        "  > W renamed to W2, equal bytes",
        "functions: 1 removed",
        "  - local::block",
    ):
        assert expected in lines, "\n".join(lines)


def test_names_cannot_speak_to_the_terminal(before: Path, tmp_path: Path, capfd: Capture) -> None:
    def change(proto: ModelProto) -> None:
        proto.graph.node[2].name = "\x1b[2Jred\nnode"
        proto.graph.initializer.append(mg.tensor("\x1b[2Jweight", [1.0], np.float32))

    out = run(capfd, before, saved(tmp_path, "b.onnx", change))
    assert "\x1b" not in out
    assert "red" in out
    assert "weight" in out


def test_a_model_that_is_refused_is_named(before: Path, tmp_path: Path, capfd: Capture) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(before.read_bytes()[:-30])
    assert _run(["diff", str(before), str(broken)]) == 4
    out, err = capfd.readouterr()
    assert out == ""
    assert "broken.onnx" in err


def refused(capfd: Capture, *args: Path) -> str:
    capfd.readouterr()
    assert _run(["diff", *map(str, args)]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    return err


def test_kinds_that_cannot_be_compared(before: Path, tmp_path: Path, capfd: Capture) -> None:
    for name in ("cache.json", "a.engine"):
        (tmp_path / name).write_text("{}" if name.endswith("json") else "engine")
    cache, engine = tmp_path / "cache.json", tmp_path / "a.engine"
    mixed = refused(capfd, before, cache)
    assert "TF0721" in mixed
    assert "onnx and calibration cache" in mixed
    for thing, hint in (
        (engine, "layers.json of their builds"),
        (cache, "`trtforge calib diff`"),
    ):
        text = refused(capfd, thing, thing)
        assert "TF0722" in text
        assert "supported: onnx" in text
        assert hint in text


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ("trtforge.bundle/1", "error[TF0713]: 'x.json' is a bundle's manifest alone"),
        ("trtforge.parity/1", "it is trtforge.parity/1"),
        ("trtforge.calibration/9", "error[TF05"),
        (7, "error[TF05"),
    ],
)
def test_json_of_another_kind_is_no_calibration_cache(
    tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch, schema: object, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    text = json.dumps({"a": ["long enough to push the schema out of the file's head"] * 3})
    Path("x.json").write_text(f'{text[:-1]}, "schema": {json.dumps(schema)}}}')
    if said.startswith("error[TF05"):
        assert _run(["inspect", "x.json"]) == 2
    else:
        assert _run(["diff", "x.json", "x.json"]) == 2
    err = capfd.readouterr().err
    assert said in err
    assert "hint: " in err
