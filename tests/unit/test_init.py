"""`trtforge init`: what it writes loads without a word and builds as it is."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from models_graph import OPSET, info, model, node, tensor, weights
from models_precision import cnn, transformer
from onnx import ModelProto

from trtforge.cli.main import _run
from trtforge.errors import DataError, GraphError, UsageError
from trtforge.pipeline.first_shapes import first_shapes
from trtforge.pipeline.init import InitOptions, init
from trtforge.pipeline.run import build
from trtforge.recipe.load import load_recipe


def conv_net(*dims: int | str | None) -> ModelProto:
    """A convolution and a mean over what it leaves."""
    channels = dims[1] if isinstance(dims[1], int) else 3
    return model(
        [node("Conv", ["x", "w"], ["c"]), node("GlobalAveragePool", ["c"], ["y"])],
        [info("x", dims)],
        [info("y", [dims[0], 4, 1, 1])],
        [tensor("w", weights(4, channels, 3, 3))],
    )


def embedding(positions: int = 64) -> ModelProto:
    """Tokens and learned positions, as in BERT: no sequence is longer than there are positions."""
    return model(
        [
            node("Gather", ["words", "ids"], ["e"]),
            node("Shape", ["ids"], ["n"], start=1, end=2),
            node("Slice", ["places", "zero", "n", "zero"], ["p"]),
            node("Add", ["e", "p"], ["s"]),
            node("MatMul", ["s", "w"], ["y"]),
        ],
        [info("ids", ["batch", "seq"], np.int64)],
        [info("y", ["batch", "seq", 8])],
        [
            tensor("words", weights(30, 8)),
            tensor("places", weights(positions, 8, seed=1)),
            tensor("zero", [0], np.int64),
            tensor("w", weights(8, 8, seed=2)),
        ],
    )


def with_past() -> ModelProto:
    """A cache of keys, and a mask over it and one more."""
    return model(
        [
            node("Concat", ["past", "now"], ["all"], axis=1),
            node("Mul", ["all", "mask"], ["y"]),
        ],
        [
            info("past", ["batch_size", "past_sequence_length", 4]),
            info("now", ["batch_size", 1, 4]),
            info("mask", ["batch_size", "past_sequence_length + 1", 1]),
        ],
        [info("y", ["batch_size", None, 4])],
    )


def batch_of_one() -> ModelProto:
    """Declared dynamic, but a Reshape holds one sample only."""
    return model(
        [node("Reshape", ["x", "shape"], ["r"]), node("MatMul", ["r", "w"], ["y"])],
        [info("x", ["N", 2, 4])],
        [info("y", [1, 3])],
        [tensor("shape", [1, 8], np.int64), tensor("w", weights(8, 3))],
    )


def square_of(size: int) -> ModelProto:
    """Height and width free in name alone: a table fits one size."""
    return model(
        [node("Mul", ["x", "table"], ["y"])],
        [info("x", [None, 1, None, None])],
        [info("y", [None, 1, None, None])],
        [tensor("table", weights(size, size))],
    )


def pixels_last() -> ModelProto:
    return model(
        [node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]), node("Conv", ["t", "w"], ["y"])],
        [info("x", ["N", "h", "w_", 3])],
        [info("y", ["N", 2, None, None])],
        [tensor("w", weights(2, 3, 1, 1))],
    )


def speech() -> ModelProto:
    return model(
        [node("Conv", ["x", "w"], ["y"], strides=[160])],
        [info("x", ["N", 1, "samples"])],
        [info("y", ["N", 4, None])],
        [tensor("w", weights(4, 1, 400))],
    )


def fixed() -> ModelProto:
    return conv_net(1, 3, 8, 8)


def oddly_named() -> ModelProto:
    """Names that YAML reads as something else, or that would end a comment."""
    return model(
        [node("Add", ["yes", "a: b\n#c"], ["y"])],
        [info("yes", ["N", 2]), info("a: b\n#c", ["N", 2])],
        [info("y", ["N", 2])],
    )


def written(proto: ModelProto, folder: Path, **options: object) -> Path:
    onnx.save(proto, folder / "net.onnx")
    return init(folder / "net.onnx", InitOptions(folder / "net.yaml", **options)).path


MODELS: list[tuple[Callable[[], ModelProto], dict[str, list[list[int]]]]] = [
    (lambda: conv_net("N", 3, 8, 8), {"x": [[1, 3, 8, 8], [4, 3, 8, 8], [8, 3, 8, 8]]}),
    (
        lambda: conv_net(None, 3, "H", "W"),
        {"x": [[1, 3, 224, 224], [4, 3, 224, 224], [8, 3, 448, 448]]},
    ),
    (speech, {"x": [[1, 1, 16000], [4, 1, 16000], [8, 1, 32000]]}),
    (embedding, {"ids": [[1, 1], [4, 16], [8, 32]]}),
    (lambda: embedding(512), {"ids": [[1, 1], [4, 128], [8, 256]]}),
    (
        with_past,
        {
            "past": [[1, 1, 4], [4, 128, 4], [8, 256, 4]],
            "now": [[1, 1, 4], [4, 1, 4], [8, 1, 4]],
            "mask": [[1, 2, 1], [4, 129, 1], [8, 257, 1]],
        },
    ),
    (batch_of_one, {"x": [[1, 2, 4]] * 3}),
    (lambda: square_of(224), {"x": [[1, 1, 224, 224], [4, 1, 224, 224], [8, 1, 224, 224]]}),
    (pixels_last, {"x": [[1, 224, 224, 3], [4, 224, 224, 3], [8, 448, 448, 3]]}),
    (fixed, {}),
    (oddly_named, {"yes": [[1, 2], [4, 2], [8, 2]], "a: b\n#c": [[1, 2], [4, 2], [8, 2]]}),
]  # fmt: skip


@pytest.mark.parametrize(("make", "shapes"), MODELS)
def test_the_recipe_loads_with_shapes_that_the_model_takes(
    tmp_path: Path, make: Callable[[], ModelProto], shapes: dict[str, list[list[int]]]
) -> None:
    recipe = load_recipe(written(make(), tmp_path)).recipe
    found = [
        {name: [list(one.min), list(one.opt), list(one.max)] for name, one in profile.items()}
        for profile in recipe.shapes
    ]
    assert found == ([shapes] if shapes else [])
    assert recipe.precision.type == "fp16"
    assert [target.backend for target in recipe.targets] == ["tensorrt_rtx", "onnxruntime"]


@pytest.mark.parametrize(
    "make", [lambda: conv_net("N", 3, 8, 8), embedding, with_past, batch_of_one]
)
def test_the_recipe_builds_as_it_is(tmp_path: Path, make: Callable[[], ModelProto]) -> None:
    recipe = written(make(), tmp_path)
    result = build(recipe, tmp_path / "out", targets=("cpu",), store=tmp_path / "store")
    assert result.verdicts["graph_parity"]["verdict"] == "pass"
    assert result.macs.get("fp32", 0) == 0


@pytest.mark.parametrize("make", [cnn, transformer])
def test_networks_of_usual_layers_build_as_they_are(
    tmp_path: Path, make: Callable[[], object]
) -> None:
    make().save(tmp_path / "net.onnx")  # type: ignore[attr-defined]
    recipe = init(tmp_path / "net.onnx", InitOptions(tmp_path / "net.yaml")).path
    result = build(recipe, tmp_path / "out", targets=("cpu",), store=tmp_path / "store")
    assert result.verdicts["graph_parity"]["verdict"] == "pass"


def test_digits_goes_the_whole_way_to_an_engine(digits: Path, tmp_path: Path) -> None:
    options = InitOptions(tmp_path / "first.yaml", digits / "calib.npz", name="first")
    recipe = init(digits / "model.onnx", options).path
    result = build(recipe, tmp_path / "out", store=tmp_path / "store")
    assert (result.bundle / "engines" / "rtx" / "model.engine").stat().st_size > 0
    assert result.bundle.name.startswith("first-")


def uncommented(text: str) -> str:
    """The recipe with each line in force that a comment offers."""
    offered = r"^( *)# ((?:- \{name|quantize|keep|calibration|data):? .*)$"
    return re.sub(offered, r"\1\2", text, flags=re.M)


def test_what_the_comments_offer_is_a_recipe_too(digits: Path, tmp_path: Path) -> None:
    for name in ("model.onnx", "calib.npz", "test.npz"):
        (tmp_path / name).write_bytes((digits / name).read_bytes())
    path = init(tmp_path / "model.onnx", InitOptions(tmp_path / "model.yaml")).path
    path.write_text(uncommented(path.read_text()))
    recipe = load_recipe(path).recipe
    assert recipe.precision.quantize == "int8"
    assert recipe.precision.keep
    assert recipe.calibration is not None
    assert recipe.verify.data == "test.npz"
    assert [target.backend for target in recipe.targets] == [
        "tensorrt_rtx", "onnxruntime", "tensorrt",
    ]  # fmt: skip


def test_facts_of_the_model_stand_in_front(digits: Path, tmp_path: Path) -> None:
    result = init(digits / "model.onnx", InitOptions(tmp_path / "r.yaml"))
    head = result.text.partition("version:")[0]
    for words in (
        "model.onnx: opset 18, made by pytorch",
        "25 nodes: 7 Conv, 7 BatchNormalization, 7 Relu",
        "19.1 k parameters, 0.1 MB; 2.9 M multiply-accumulates",
        "input image: float32 [N, 1, 8, 8]",
        "output logits: float32 [N, 10]",
    ):
        assert words in head
    assert "trtforge profiles suggest" in result.text
    assert result.facts["macs"] == 2_881_536
    assert all(len(line) <= 100 for line in result.text.splitlines())


def test_samples_decide_shapes_and_stand_in_the_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    onnx.save(conv_net("N", 3, "H", "W"), "net.onnx")
    np.savez("samples.npz", x=np.zeros((5, 3, 40, 56), np.float32))
    recipe = load_recipe(init(Path("net.onnx"), InitOptions(data=Path("samples.npz"))).path).recipe
    assert recipe.shapes[0]["x"].max == (8, 3, 40, 56)
    assert recipe.shapes[0]["x"].min == (1, 3, 40, 56)
    assert recipe.calibration is not None
    assert (recipe.calibration.data, recipe.verify.data) == ("samples.npz", "samples.npz")


def test_a_model_with_pairs_is_not_told_to_quantize(tmp_path: Path) -> None:
    quantized = model(
        [
            node("QuantizeLinear", ["x", "s", "z"], ["q"]),
            node("DequantizeLinear", ["q", "s", "z"], ["y"]),
        ],
        [info("x", [1, 4])],
        [info("y", [1, 4])],
        [tensor("s", 0.1, np.float32), tensor("z", 0, np.int8)],
    )
    text = written(quantized, tmp_path).read_text()
    assert "quantize: int8" not in text
    assert "has Q/DQ pairs already" in text


def test_bf16_weights_stay_bf16(tmp_path: Path) -> None:
    weight = onnx.helper.make_tensor("w", onnx.TensorProto.BFLOAT16, [4, 4], np.eye(4).ravel())
    net = model(
        [
            node("Cast", ["x"], ["b"], to=onnx.TensorProto.BFLOAT16),
            node("MatMul", ["b", "w"], ["m"]),
            node("Cast", ["m"], ["y"], to=onnx.TensorProto.FLOAT),
        ],
        [info("x", [1, 4])],
        [info("y", [1, 4])],
        [weight],
    )
    recipe = load_recipe(written(net, tmp_path)).recipe
    assert recipe.precision.type == "bf16"
    assert recipe.verify.tolerance.sqnr_db == 20


def test_shapes_that_nothing_runs_at_are_said_to_be_the_users(tmp_path: Path) -> None:
    never = model(
        [node("MatMul", ["x", "w"], ["y"])],
        [info("x", ["N", "K"])],
        [info("y", ["N", 2])],
        [tensor("w", weights(7, 2))],
    )
    onnx.save(never, tmp_path / "net.onnx")
    result = init(tmp_path / "net.onnx", InitOptions(tmp_path / "net.yaml"))
    assert result.notes == (
        "no shapes were found with which ONNX Runtime runs the model: put yours in",
    )
    assert f"# {result.notes[0]}" in result.text
    assert load_recipe(result.path).recipe.shapes[0]["x"].max == (1, 1)


@pytest.mark.parametrize(
    "nodes",
    [
        [node("TopK", ["x", "k"], ["y", "places"])],
        [node("Add", ["k", "k"], ["double"]), node("TopK", ["x", "double"], ["y", "places"])],
    ],
    ids=["read as it is", "computed with first"],
)
def test_an_input_that_decides_shapes_is_named_with_what_it_needs(
    nodes: list[onnx.NodeProto], tmp_path: Path
) -> None:
    net = model(
        nodes,
        [info("x", [1, 9]), info("k", [1], np.int64)],
        [info("y", [1, None])],
    )
    onnx.save(net, tmp_path / "net.onnx")
    result = init(tmp_path / "net.onnx", InitOptions(tmp_path / "net.yaml"))
    assert len(result.notes) == 1
    assert "input 'k' decides shapes" in result.notes[0]
    assert "k: {min: [...], opt: [...], max: [...], values: true}" in result.notes[0]
    assert "# input 'k' decides shapes" in result.text
    assert load_recipe(result.path).recipe.shapes == ()


def test_what_onnx_runtime_lacks_is_not_tried(tmp_path: Path) -> None:
    from trtforge.graph.model import Model

    odd = model(
        [node("Blur", ["x"], ["y"], domain="my.ops")], [info("x", ["N"])], [info("y", ["N"])]
    )
    odd.opset_import.append(onnx.helper.make_opsetid("my.ops", 1))
    onnx.save(odd, tmp_path / "net.onnx")
    found = first_shapes(Model.load(tmp_path / "net.onnx"))
    assert found.profile == {"x": ((1, 4, 8),)}
    assert found.note is not None
    assert "not tried" in found.note


def test_what_has_fixed_shapes_needs_no_profile(tmp_path: Path) -> None:
    text = written(fixed(), tmp_path).read_text()
    assert "# Every input has a fixed shape" in text
    assert "#   108 parameters, 0.0 MB; 3.9 k multiply-accumulates\n" in text


def test_targets_are_those_asked_for_and_the_others_are_offered(tmp_path: Path) -> None:
    path = written(fixed(), tmp_path, backends=("tensorrt", "tensorrt_rtx"))
    assert [one.name for one in load_recipe(path).recipe.targets] == ["gpu", "rtx"]
    assert "  # - {name: cpu, backend: onnxruntime}" in path.read_text()


def test_a_recipe_elsewhere_finds_its_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "recipes").mkdir()
    monkeypatch.chdir(tmp_path)
    onnx.save(fixed(), "models/my net.onnx")
    path = init(Path("models/my net.onnx"), InitOptions(Path("recipes/r.yaml"))).path
    recipe = load_recipe(path).recipe
    assert (recipe.model.onnx, recipe.name) == ("../models/my net.onnx", "my-net")
    assert init(Path("models/my net.onnx")).path == Path("my net.yaml")


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    path = written(fixed(), tmp_path)
    path.write_text("mine")
    with pytest.raises(UsageError, match="exists") as caught:
        written(fixed(), tmp_path)
    assert (caught.value.code, path.read_text()) == ("TF0160", "mine")
    assert written(fixed(), tmp_path, force=True).read_text().startswith("# Written by")
    model_bytes = (tmp_path / "net.onnx").read_bytes()
    with pytest.raises(UsageError, match="is the model, not a recipe"):
        init(tmp_path / "net.onnx", InitOptions(tmp_path / "net.onnx", force=True))
    assert (tmp_path / "net.onnx").read_bytes() == model_bytes


def test_what_is_damaged_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"no model at all")
    with pytest.raises(GraphError, match="not an ONNX model"):
        init(tmp_path / "bad.onnx", InitOptions(tmp_path / "bad.yaml"))
    onnx.save(fixed(), tmp_path / "net.onnx")
    np.savez(tmp_path / "other.npz", y=np.zeros((5, 3, 8, 8), np.float32))
    with pytest.raises(DataError):
        init(tmp_path / "net.onnx", InitOptions(tmp_path / "net.yaml", tmp_path / "other.npz"))
    assert not list(tmp_path.glob("*.yaml"))


def test_the_command_prints_the_path_and_what_to_do_next(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    onnx.save(fixed(), tmp_path / "net.onnx")
    asked = ["init", str(tmp_path / "net.onnx"), "-o", str(tmp_path / "net.yaml")]
    assert _run(asked) == 0
    printed = capfd.readouterr()
    assert printed.out == f"{tmp_path / 'net.yaml'}\n"
    assert f"trtforge build {tmp_path / 'net.yaml'}" in printed.err
    assert _run(asked) == 2
    assert "error[TF0160]" in capfd.readouterr().err
    assert _run([*asked, "--force", "--json", "--backend", "tensorrt"]) == 0
    document = json.loads(capfd.readouterr().out)
    assert document["schema"] == "trtforge.init/1"
    assert document["model"]["opset"] == OPSET
    assert "backend: tensorrt}" in document["recipe"]
