"""`trtforge init`: targets that a model's ends rule out, commands that can be pasted."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from models_graph import info, model, node
from onnx import ModelProto

from trtforge.cli.main import _run
from trtforge.pipeline.init import InitOptions, init
from trtforge.recipe.load import load_recipe


def wide_output() -> ModelProto:
    """A detector whose export left its result in FP64."""
    return model(
        [node("Relu", ["x"], ["r"]), node("Cast", ["r"], ["y"], to=onnx.TensorProto.DOUBLE)],
        [info("x", [1, 4])],
        [info("y", [1, 4], np.float64)],
    )


def test_a_target_that_does_not_take_the_models_ends_is_a_comment(tmp_path: Path) -> None:
    onnx.save(wide_output(), tmp_path / "net.onnx")
    result = init(tmp_path / "net.onnx", InitOptions(tmp_path / "net.yaml"))
    assert [one.name for one in load_recipe(result.path).recipe.targets] == ["cpu"]
    (note,) = result.notes
    assert "TensorRT does not take 'y': the output is FP64" in note
    assert "# Not as the model is: TensorRT does not take 'y'" in result.text
    alone = InitOptions(tmp_path / "net.yaml", backends=("tensorrt_rtx",), force=True)
    assert [one.name for one in load_recipe(init(tmp_path / "net.onnx", alone).path).recipe.targets]


def test_the_command_that_builds_is_quoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    onnx.save(
        model([node("Relu", ["x"], ["y"])], [info("x", ["N", 3])], [info("y", ["N", 3])]),
        "a net.onnx",
    )
    assert _run(["init", "a net.onnx"]) == 0
    assert "build it: trtforge build 'a net.yaml'" in capsys.readouterr().err
    text = Path("a net.yaml").read_text()
    assert "Build it: trtforge build 'a net.yaml'" in text
    assert "profiles suggest 'a net.onnx' --trace" in text
