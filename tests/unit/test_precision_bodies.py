"""Types inside If, Loop and Scan: nodes narrow, carried state wide, casts where they are fewest."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from models_bodies import BODIES, a_loop, node
from models_precision import Net
from onnx import GraphProto, NodeProto, TensorProto, helper
from precision_samples import check_typed, fidelity

from trtforge.graph.execute import Session
from trtforge.graph.inputs import random_feeds
from trtforge.graph.model import Model
from trtforge.precision.cast import CastReport, cast
from trtforge.recipe.schema import Precision

HALF = TensorProto.FLOAT16


def fp16(model: Model, **changes: object) -> tuple[Model, CastReport]:
    result, report = cast(model, Precision.model_validate({"type": "fp16"} | changes))
    check_typed(model, result)
    return result, report


def wider(report: CastReport) -> dict[str, str]:
    return {decision.node: decision.reason for decision in report.decisions}


def scopes(graph: GraphProto) -> Iterator[GraphProto]:
    yield graph
    for one in graph.node:
        for attribute in one.attribute:
            if attribute.HasField("g"):
                yield from scopes(attribute.g)


def body_of(model: Model, op: str) -> GraphProto:
    found = (n for n in model.proto.graph.node if n.op_type == op)
    return next(a.g for a in next(found).attribute if a.HasField("g"))


def casts(graph: GraphProto) -> list[NodeProto]:
    return [one for one in graph.node if one.op_type == "Cast"]


def feeds_of(model: Model, seed: int) -> dict[str, np.ndarray]:
    return random_feeds(model, {spec.name: spec.dims for spec in model.contract.inputs}, seed)


@pytest.mark.parametrize("kind", ["fp16", "bf16"])
@pytest.mark.parametrize("name", BODIES)
def test_bodies_compute_in_the_type_and_stay_close(name: str, kind: str) -> None:
    model = BODIES[name]()
    result, report = cast(model, Precision.model_validate({"type": kind}))
    check_typed(model, result)
    if kind == "fp16":  # ONNX Runtime has next to no BF16 kernels for CPUs
        Session(result)
    products = [n.op_type for scope in scopes(result.proto.graph) for n in scope.node]
    assert not any(d.op == "MatMul" for d in report.decisions)
    assert report.nodes[kind] >= products.count("MatMul")
    for seed in (0, 1):
        assert fidelity(model, result, feeds_of(model, seed)) > (55 if kind == "fp16" else 38)


def test_weights_inside_are_converted_once() -> None:
    for name in BODIES:
        result, _ = fp16(BODIES[name]())
        weights = [w for scope in scopes(result.proto.graph) for w in scope.initializer]
        big = [w for w in weights if len(w.dims) == 2]
        assert {w.data_type for w in big} == {HALF}, name


def test_a_weight_of_two_types_is_there_once_in_each() -> None:
    net = Net()
    x = net.input("x", [8, 8])
    w = net.weight("w", 8, 8)
    flag = net.op("Greater", [net.op("ReduceMax", [x], "top", keepdims=0), net.const("one", 1.0)],
                  "flag")  # fmt: skip

    def branch(name: str) -> GraphProto:
        result = helper.make_tensor_value_info(f"{name}_r", 1, [8, 8])
        return helper.make_graph([node("MatMul", [x, w], [f"{name}_r"], name)], name, [], [result])

    chosen = net.op("If", [flag], "c", then_branch=branch("a"), else_branch=branch("b"))
    net.op("MatMul", [chosen, net.op("Softmax", [w], "kept")], "y")
    net.output("y", [8, 8])
    model = net.model()
    result, _ = fp16(model, keep=[{"op": "Softmax"}])
    weights = [w for scope in scopes(result.proto.graph) for w in scope.initializer]
    assert {w.name for w in result.proto.graph.initializer} == {"w", "w_fp16", "one"}
    assert len(weights) == 3
    assert fidelity(model, result, feeds_of(model, 0)) > 55


def test_what_branches_give_is_narrow_so_an_if_costs_no_cast() -> None:
    for name in ("if", "if_repeated"):
        result, report = fp16(BODIES[name]())
        assert report.casts_added == sum(len(casts(s)) for s in scopes(result.proto.graph))
        assert all(not casts(scope) for scope in list(scopes(result.proto.graph))[1:])
        for scope in list(scopes(result.proto.graph))[1:]:
            assert scope.output[0].type.tensor_type.elem_type == HALF


def test_names_that_branches_repeat_become_unique() -> None:
    result, _ = fp16(BODIES["if_repeated"]())
    made = [n for s in scopes(result.proto.graph) for one in s.node for n in one.output]
    assert len(made) == len(set(made))
    assert {"m", "m_2"} <= set(made)


def test_the_state_of_a_loop_stays_fp32_with_the_reason() -> None:
    result, report = fp16(BODIES["loop"]())
    assert "from one iteration to the next" in wider(report)["n_looped"]
    body = body_of(result, "Loop")
    assert {v.type.tensor_type.elem_type for v in (body.input[2], body.output[1])} == {1}
    assert len(casts(body)) == 2, "the state down, its successor up"


def test_outer_tensors_are_cast_outside_once_not_in_each_iteration() -> None:
    model = a_loop(
        [
            node("MatMul", ["state", "w"], ["p"], "p"),
            node("MatMul", ["x", "w"], ["q"], "q"),
            node("Mul", ["p", "q"], ["r"], "r"),
            node("Tanh", ["r"], ["next"], "squash"),
        ]
    )
    result, _ = fp16(model)
    assert sum(one.input[0] == "x" for one in casts(result.proto.graph)) == 1
    assert not any(one.input[0] == "x" for one in casts(body_of(result, "Loop")))


def test_a_running_sum_is_added_up_in_fp32() -> None:
    """300 iterations of +1.001 in FP16 would stop being exact; the state must not be rounded."""
    model = BODIES["accumulating"]()
    count = next(w for w in model.proto.graph.initializer if w.name == "count")
    count.raw_data = np.int64(300).tobytes()
    result, report = fp16(model)
    assert wider(report)["accumulate"].startswith("beside FP32 nodes")
    assert fidelity(model, result, feeds_of(model, 0)) > 60


def test_casts_in_a_loop_body_are_folded_and_the_number_stays_exact() -> None:
    result, report = fp16(BODIES["cast_in_a_loop"]())
    body = body_of(result, "Loop")
    assert [one.name for one in casts(body) if one.name in ("down", "up")] == ["down"]
    assert {one.op for one in report.decisions} <= {"Loop", "Add", "Tanh"}


def test_sliced_and_stacked_tensors_are_narrow() -> None:
    result, _ = fp16(BODIES["scan"]())
    body = body_of(result, "Scan")
    kinds = [v.type.tensor_type.elem_type for v in (*body.input, *body.output)]
    assert kinds == [1, HALF, 1, HALF]
    assert not casts(result.proto.graph)[1:-1], "one cast in, one out"


def test_the_body_of_a_sequence_map_stays_fp32() -> None:
    net = Net(opset=18)
    x = net.input("x", [4, 8])
    y = net.op("MatMul", [x, net.weight("w", 8, 8)], "y")
    split = net.op("SplitToSequence", [y], "split", axis=0)
    body = helper.make_graph(
        [node("Relu", ["a"], ["b"], "inner")],
        "body",
        [helper.make_tensor_value_info("a", 1, [1, 8])],
        [helper.make_tensor_value_info("b", 1, [1, 8])],
    )
    mapped = net.op("SequenceMap", [split], "mapped", body=body)
    net.op("ConcatFromSequence", [mapped], "z", axis=0)
    net.output("z", [4, 8])
    model = net.model()
    result, report = fp16(model)
    assert wider(report)["inner"] == (
        "the types of SequenceMap's bodies cannot be told, so they stay FP32"
    )
    assert report.nodes["fp16"] == 1
    assert fidelity(model, result, feeds_of(model, 0)) > 60


def test_rules_name_what_stands_in_a_node() -> None:
    _, report = fp16(BODIES["nested"](), keep=[{"path": "n_looped/choice/*"}])
    kept = {n for n, reason in wider(report).items() if reason.startswith("keep rule {path")}
    assert kept == {"product_then", "bias_then", "Relu_then", "product_else", "bias_else",
                    "Tanh_else"}  # fmt: skip
    _, report = fp16(BODIES["nested"](), keep=[{"name": "choice"}])
    reasons = wider(report)
    assert reasons["product_then"] == "keep rule {name: choice, type: fp32}"
    assert "product" not in reasons


def test_a_force_rule_makes_the_state_narrow() -> None:
    model = BODIES["loop"]()
    result, report = fp16(model, force=[{"op": "Loop", "type": "fp16"}])
    body = body_of(result, "Loop")
    assert {v.type.tensor_type.elem_type for v in (body.input[2], body.output[1])} == {HALF}
    assert "n_looped" not in wider(report)
    assert not casts(body)
    assert fidelity(model, result, feeds_of(model, 0)) > 50


def test_a_mask_beyond_the_range_comes_out_of_a_branch_in_fp32() -> None:
    model = BODIES["if"]()
    for scope in list(scopes(model.proto.graph))[1:]:
        for weight in scope.initializer:
            if weight.name == "b_then":
                weight.raw_data = np.full(16, -1e9, np.float32).tobytes()
        scope.node[2].op_type = "Identity"
    result, report = fp16(model)
    outputs = [s.output[0].type.tensor_type.elem_type for s in list(scopes(result.proto.graph))[1:]]
    assert outputs == [1, 1]
    assert "bias_then" in wider(report)
    assert "n_y" in wider(report), "its input may reach 1e9"


def test_tensorrt_rtx_builds_bodies(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    files = []
    for name in BODIES:
        for kind in ("fp16", "bf16"):
            result, _ = cast(BODIES[name](), Precision.model_validate({"type": kind}))
            files.append(tmp_path / f"{name}.{kind}.onnx")
            result.save(files[-1])
    program = Path(__file__).parent.parent / "precision_build.py"
    done = subprocess.run(
        [sys.executable, str(program), *map(str, files)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    assert [Path(report["file"]) for report in reports] == files, done.stderr
    assert {Path(r["file"]).name: r["errors"] for r in reports if r["errors"]} == {}
