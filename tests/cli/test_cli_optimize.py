"""`trtforge optimize`: what is printed and written, and with which exit status."""

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import models_graph as mg
import onnx
import pytest
from hostile_text import hostile
from onnx import helper
from running import trtforge

from trtforge.cli.main import _run
from trtforge.graph import passes
from trtforge.graph.edit import Editor
from trtforge.graph.model import Model

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.onnx"
    onnx.save(mg.conv_bn(), str(path))
    return path


def run(capfd: Capture, *args: object, status: int = 0) -> tuple[str, str]:
    """Run the command in this process; return both streams."""
    capfd.readouterr()
    got = _run(["optimize", *map(str, args)])
    out, err = capfd.readouterr()
    assert got == status, (out, err)
    assert "Traceback" not in err
    return out, err


def report(capfd: Capture, *args: object) -> dict[str, Any]:
    out, err = run(capfd, *args, "--json")
    assert err == ""
    found: dict[str, Any] = json.loads(out)
    return found


def failed(capfd: Capture, code: str, status: int, *args: object) -> str:
    out, err = run(capfd, *args, status=status)
    assert out == ""
    assert f"error[{code}]" in err
    return err


def left(path: Path) -> list[str]:
    return sorted(item.name for item in path.iterdir())


# The real command line


def test_table_and_path(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    done = trtforge("optimize", source, "-o", out, store=tmp_path / "store")
    assert done.status == 0
    assert done.stdout.endswith(f"\n{out}\n")
    assert "Traceback" not in done.stderr
    assert "conv-batchnorm" in done.stdout
    assert "other passes found nothing (--explain says more)" in done.stdout
    assert "nodes: 3 -> 2; weights: 512 B -> 448 B" in done.stdout
    assert "proof: pass, " in done.stdout
    assert "on 4 sets of inputs" in done.stdout
    assert mg.ops(onnx.load(out)) == ["Conv", "Relu"]


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    done = trtforge("optimize", tmp_path / "no.onnx", "-o", out, store=tmp_path / "store")
    done.assert_clean_failure(4)
    assert "TF0401" in done.stderr
    assert left(tmp_path) == []


def test_what_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "in.onnx").write_bytes(b"no model at all")
    out = tmp_path / "out.onnx"
    done = trtforge("optimize", tmp_path / "in.onnx", "-o", out, store=tmp_path / "store")
    done.assert_clean_failure(4)
    assert left(tmp_path) == ["in.onnx"]


# What is printed


def test_json(source: Path, tmp_path: Path, capfd: Capture) -> None:
    out = tmp_path / "out.onnx"
    found = report(capfd, source, "-o", out)
    assert found["schema"] == "trtforge.optimize/1"
    assert set(found) == {
        "schema",
        "output",
        "nodes_before",
        "nodes_after",
        "opset_before",
        "opset_after",
        "initializer_bytes_before",
        "initializer_bytes_after",
        "rounds",
        "passes",
        "proof",
        "unsupported",
    }
    assert found["output"] == str(out)
    assert (found["nodes_before"], found["nodes_after"]) == (3, 2)
    assert [row["name"] for row in found["passes"]] == list(passes.DEFAULT_PASSES)
    for row in found["passes"]:
        assert set(row) == {
            "name",
            "rewrites",
            "nodes",
            "bytes",
            "seconds",
            "rolled_back",
            "reason",
            "notes",
        }
    assert set(found["proof"]) == {
        "verdict",
        "reason",
        "cases",
        "max_abs",
        "min_sqnr_db",
        "scope",
        "left_out",
    }
    assert found["proof"]["verdict"] == "pass"
    assert found["unsupported"] == []


def test_quiet_prints_the_path_alone(source: Path, tmp_path: Path, capfd: Capture) -> None:
    out = tmp_path / "out.onnx"
    assert run(capfd, source, "-o", out, "-q") == (f"{out}\n", "")


def test_explain(source: Path, tmp_path: Path, capfd: Capture) -> None:
    proto = mg.conv_bn()
    proto.graph.output.append(mg.info("c", ["N", 4, 6, 6]))
    onnx.save(proto, str(source))
    printed, _ = run(capfd, source, "-o", tmp_path / "out.onnx", "--explain")
    assert "conv-batchnorm: refused '" in printed
    assert all(name in printed for name in passes.DEFAULT_PASSES)
    onnx.save(mg.conv_bn(), str(source))
    printed, _ = run(capfd, source, "-o", tmp_path / "out.onnx", "--explain")
    assert "conv-batchnorm: matched '" in printed


def test_passes_are_listed(capfd: Capture) -> None:
    out, err = run(capfd, "--passes")
    listed = out + err
    assert all(name in listed for name in passes.PASSES)
    assert "optional" in listed


def test_nodes_that_tensorrt_does_not_take_are_told(tmp_path: Path, capfd: Capture) -> None:
    nodes = [helper.make_node("Strange", ["x"], ["y"], "odd", domain="custom")]
    proto = mg.model(nodes, [mg.info("x", [2])], [mg.info("y", [2])])
    proto.opset_import.append(helper.make_opsetid("custom", 1))
    path = tmp_path / "in.onnx"
    onnx.save(proto, str(path))
    printed, _ = run(capfd, path, "-o", tmp_path / "out.onnx")
    assert "TensorRT does not take custom::Strange 'odd': " in printed
    assert "proof: " in printed
    (problem,) = report(capfd, path, "-o", tmp_path / "out.onnx")["unsupported"]
    assert (problem["operator"], problem["node"]) == ("custom::Strange", "odd")


# Which passes


def test_choice_of_passes(source: Path, tmp_path: Path, capfd: Capture) -> None:
    out = tmp_path / "out.onnx"
    found = report(capfd, source, "-o", out, "--use", "dead-code", "--use", "identity")
    assert [row["name"] for row in found["passes"]] == ["dead-code", "identity"]
    assert found["nodes_after"] == 3
    found = report(capfd, source, "-o", out, "--drop", "conv-batchnorm")
    assert "conv-batchnorm" not in [row["name"] for row in found["passes"]]
    found = report(capfd, source, "-o", out, "--also", "sigmoid")
    names = [row["name"] for row in found["passes"]]
    assert names == [name for name in passes.PASSES if name in (*passes.DEFAULT_PASSES, "sigmoid")]


@pytest.mark.parametrize("option", ["--use", "--also", "--drop"])
def test_unknown_passes(option: str, source: Path, tmp_path: Path, capfd: Capture) -> None:
    err = failed(capfd, "TF0411", 2, source, "-o", tmp_path / "out.onnx", option, "conv-batchnrm")
    assert "did you mean 'conv-batchnorm'?" in err
    assert left(tmp_path) == ["in.onnx"]


def test_opset_limit(tmp_path: Path, capfd: Capture) -> None:
    text = """(float[N,4] x) => (float[N,4] y) {
        a = Softplus(x) b = Tanh(a) y = Mul(x, b) }"""
    path, out = tmp_path / "in.onnx", tmp_path / "out.onnx"
    onnx.save(hostile(text, opset=17)().proto, str(path))
    printed, _ = run(capfd, path, "-o", out, "--opset-limit", 17, "--explain")
    assert "this needs opset 18: at most 17 is asked for" in printed
    assert mg.ops(onnx.load(out)) == ["Softplus", "Tanh", "Mul"]
    found = report(capfd, path, "-o", out)
    assert (found["opset_before"], found["opset_after"]) == (17, 18)
    assert mg.ops(onnx.load(out)) == ["Mish"]


@pytest.mark.parametrize("limit", ["6", "x"])
def test_opset_limits_that_are_none(
    limit: str, source: Path, tmp_path: Path, capfd: Capture
) -> None:
    _, err = run(capfd, source, "-o", tmp_path / "o.onnx", "--opset-limit", limit, status=2)
    assert "--opset-limit" in err


# The proof


class _Faulty:
    name = "faulty"

    def apply(self, editor: Editor) -> None:
        for node in editor.nodes("Relu"):
            editor.match(node, "surely the same")
            editor.replace(node, "Neg", node.inputs)


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> str:
    module = ModuleType("injected_command_pass")
    module.Faulty = _Faulty  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "injected_command_pass", module)
    monkeypatch.setitem(passes.PASSES, "faulty", "injected_command_pass:Faulty")
    return "faulty"


def test_a_faulty_pass_is_taken_back(
    faulty: str, source: Path, tmp_path: Path, capfd: Capture
) -> None:
    out = tmp_path / "out.onnx"
    printed, _ = run(capfd, source, "-o", out, "--use", "conv-batchnorm", "--use", faulty)
    assert "taken back: it changes the result: output 'y' differs" in printed
    assert mg.ops(onnx.load(out)) == ["Conv", "Relu"]


def test_strict_refuses_a_pass_that_was_taken_back(
    faulty: str, source: Path, tmp_path: Path, capfd: Capture
) -> None:
    out = tmp_path / "out.onnx"
    err = failed(
        capfd,
        "TF0416",
        5,
        source,
        "-o",
        out,
        "--use",
        "conv-batchnorm",
        "--use",
        faulty,
        "--strict",
    )
    assert "'faulty'" in err
    assert left(tmp_path) == ["in.onnx"]
    run(capfd, source, "-o", out, "--strict")


def test_strict_refuses_what_is_not_proven(source: Path, tmp_path: Path, capfd: Capture) -> None:
    out = tmp_path / "out.onnx"
    err = failed(capfd, "TF0416", 5, source, "-o", out, "--strict", "--no-proof")
    assert "not_run" in err
    assert left(tmp_path) == ["in.onnx"]
    printed, _ = run(capfd, source, "-o", out, "--no-proof")
    assert "proof: not_run: not asked for" in printed


def test_shapes(source: Path, tmp_path: Path, capfd: Capture) -> None:
    out = tmp_path / "out.onnx"
    printed, _ = run(capfd, source, "-o", out, "--shape", "x=5x3x6x6")
    assert "on 2 sets of inputs" in printed
    for text, code in (
        ("x=5x3", "TF0106"),
        ("x=5x4x6x6", "TF0106"),
        ("z=1", "TF0105"),
        ("x", "TF0104"),
    ):
        failed(capfd, code, 2, source, "-o", tmp_path / "no.onnx", "--shape", text)
    assert left(tmp_path) == ["in.onnx", "out.onnx"]


# Files


def test_in_place(source: Path, capfd: Capture) -> None:
    run(capfd, source, "-o", source)
    assert mg.ops(onnx.load(source)) == ["Conv", "Relu"]
    assert left(source.parent) == ["in.onnx"]
    before = source.read_bytes()
    run(capfd, source, "-o", source)
    assert source.read_bytes() == before


def test_in_place_with_weights_outside(tmp_path: Path, capfd: Capture) -> None:
    path = mg.save_external(mg.conv_bn(), tmp_path / "in.onnx", "in.onnx.data")
    before = Model.load(path).proto.SerializeToString()
    assert before
    run(capfd, path, "-o", path)
    model = Model.load(path)
    assert mg.ops(model) == ["Conv", "Relu"]
    assert mg.largest_difference(Model(mg.conv_bn()), model, {"x": (2, 3, 6, 6)}) < 1e-5


def test_what_is_there_stays_when_the_run_fails(
    faulty: str, source: Path, tmp_path: Path, capfd: Capture
) -> None:
    out = tmp_path / "out.onnx"
    out.write_bytes(b"precious")
    failed(capfd, "TF0416", 5, source, "-o", out, "--use", faulty, "--strict")
    assert out.read_bytes() == b"precious"


def test_a_write_that_fails_leaves_nothing(
    source: Path, tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.onnx"
    out.write_bytes(b"precious")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("trtforge.graph.saving._publish", full)
    failed(capfd, "TF0301", 3, source, "-o", out)
    assert out.read_bytes() == b"precious"
    assert left(tmp_path) == ["in.onnx", "out.onnx"]


def test_folders_that_cannot_be_written(source: Path, tmp_path: Path, capfd: Capture) -> None:
    for out in (tmp_path / "no" / "out.onnx", source / "out.onnx"):
        failed(capfd, "TF0302", 3, source, "-o", out)
    failed(capfd, "TF0302", 3, source, "-o", "/proc/out.onnx")
    assert left(tmp_path) == ["in.onnx"]
    _, err = run(capfd, source, "-o", tmp_path, status=2)
    assert "directory" in err
