"""`trtforge calib`: what each command prints and writes, its exit status, and what is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import onnx
import pytest

from trtforge.cli.main import _run
from trtforge.precision.cache import CalibrationCache, TensorRange

Capture = pytest.CaptureFixture[str]

RELU = "/residual/relu/Relu_output_0"


def run(capfd: Capture, *args: object, status: int = 0) -> tuple[str, str]:
    """Run the command line in this process; return both streams."""
    capfd.readouterr()
    got = _run(["calib", *map(str, args)])
    out, err = capfd.readouterr()
    assert got == status, (out, err)
    assert "Traceback" not in err
    return out, err


def document(capfd: Capture, *args: object, status: int = 0) -> dict[str, Any]:
    out, err = run(capfd, *args, "--json", status=status)
    found: dict[str, Any] = json.loads(out)
    assert found["schema"].startswith("trtforge.calib-")
    assert err == "" or status == 0
    return found


def refused(capfd: Capture, code: str, status: int, *args: object) -> str:
    out, err = run(capfd, *args, status=status)
    assert out == ""
    assert f"error[{code}]" in err
    assert err.count("error[") >= 1
    return err


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, digits: Path) -> Path:
    """A folder with the model, its cache, shards of it, and an old TensorRT table."""
    folder = tmp_path_factory.mktemp("calib")
    shutil.copy2(digits / "model.onnx", folder / "model.onnx")
    model, data = folder / "model.onnx", digits / "calib.npz"
    for part in ("1/2", "2/2", None):
        name = "whole.json" if part is None else f"shard{part[0]}.json"
        shard = [] if part is None else ["--shard", part]
        args = ["calibrate", model, "--data", data, "-o", folder / name, "-q", *shard]
        args += ["--method", "entropy"]
        assert _run(list(map(str, args))) == 0
    args = ["calibrate", model, "--data", data, "--tensors", "all", "--no-optimize"]
    args += ["--method", "entropy"]
    assert _run(list(map(str, [*args, "-q", "-o", folder / "all.json"]))) == 0
    old = ["calib", "convert", folder / "all.json", "-o", folder / "old.calib"]
    assert _run(list(map(str, [*old, "--trt-version", "8.6.1", "-q"]))) == 0
    return folder


def spoiled(made: Path, tmp_path: Path, *changes: tuple[str, str]) -> Path:
    text = (made / "old.calib").read_text()
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    path = tmp_path / "spoiled.calib"
    path.write_text(text)
    return path


def test_show_lists_sorts_and_filters(capfd: Capture, made: Path) -> None:
    found = document(capfd, "show", made / "whole.json", "--sort", "amax", "--filter", "/sep*")
    assert (found["format"], found["method"], found["samples"]) == ("trtforge", "entropy", 256)
    names = [row["tensor"] for row in found["ranges"]]
    assert len(names) == 3
    assert all(name.startswith("/sep") for name in names)
    magnitudes = [row["amax"] for row in found["ranges"]]
    assert magnitudes == sorted(magnitudes, reverse=True)
    for row in found["ranges"]:
        assert row["scale"] == row["amax"] / 127
        assert 0 <= row["clipped"] < 0.01
    (row,) = document(capfd, "show", made / "old.calib", "--filter", "image")["ranges"]
    assert (row["min"], row["max"], row["clipped"]) == (None, None, None), (
        "a scale tells amax alone"
    )
    text, _ = run(capfd, "show", made / "old.calib")
    assert text.startswith("TensorRT calibration cache: 26 tensors\norigin: TRT-8601-Entropy")
    assert len(run(capfd, "show", made / "old.calib", "-q")[0].splitlines()) == 27


def test_a_sound_cache_is_clean_and_a_wrong_one_exits_5(
    capfd: Capture, made: Path, tmp_path: Path
) -> None:
    clean, _ = run(capfd, "lint", made / "old.calib")
    assert clean == "TensorRT calibration cache, 26 tensors: 0 errors, 0 warnings, 0 notes\n"
    assert run(capfd, "lint", made / "old.calib", "-q") == ("", "")
    path = spoiled(made, tmp_path, ("TRT-8601", "TRT-10300"), ("image: 3c010204", "image: 0"))
    found = document(capfd, "lint", path, made / "model.onnx", status=5)
    rules = [(one["severity"], one["rule"], one["tensor"]) for one in found["findings"]]
    assert rules[:3] == [
        ("error", "header-formula", ""),
        ("warning", "unpadded-hex", "image"),
        ("warning", "zero-scale", "image"),
    ]
    assert {rule for severity, rule, _ in rules if severity == "note"} == {
        "fused-away",
        "not-needed",
    }
    text, _ = run(capfd, "lint", path, status=5)
    assert "error[header-formula]: line 1: TRT-10300 would be TensorRT 10.3.0" in text


def test_strict_lint_fails_on_warnings(capfd: Capture, made: Path, tmp_path: Path) -> None:
    path = spoiled(made, tmp_path, ("image: 3c010204", "image: 0"))
    run(capfd, "lint", path)
    run(capfd, "lint", path, "--strict", status=5)
    run(capfd, "lint", made / "old.calib", "--strict")


def test_the_rules_are_listed(capfd: Capture) -> None:
    from trtforge.precision.cache_lint import RULES

    listed = run(capfd, "lint", "--list-rules")[0].splitlines()[1:]
    assert [line.split()[0] for line in listed] == list(RULES)


def test_diff_of_formats_and_its_exit_status(capfd: Capture, made: Path, tmp_path: Path) -> None:
    both = (made / "all.json", made / "old.calib")
    assert run(capfd, "diff", *both, "--exit-code")[0] == "no differences\n"
    path = spoiled(made, tmp_path, ("image: 3c010204", "image: 3c810204"), ("logits", "scores"))
    found = document(capfd, "diff", made / "old.calib", path, "--exit-code", status=5)
    assert (found["removed"], found["added"]) == (["logits"], ["scores"])
    (change,) = found["changed"]
    assert (change["tensor"], change["ratio"]) == ("image", 2.0)
    text, _ = run(capfd, "diff", made / "old.calib", path)
    assert text.splitlines()[-1] == "1 removed, 1 added, 1 changed, 24 the same"


def test_merge_of_shards_is_the_whole(capfd: Capture, made: Path, tmp_path: Path) -> None:
    out = tmp_path / "merged.json"
    printed, _ = run(capfd, "merge", made / "shard2.json", made / "shard1.json", "-o", out)
    assert printed == f"8 tensors over 256 samples, entropy\n{out}\n"
    assert out.read_bytes() == (made / "whole.json").read_bytes()


def test_merging_what_does_not_belong_together(capfd: Capture, made: Path, tmp_path: Path) -> None:
    out = tmp_path / "merged.json"
    for pair in (("shard1.json", "shard1.json"), ("whole.json", "old.calib")):
        refused(capfd, "TF0527", 2, "merge", *(made / name for name in pair), "-o", out)
    assert not out.exists()


@pytest.mark.parametrize(
    ("name", "target", "written"),
    [
        ("c.calib", None, "tensorrt"),
        ("c.json", None, "trtforge"),
        ("c.flatbuffers", None, "onnxruntime-flatbuffers"),
        ("c.json", "onnxruntime", "onnxruntime-json"),
        ("c.txt", "onnxruntime", "onnxruntime-text"),
        ("c.txt", "modelopt", "modelopt"),
    ],
)
def test_convert_there_and_back(
    capfd: Capture, made: Path, tmp_path: Path, name: str, target: str | None, written: str
) -> None:
    out, back = tmp_path / name, tmp_path / "back.calib"
    to = [] if target is None else ["--to", target]
    found = document(capfd, "convert", made / "old.calib", "-o", out, *to)
    assert (found["format"], found["tensors"]) == (written, 26)
    run(capfd, "convert", out, "-o", back)
    old = (made / "old.calib").read_text().splitlines()[1:]
    assert sorted(back.read_text().splitlines()[1:]) == sorted(old)


def test_convert_keeps_the_header_or_writes_another(
    capfd: Capture, made: Path, tmp_path: Path
) -> None:
    out = tmp_path / "c.calib"
    run(capfd, "convert", made / "old.calib", "-o", out)
    assert out.read_bytes() == (made / "old.calib").read_bytes()
    run(capfd, "convert", made / "old.calib", "-o", out, "--trt-version", "10.3.0")
    assert out.read_text().startswith("TRT-100300-EntropyCalibration2\n")
    spoiled_path = spoiled(made, tmp_path, ("TRT-8601", "TRT-10300"))
    run(capfd, "convert", spoiled_path, "-o", out, "--trt-version", "10.3.0")
    run(capfd, "lint", out)


def test_another_method_is_derived_from_histograms(
    capfd: Capture, made: Path, tmp_path: Path
) -> None:
    out = tmp_path / "c.json"
    run(capfd, "convert", made / "whole.json", "-o", out, "--method", "minmax")
    for found in CalibrationCache.load(out).ranges.values():
        assert found.amax == found.observed_amax
    args = ["--method", "percentile", "--percentile", "99"]
    run(capfd, "convert", made / "whole.json", "-o", out, *args)
    assert CalibrationCache.load(out).options["percentile"] == 99
    refused(capfd, "TF0528", 2, "convert", made / "old.calib", "-o", out, "--method", "mse")


def test_apply_quantizes_with_an_old_table(capfd: Capture, made: Path, tmp_path: Path) -> None:
    out, ranges = tmp_path / "int8.onnx", tmp_path / "fit.json"
    model = made / "model.onnx"
    found = document(capfd, "apply", made / "old.calib", model, "-o", out, "--cache", ranges)
    assert (found["format"], found["origin"]) == ("tensorrt", "TRT-8601-EntropyCalibration2")
    assert {match["how"] for match in found["matched"]} == {"name"}
    assert (found["missing"], found["left"], found["suspicious"]) == ([], [], [])
    assert {one["rule"] for one in found["unused"]} == {"not-needed", "fused-away"}
    onnx.checker.check_model(str(out), full_check=True)
    fit = CalibrationCache.load(ranges)
    assert (fit.graph_digest, fit.samples) == ("", 0)
    assert set(fit.ranges) == {match["tensor"] for match in found["matched"]}
    run(capfd, "diff", out, ranges, "--exit-code", "--tolerance", "1e-6")


def test_a_hole_in_the_table_is_told_and_refused_when_strict(
    capfd: Capture, made: Path, tmp_path: Path
) -> None:
    path = spoiled(made, tmp_path, (f"{RELU}: ", "lost: "), ("/residual/Add_output_0: ", "gone: "),
                   ("/separable1/depthwise/bn/", "/nowhere/"))  # fmt: skip
    out, model = tmp_path / "out.onnx", made / "model.onnx"
    said = refused(capfd, "TF0555", 4, "apply", path, model, "-o", out, "--strict")
    assert f"'{RELU}' has no range" in said
    assert not out.exists()
    text, _ = run(capfd, "apply", path, model, "-o", out)
    assert "ranges: 7 of 8 tensors (7 by name)" in text
    assert f"the calibration cache has no range of '{RELU}'" in text
    assert "3 name-unknown" in text
    onnx.checker.check_model(str(out), full_check=True)


def test_an_undivided_scale_is_suspicious(capfd: Capture, made: Path, tmp_path: Path) -> None:
    lines = (made / "old.calib").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("/flatten/Flatten_output_0: ")]
    path = spoiled(made, tmp_path, (line, "/flatten/Flatten_output_0: 400ad7fe"))
    out, model = tmp_path / "out.onnx", made / "model.onnx"
    text, _ = run(capfd, "apply", path, model, "-o", out)
    assert "suspicious[scale-is-amax]: amax of '/flatten/Flatten_output_0' is 127.0 times" in text
    refused(capfd, "TF0555", 4, "apply", path, model, "-o", tmp_path / "no.onnx", "--strict")


def test_a_dead_tensor_is_suspicious_and_the_model_stays_sound(
    capfd: Capture, made: Path, tmp_path: Path
) -> None:
    path = spoiled(made, tmp_path, ("image: 3c010204", "image: 0"))
    out = tmp_path / "out.onnx"
    found = document(capfd, "apply", path, made / "model.onnx", "-o", out)
    assert [(one["rule"], one["tensor"]) for one in found["suspicious"]] == [
        ("zero-scale", "image")
    ]
    onnx.checker.check_model(str(out), full_check=True)


def test_a_table_cut_off_is_refused_and_linted(capfd: Capture, made: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.calib"
    path.write_bytes((made / "old.calib").read_bytes()[:-15])
    refused(capfd, "TF0522", 2, "apply", path, made / "model.onnx", "-o", tmp_path / "out.onnx")
    text, _ = run(capfd, "lint", path, status=5)
    assert "error[truncated]: line 27" in text


def test_the_general_diff_points_here(capfd: Capture, made: Path) -> None:
    assert _run(["diff", str(made / "all.json"), str(made / "whole.json")]) == 2
    assert "compare them with `trtforge calib diff`" in capfd.readouterr().err


def test_a_stale_cache_is_refused_with_the_reason(
    capfd: Capture, made: Path, tmp_path: Path
) -> None:
    whole = CalibrationCache.load(made / "whole.json")
    stale = tmp_path / "stale.json"
    whole.model_copy(update={"graph_digest": "sha256:0123456789abcdef"}).save(stale)
    out, model = tmp_path / "out.onnx", made / "model.onnx"
    said = refused(capfd, "TF0529", 2, "apply", stale, model, "-o", out)
    assert "it was measured on another graph (0123456789ab, this one is" in said
    _, warned = run(capfd, "apply", stale, model, "-o", out, "--allow-stale")
    assert "is stale: it was measured on another graph" in warned
    for fresh in ("whole.json", "all.json"):
        run(capfd, "apply", made / fresh, model, "-o", out)


def test_a_cache_of_another_model_is_refused(capfd: Capture, made: Path, tmp_path: Path) -> None:
    cache = CalibrationCache(
        method="x", samples=0, graph_digest="",
        ranges={"other": TensorRange(min=0, max=1, amax=1)},
    )  # fmt: skip
    cache.save(tmp_path / "other.json")
    out = tmp_path / "out.onnx"
    said = refused(
        capfd, "TF0558", 4, "apply", tmp_path / "other.json", made / "model.onnx", "-o", out
    )
    assert "the cache has 'other'" in said
    assert not out.exists()


def test_usage_errors(capfd: Capture, made: Path, tmp_path: Path) -> None:
    old, out = made / "old.calib", tmp_path / "c.json"
    refused(capfd, "TF0550", 2, "show", tmp_path / "none")
    refused(capfd, "TF0550", 2, "lint", tmp_path)
    refused(capfd, "TF0550", 2, "diff", old, Path(__file__))
    refused(capfd, "TF0302", 3, "convert", old, "-o", tmp_path / "no" / "c.json")
    refused(capfd, "TF0302", 3, "merge", made / "whole.json", "-o", tmp_path / "no" / "c.json")
    refused(capfd, "TF0554", 2, "convert", old, "-o", tmp_path / "c.calib", "--trt-version", "8")
    refused(capfd, "TF0557", 2, "convert", old, "-o", out, "--trt-version", "8.6.1")
    refused(capfd, "TF0100", 2, "convert", old, "-o", out, "--percentile", "99")
    args = ["--method", "percentile", "--percentile", "200"]
    refused(capfd, "TF0100", 2, "convert", made / "whole.json", "-o", out, *args)
    refused(capfd, "TF0302", 3, "apply", old, made / "model.onnx", "-o", tmp_path / "no" / "m.onnx")
    refused(capfd, "TF0107", 2, "apply", old, made / "model.onnx", "-o", out, "--keep", "op=")
    assert list(tmp_path.iterdir()) == []
