"""Specs of TAO Deploy become recipes; no key of theirs is dropped in silence."""

from pathlib import Path
from typing import Any

import pytest

from trtforge.errors import RecipeError, UsageError
from trtforge.pipeline.migrate import MigrateOptions, migrate
from trtforge.recipe.load import load_recipe
from trtforge.recipe.nodes import Source, plain

DIGITS = Path(__file__).parents[2] / "recipes" / "digits"


def read(text: str) -> Any:
    from trtforge.recipe.compose import compose

    root, problems = compose(Source("recipe.yaml", text))
    assert problems == []
    assert root is not None
    return plain(root)


SPEC = """
gen_trt_engine:
  gpu_id: 0
  onnx_file: det.onnx
  trt_engine: det.engine
  input_channel: 3
  input_width: 960
  input_height: 544
  tensorrt:
    data_type: int8
    workspace_size: 1024
    min_batch_size: 1
    opt_batch_size: 8
    max_batch_size: 16
    calibration:
      cal_cache_file: cal.bin
      cal_batch_size: 16
      cal_batches: 10
"""


def test_a_tao_spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("spec.yaml").write_text(SPEC)
    recipe = read(migrate("spec.yaml").text)
    image = {"min": [1, 3, 544, 960], "opt": [8, 3, 544, 960], "max": [16, 3, 544, 960]}
    assert recipe["shapes"] == [[image]], "the spec does not name the input"
    Path("named.yaml").write_text(SPEC + "  input_name: pixels\n")
    assert read(migrate("named.yaml").text)["shapes"] == {"pixels": image}
    assert recipe["precision"] == {"quantize": "int8"}
    assert recipe["calibration"] == {"samples": 160, "reuse": "cal.bin"}
    assert recipe["targets"][0]["workspace_mib"] == 1024


def test_a_tao_spec_whose_images_need_a_recipe_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("spec.yaml").write_text(SPEC + "      cal_image_dir: [images]\n      strange: 1\n")
    with pytest.raises(RecipeError) as caught:
        migrate("spec.yaml")
    said = " ".join(problem.message for problem in caught.value.problems)
    assert "cal_image_dir" in said
    assert "strange" in said
    Path("spec.yaml").write_text(SPEC + "      cal_image_dir: [images]\n")
    recipe = read(migrate("spec.yaml", MigrateOptions(data="c.npz")).text)
    assert recipe["precision"] == {"quantize": "int8"}
    assert recipe["calibration"]["data"] == "c.npz"


TAO = """{
  "results_dir": "/results",
  "train": {"num_epochs": 80},
  "gen_trt_engine": {
    "onnx_file": "m.onnx", "trt_engine": "m.engine", "width": 8, "height": 8, "img_mode": "BGR",
    "tensorrt": {
      "data_type": "FP16", "workspace_size": 20480, "max_workspace_size": null,
      "min_batch_size": 1, "opt_batch_size": 2, "max_batch_size": 4,
      "layers_precision": ["/head/Conv:fp32"],
      "calibration": {"cal_cache_file": "c.bin", "cal_batch_size": 8, "cal_num_batches": 2}
    }
  }
}"""


def test_a_tao_spec_in_json_whose_model_is_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The input's name and channels come from the model; an FP16 engine needs no calibration."""
    monkeypatch.chdir(tmp_path)
    Path("m.onnx").write_bytes((DIGITS / "model.onnx").read_bytes())
    Path("spec.json").write_text(TAO)
    result = migrate("spec.json", MigrateOptions(Path("r.yaml")))
    recipe = load_recipe(Path("r.yaml")).recipe
    assert recipe.shapes[0]["image"].max == (4, 1, 8, 8)
    assert recipe.precision.keep[0].name == "/head/Conv"
    assert recipe.targets[0].workspace_mib == 20480
    assert recipe.calibration is None
    said = {finding.flag.partition(":")[0] for finding in result.findings}
    assert {"cal_cache_file", "cal_num_batches", "img_mode", "results_dir, train"} <= said


def test_what_a_tao_spec_refers_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("spec.json").write_text(TAO.replace('"m.onnx"', '"${results_dir}/m.onnx"'))
    recipe = read(migrate("spec.json", MigrateOptions(partial=True)).text)
    assert recipe["model"] == {"onnx": "/results/m.onnx"}
    for place, code in (("${other.dir}/m.onnx", "TF0121"), ("???", "TF0123")):
        Path("spec.json").write_text(TAO.replace("m.onnx", place))
        with pytest.raises(UsageError) as caught:
            migrate("spec.json")
        assert caught.value.code == code


@pytest.mark.parametrize(
    ("old", "new"), [("20480", '"lots"'), ('"width": 8', '"width": "w"'), ('"FP16"', '"int2"')]
)
def test_a_tao_value_that_cannot_be_read(
    old: str, new: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("spec.json").write_text(TAO.replace(old, new).replace('"width"', '"channel": 3, "width"'))
    with pytest.raises(UsageError, match="cannot read"):
        migrate("spec.json")


def test_shapes_by_wildcard_are_those_of_the_inputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    bounds = (
        "--trt-min-shapes *:[1,1,8,8] --trt-opt-shapes *:[4,1,8,8] --trt-max-shapes *:[8,1,8,8]"
    )
    image = {"min": [1, 1, 8, 8], "opt": [4, 1, 8, 8], "max": [8, 1, 8, 8]}
    here = migrate(f"polygraphy convert {DIGITS}/model.onnx -o m.engine {bounds}")
    assert read(here.text)["shapes"] == {"image": image}
    away = migrate(f"polygraphy convert m.onnx -o m.engine {bounds}")
    assert read(away.text)["shapes"] == [[image]], "by position, as the model is not here"
    assert "first input" in next(one.why for one in away.findings if one.flag == "*")
