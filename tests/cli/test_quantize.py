"""`trtforge quantize`: what is written and printed, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from pair_metrics import sqnr_db
from running import trtforge

from trtforge.cli.main import _run
from trtforge.graph.execute import Session
from trtforge.graph.model import Model
from trtforge.precision.cache import CalibrationCache

Capture = pytest.CaptureFixture[str]
LEAST_SQNR_DB = {"int8": 30, "fp8": 20, "int8_weight_only": 30, "int4_weight_only": 17}


def run(capfd: Capture, *args: object, status: int = 0) -> tuple[str, str]:
    """Run the command line in this process; return both streams."""
    capfd.readouterr()
    got = _run(list(map(str, args)))
    out, err = capfd.readouterr()
    assert got == status, (out, err)
    assert "Traceback" not in err
    return out, err


def quantized(capfd: Capture, digits: Path, out: Path, *more: object) -> dict[str, Any]:
    """Quantize the digits model; return the JSON document."""
    text, _ = run(capfd, "quantize", digits / "model.onnx", "-o", out, *more, "--json")
    found: dict[str, Any] = json.loads(text)
    return found


def outputs(path: Path, images: np.ndarray) -> np.ndarray:
    (found,) = Session(Model.load(path)).run({"image": images}).values()
    return found


@pytest.fixture(scope="module")
def images(digits: Path) -> np.ndarray:
    found: np.ndarray = np.load(digits / "test.npz")["image"]
    return found


@pytest.mark.parametrize(("kind", "least"), LEAST_SQNR_DB.items())
def test_each_kind_gives_a_sound_model_close_to_the_original(
    capfd: Capture, digits: Path, tmp_path: Path, images: np.ndarray, kind: str, least: float
) -> None:
    out = tmp_path / "out.onnx"
    found = quantized(
        capfd, digits, out, "--quantize", kind, "--data", digits / "calib.npz", "--method", "mse"
    )
    onnx.checker.check_model(str(out), full_check=True)
    reference = outputs(digits / "model.onnx", images)
    assert sqnr_db(reference, outputs(out, images)) > least
    assert found["schema"] == "trtforge.quantize/1"
    assert found["output"] == str(out)
    assert (
        found["sizes"]["after"]["weights_bytes"] < 0.3 * found["sizes"]["before"]["weights_bytes"]
    )
    assert {one["action"] for one in found["quantize"]["decisions"]} == {"quantized"}
    operators = {node.op_type for node in onnx.load(str(out)).graph.node}
    assert ("QuantizeLinear" in operators) == (kind in ("int8", "fp8"))


def test_weight_only_needs_no_data(capfd: Capture, digits: Path, tmp_path: Path) -> None:
    found = quantized(capfd, digits, tmp_path / "out.onnx", "--quantize", "int8_weight_only")
    assert found["calibration"] is None
    assert set(found["seconds"]) == {"optimize", "quantize"}


def test_it_is_the_model_that_a_recipe_with_the_same_values_ships(
    capfd: Capture, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRTFORGE_CACHE", str(tmp_path / "store"))
    run(capfd, "build", digits / "int8.yaml", "--target", "cpu", "--out", tmp_path / "bundles")
    (shipped,) = (tmp_path / "bundles").glob("*/model.onnx")
    out, cache = tmp_path / "out.onnx", tmp_path / "cache.json"
    data = ("--data", digits / "calib.npz", "--samples", "256", "--type", "fp16")
    quantized(capfd, digits, out, *data, "--method", "entropy", "--cache", cache)
    assert out.read_bytes() == shipped.read_bytes()
    assert cache.read_bytes() == (shipped.parent / "calibration/digits.calib.json").read_bytes()


def test_people_read_what_was_done_and_what_was_left(
    capfd: Capture, digits: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.onnx"
    text, err = run(
        capfd, "quantize", digits / "model.onnx", "-o", out, "--data", digits / "calib.npz",
        "--keep", "op=Gemm", "--techniques", "none",
    )  # fmt: skip
    lines = text.splitlines()
    assert lines[0] == "quantized: 8 of 9 places (7 Conv, 1 Add)"
    assert lines[1] == "left: 1 Gemm: keep rule {op: Gemm, type: fp32}"
    assert lines[2].startswith("weights: 74.7 KiB -> ")
    assert lines[-1] == str(out)
    stages, warning = err.splitlines()[:3], err.splitlines()[3:]
    assert [line.split()[0] for line in stages] == ["optimize", "calibrate", "quantize"]
    assert [line.partition(":")[0] for line in warning] == ["warning"]
    assert "is expected to be larger than the FP16 one" in warning[0]


def test_reasons_that_differ_in_names_alone_are_one_line(capfd: Capture, tmp_path: Path) -> None:
    """Products of attention are left alike, whatever their operands are called."""
    products = [
        helper.make_node("MatMul", ["x", f"t{i}"], [f"y{i}"], f"product{i}") for i in range(3)
    ]
    moved = [
        helper.make_node("Transpose", ["x"], [f"t{i}"], f"moved{i}", perm=[0, 2, 1])
        for i in range(3)
    ]
    ends = [helper.make_tensor_value_info(name, 1, [1, 4, 4]) for name in ("x", "y0", "y1", "y2")]
    weight = helper.make_tensor("w", 1, [4, 4], range(16))
    layer = helper.make_node("MatMul", ["y0", "w"], ["z"], "layer")
    ends.append(helper.make_tensor_value_info("z", 1, [1, 4, 4]))
    nodes = [*moved, *products, layer]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [weight])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9),
        tmp_path / "in.onnx",
    )
    asked = ("quantize", tmp_path / "in.onnx", "-o", tmp_path / "out.onnx", "--no-optimize")
    text, _ = run(capfd, *asked, "--synthetic", "--samples", "4")
    (line,) = [line for line in text.splitlines() if line.startswith("left: ")]
    assert line.startswith("left: 3 MatMul: the right operand 't0' is no constant weight")
    assert line.endswith("(and 2 like it)")


def test_explain_has_a_line_for_each_place(capfd: Capture, digits: Path, tmp_path: Path) -> None:
    text, _ = run(
        capfd, "quantize", digits / "model.onnx", "-o", tmp_path / "out.onnx", "--explain",
        "--data", digits / "calib.npz", "--type", "fp16", "--keep", "name=/stem/*:fp32",
    )  # fmt: skip
    rows = [line.split() for line in text.splitlines()]
    quantize = [row for row in rows if row[0] == "quantized"]
    assert len(quantize) == 8
    assert ["kept", "Conv", "/stem/conv/Conv"] in [row[:3] for row in rows]
    assert ["fp32", "Conv", "/stem/conv/Conv"] in [row[:3] for row in rows]


def test_compact_leaves_what_makes_engines_larger(
    capfd: Capture, digits: Path, tmp_path: Path
) -> None:
    text, err = run(
        capfd, "quantize", digits / "model.onnx", "-o", tmp_path / "out.onnx", "--explain",
        "--data", digits / "calib.npz", "--compact",
    )  # fmt: skip
    left = [line for line in text.splitlines() if "compact: a depthwise Conv: " in line]
    assert len(left) == 3, "two layers, and their count"
    assert left[-1].startswith("left: 2 Conv: compact: a depthwise Conv: its INT8 weights")
    assert "even with `precision.compact`: its layers are too small" in err
    _, err = run(
        capfd, "quantize", digits / "model.onnx", "-o", tmp_path / "out.onnx", "--compact",
        "--quantize", "int8_weight_only", status=2,
    )  # fmt: skip
    assert "compact is about INT8 kernels, and quantize is int8_weight_only" in err


def test_quiet_prints_the_path_alone_and_warnings_beside_it(
    capfd: Capture, digits: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.onnx"
    text, err = run(
        capfd, "quantize", digits / "model.onnx", "-o", out, "--data", digits / "calib.npz", "-q"
    )
    assert text == f"{out}\n"
    assert all(line.startswith("warning: ") for line in err.splitlines())
    text, err = run(
        capfd, "quantize", digits / "model.onnx", "-o", out, "-q", "--quantize", "int8_weight_only"
    )
    assert (text, err) == (f"{out}\n", "")


def test_first_and_last_can_be_left(capfd: Capture, digits: Path, tmp_path: Path) -> None:
    found = quantized(
        capfd, digits, tmp_path / "out.onnx", "--data", digits / "calib.npz",
        "--unquantized", "first", "--unquantized", "last",
    )  # fmt: skip
    assert found["precision"]["unquantized"] == ["first", "last"]


def test_sensitivity_ranks_every_layer(capfd: Capture, digits: Path, tmp_path: Path) -> None:
    found = quantized(
        capfd, digits, tmp_path / "out.onnx", "--data", digits / "calib.npz", "--sensitivity"
    )
    layers = found["sensitivity"]["layers"]
    assert [layer["rank"] for layer in layers] == list(range(1, 10))
    text, _ = run(
        capfd, "quantize", digits / "model.onnx", "-o", tmp_path / "out.onnx",
        "--data", digits / "calib.npz", "--sensitivity",
    )  # fmt: skip
    assert "rank  output dB" in text
    assert "keep:\n  - {op: Conv, name: " in text


def test_prove_says_so(capfd: Capture, digits: Path, tmp_path: Path) -> None:
    data = ("--data", digits / "calib.npz")
    plain = quantized(capfd, digits, tmp_path / "out.onnx", *data)
    proven = quantized(capfd, digits, tmp_path / "proven.onnx", *data, "--prove")
    bare = quantized(capfd, digits, tmp_path / "bare.onnx", *data, "--no-optimize")
    assert [one["proof"] and one["proof"]["verdict"] for one in (plain, proven, bare)] == [
        "not_run", "pass", None,
    ]  # fmt: skip
    assert (tmp_path / "out.onnx").read_bytes() == (tmp_path / "proven.onnx").read_bytes()
    assert bare["sizes"]["after"]["nodes"] > plain["sizes"]["after"]["nodes"]


# Caches


@pytest.fixture
def cache(capfd: Capture, digits: Path, tmp_path: Path) -> Path:
    """A cache of the digits model."""
    path = tmp_path / "cache.json"
    quantized(
        capfd, digits, tmp_path / "measured.onnx", "--data", digits / "calib.npz",
        "--cache", path, "--techniques", "none",
    )  # fmt: skip
    return path


@pytest.mark.parametrize("techniques", ["none", "default"])
def test_a_reused_cache_gives_the_same_model(
    capfd: Capture, digits: Path, tmp_path: Path, techniques: str
) -> None:
    data = ("--data", digits / "calib.npz")
    cache, asked = tmp_path / "cache.json", ("--techniques", techniques)
    quantized(capfd, digits, tmp_path / "measured.onnx", *data, "--cache", cache, *asked)
    for given in (data, ()):
        found = quantized(capfd, digits, tmp_path / "out.onnx", "--reuse", cache, *given, *asked)
        assert found["calibration"]["samples"] == 256
        assert (tmp_path / "out.onnx").read_bytes() == (tmp_path / "measured.onnx").read_bytes()


def test_a_stale_cache_is_refused_unless_told_otherwise(
    capfd: Capture, digits: Path, tmp_path: Path, cache: Path
) -> None:
    out = tmp_path / "out.onnx"
    command = ("quantize", digits / "model.onnx", "-o", out, "--reuse", cache, "--no-optimize")
    text, err = run(capfd, *command, "--data", digits / "test.npz", status=2)
    assert text == ""
    assert "error[TF0529]: the calibration cache 'cache.json' is stale: " in err
    assert "it was measured on another graph (" in err
    assert "its data was another (" in err
    assert "--allow-stale" in err
    assert not out.exists()
    found = json.loads(run(capfd, *command, "--allow-stale", "--json")[0])
    assert any("is stale: it was measured on another graph" in one for one in found["warnings"])
    assert out.exists()


def test_a_cache_of_a_reshaped_graph_tells_how_or_needs_the_data_that_reshaped_it(
    capfd: Capture, digits: Path, tmp_path: Path
) -> None:
    cache, out = tmp_path / "cache.json", tmp_path / "out.onnx"
    data = ("--data", digits / "calib.npz")
    equalized = ("--techniques", "equalize")
    quantized(capfd, digits, tmp_path / "measured.onnx", *data, "--cache", cache, *equalized)
    found = quantized(capfd, digits, out, "--reuse", cache, "--techniques", "equalize,smoothquant")
    assert found["techniques"] == [
        "equalize: 6 groups of channels scaled as the cache says",
        "smoothquant: left out, the cache was measured without",
    ]
    assert out.read_bytes() == (tmp_path / "measured.onnx").read_bytes()
    whole = json.loads(cache.read_text())
    del whole["reshaping"]  # as older versions wrote it
    cache.write_text(json.dumps(whole))
    reuse = ("quantize", digits / "model.onnx", "-o", out, "--reuse", cache, *equalized)
    _, err = run(capfd, *reuse, status=2)
    assert "error[TF0529]" in err
    assert "hint: calibrate again, give the data too, as techniques change the graph by it" in err
    run(capfd, *reuse, *data)
    assert out.read_bytes() == (tmp_path / "measured.onnx").read_bytes()


def test_a_cache_of_the_plain_graph_leaves_techniques_out(
    capfd: Capture, digits: Path, tmp_path: Path, cache: Path
) -> None:
    found = quantized(
        capfd, digits, tmp_path / "out.onnx", "--reuse", cache, "--techniques", "equalize"
    )
    assert found["techniques"] == ["equalize: left out, the cache was measured without"]
    assert (tmp_path / "out.onnx").read_bytes() == (tmp_path / "measured.onnx").read_bytes()


def test_a_cache_without_a_tensor_is_refused_in_any_case(
    capfd: Capture, digits: Path, tmp_path: Path, cache: Path
) -> None:
    whole = CalibrationCache.load(cache)
    kept = {name: found for name, found in whole.ranges.items() if name != "image"}
    whole.model_copy(update={"ranges": kept}).save(cache)
    for more in ((), ("--allow-stale",)):
        _, err = run(
            capfd, "quantize", digits / "model.onnx", "-o", tmp_path / "out.onnx",
            "--reuse", cache, *more, status=2,
        )  # fmt: skip
        assert "error[TF0529]" in err
        assert "1 of 8 tensors are not in it, such as 'image'" in err
        assert "--allow-stale" not in err


def test_tensorrt_text_serves_as_cache(
    capfd: Capture, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRTFORGE_CACHE", str(tmp_path / "store"))
    plain = ("--set", "precision.techniques=none")  # others reshape the graph that is measured
    run(capfd, "calibrate", digits / "int8.yaml", "-o", tmp_path / "calibration", *plain)
    out, again = tmp_path / "out.onnx", tmp_path / "again.onnx"
    text = tmp_path / "calibration/tensorrt.calib"
    found = quantized(capfd, digits, out, "--reuse", text)
    assert found["calibration"]["samples"] == 0
    quantized(capfd, digits, again, "--reuse", tmp_path / "calibration/digits.calib.json")
    scales = [
        {w.name: onnx.numpy_helper.to_array(w) for w in onnx.load(str(path)).graph.initializer}
        for path in (out, again)
    ]
    assert scales[0].keys() == scales[1].keys()
    for name, values in scales[0].items():
        np.testing.assert_allclose(values, scales[1][name], rtol=1e-6)


def test_a_cache_is_written_where_ranges_are_measured_only(
    capfd: Capture, digits: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.onnx"
    command = ("quantize", digits / "model.onnx", "-o", out, "--data", digits / "calib.npz")
    weights = ("--quantize", "int8_weight_only", "--cache", tmp_path / "cache.json")
    assert "error[TF0109]" in run(capfd, *command, *weights, status=2)[1]
    assert "error[TF0148]" in run(capfd, *command, "--cache", out, status=2)[1]
    assert list(tmp_path.iterdir()) == []


# Data


def test_synthetic_samples_are_told_of(capfd: Capture, digits: Path, tmp_path: Path) -> None:
    command = ("quantize", digits / "model.onnx", "-o", tmp_path / "out.onnx", "--synthetic")
    _, err = run(capfd, *command, "--shape", "image=4x1x8x8", "--samples", 40)
    assert "warning: the ranges come from synthetic samples" in err
    found = json.loads(run(capfd, *command, "--shape", "image=4x1x8x8", "--json")[0])
    assert found["calibration"]["synthetic"] is True
    assert any("synthetic" in one for one in found["warnings"])


def test_constant_tensors_are_named(capfd: Capture, digits: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "same.npy", np.zeros((40, 1, 8, 8), np.float32))
    _, err = run(
        capfd, "quantize", digits / "model.onnx", "-o", tmp_path / "out.onnx",
        "--data", tmp_path / "same.npy",
    )  # fmt: skip
    warnings = [line for line in err.splitlines() if line.startswith("warning: ")]
    assert any("'image' was 0 throughout" in line for line in warnings), warnings


def test_data_may_be_code_a_folder_or_a_mapping(
    capfd: Capture, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    samples = np.load(digits / "calib.npz")["image"]
    np.save("first.npy", samples[:128])
    (tmp_path / "arrays").mkdir()
    for index, sample in enumerate(samples):
        np.savez(tmp_path / "arrays" / f"{index}.npz", image=sample[None])
    (tmp_path / "loading.py").write_text(
        "import numpy as np\n\ndef load_data():\n"
        f"    for one in np.load({str(digits / 'calib.npz')!r})['image']:\n"
        "        yield {'image': one[None]}\n"
    )
    made = []
    for data in (digits / "calib.npz", "arrays", "loading.py", "loading:load_data",
                 "{python: loading:load_data}"):  # fmt: skip
        quantized(capfd, digits, tmp_path / "out.onnx", "--data", data)
        made.append((tmp_path / "out.onnx").read_bytes())
    assert len(set(made)) == 1


# Refusals


@pytest.mark.parametrize(
    ("code", "status", "options"),
    [
        ("TF0108", 2, []),
        ("TF0107", 2, ["--data", "DATA", "--keep", "Softmax"]),
        ("TF0107", 2, ["--data", "DATA", "--keep", "op="]),
        ("TF0107", 2, ["--data", "{a: 1, a: 2}"]),
        ("TF0204", 2, ["--data", "{"]),
        ("TF0209", 2, ["--data", "{imags: photos}"]),
        ("TF0212", 2, ["--data", "DATA", "--method", "percentile", "--percentile", "0"]),
        ("TF0213", 2, ["--data", "DATA", "--synthetic"]),
        ("TF0213", 2, ["--data", "DATA", "--allow-stale"]),
        ("TF0213", 2, ["--data", "DATA", "--techniques", "gptq"]),
        ("TF0105", 2, ["--data", "DATA", "--shape", "picture=1x1x8x8"]),
        ("TF0110", 2, ["--reuse", "none.json", "--sensitivity"]),
        ("TF0100", 2, ["--data", "DATA", "--quantize", "int3"]),
        ("TF0100", 2, ["--data", "DATA", "--samples", "0"]),
        ("TF0501", 2, ["--data", "none.npz"]),
        ("TF0550", 2, ["--reuse", "none.json"]),
        ("TF0523", 2, ["--data", "DATA", "--samples", "257"]),
        ("TF0538", 2, ["--data", "DATA", "--techniques", "gpt"]),
        ("TF0302", 3, ["--data", "DATA", "--cache", "none/cache.json"]),
    ],
)
def test_a_refusal_is_one_clear_error_and_leaves_what_was_there(
    capfd: Capture, digits: Path, tmp_path: Path, code: str, status: int, options: list[str]
) -> None:
    out = tmp_path / "out.onnx"
    out.write_text("mine")
    given = [str(digits / "calib.npz") if option == "DATA" else option for option in options]
    text, err = run(capfd, "quantize", digits / "model.onnx", "-o", out, *given, status=status)
    assert f"error[{code}]" in err, err
    assert text == ""
    assert out.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [out]


def test_everything_wrong_is_told_at_once(capfd: Capture, digits: Path, tmp_path: Path) -> None:
    _, err = run(
        capfd, "quantize", digits / "model.onnx", "-o", tmp_path / "out.onnx",
        "--data", "{imags: photos}", "--percentile", "200", status=2,
    )  # fmt: skip
    assert "error[TF0209]: unknown key 'imags'" in err
    assert "error[TF0212]: calibration.percentile" in err


def test_a_place_that_cannot_be_written_is_told_before_the_work(
    capfd: Capture, digits: Path, tmp_path: Path
) -> None:
    _, err = run(
        capfd, "quantize", digits / "model.onnx", "-o", tmp_path / "none" / "out.onnx",
        "--data", digits / "calib.npz", status=3,
    )  # fmt: skip
    assert err.startswith("error[TF0302]: cannot write ")
    assert "probe" not in err


def test_the_real_command_line(digits: Path, tmp_path: Path) -> None:
    done = trtforge(
        "quantize", digits / "model.onnx", "-o", "out.onnx", "--data", digits / "calib.npz",
        "--cache", "cache.json", store=tmp_path / "store", cwd=tmp_path,
    )  # fmt: skip
    assert done.status == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "out.onnx"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache.json", "out.onnx"]
    assert len(CalibrationCache.load(tmp_path / "cache.json").ranges) == 8


def test_techniques_are_listed(capfd: Capture) -> None:
    text, _ = run(capfd, "quantize", "--list-techniques")
    assert text.splitlines()[0].split() == ["technique", "runs", "default", "for", "what", "it",
                                            "does"]  # fmt: skip
    assert any(line.startswith("gptq ") for line in text.splitlines())


@pytest.mark.parametrize(
    ("command", "options", "missing"),
    [
        ("quantize", ("--keep", "name=*", "--synthetic", "--shape", "image=1x1x8x8"), "int8"),
        ("cast", ("--type", "fp16", "--keep", "name=*"), "fp16"),
    ],
)
def test_a_file_without_what_was_asked_for_is_not_written(
    command: str,
    options: tuple[str, ...],
    missing: str,
    digits: Path,
    tmp_path: Path,
    capfd: Capture,
) -> None:
    out = tmp_path / "out.onnx"
    _, err = run(capfd, command, digits / "model.onnx", "-o", out, *options, status=5)
    assert f"would have nothing in {missing}" in err
    assert not out.exists()


def test_entropy_is_refused_for_fp8_where_it_would_clip_nearly_all(
    capfd: Capture, digits: Path, tmp_path: Path
) -> None:
    out, data = tmp_path / "out.onnx", digits / "calib.npz"
    asked = ("--data", data, "--method", "entropy", "--quantize", "fp8")
    for command in ("quantize", "calibrate"):
        _, err = run(capfd, command, digits / "model.onnx", "-o", out, *asked, status=2)
        assert "error[TF0213]: entropy is made for the equal steps of INT8" in err
        assert "hint: set method: mse or minmax" in err
    assert not out.exists()
