"""Results that nothing reads, of operators that need not give them."""

import models_graph as mg
import numpy as np
import pytest
from onnx import ModelProto

from trtforge.graph.model import Model
from trtforge.graph.passes import PassRequest, run_passes


def pooled(*results: str) -> ModelProto:
    node = mg.node("MaxPool", ["x"], list(results), kernel_shape=[2, 2])
    return mg.model([node], [mg.info("x", [1, 2, 4, 4])], [mg.info("y", [1, 2, 3, 3])])


def test_unused_indices_go() -> None:
    proto = pooled("y", "indices")
    result = run_passes(Model(proto), PassRequest(use=("dead-code",)))
    assert list(result.model.proto.graph.node[0].output) == ["y"]
    assert result.report.passes[0].rewrites == 1
    assert "'indices'" in result.report.passes[0].notes[0].reason
    assert result.report.proof.verdict == "pass"


@pytest.mark.parametrize("by", ["a node", "an output", "a body"])
def test_used_indices_stay(by: str) -> None:
    proto = pooled("y", "indices")
    if by == "an output":
        proto.graph.output.append(mg.info("indices", [1, 2, 3, 3], np.int64))
    elif by == "a node":
        proto.graph.node.append(mg.node("Abs", ["indices"], ["z"]))
        proto.graph.output.append(mg.info("z", [1, 2, 3, 3], np.int64))
    else:
        from onnx import helper

        result = mg.info("r", [1, 2, 3, 3], np.int64)
        bodies = {
            branch: helper.make_graph([mg.node(op, ["indices"], ["r"])], op, [], [result])
            for branch, op in (("then_branch", "Abs"), ("else_branch", "Neg"))
        }
        proto.graph.input.append(mg.info("flag", [], bool))
        proto.graph.node.append(mg.node("If", ["flag"], ["z"], **bodies))
        proto.graph.output.append(mg.info("z", [1, 2, 3, 3], np.int64))
    result_ = run_passes(Model(proto), PassRequest(use=("dead-code",), prove=False))
    assert list(result_.model.proto.graph.node[0].output) == ["y", "indices"]


def test_a_state_in_the_middle_keeps_its_place() -> None:
    weights = [
        mg.tensor("W", mg.weights(1, 8, 3)),
        mg.tensor("R", mg.weights(1, 8, 2)),
    ]
    node = mg.node("LSTM", ["x", "W", "R"], ["", "", "cell"], hidden_size=2)
    proto = mg.model([node], [mg.info("x", [4, 1, 3])], [mg.info("cell", [1, 1, 2])], weights)
    result = run_passes(Model(proto), PassRequest(use=("dead-code",), prove=False))
    assert list(result.model.proto.graph.node[0].output) == ["", "", "cell"]
