"""`verify` and `inspect` on what they are given, and the corners they choose."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from trtforge.errors import ParityError, UsageError
from trtforge.graph.contract import IoContract, TensorSpec
from trtforge.pipeline.compare import VerifyOptions, verify
from trtforge.pipeline.corners import corner_shapes, free_shapes
from trtforge.pipeline.file_kinds import run_kind_of
from trtforge.pipeline.inspect import inspect_path
from trtforge.pipeline.tolerances import parse_tolerances
from trtforge.recipe.schema import ShapeRange


def linear(path: Path, change: float = 0.0, half: bool = False) -> Path:
    """Write y = x W with x of shape (N, 16); `change` is added to one weight."""
    weights = np.random.default_rng(0).standard_normal((16, 8)).astype(np.float32)
    weights[3, 3] += change
    nodes, name = [], "x"
    if half:
        weights = weights.astype(np.float16)
        nodes.append(helper.make_node("Cast", ["x"], ["xh"], to=TensorProto.FLOAT16))
        name = "xh"
    nodes.append(helper.make_node("MatMul", [name, "w"], ["yh" if half else "y"]))
    if half:
        nodes.append(helper.make_node("Cast", ["yh"], ["y"], to=TensorProto.FLOAT))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 8])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


def test_the_same_model_passes_and_another_fails(tmp_path: Path) -> None:
    original = linear(tmp_path / "a.onnx")
    same = verify(original, VerifyOptions(against=original))
    assert (same.verdict, same.exit_status) == ("pass", 0)
    other = verify(linear(tmp_path / "b.onnx", 0.5), VerifyOptions(against=original))
    assert (other.verdict, other.exit_status) == ("fail", 5)
    assert "SQNR" in (other.checks["graph"].reason or "")


def test_an_fp16_graph_is_held_to_fp16s_bounds(tmp_path: Path) -> None:
    original = linear(tmp_path / "a.onnx")
    result = verify(linear(tmp_path / "h.onnx", half=True), VerifyOptions(against=original))
    report = result.checks["graph"]
    assert report.verdict == "pass"
    assert 50 < (report.outputs["y"].metrics.sqnr_db or 0) < 90
    strict = VerifyOptions(against=original, tolerance=("y.sqnr_db=100",))
    assert verify(tmp_path / "h.onnx", strict).verdict == "fail"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("rename", "the inputs differ: 'z' here, 'x' in"),
        ("widen", "input 'x' is float32 [N, 17] here and float32 [N, 16] in"),
        ("rank", "input 'x' is float32 [N, 1, 16] here"),
        ("type", "input 'x' is float64 [N, 16] here"),
    ],
)
def test_models_with_other_inputs_cannot_be_compared(
    change: str, words: str, tmp_path: Path
) -> None:
    original = linear(tmp_path / "a.onnx")
    shape = {"widen": ["N", 17], "rank": ["N", 1, 16]}.get(change, ["N", 16])
    kind = TensorProto.DOUBLE if change == "type" else TensorProto.FLOAT
    name = "z" if change == "rename" else "x"
    graph = helper.make_graph(
        [helper.make_node("Identity", [name], ["y"])],
        "g",
        [helper.make_tensor_value_info(name, kind, shape)],
        [helper.make_tensor_value_info("y", kind, shape)],
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "b.onnx")
    with pytest.raises(ParityError) as caught:
        verify(tmp_path / "b.onnx", VerifyOptions(against=original))
    assert words in caught.value.message
    assert caught.value.exit_status == 5


def test_a_quantized_graph_is_not_judged_on_noise(tmp_path: Path) -> None:
    original = linear(tmp_path / "a.onnx")
    model = onnx.load(original)
    graph = model.graph
    graph.initializer.append(numpy_helper.from_array(np.float32(0.05), "s"))
    graph.initializer.append(numpy_helper.from_array(np.int8(0), "z"))
    graph.node.insert(0, helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]))
    graph.node.insert(0, helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]))
    graph.node[2].input[0] = "d"
    onnx.save(model, tmp_path / "q.onnx")
    result = verify(tmp_path / "q.onnx", VerifyOptions(against=original))
    assert (result.verdict, result.exit_status) == ("not_run", 3)
    assert "--data" in (result.checks["graph"].reason or "")
    np.savez(tmp_path / "d.npz", x=np.random.default_rng(1).standard_normal((20, 16), np.float32))
    judged = verify(tmp_path / "q.onnx", VerifyOptions(against=original, data=tmp_path / "d.npz"))
    assert judged.verdict == "pass"


def test_tolerances_are_read_for_all_outputs_and_for_one() -> None:
    everywhere, single = parse_tolerances(["sqnr_db=30", "a.b.max_abs=1e-3"])
    assert everywhere.sqnr_db == 30
    assert single["a.b"].max_abs == 1e-3


@pytest.mark.parametrize("text", ["", "sqnr_db", "sqnr=3", "sqnr_db=", "sqnr_db=x", "cosine=2"])
def test_what_is_no_tolerance_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_tolerances([text])


def test_kinds(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "manifest.json").write_text("{}")
    (tmp_path / "m.onnx").write_text("")
    (tmp_path / "e.plan").write_text("")
    assert run_kind_of(tmp_path / "bundle") == "bundle"
    assert run_kind_of(tmp_path / "m.onnx") == "onnx"
    assert run_kind_of(tmp_path / "e.plan") == "engine"


CONTRACT = IoContract(
    (TensorSpec("a", "float32", ("N", "S")), TensorSpec("b", "int64", ("N", 4))), ()
)


def test_free_shapes_keep_equal_names_equal_and_others_apart() -> None:
    shapes = free_shapes(CONTRACT)
    assert shapes["min"] == {"a": (1, 1), "b": (1, 4)}
    assert shapes["opt"]["a"][0] == shapes["opt"]["b"][0]
    assert shapes["opt"]["a"][0] != shapes["opt"]["a"][1]
    assert free_shapes(CONTRACT, {"a": (2, 3), "b": (2, 4)}) == {"opt": {"a": (2, 3), "b": (2, 4)}}
    assert free_shapes(CONTRACT, {"a": (7, 3)}) == {"opt": {"a": (7, 3), "b": (7, 4)}}


def test_corners_come_once_and_carry_their_profile() -> None:
    def profile(low: int, high: int) -> dict[str, ShapeRange]:
        return {
            "a": ShapeRange(min=(low, 1), opt=(low, 1), max=(high, 8)),
            "b": ShapeRange(min=(low, 4), opt=(low, 4), max=(high, 4)),
        }

    assert set(corner_shapes(CONTRACT, [profile(1, 2)])) == {"min", "opt", "max"}
    several = corner_shapes(CONTRACT, [profile(1, 2), profile(4, 8)])
    assert several["1.max"] == {"a": (8, 8), "b": (8, 4)}


def test_inspect_tells_an_engine_by_its_published_header(tmp_path: Path) -> None:
    path = tmp_path / "x.plan"
    path.write_bytes(b"ftrt" + bytes(4) + bytes(16) + bytes([10, 16, 1, 11]) + bytes(40))
    facts = inspect_path(path)
    assert (facts["kind"], facts["flavour"]) == ("engine", "tensorrt")
    assert facts["tensorrt_version"] == "10.16.1.11"


@pytest.mark.parametrize("begin", [b"ftrt", b"vtrt"])
def test_inspect_tells_an_engine_by_its_first_bytes_alone(tmp_path: Path, begin: bytes) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(begin + bytes(60))
    assert inspect_path(path)["kind"] == "engine"


@pytest.mark.parametrize("text", ['{"name": "of a web page"}', "[]", "// no JSON", ""])
def test_a_manifest_of_a_folder_above_is_none_of_the_engine(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    engine = tmp_path / "models" / "digits" / "x.plan"
    engine.parent.mkdir(parents=True)
    engine.write_bytes(b"ftrt" + bytes(60))
    assert inspect_path(engine)["kind"] == "engine"


def test_inspect_tells_an_onnx_file(tmp_path: Path) -> None:
    facts = inspect_path(linear(tmp_path / "a.onnx"))
    assert facts["kind"] == "onnx"
    assert facts["operators"] == {"MatMul": 1}
    assert facts["initializer_bytes"] == 16 * 8 * 4


def test_the_command_writes_a_page_and_junit_of_the_comparison_alone(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from trtforge.cli.main import _run

    original = str(linear(tmp_path / "a.onnx"))
    page, junit = tmp_path / "page.html", tmp_path / "junit.xml"
    args = ["verify", original, "--against", original, "--html", str(page), "--junit", str(junit)]
    assert _run(args) == 0
    assert "verdict: pass" in capfd.readouterr().out
    text = page.read_text()
    assert "Graph parity" in text
    assert "Calibration" not in text
    assert "attestation" not in text
    assert 'failures="0" skipped="0"' in junit.read_text()
