"""Where commands write: never over what they read, through links, whole, with nothing stale."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from test_hostile_commands import dense, problem, ran

from trtforge.graph import saving

CALIBRATED = ("--synthetic", "--samples", "4")
TIMED = ("--seconds", "0.01", "--warmup", "0")


def outside(path: Path, data: str) -> Path:
    """Write a product whose weights lie in a file of their own."""
    model = onnx.load(dense(path))
    onnx.save(model, path, save_as_external_data=True, location=data, size_threshold=0)
    assert path.with_name(data).stat().st_size == 16 * 8 * 4
    return path


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A model, samples and a calibration cache, each also under other names."""
    model = dense(tmp_path / "m.onnx")
    rows = np.linspace(-1, 1, 4 * 16, dtype=np.float32).reshape(4, 16)
    np.savez(tmp_path / "x.npz", x=rows)
    ran(0, "calibrate", model, "--synthetic", "-o", tmp_path / "c.json")
    (tmp_path / "linked.onnx").symlink_to("m.onnx")
    (tmp_path / "hard.onnx").hardlink_to(model)
    (tmp_path / "folder").mkdir()
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("out", ["m.onnx", "folder/../m.onnx", "linked.onnx", "hard.onnx"])
@pytest.mark.parametrize(
    "command",
    [
        ("cast", "m.onnx", "-o"),
        ("quantize", "m.onnx", *CALIBRATED, "-o"),
        ("quantize", "m.onnx", *CALIBRATED, "-o", "q.onnx", "--cache"),
        ("calibrate", "m.onnx", *CALIBRATED, "-o"),
        ("calib", "apply", "c.json", "m.onnx", "-o"),
        ("calib", "apply", "c.json", "m.onnx", "-o", "q.onnx", "--cache"),
        ("verify", "m.onnx", "--against", "m.onnx", "--html"),
        ("verify", "m.onnx", "--against", "m.onnx", "--junit"),
        ("bench", "m.onnx", *TIMED, "--plot"),
        ("debug", "m.onnx", "--html"),
    ],
    ids=" ".join,
)
def test_what_is_read_is_not_written(
    work: Path, command: tuple[str, ...], out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(work)
    before = contents(work)
    assert "would be overwritten, and it is read here" in problem(2, *command, out)
    assert contents(work) == before


@pytest.mark.parametrize(
    "command",
    [
        ("quantize", "m.onnx", "--data", "x.npz", "-o", "x.npz"),
        ("quantize", "m.onnx", "--reuse", "c.json", "-o", "c.json"),
        ("cast", "m.onnx", "--data", "x.npz", "-o", "./x.npz"),
        ("calibrate", "m.onnx", "--data", "x.npz", "-o", "x.npz"),
        ("calib", "apply", "c.json", "m.onnx", "-o", "c.json"),
        ("calib", "convert", "c.json", "-o", "c.json"),
        ("calib", "merge", "c.json", "-o", "c.json"),
        ("verify", "m.onnx", "--against", "linked.onnx", "--data", "x.npz", "--html", "x.npz"),
        ("bench", "m.onnx", "--data", "x.npz", "--plot", "x.npz"),
        ("bench", "m.plan", "--weights", "m.onnx", "--plot", "m.onnx"),
        ("verify", "m.plan", "--against", "x.npz", "--weights", "m.onnx", "--junit", "m.onnx"),
    ],
    ids=" ".join,
)
def test_data_and_caches_are_not_written_over(
    work: Path, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(work)
    before = contents(work)
    assert "would be overwritten, and it is read here" in problem(2, *command)
    assert contents(work) == before


@pytest.mark.parametrize("command", ["cast", "optimize"])
@pytest.mark.parametrize("out", ["w.bin", "o.onnx"])
def test_the_weights_of_the_input_are_not_written_over(
    tmp_path: Path, out: str, command: str
) -> None:
    """Neither by the model nor by the file that its own weights would go to."""
    data = "w.bin" if out == "w.bin" else "o.onnx.data"
    model = outside(tmp_path / "m.onnx", data)
    before = contents(tmp_path)
    assert f"{data}' would be overwritten" in problem(2, command, model, "-o", tmp_path / out)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("out", ["folder/../m.onnx", "linked.onnx", "hard.onnx"])
def test_a_model_is_optimized_in_place_by_whatever_name(
    work: Path, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the same function. A hard link is a file of its own then."""
    monkeypatch.chdir(work)
    weights = onnx.load("m.onnx").graph.initializer[0]
    ran(0, "optimize", "m.onnx", "-o", out)
    assert Path("linked.onnx").is_symlink()
    assert onnx.load(out).graph.initializer[0].raw_data == weights.raw_data
    assert Path(out).samefile("m.onnx") == (out != "hard.onnx")
    assert Path("m.onnx").stat().st_nlink == 1
    ran(0, "verify", out, "--against", "m.onnx")


@pytest.mark.parametrize(
    "command",
    [
        ("quantize", "m.onnx", *CALIBRATED, "-o", "new", "--cache", "folder/../new"),
        ("calib", "apply", "c.json", "m.onnx", "-o", "new", "--cache", "new"),
        ("verify", "m.onnx", "--against", "m.onnx", "--html", "new", "--junit", "new"),
    ],
)
def test_two_results_want_two_files(
    work: Path, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(work)
    assert "would be written twice" in problem(2, *command)
    assert not (work / "new").exists()


WRITING = [
    ("cast", "m.onnx", "-o"),
    ("optimize", "m.onnx", "-o"),
    ("quantize", "m.onnx", *CALIBRATED, "-o"),
    ("calibrate", "m.onnx", *CALIBRATED, "-o"),
    ("calib", "convert", "c.json", "--to", "tensorrt", "-o"),
    ("calib", "merge", "c.json", "-o"),
    ("calib", "apply", "c.json", "m.onnx", "-o"),
    ("migrate", "trtexec --onnx=m.onnx --fp16", "-o"),
    ("verify", "m.onnx", "--against", "m.onnx", "--html"),
    ("verify", "m.onnx", "--against", "m.onnx", "--junit"),
    ("bench", "m.onnx", *TIMED, "--plot"),
]


@pytest.mark.parametrize("command", WRITING, ids=" ".join)
def test_where_results_can_go(
    work: Path, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through a link, over a file whose permissions stay, and nowhere that is no place for one."""
    monkeypatch.chdir(work)
    real = work / "folder" / "real.yaml"
    Path("link.yaml").symlink_to("folder/real.yaml")
    ran(0, *command, "link.yaml")
    assert Path("link.yaml").is_symlink()
    assert not real.is_symlink()
    first = real.read_bytes()
    assert first
    real.write_bytes(b"old")
    real.chmod(0o640)
    ran(0, *command, "link.yaml")
    assert Path("link.yaml").is_symlink()
    assert real.stat().st_size == len(first) or command[0] == "bench"  # whose figures vary
    assert real.stat().st_mode & 0o777 == 0o640
    before = sorted(work.rglob("*"))
    run = problem(3, *command, "missing/o.yaml")
    assert '"file": "missing/o.yaml"' in run
    _refused_folder(command)
    assert sorted(work.rglob("*")) == before


def _refused_folder(command: tuple[str, ...]) -> None:
    """A folder is refused by the option's type (2) or before the work (3)."""
    from trtforge.cli.main import _run

    assert _run([*command, "folder", "-q"]) in (2, 3)


def test_new_files_have_the_permissions_that_the_user_asks_for(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(work)
    mask = os.umask(0o027)
    try:
        ran(0, "cast", "m.onnx", "-o", "o.onnx")
        ran(0, "calibrate", "m.onnx", *CALIBRATED, "-o", "o.json")
    finally:
        os.umask(mask)
    assert [Path(name).stat().st_mode & 0o777 for name in ("o.onnx", "o.json")] == [0o640, 0o640]


def test_weights_beside_a_model_follow_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They go and come with the model; those of another model of that name are left alone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(saving, "KEEP_EXTERNAL_BYTES", 100)
    monkeypatch.setattr(saving, "EXTERNAL_THRESHOLD_BYTES", 100)
    monkeypatch.setattr("trtforge.graph.skeleton.EXTERNAL_THRESHOLD_BYTES", 100)
    small, big = dense(Path("small.onnx")), outside(Path("big.onnx"), "big.bin")
    ran(0, "optimize", big, "-o", "o.onnx")
    assert Path("o.onnx.data").is_file()
    Path("o.onnx").chmod(0o600)
    ran(0, "optimize", big, "-o", "o.onnx")
    assert Path("o.onnx").stat().st_mode & 0o777 == 0o600
    ran(0, "optimize", small, "-o", "o.onnx")
    assert not Path("o.onnx.data").exists()
    Path("o.onnx.data").write_bytes(b"of somebody else")
    ran(0, "optimize", small, "-o", "o.onnx")
    assert Path("o.onnx.data").read_bytes() == b"of somebody else"


def test_a_link_is_followed_with_its_weights_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readers look for weights beside the link."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(saving, "KEEP_EXTERNAL_BYTES", 100)
    monkeypatch.setattr(saving, "EXTERNAL_THRESHOLD_BYTES", 100)
    monkeypatch.setattr("trtforge.graph.skeleton.EXTERNAL_THRESHOLD_BYTES", 100)
    big = outside(Path("big.onnx"), "big.bin")
    Path("near.onnx").symlink_to("real.onnx")
    ran(0, "optimize", big, "-o", "near.onnx")
    assert Path("near.onnx").is_symlink()
    assert Path("real.onnx.data").is_file()
    ran(0, "verify", "near.onnx", "--against", big)
    Path("folder").mkdir()
    Path("far.onnx").symlink_to("folder/real.onnx")
    said = problem(3, "optimize", big, "-o", "far.onnx")
    assert f"name the file itself: {Path('folder/real.onnx').absolute()}" in said
    assert list(Path("folder").iterdir()) == []
    assert Path("far.onnx").is_symlink()
    assert json.loads(ran(0, "inspect", "near.onnx", "--json")[0])["nodes"] == 2


def test_a_dangling_link_is_followed_too(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(work)
    Path("link.onnx").symlink_to("missing/o.onnx")
    assert '"file": "link.onnx"' in problem(3, "cast", "m.onnx", "-o", "link.onnx")
    Path("missing").mkdir()
    ran(0, "cast", "m.onnx", "-o", "link.onnx")
    assert onnx.load("missing/o.onnx").graph.node


def test_a_recipe_does_not_write_over_the_cache_that_it_reuses(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(work)
    monkeypatch.setenv("TRTFORGE_CACHE", str(work / "store"))
    Path("r.yaml").write_text(
        "version: 1\nname: r\nmodel: {onnx: m.onnx}\nprecision: {quantize: int8}\n"
        "calibration: {reuse: c.json, cache: c.json}\n"
        "targets: [{name: cpu, backend: onnxruntime}]\n"
    )
    before = contents(work)
    assert "would be overwritten" in problem(2, "calibrate", "r.yaml", "-o", ".")
    assert contents(work) == before
    ran(0, "calibrate", "r.yaml", "-o", "new/folder")
    assert Path("new/folder/c.json").is_file()
    assert "would be" not in ran(0, "calibrate", "r.yaml", "-o", "new/folder")[1]


def test_onnx_runtime_reports_to_nobody(work: Path) -> None:
    """Its wheels keep a session of their telemetry in a file called .ses."""
    program = [sys.executable, "-m", "trtforge.cli.main", "verify", "m.onnx", "--against", "m.onnx"]
    folder = work / "temporary"
    folder.mkdir()
    variables = {**os.environ, "TMPDIR": str(folder), "HOME": str(folder)}
    del variables["ORT_DISABLE_TELEMETRY"]  # which importing trtforge has set here
    run = subprocess.run(program, cwd=work, env=variables, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert list(folder.rglob("*")) == []


def test_a_migration_does_not_write_over_what_it_reads(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(work)
    Path("spec.yaml").write_text("gen_trt_engine: {onnx_file: m.onnx}\n")
    Path("r.calib.json").write_bytes(Path("c.json").read_bytes())
    before = contents(work)
    assert "would be overwritten" in problem(2, "migrate", "spec.yaml", "-o", "folder/../spec.yaml")
    command = "trtexec --onnx=m.onnx --int8 --calib=r.calib.json"
    assert "would be overwritten" in problem(2, "migrate", command, "-o", "r.yaml")
    assert contents(work) == before


def test_a_migration_says_which_files_are_not_here(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no error: the recipe may be for another machine."""
    monkeypatch.chdir(work)
    command = "trtexec --onnx=lost.onnx --int8 --calib=lost.cache"
    for options in ((), ("-o", "folder/r.yaml")):
        findings = json.loads(ran(0, "migrate", command, *options, "--json")[0])["findings"]
        whys = {one["where"]: one["why"] for one in findings}
        assert "the file is not here" in whys["model.onnx"]
        assert "trtforge calib convert" in whys["calibration.reuse"]
    said = ran(0, "migrate", "trtexec --onnx=m.onnx --fp16")[0]
    assert "not here" not in said
