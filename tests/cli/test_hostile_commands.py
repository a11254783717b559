"""Commands in the hands of people who mistype, and of machines that have other files than asked."""

import contextlib
import io
import json
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from trtforge.cli.main import _run

SMALL = ("--seconds", "0.01", "--warmup", "0")


def dense(path: Path, *, names: tuple[str, str] = ("a", "b"), batch: int | str = 4) -> Path:
    """Write a product and what follows it."""
    weights = np.linspace(-1, 1, 16 * 8, dtype=np.float32).reshape(16, 8)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["h"], name=names[0]),
            helper.make_node("Relu", ["h"], ["y"], name=names[1]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 8])],
        [numpy_helper.from_array(weights, "w")],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


def integers(path: Path) -> Path:
    """Write a model that has no floats."""
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "k"], ["y"], name="add")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.INT64, [4, 16])],
        [helper.make_tensor_value_info("y", TensorProto.INT64, [4, 16])],
        [numpy_helper.from_array(np.int64(3), "k")],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


def problem(status: int, *args: object) -> str:
    """Run what must be refused; return message, remedy and place in one text."""
    out, _ = ran(status, *args, "--json")
    found = json.loads(out)
    assert found["schema"] == "trtforge.error/1"
    assert len(found["problems"]) == 1, found
    one = found["problems"][0]
    assert one["code"] != "TF0001"
    return " | ".join((one["message"], one["hint"] or "", json.dumps(one["where"])))


def ran(status: int, *args: object) -> tuple[str, str]:
    """Run the command line in this process; return both streams."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        got = _run(list(map(str, args)))
    assert got == status, (out.getvalue(), err.getvalue())
    assert "Traceback" not in err.getvalue()
    return out.getvalue(), err.getvalue()


def test_a_device_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    model = dense(tmp_path / "m.onnx")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        ran(0, "cast", model, "-o", pipe)
        assert pipe.is_fifo()
        assert onnx.load_from_string(os.read(reader, 1 << 20)).graph.node
    finally:
        os.close(reader)
    ran(0, "bench", model, *SMALL, "--plot", "/dev/null")
    assert Path("/dev/null").is_char_device()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["m.onnx", "pipe"]


def test_a_model_without_floats_has_no_layers_to_compare(tmp_path: Path) -> None:
    model = integers(tmp_path / "m.onnx")
    out, _ = ran(0, "verify", model, "--against", model, "--layers", "--json")
    assert json.loads(out)["layers"]["layers"] == []


def test_what_onnx_runtime_refuses_is_no_bug_of_ours(tmp_path: Path) -> None:
    model = dense(tmp_path / "m.onnx", names=("same", "same"))
    assert "give each node another name" in problem(4, "bench", model, *SMALL)


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        (("--seconds", "nan"), 2, "not a number"),
        (("--seconds", "inf"), 2, "not in the range"),
        (("--rate", "5"), 2, "add --scenario server"),
        (("--against-target", "rtx"), 2, "add --against"),
        (("--backend", "tensorrt_rtx", "--shape", "x=1x16"), 2, "runs engines"),
        (("--warmup", "-1"), 2, "not in the range"),
        (("--rate", "1e12"), 2, "not in the range"),
        (("--target-ms", "0"), 2, "not in the range"),
        (("--batch", "99999999999"), 3, "out of memory"),
        (("--shape", "x=99999999999x16"), 2, "is not a shape"),
        (("--shape", "x=1x16", "--shape", "x=2x16"), 2, "two shapes are given for 'x'"),
        (("--plot", "missing/p.svg"), 3, '"file": "missing/p.svg"'),
    ],
)
def test_odd_numbers_of_bench(
    tmp_path: Path, options: tuple[str, ...], status: int, said: str
) -> None:
    model = dense(tmp_path / "m.onnx", batch="N")
    assert said in problem(status, "bench", model, *options)


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        (("--set", "precision.type=bf16"), 2, "an ONNX file has none"),
        (("--recipe", "r.yaml"), 2, "add --write"),
        (("--html", "missing/p.html"), 3, '"file": "missing/p.html"'),
    ],
)
def test_options_of_debug_that_would_come_to_nothing(
    tmp_path: Path, options: tuple[str, ...], status: int, said: str
) -> None:
    assert said in problem(status, "debug", dense(tmp_path / "m.onnx"), *options)


@pytest.mark.parametrize("command", ["attest", "bench"])
def test_a_file_that_is_no_engine_is_not_taken_for_one(tmp_path: Path, command: str) -> None:
    np.savez(tmp_path / "x.npz", x=np.zeros(3))
    assert "no ONNX file, engine or bundle" in problem(2, command, tmp_path / "x.npz")
    assert "no ONNX file, engine or bundle" in problem(2, command, "/dev/null")


def test_preflight_wants_a_version(tmp_path: Path) -> None:
    assert "is no version" in problem(2, "preflight", tmp_path, "--library-version", "newest")


def test_a_shape_that_is_missing_is_asked_for_where_it_can_be_given(tmp_path: Path) -> None:
    model = dense(tmp_path / "m.onnx", batch="N")
    said = problem(4, "cast", model, "-o", tmp_path / "o.onnx", "--synthetic")
    assert "--shape" in said


@pytest.mark.parametrize("command", [("cast",), ("quantize", "--synthetic")])
def test_a_model_without_floats_is_not_called_fp16_or_int8(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    out = tmp_path / "o.onnx"
    said = problem(5, *command, integers(tmp_path / "m.onnx"), "-o", out)
    assert "and is not written" in said
    assert "none of it" in said or "no FP32 nodes" in said
    assert not out.exists()


def test_a_model_that_is_fp16_already_is_said_to_be_so(tmp_path: Path) -> None:
    model, narrow = dense(tmp_path / "m.onnx"), tmp_path / "h.onnx"
    options = ("--io-types", "convert", "--force", "op=MatMul", "--force", "op=Relu")
    ran(0, "cast", model, "-o", narrow, *options)
    _, err = ran(0, "cast", narrow, "-o", tmp_path / "o.onnx", "-q")
    assert "warning: nothing was cast: no node is FP32, and some compute in fp16 already" in err
    out, _ = ran(0, "cast", narrow, "-o", tmp_path / "o.onnx", "--json")
    assert any(text.startswith("nothing was cast") for text in json.loads(out)["warnings"])
    assert "nothing in bf16" in problem(
        5, "cast", narrow, "-o", tmp_path / "b.onnx", "--type", "bf16"
    )


def test_debug_wants_the_model_that_a_typed_one_comes_from(tmp_path: Path) -> None:
    ran(
        0, "cast", dense(tmp_path / "m.onnx"), "-o", tmp_path / "typed.onnx", "--force", "op=MatMul"
    )
    other = onnx.load(tmp_path / "m.onnx")
    other.graph.node[1].output[0] = other.graph.output[0].name = "z"
    onnx.save(other, tmp_path / "other.onnx")
    typed, against = tmp_path / "typed.onnx", tmp_path / "other.onnx"
    assert "the outputs differ: ['y'] here" in problem(2, "debug", typed, "--against", against)


def test_shapes_that_no_engine_takes_are_no_profile(tmp_path: Path) -> None:
    trace = tmp_path / "t.jsonl"
    trace.write_text('{"x": [4294967296, 16]}')
    model = dense(tmp_path / "m.onnx", batch="N")
    assert "below 2^31" in problem(2, "profiles", "suggest", model, "--trace", trace)
