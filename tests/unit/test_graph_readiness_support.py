"""The support report: every node that TensorRT does not take, with a reason and a remedy."""

import json
import time
from pathlib import Path
from typing import Any

import models_graph as mg
import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper
from running import trtforge

from trtforge.errors import GraphError
from trtforge.graph.model import Model
from trtforge.graph.readiness.support import SupportProblem, support_problems
from trtforge.pipeline.support import refuse_unsupported


def problems(proto: ModelProto, target: str = "tensorrt_rtx") -> list[SupportProblem]:
    return list(support_problems(Model(proto), target))


def unsupported(count: int = 2) -> ModelProto:
    """Some Det in the outermost graph, and one in a branch; Relu is fine."""
    inner = helper.make_graph(
        [mg.node("Det", ["x"], ["d"], name="inner"), mg.node("Identity", ["d"], ["e"])],
        "branch",
        [],
        [mg.info("e", [4])],
    )
    nodes = []
    for index in range(count):
        nodes.append(mg.node("Mul", ["x", f"k{index}"], [f"m{index}"]))
        nodes.append(mg.node("Det", [f"m{index}"], [f"d{index}"], name=f"det{index}"))
    nodes += [
        mg.node("Sum", [f"d{index}" for index in range(count)], ["s"]),
        mg.node("Less", ["t", "h"], ["c"]),
        mg.node("If", ["c"], ["f"], then_branch=inner, else_branch=inner, name="if"),
        mg.node("Add", ["s", "f"], ["y"]),
    ]
    return mg.model(
        nodes,
        [mg.info("x", [4, 5, 5]), mg.info("t", [])],
        [mg.info("y", [4])],
        [
            mg.tensor("h", 0.5, np.float32),
            *(mg.tensor(f"k{index}", index + 2, np.float32) for index in range(count)),
        ],
    )


def test_every_node_is_named_with_the_way_to_it() -> None:
    found = problems(unsupported())
    nodes = [problem.node for problem in found]
    assert nodes[:2] == ["det0", "det1"]
    assert sorted(nodes[2:]) == ["if (else_branch) / inner", "if (then_branch) / inner"]
    assert {problem.operator for problem in found} == {"Det"}
    assert all(problem.reason and problem.remedy for problem in found)
    assert json.loads(json.dumps(found[0].as_json()))["node"] == "det0"


def test_onnxruntime_takes_everything() -> None:
    assert problems(unsupported(), "onnxruntime") == []


def test_other_domains_may_be_plugins_of_tensorrt() -> None:
    node = helper.make_node("Mine", ["x"], ["y"], domain="my.domain", name="mine")
    proto = mg.model([node], [mg.info("x", [2])], [mg.info("y", [2])])
    proto.opset_import.append(helper.make_opsetid("my.domain", 1))
    assert problems(proto, "tensorrt") == []
    (problem,) = problems(proto)
    assert (problem.operator, problem.node) == ("my.domain::Mine", "mine")


def test_functions_of_the_model_are_taken() -> None:
    function = helper.make_function(
        "my.domain",
        "Twice",
        ["a"],
        ["b"],
        [helper.make_node("Add", ["a", "a"], ["b"])],
        [helper.make_opsetid("", mg.OPSET)],
    )
    node = helper.make_node("Twice", ["x"], ["y"], domain="my.domain")
    proto = mg.model([node], [mg.info("x", [2])], [mg.info("y", [2])])
    proto.opset_import.append(helper.make_opsetid("my.domain", 1))
    proto.functions.append(function)
    assert problems(proto) == []


def small(op: str, x: Any, y: Any, inputs: Any = ("x",), **attributes: Any) -> ModelProto:
    initializers = attributes.pop("initializers", ())
    extra = attributes.pop("extra", [])
    opset = attributes.pop("opset", 20)
    return mg.model(
        [mg.node(op, list(inputs), ["y"], **attributes)],
        [x, *extra],
        [y],
        initializers,
        opset=opset,
    )


IMAGE = mg.info("x", [1, 2, 8, 8])


@pytest.mark.parametrize(
    ("proto", "why"),
    [
        (small("Cast", IMAGE, mg.info("y", [1, 2, 8, 8], np.int16), to=5), "INT16"),
        (small("Abs", mg.info("x", [2], np.uint8), mg.info("y", [2], np.uint8)), "UINT8"),
        (
            small(
                "ReduceSum",
                IMAGE,
                mg.info("y", [1, 2, 8, 1]),
                ["x", "a"],
                extra=[mg.info("a", [1], np.int64)],
            ),
            "axes ('a') are an input",
        ),
        (
            small(
                "MaxPool",
                IMAGE,
                mg.info("y", [1, 2, 6, 6]),
                kernel_shape=[2, 2],
                dilations=[2, 2],
            ),
            "dilations are [2, 2]",
        ),
        (
            small(
                "ScatterND",
                mg.info("x", [4]),
                mg.info("y", [4]),
                ["x", "i", "u"],
                reduction="add",
                initializers=[mg.tensor("i", [[1]], np.int64), mg.tensor("u", [1.0], np.float32)],
            ),
            "reduction is add",
        ),
        (
            small(
                "QuantizeLinear",
                IMAGE,
                mg.info("y", [1, 2, 8, 8], np.uint8),
                ["x", "s"],
                initializers=[mg.tensor("s", 0.1, np.float32)],
            ),
            "takes for INT8 without a word",
        ),
        (small("NonZero", mg.info("x", [4]), mg.info("y", [1, "n"], np.int64)), "no plugin"),
    ],
)
def test_rules(proto: ModelProto, why: str) -> None:
    onnx.checker.check_model(proto, full_check=True)
    assert any(why in problem.reason for problem in problems(proto)), problems(proto)


def test_broadcasting_of_old_opsets() -> None:
    proto = small("Max", IMAGE, mg.info("y", [1, 2, 8, 8]), ["x", "x"], opset=6)
    (problem,) = problems(proto)
    assert "opset 6" in problem.reason


def test_a_type_is_refused_where_only_a_weight_has_it() -> None:
    proto = small("Relu", IMAGE, mg.info("y", [1, 2, 8, 8]))
    proto.graph.initializer.append(mg.tensor("spare", [1], np.uint16))
    (problem,) = problems(proto)
    assert (problem.node, problem.operator) == ("spare", "")


def test_a_plain_model_has_no_problems() -> None:
    assert problems(mg.conv_bn()) == []


def test_one_error_lists_all(tmp_path: Path) -> None:
    with pytest.raises(GraphError) as caught:
        refuse_unsupported(Model(unsupported()), ("tensorrt_rtx",), tmp_path / "m.onnx")
    error = caught.value
    assert (error.code, error.exit_status, len(error.problems)) == ("TF0415", 4, 4)
    assert all(problem.hint for problem in error.problems)
    assert error.problems[1].where is not None
    assert str(error.problems[1].where) == "m.onnx (node 'det1')"
    with pytest.raises(GraphError) as caught:
        refuse_unsupported(Model(unsupported(100)), ("tensorrt_rtx",), tmp_path / "m.onnx")
    assert len(caught.value.problems) == 51
    assert caught.value.problems[-1].message == "and 52 more"


def recipe(folder: Path, *targets: str) -> Path:
    onnx.save(unsupported(), folder / "model.onnx")
    listed = "\n".join(f"  - {target}" for target in targets)
    path = folder / "recipe.yaml"
    path.write_text(
        "version: 1\nname: det\nmodel: {onnx: model.onnx}\nprecision: {type: fp32}\n"
        f"targets:\n{listed}\n"
    )
    return path


RTX = '{name: rtx, backend: tensorrt_rtx, compute_capabilities: ["8.9"]}'
CPU = "{name: cpu, backend: onnxruntime}"


def test_a_build_is_refused_before_it_begins(tmp_path: Path) -> None:
    from trtforge.pipeline.run import BuildOptions, build_recipe

    path = recipe(tmp_path, RTX, CPU)
    events: list[Any] = []
    started = time.monotonic()
    with pytest.raises(GraphError) as caught:
        build_recipe(path, BuildOptions(out=tmp_path, store=tmp_path / "store"), events.append)
    assert time.monotonic() - started < 5  # a second, on a machine with nothing else to do
    assert caught.value.code == "TF0415"
    assert len(caught.value.problems) == 4
    assert not (tmp_path / "store" / "builds").exists()


def test_the_command_line_shows_all_and_exits_with_4(tmp_path: Path) -> None:
    run = trtforge("build", recipe(tmp_path, RTX), "--out", tmp_path, "--json", store=tmp_path)
    assert run.status == 4
    shown = json.loads(run.stdout)["problems"]
    assert [problem["code"] for problem in shown] == ["TF0415"] * 4
    assert shown[0]["where"]["node"] == "det0"


def test_a_recipe_for_onnxruntime_alone_still_builds(tmp_path: Path) -> None:
    run = trtforge("build", recipe(tmp_path, CPU), "--out", tmp_path / "out", store=tmp_path)
    assert run.status == 0, run.stderr
    assert list((tmp_path / "out").glob("*/manifest.json"))


def test_the_types_are_those_of_onnx() -> None:
    from trtforge.graph.readiness.rules import type_objection

    for name, number in TensorProto.DataType.items():
        found = type_objection(number, "t")
        assert found is None or name.split("_")[0] in found[0] or "text" in found[0]
