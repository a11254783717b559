"""Several recipes on one command line: each to its own end, one exit status for all."""

import json
import os
import signal
import threading
from pathlib import Path

import pytest
from engine_models import matmul, save

from trtforge.cli.main import _run
from trtforge.pipeline import run as pipeline_run

RECIPE = """
version: 1
name: {name}
model: {{onnx: model.onnx}}
precision: {{type: fp32}}
targets: [{{name: cpu, backend: onnxruntime}}]
verify: {{tolerance: {{max_abs: {most}}}}}
"""


@pytest.fixture
def recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Two recipes that are built, one without a model (exit 4), one that is no recipe (exit 2)."""
    monkeypatch.setenv("TRTFORGE_CACHE", str(tmp_path / "store"))
    save(matmul(), tmp_path)
    for name in ("one", "two"):
        (tmp_path / f"{name}.yaml").write_text(RECIPE.format(name=name, most=1))
    text = RECIPE.format(name="lost", most=1).replace("{onnx: model.onnx}", "{onnx: empty.onnx}")
    (tmp_path / "lost.yaml").write_text(text)
    (tmp_path / "empty.onnx").write_bytes(b"")
    (tmp_path / "broken.yaml").write_text("version: 1\n")
    return {
        name: str(tmp_path / f"{name}.yaml") for name in ("one", "two", "lost", "broken", "missing")
    }


def test_the_others_go_on_and_the_first_failure_gives_the_status(
    recipes: dict[str, str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    order = [recipes[name] for name in ("one", "lost", "broken", "two")]
    assert _run(["build", *order, "--out", str(tmp_path / "out")]) == 4
    out, err = capfd.readouterr()
    assert [Path(line).name.split("-")[0] for line in out.split()] == ["one", "two"]
    assert all(Path(line, "manifest.json").is_file() for line in out.split())
    assert err.index("error[TF0402]") < err.index("error[TF02") < err.index(f"{order[3]}:")
    assert err.splitlines()[-1] == f"2 of 4 recipes failed: {order[1]}, {order[2]}"
    order.reverse()
    assert _run(["build", *order, "--out", str(tmp_path / "out"), "-q"]) == 2


def test_json_holds_every_build_with_its_error(
    recipes: dict[str, str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    order = [recipes[name] for name in ("missing", "one", "lost")]
    assert _run(["build", *order, "--out", str(tmp_path / "out"), "--json"]) == 2
    document = json.loads(capfd.readouterr().out)
    assert document["schema"] == "trtforge.build/1"
    builds = document["builds"]
    assert [one["recipe"] for one in builds] == order
    assert [one.get("error", {}).get("exit_status") for one in builds] == [2, None, 4]
    assert Path(builds[1]["bundle"]).is_dir()
    assert builds[2]["error"]["problems"][0]["code"] == "TF0402"


def test_ctrl_c_stops_them_all(
    recipes: dict[str, str],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started = []

    def interrupted(recipe: Path, *_: object) -> None:
        started.append(recipe)
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
        threading.Event().wait(20)

    monkeypatch.setattr(pipeline_run, "build_recipe", interrupted)
    order = [recipes["one"], recipes["two"]]
    assert _run(["build", *order, "--out", str(tmp_path / "out")]) == 130
    out, err = capfd.readouterr()
    assert started == [Path(order[0])]
    assert (out, err.splitlines()[-1]) == ("", "interrupted")
