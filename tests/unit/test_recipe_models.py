"""The models of the ready recipes are what their READMEs say."""

import importlib.util
import re
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from trtforge.recipe.load import load_recipe

RECIPES = Path(__file__).parents[2] / "recipes"
DIGITS = RECIPES / "digits"


def load_script(path: Path):
    spec = importlib.util.spec_from_file_location(f"{path.parent.name}_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def run(model: onnx.ModelProto, **feeds: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, feeds)


def test_digits_model_has_the_structures_that_it_is_for():
    model = onnx.load(DIGITS / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    operators = [node.op_type for node in model.graph.node]
    assert operators.count("BatchNormalization") == operators.count("Conv") == 7
    assert "Add" in operators
    groups = [
        attribute.i
        for node in model.graph.node
        for attribute in node.attribute
        if node.op_type == "Conv" and attribute.name == "group"
    ]
    assert sorted(groups) == [1, 1, 1, 1, 1, 24, 48]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"
    assert (DIGITS / "model.onnx").stat().st_size < 500_000


def test_digits_accuracy_is_the_one_in_the_readme():
    data = np.load(DIGITS / "test.npz")
    (logits,) = run(onnx.load(DIGITS / "model.onnx"), image=data["image"])
    correct = int((logits.argmax(1) == data["labels"]).sum())
    said = re.search(r"\((\d+) of (\d+)\) \|\n\| training time", (DIGITS / "README.md").read_text())
    assert (correct, len(logits)) == (int(said[1]), int(said[2]))
    assert correct / len(logits) >= 0.985


def test_digits_calibration_and_test_samples_are_disjoint():
    calibration = np.load(DIGITS / "calib.npz")["image"]
    test = np.load(DIGITS / "test.npz")["image"]
    assert calibration.shape == (256, 1, 8, 8)
    assert calibration.dtype == test.dtype == np.float32
    assert not {image.tobytes() for image in calibration} & {image.tobytes() for image in test}


@pytest.mark.parametrize("name", ["fp32", "fp16", "int8", "fp8"])
def test_digits_recipes_ask_for_what_their_name_says(name):
    recipe = load_recipe(DIGITS / f"{name}.yaml").recipe
    kinds = {recipe.precision.type, recipe.precision.quantize}
    assert name in kinds
    assert [target.name for target in recipe.targets] == ["rtx", "cpu"]
    assert recipe.verify.tolerance.accuracy_drop is not None


@pytest.fixture(scope="module")
def resnet50():
    return load_script(RECIPES / "vision" / "make_model.py").make_resnet50()


def test_resnet50_runs_at_every_batch_with_ranges_as_trained(resnet50):
    script = sys.modules["vision_make_model"]
    images = script.images(2, "unit-test")
    (pair,) = run(resnet50, image=images)
    (one,) = run(resnet50, image=images[:1])
    assert pair.shape == (2, 1000)
    np.testing.assert_allclose(pair[:1], one, rtol=1e-3, atol=1e-4)
    assert np.isfinite(pair).all()
    assert 0.1 < pair.std() < 10
    assert pair[0].argmax() != pair[1].argmax()


def test_resnet50_has_its_53_convolutions_and_no_unnamed_node(resnet50):
    operators = [node.op_type for node in resnet50.graph.node]
    assert [operators.count(op) for op in ("Conv", "BatchNormalization", "Add")] == [53, 53, 16]
    names = [node.name for node in resnet50.graph.node]
    assert all(names)
    assert len(set(names)) == len(names)


def test_resnet50_weights_are_the_same_every_time(resnet50):
    again = sys.modules["vision_make_model"].make_resnet50()
    assert again.SerializeToString(deterministic=True) == resnet50.SerializeToString(
        deterministic=True
    )


def test_small_encoder_is_dynamic_and_masks_padding():
    pytest.importorskip("torch", reason="the `torch` extra is not installed")
    script = load_script(RECIPES / "nlp" / "make_model.py")
    size = script.Dimensions(layers=1, hidden=64, vocabulary=50)
    model = script.export(script.make_encoder(size))
    ids = np.arange(14).reshape(2, 7)
    mask = np.ones((2, 7), np.int64)
    mask[1, 4:] = 0
    states, pooled = run(model, input_ids=ids, attention_mask=mask)
    assert states.shape == (2, 7, 64)
    assert pooled.shape == (2, 64)
    short, _ = run(model, input_ids=ids[1:, :4], attention_mask=mask[1:, :4])
    np.testing.assert_allclose(states[1:, :4], short, atol=1e-5)
