"""Operators that TensorRT does not take, written as operators that it takes; proven."""

from typing import Any

import models_graph as mg
import numpy as np
import pytest
from onnx import ModelProto, TensorProto
from readiness_models import ready, stays

from trtforge.graph.model import Model
from trtforge.graph.readiness.support import support_problems

DECOMPOSE, SEQUENCES = "decompose-unsupported", "sequences-to-tensors"


def taken(proto: ModelProto, name: str, *, exactly: bool = True) -> list[str]:
    """Rewrite and prove; TensorRT refused it before and takes it now."""
    assert support_problems(Model(proto), "tensorrt_rtx")
    model, report = ready(proto, name, "dead-code")
    assert not support_problems(model, "tensorrt_rtx")
    assert report.proof.max_abs == 0.0 or not exactly
    return mg.ops(model)


@pytest.mark.parametrize("size", [2, 3])
def test_small_determinants(size: int) -> None:
    proto = mg.model(
        [mg.node("Det", ["x"], ["y"])], [mg.info("x", [5, 4, size, size])], [mg.info("y", [5, 4])]
    )
    taken(proto, DECOMPOSE, exactly=False)


def test_larger_determinants_are_refused() -> None:
    proto = mg.model([mg.node("Det", ["x"], ["y"])], [mg.info("x", [5, 4, 4])], [mg.info("y", [5])])
    stays(proto, DECOMPOSE, "4 x 4")


@pytest.mark.parametrize("corners", [0, 1])
@pytest.mark.parametrize("space", [[4, 6], [2, 3, 5], [1, 4]])
def test_affine_grids(space: list[int], corners: int) -> None:
    rank = len(space)
    if corners and 1 in space:
        space = [2, 4]
    proto = mg.model(
        [mg.node("AffineGrid", ["x", "size"], ["y"], align_corners=corners)],
        [mg.info("x", [2, rank, rank + 1])],
        [mg.info("y", [2, *space, rank])],
        [mg.tensor("size", [2, 3, *space], np.int64)],
        opset=20,
    )
    assert taken(proto, DECOMPOSE, exactly=False) == ["Transpose", "MatMul", "Reshape"]


def test_an_affine_grid_of_a_computed_size_is_refused() -> None:
    proto = mg.model(
        [mg.node("AffineGrid", ["x", "size"], ["y"])],
        [mg.info("x", [2, 2, 3]), mg.info("size", [4], np.int64)],
        [mg.info("y", ["n", "h", "w", 2])],
        opset=20,
    )
    stays(proto, DECOMPOSE, "size ('size') is computed")


@pytest.mark.parametrize("shape", [[6, 3], [2, 9], [5, 5]])
def test_center_crop_pad(shape: list[int]) -> None:
    proto = mg.model(
        [mg.node("CenterCropPad", ["x", "shape"], ["y"])],
        [mg.info("x", [4, 6])],
        [mg.info("y", shape)],
        [mg.tensor("shape", shape, np.int64)],
    )
    taken(proto, DECOMPOSE)


@pytest.mark.parametrize("opset", [13, 18, 22])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("op", ["NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"])
def test_losses(op: str, reduction: str, opset: int) -> None:
    proto = mg.model(
        [mg.node(op, ["x", "t"], ["y"], reduction=reduction)],
        [mg.info("x", [3, 5])],
        [mg.info("y", [3] if reduction == "none" else [])],
        [mg.tensor("t", [1, 0, 4], np.int64)],
        opset=opset,
    )
    taken(proto, DECOMPOSE, exactly=False)


def test_what_has_no_definition_is_left_to_the_report() -> None:
    proto = mg.model(
        [mg.node("Compress", ["x", "c"], ["y"], axis=0)],
        [mg.info("x", [3, 2])],
        [mg.info("y", [None, 2])],
        [mg.tensor("c", [True, False, True])],
    )
    model, report = ready(proto, DECOMPOSE, prove=False)
    assert mg.ops(model) == ["Compress"]
    assert report.passes[0].notes == ()


def split(keepdims: int = 1, sizes: Any = None, lost: int = 0, x: Any = (2, 6, 3)) -> ModelProto:
    inputs = ["x", *([] if sizes is None else ["sizes"])]
    rank = 3 - lost
    return mg.model(
        [
            mg.node("SplitToSequence", inputs, ["q"], axis=1, keepdims=keepdims),
            mg.node("SequenceAt", ["q", "i"], ["a"]),
            mg.node("SequenceAt", ["q", "j"], ["b"]),
            mg.node("SequenceLength", ["q"], ["n"]),
            mg.node("Cast", ["n"], ["m"], to=TensorProto.FLOAT),
            mg.node("Mul", ["a", "m"], ["y"]),
            mg.node("Neg", ["b"], ["z"]),
        ],
        [mg.info("x", x)],
        [mg.info("y", [None] * rank), mg.info("z", [None] * rank)],
        [
            mg.tensor("i", 1, np.int64),
            mg.tensor("j", -1, np.int64),
            *([] if sizes is None else [mg.tensor("sizes", sizes, np.int64)]),
        ],
    )


@pytest.mark.parametrize(
    ("keepdims", "sizes", "lost"),
    [(1, None, 0), (0, None, 1), (1, 4, 0), (1, [1, 3, 2], 0), (0, [2, 2, 2], 0), (0, 1, 1)],
)
def test_a_split_into_a_sequence(keepdims: int, sizes: Any, lost: int) -> None:
    ops = taken(split(keepdims, sizes, lost=lost), SEQUENCES)
    assert ops.count("Split") == 1
    assert not [op for op in ops if "Sequence" in op]


def test_an_axis_that_is_not_one_cannot_be_dropped() -> None:
    stays(split(keepdims=0, sizes=2), SEQUENCES, "drop an axis of size 2")


def test_a_split_of_unknown_size_is_refused() -> None:
    stays(split(x=[2, "n", 3]), SEQUENCES, "along axis 1 is not known")


def test_members_that_are_built_one_by_one() -> None:
    proto = mg.model(
        [
            mg.node("SequenceEmpty", [], ["q0"]),
            mg.node("Neg", ["x"], ["a"]),
            mg.node("Abs", ["x"], ["b"]),
            mg.node("SequenceInsert", ["q0", "a"], ["q1"]),
            mg.node("SequenceInsert", ["q1", "b", "zero"], ["q2"]),
            mg.node("ConcatFromSequence", ["q2"], ["y"], axis=1),
            mg.node("ConcatFromSequence", ["q2"], ["z"], axis=0, new_axis=1),
            mg.node("SequenceAt", ["q2", "zero"], ["w"]),
        ],
        [mg.info("x", [2, 3])],
        [mg.info("y", [2, 6]), mg.info("z", [2, 2, 3]), mg.info("w", [2, 3])],
        [mg.tensor("zero", 0, np.int64)],
    )
    ops = taken(proto, SEQUENCES)
    assert ops.count("Concat") == 2


def test_a_length_that_is_an_output_is_refused_and_nothing_is_written() -> None:
    proto = mg.model(
        [mg.node("SplitToSequence", ["x"], ["q"]), mg.node("SequenceLength", ["q"], ["n"])],
        [mg.info("x", [4])],
        [mg.info("n", [], np.int64)],
    )
    stays(proto, SEQUENCES, "'n' is an output")


def test_a_member_that_is_not_there_is_refused() -> None:
    proto = mg.model(
        [mg.node("SequenceConstruct", ["x"], ["q"]), mg.node("SequenceAt", ["q", "i"], ["y"])],
        [mg.info("x", [2])],
        [mg.info("y", [2])],
        [mg.tensor("i", 1, np.int64)],
    )
    stays(proto, SEQUENCES, "reads member 1 of 1")


def test_a_computed_position_is_refused() -> None:
    proto = mg.model(
        [mg.node("SequenceConstruct", ["x", "x"], ["q"]), mg.node("SequenceAt", ["q", "i"], ["y"])],
        [mg.info("x", [2]), mg.info("i", [], np.int64)],
        [mg.info("y", [2])],
    )
    stays(proto, SEQUENCES, "position 'i' is computed")
