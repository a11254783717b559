"""Bad inputs through the whole command line: one clear message each, the right exit status,
no traceback, and nothing half-written."""

import io
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from trtforge.cli.main import _run
from trtforge.engine.backend import load_backend

Spoil = Callable[[Path], None]


@pytest.fixture
def work(tmp_path: Path, digits: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a sound recipe; each test spoils one thing in it."""
    folder = tmp_path / "work"
    shutil.copytree(digits, folder, ignore=shutil.ignore_patterns("train.py", "*.md"))
    monkeypatch.setenv("TRTFORGE_CACHE", str(tmp_path / "store"))
    return folder


def refused(
    capfd: pytest.CaptureFixture[str], args: list[object], status: int, *snippets: str
) -> str:
    """Run and check what every refusal owes its user; return what it said."""
    capfd.readouterr()
    got = _run([str(arg) for arg in args])
    out, err = capfd.readouterr()
    assert got == status, f"exit {got}\n{out}\n{err}"
    assert "error[TF" in err
    assert "TF0001" not in err, f"reported as a bug of ours:\n{err}"
    assert "Traceback" not in err
    assert out == ""
    for snippet in snippets:
        assert snippet in err, f"'{snippet}' is not in:\n{err}"
    return err


def build(work: Path, *more: object) -> list[object]:
    return ["build", work / "int8.yaml", "--out", work / "out", *more]


def edit(name: str, old: str, new: str) -> Spoil:
    def spoil(work: Path) -> None:
        text = (work / name).read_text()
        assert old in text
        (work / name).write_text(text.replace(old, new))

    return spoil


def write(name: str, content: bytes) -> Spoil:
    return lambda work: (work / name).write_bytes(content) and None


RECIPES: dict[str, tuple[Spoil, tuple[str, ...]]] = {
    "empty file": (write("int8.yaml", b""), ("int8.yaml",)),
    "binary file": (write("int8.yaml", bytes(range(256))), ("int8.yaml",)),
    "malformed YAML": (edit("int8.yaml", "model: {", "model: {{"), ("int8.yaml:",)),
    "a list, not a mapping": (write("int8.yaml", b"- a\n- b\n"), ("int8.yaml:1",)),
    "unknown key": (
        edit("int8.yaml", "precision:", "precison:"),
        ("did you mean", "precision", "^"),
    ),
    "unknown nested key": (edit("int8.yaml", "samples:", "sample:"), ("did you mean", "samples")),
    "unknown value": (edit("int8.yaml", "quantize: int8", "quantize: int7"), ("int8", "^")),
    "wrong type": (edit("int8.yaml", "samples: 256", "samples: many"), ("samples",)),
    "negative count": (edit("int8.yaml", "samples: 256", "samples: -1"), ("samples",)),
    "missing section": (edit("int8.yaml", "targets:", "bundle_targets:"), ("targets",)),
    "wrong version": (edit("int8.yaml", "version: 1", "version: 2"), ("version",)),
    "opt above max": (edit("int8.yaml", "opt: [32,", "opt: [512,"), ("opt", "int8.yaml:6", "^")),
    "ranks differ": (edit("int8.yaml", "min: [1, 1, 8, 8]", "min: [1, 1, 8]"), ("rank",)),
    "capability not text": (edit("int8.yaml", '"8.9"', "8.9"), ("quotes",)),
    "capability unreadable": (edit("int8.yaml", '"8.9"', '"ada"'), ("ada",)),
    "two targets of one name": (edit("int8.yaml", "name: cpu", "name: rtx"), ("rtx",)),
    "unknown backend": (edit("int8.yaml", "tensorrt_rtx,", "tensorflow,"), ("backend",)),
    "hostile target name": (edit("int8.yaml", "name: rtx", 'name: "../up"'), ("../up",)),
    "no calibration": (edit("int8.yaml", "calibration:", "x-calibration:"), ("calibration",)),
    "no such model": (
        edit("int8.yaml", "model.onnx", "modell.onnx"),
        ("modell.onnx", "did you mean"),
    ),
    "no such data": (edit("int8.yaml", "calib.npz", "calibs.npz"), ("calibs.npz",)),
    "an input the model lacks": (edit("int8.yaml", "  image:", "  imag:"), ("imag", "int8.yaml:6")),
    "an output the model lacks": (
        edit("int8.yaml", "  attest:", "  outputs: {logit: {sqnr_db: 1}}\n  attest:"),
        ("logit", "did you mean 'logits'"),
    ),
    "a pass there is not": (
        edit("int8.yaml", "precision:", "passes: {drop: [conv-batchnrm]}\nprecision:"),
        ("conv-batchnrm", "did you mean"),
    ),
    "shapes against a static dimension": (
        edit("int8.yaml", "max: [256, 1, 8, 8]", "max: [256, 1, 9, 8]"),
        ("int8.yaml:6",),
    ),
}


@pytest.mark.parametrize("case", RECIPES, ids=lambda case: case.replace(" ", "-"))
def test_bad_recipes(case: str, work: Path, capfd: pytest.CaptureFixture[str]) -> None:
    spoil, snippets = RECIPES[case]
    spoil(work)
    refused(capfd, build(work), 2, *snippets)
    assert not (work / "out").exists()


def truncate(name: str, keep: float) -> Spoil:
    def spoil(work: Path) -> None:
        data = (work / name).read_bytes()
        (work / name).write_bytes(data[: int(len(data) * keep)])

    return spoil


def with_model(change: Callable[[onnx.ModelProto], None]) -> Spoil:
    def spoil(work: Path) -> None:
        model = onnx.load(work / "model.onnx")
        change(model)
        (work / "model.onnx").write_bytes(model.SerializeToString())

    return spoil


def weights_of(model: onnx.ModelProto) -> TensorProto:
    return next(tensor for tensor in model.graph.initializer if len(tensor.dims) == 4)


def set_weight(value: float) -> Spoil:
    def change(model: onnx.ModelProto) -> None:
        tensor = weights_of(model)
        array = numpy_helper.to_array(tensor).copy()
        array.flat[3] = value
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))

    return with_model(change)


def external(location: str, length: int | None = None) -> Spoil:
    def change(model: onnx.ModelProto) -> None:
        tensor = weights_of(model)
        size = len(numpy_helper.to_array(tensor).tobytes())
        tensor.ClearField("raw_data")
        tensor.ClearField("float_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (
            ("location", location),
            ("offset", "0"),
            ("length", str(length or size)),
        ):
            tensor.external_data.add(key=key, value=value)

    return with_model(change)


def cut_external(work: Path) -> None:
    external("weights.data")(work)
    (work / "weights.data").write_bytes(b"x" * 100)


def break_topology(model: onnx.ModelProto) -> None:
    """Let the first node that reads the image wait for the last one."""
    node = next(node for node in model.graph.node if "image" in node.input)
    node.input[list(node.input).index("image")] = "logits"


def custom_operator(model: onnx.ModelProto) -> None:
    node = helper.make_node("FancyOp", ["logits"], ["fancy"], name="fancy", domain="my.domain")
    model.graph.node.append(node)
    model.opset_import.append(helper.make_opsetid("my.domain", 1))
    model.graph.output[0].name = "fancy"


MODELS: dict[str, tuple[Spoil, int, tuple[str, ...]]] = {
    "empty": (write("model.onnx", b""), 4, ("model.onnx",)),
    "random bytes": (write("model.onnx", os.urandom(4096)), 4, ("model.onnx",)),
    "text": (write("model.onnx", b"hello world"), 4, ("model.onnx",)),
    "half": (truncate("model.onnx", 0.5), 4, ("model.onnx",)),
    "last byte gone": (truncate("model.onnx", 0.9999), 4, ("model.onnx",)),
    "NaN weight": (set_weight(float("nan")), 4, ("NaN",)),
    "Inf weight": (set_weight(float("inf")), 4, ("Inf",)),
    "external data missing": (external("gone.data"), 4, ("gone.data",)),
    "external data above the folder": (external("../calib.npz"), 4, ("../calib.npz",)),
    "external data absolute": (external("/etc/hostname"), 4, ("/etc/hostname",)),
    "external data too long": (external("test.npz", 10**9), 4, ("stem.conv.weight",)),
    "external data too short": (cut_external, 4, ("weights.data",)),
    "nodes in a circle": (with_model(break_topology), 4, ("topologically",)),
    "no outputs": (with_model(lambda m: m.graph.ClearField("output")), 4, ("output",)),
    "no nodes": (with_model(lambda m: m.graph.ClearField("node")), 4, ()),
    "unknown operator": (
        with_model(lambda m: setattr(m.graph.node[0], "op_type", "Konv")),
        4,
        ("Konv",),
    ),
    "custom operator": (with_model(custom_operator), 4, ("FancyOp",)),
    "opset of the far future": (
        with_model(lambda m: setattr(m.opset_import[0], "version", 999)),
        4,
        (),
    ),
    "dangling input": (
        with_model(lambda m: m.graph.node[3].input.__setitem__(0, "nowhere")),
        4,
        ("nowhere",),
    ),
}


@pytest.mark.parametrize("case", MODELS, ids=lambda case: case.replace(" ", "-"))
def test_bad_models(case: str, work: Path, capfd: pytest.CaptureFixture[str]) -> None:
    spoil, status, snippets = MODELS[case]
    spoil(work)
    refused(capfd, build(work), status, *snippets)
    assert not (work / "out").exists()


def save_npz(name: str, **arrays: np.ndarray) -> Spoil:
    return lambda work: np.savez(work / name, **arrays)


IMAGES = np.random.default_rng(0).random((300, 1, 8, 8), dtype=np.float32)


def poisoned() -> np.ndarray:
    images = IMAGES.copy()
    images[17, 0, 3, 3] = np.nan
    return images


def npz_with_pickle(work: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with zipfile.ZipFile(work / "calib.npz", "w") as archive:
        archive.writestr("image.npy", buffer.getvalue())


DATA: dict[str, tuple[Spoil, tuple[str, ...]]] = {
    "calibration: text": (write("calib.npz", b"no zip"), ("calib.npz",)),
    "calibration: empty file": (write("calib.npz", b""), ("calib.npz",)),
    "calibration: half": (truncate("calib.npz", 0.5), ("calib.npz",)),
    "calibration: no arrays": (save_npz("calib.npz"), ("calib.npz",)),
    "calibration: zero samples": (save_npz("calib.npz", image=IMAGES[:0]), ("calib.npz",)),
    "calibration: too few samples": (save_npz("calib.npz", image=IMAGES[:100]), ("256", "100")),
    "calibration: other name": (save_npz("calib.npz", images=IMAGES), ("image", "did you mean")),
    "calibration: other shape": (save_npz("calib.npz", image=IMAGES[:, :, :4]), ("image",)),
    "calibration: other rank": (save_npz("calib.npz", image=IMAGES[:, 0]), ("image",)),
    "calibration: text array": (save_npz("calib.npz", image=np.array(["a"] * 300)), ("image",)),
    "calibration: NaN": (save_npz("calib.npz", image=poisoned()), ("image", "17")),
    "calibration: pickled": (npz_with_pickle, ("image",)),
    "verification: half": (truncate("test.npz", 0.5), ("test.npz",)),
    "verification: other name": (save_npz("test.npz", picture=IMAGES), ("image",)),
    "verification: labels of another count": (
        save_npz("test.npz", image=IMAGES, labels=np.zeros(7, np.int64)),
        ("labels",),
    ),
    "verification: labels as text": (
        save_npz("test.npz", image=IMAGES, labels=np.array(["x"] * 300)),
        ("labels",),
    ),
    "verification: accuracy without labels": (save_npz("test.npz", image=IMAGES), ("label",)),
}


@pytest.mark.parametrize("case", DATA, ids=lambda case: case.replace(" ", "-").replace(":", ""))
def test_bad_data(case: str, work: Path, capfd: pytest.CaptureFixture[str]) -> None:
    spoil, snippets = DATA[case]
    spoil(work)
    refused(capfd, build(work), 2, *snippets)
    assert not (work / "out").exists()


ARGUMENTS: dict[str, tuple[list[str], int, tuple[str, ...]]] = {
    "no such command": (["biuld"], 2, ("build",)),
    "no such option": (["build", "int8.yaml", "--fast"], 2, ("--fast",)),
    "no recipe": (["build"], 2, ("RECIPES",)),
    "no such recipe": (["build", "int9.yaml"], 2, ("int9.yaml",)),
    "a folder as recipe": (["build", "."], 2, ()),
    "no such target": (["build", "int8.yaml", "--target", "gpu"], 2, ("gpu", "rtx")),
    "override of nothing": (["build", "int8.yaml", "--set", "a.b=1"], 2, ("--set a.b=1",)),
    "override without a value": (["build", "int8.yaml", "--set", "name"], 2, ("name",)),
    "override out of range": (
        ["build", "int8.yaml", "--set", "verify.tolerance.cosine=7"],
        2,
        ("cosine",),
    ),
    "verify: nothing there": (["verify", "gone"], 2, ("gone",)),
    "verify: no reference": (["verify", "model.onnx"], 2, ("--against",)),
    "verify: a folder that is no bundle": (["verify", "."], 2, ("manifest.json",)),
    "verify: no such tolerance": (
        ["verify", "model.onnx", "--against", "model.onnx", "--tolerance", "sqnr=3"],
        2,
        ("sqnr_db",),
    ),
    "verify: tolerance of no output": (
        ["verify", "model.onnx", "--against", "model.onnx", "--tolerance", "logit.sqnr_db=3"],
        2,
        ("logit",),
    ),
    "inspect: nothing there": (["inspect", "gone.onnx"], 2, ("gone.onnx",)),
    "inspect: an archive": (["inspect", "calib.npz"], 2, ("calib.npz",)),
    "diff: nothing there": (["diff", "model.onnx", "gone.onnx"], 2, ("gone.onnx",)),
    "diff: one thing": (["diff", "model.onnx"], 2, ("'B'",)),
    "diff: an archive": (["diff", "calib.npz", "calib.npz"], 2, ("calib.npz",)),
    "optimize: shape of no input": (
        ["optimize", "model.onnx", "-o", "o.onnx", "--shape", "im=1x1x8x8"],
        2,
        ("image",),
    ),
    "optimize: unreadable shape": (
        ["optimize", "model.onnx", "-o", "o.onnx", "--shape", "image=axb"],
        2,
        ("image=axb",),
    ),
    "optimize: shape that does not fit": (
        ["optimize", "model.onnx", "-o", "o.onnx", "--shape", "image=1x3x8x8"],
        2,
        ("image",),
    ),
    "optimize: no such pass": (
        ["optimize", "model.onnx", "-o", "o.onnx", "--drop", "foldconst"],
        2,
        ("foldconst",),
    ),
    "optimize: no such folder": (["optimize", "model.onnx", "-o", "no/o.onnx"], 3, ("no",)),
    "calibrate: nothing to calibrate": (["calibrate", "fp16.yaml"], 2, ("quantize",)),
    "cache: unreadable size": (["cache", "prune", "--keep", "lots"], 2, ("lots",)),
}


@pytest.mark.parametrize(
    "case", ARGUMENTS, ids=lambda case: case.replace(" ", "-").replace(":", "")
)
def test_bad_arguments(
    case: str, work: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    args, status, snippets = ARGUMENTS[case]
    monkeypatch.chdir(work)
    before = sorted(path.name for path in work.iterdir())
    refused(capfd, list(args), status, *snippets)
    assert sorted(path.name for path in work.iterdir()) == before


@pytest.mark.skipif(
    load_backend("tensorrt").available().can_build, reason="not run: TensorRT builds here"
)
def test_a_backend_that_cannot_build_here_is_refused_before_any_work(
    work: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    changes = ("targets.rtx.backend=tensorrt", "targets.rtx.compute_capabilities=[]")
    said = refused(capfd, build(work, "--set", changes[0], "--set", changes[1]), 3, "'tensorrt'")
    assert "calibrate" not in said
    assert not (work / "out").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("cache.json", b'{"schema": "trtforge.calibration/1"}'),
        ("cache.json", b'{"schema": "trtforge.calibration/9", "ranges": {}}'),
        ("cache.json", b'{"schema": '),
        ("cache.json", b"{}"),
        ("table.calib", b"TRT-100300-EntropyCalibration2\nimage\n"),
        ("table.calib", b"TRT-100300-EntropyCalibration2\nimage: nothex\n"),
        ("table.calib", b"TRT-\xff\xfe\n"),
        ("empty.engine", b""),
    ],
)
def test_bad_caches_and_engines(
    name: str, content: bytes, work: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (work / name).write_bytes(content)
    refused(capfd, ["inspect", work / name], 2, name)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, digits: Path) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    environment = pytest.MonkeyPatch()
    environment.setenv("TRTFORGE_CACHE", str(folder / "store"))
    try:
        args = ["build", digits / "fp32.yaml", "--out", folder / "out", "--target", "cpu", "-q"]
        assert _run([str(arg) for arg in args]) == 0
    finally:
        environment.undo()
    return next((folder / "out").iterdir())


def add_link(bundle: Path) -> None:
    (bundle / "extra").symlink_to("/etc/hostname")


def manifest_names_a_file_outside(bundle: Path) -> None:
    path = bundle / "manifest.json"
    document = json.loads(path.read_text())
    document["files"]["../evil"] = {"sha256": "0" * 64, "bytes": 1}
    path.write_text(json.dumps(document))


BUNDLES: dict[str, tuple[Callable[[Path], object], str]] = {
    "changed byte": (lambda b: (b / "model.onnx").open("r+b").write(b"\x01"), "model.onnx"),
    "truncated file": (lambda b: os.truncate(b / "recipe.yaml", 10), "recipe.yaml"),
    "missing file": (lambda b: (b / "reports/junit.xml").unlink(), "reports/junit.xml"),
    "unexpected file": (lambda b: (b / "engines.bin").write_bytes(b"x"), "engines.bin"),
    "link": (add_link, "extra"),
    "manifest cut": (lambda b: os.truncate(b / "manifest.json", 50), "manifest.json"),
    "manifest changed": (
        lambda b: (b / "manifest.json").write_text(
            (b / "manifest.json").read_text().replace("pass", "fail")
        ),
        "manifest.json",
    ),
    "manifest names a file outside": (manifest_names_a_file_outside, "manifest.json"),
}


@pytest.mark.parametrize("case", BUNDLES, ids=lambda case: case.replace(" ", "-"))
def test_bad_bundles(
    case: str, bundle: Path, tmp_path: Path, digits: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    spoil, name = BUNDLES[case]
    broken = tmp_path / "broken"
    shutil.copytree(bundle, broken)
    spoil(broken)
    refused(capfd, ["inspect", broken], 7, name)
    refused(capfd, ["verify", broken, "--against", digits / "model.onnx"], 7, name)
