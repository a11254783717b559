"""Inputs and outputs of the model: kept, or made narrow on purpose and judged all the same."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from models_bodies import BODIES
from models_precision import FLOAT, INT64, Net
from onnx import TensorProto
from precision_samples import SHAPES, net, ops, ranges, sqnr_db
from verify_runners import FunctionRunner

from trtforge.graph.execute import Session
from trtforge.graph.inputs import random_feeds
from trtforge.graph.model import Model
from trtforge.pipeline.judge import NarrowEnds, Question, judge_graph
from trtforge.precision.cast import cast, typed
from trtforge.precision.emulate import emulate
from trtforge.precision.ends import narrowed
from trtforge.recipe.laws import recipe_laws
from trtforge.recipe.schema import Precision
from trtforge.verify.types import Bounds, Tolerances


def converted(model: Model, kind: str = "fp16", **more: object) -> Model:
    wanted = {"type": kind, "io_types": "convert"} | more
    return cast(model, Precision.model_validate(wanted))[0]


def two_ends() -> Model:
    """An input that a product reads, and one whose phase is lost in FP16."""
    net = Net()
    x, t = net.input("x", [4, 8]), net.input("t", [4, 8])
    angle = net.op("Mul", [t, net.const("speed", np.geomspace(1, 1e-3, 8))], "angle")
    wave = net.op("Sin", [angle], "wave")
    y = net.op("MatMul", [x, net.weight("w", 8, 8)], "y")
    net.op("MatMul", [net.op("Add", [y, wave], "sum"), net.weight("v", 8, 8)], "z")
    net.output("z", [4, 8])
    return net.model()


def test_no_cast_is_left_at_the_ends() -> None:
    model = net("cnn")
    kept, _ = cast(model, Precision(type="fp16"))
    result = converted(model)
    assert (ops(kept)["Cast"], ops(result)["Cast"]) == (2, 0)
    assert kept.contract == model.contract
    assert [s.dtype for s in (*result.contract.inputs, *result.contract.outputs)] == [
        "float16",
        "float16",
    ]
    assert [s.dims for s in result.contract.inputs] == [s.dims for s in model.contract.inputs]
    Session(result)


def test_an_input_that_only_wide_nodes_read_stays_wide() -> None:
    model = two_ends()
    result = converted(model)
    kinds = {spec.name: spec.dtype for spec in result.contract.inputs}
    assert kinds == {"x": "float16", "t": "float32"}
    assert narrowed(model.contract, result.contract) == {"x": "float16", "z": "float16"}


def test_an_output_of_a_wide_node_stays_wide() -> None:
    result = converted(two_ends(), keep=[{"name": "n_z"}])
    assert result.contract.outputs[0].dtype == "float32"


@pytest.mark.parametrize("quantize", ["int8", "fp8"])
def test_a_quantized_input_is_narrow_as_well(quantize: str) -> None:
    wanted = {"type": "fp16", "quantize": quantize, "io_types": "convert"}
    result = typed(net("cnn"), ranges("cnn"), Precision.model_validate(wanted)).model
    assert result.contract.inputs[0].dtype == "float16"
    assert ops(result)["Cast"] == 0
    onnx.checker.check_model(result.proto, full_check=True)
    feeds = random_feeds(net("cnn"), SHAPES["cnn"], seed=0)
    twin = emulate(result, wide_ends=narrowed(net("cnn").contract, result.contract))
    assert (
        sqnr_db(Session(net("cnn")).run(feeds)["logits"], Session(twin).run(feeds)["logits"]) > 20
    )


def test_integers_keep_their_type() -> None:
    result = converted(net("transformer"))
    assert {spec.dtype for spec in result.contract.inputs} == {"int64"}
    assert result.contract.outputs[0].dtype == "float16"


def test_an_output_that_casts_make_is_made_narrow_by_them() -> None:
    net = Net()
    ids = net.input("ids", [4], INT64)
    net.op("Cast", [ids], "y", to=FLOAT)
    net.op("Relu", [net.op("Cast", [ids], "f", to=FLOAT)], "z")
    net.output("y", [4])
    result = converted(net.model())
    assert result.contract.outputs[0].dtype == "float16"
    assert result.proto.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT16


@pytest.mark.parametrize("kind", ["fp16", "bf16"])
@pytest.mark.parametrize("name", ["cnn", "scan", "if"])
def test_parity_is_judged_on_the_samples_of_the_original(
    tmp_path: Path, name: str, kind: str
) -> None:
    model = net(name) if name in SHAPES else BODIES[name]()
    result = converted(model, kind)
    model.save(tmp_path / "original.onnx")
    result.save(tmp_path / "typed.onnx")
    shapes = SHAPES.get(name) or {s.name: s.dims for s in model.contract.inputs}
    bounds = Bounds(sqnr_db=50 if kind == "fp16" else 30)
    ends = narrowed(model.contract, result.contract)
    assert ends
    for narrow, verdict in ((ends, "pass"), ({}, None))[: 1 + (kind == "fp16")]:
        question = Question(
            tmp_path / "original.onnx",
            {"opt": shapes},
            Tolerances(default=bounds, fallback=bounds, fallback_reason="test"),
            narrowed=narrow,
        )
        if verdict is None:  # types that nobody asked to be changed are no parity
            with pytest.raises(Exception, match="float"):
                judge_graph(question, tmp_path / "typed.onnx")
            continue
        assert judge_graph(question, tmp_path / "typed.onnx").verdict == verdict


def test_wide_ends_round_the_samples_as_a_caller_would() -> None:
    model = net("cnn")
    result = converted(model)
    feeds = random_feeds(model, SHAPES["cnn"], seed=3)
    halves = {name: array.astype(np.float16) for name, array in feeds.items()}
    twin = emulate(result, wide_ends=narrowed(model.contract, result.contract))
    assert twin.contract == model.contract
    own, asked = Session(emulate(result)).run(halves), Session(twin).run(feeds)
    assert np.array_equal(own["logits"].astype(np.float32), asked["logits"])
    assert sqnr_db(Session(model).run(feeds)["logits"], asked["logits"]) > 50


def test_engines_are_fed_the_narrow_type_and_answer_in_fp32() -> None:
    seen = {}

    class Engine(FunctionRunner):
        def infer(self, feeds):
            seen.update(feeds)
            return {"y": feeds["x"] * feeds["x"].dtype.type(2), "n": feeds["n"]}

    feeds = {"x": np.array([1.0001, 7e4], np.float32), "n": np.array([3])}
    for kind, expected in (("float16", [2.0, np.inf]), ("bfloat16", [2.0, 140288.0])):
        with NarrowEnds(Engine(dict), {"x": kind, "y": kind}) as runner:
            outputs = runner.infer(feeds)
        assert seen["x"].dtype.name == kind
        assert seen["n"].dtype == np.int64
        assert outputs["y"].dtype == np.float32
        assert outputs["y"].tolist() == expected


def test_there_must_be_a_narrow_type() -> None:
    """The law for recipes; options that say so are refused alike."""
    data = {"precision": {"io_types": "convert"}}
    (broken,) = [law for law in recipe_laws(data) if law.loc == ("precision", "io_types")]
    assert "no narrow type" in broken.message
    data["precision"]["type"] = "fp16"
    assert not list(recipe_laws(data))
