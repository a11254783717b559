"""Graphs that TensorRT-RTX's own parser or builder refuses: what a user reads of each."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from documents import REPOSITORY
from engine_models import model, save
from onnx import TensorProto, helper, numpy_helper

from trtforge.engine.backend import BuildRequest, ValueTriple, get_backend
from trtforge.errors import BuildError

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def loop_without_condition() -> onnx.ModelProto:
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["again"], ["again_out"], name="keep"),
            helper.make_node("Add", ["state", "state"], ["state_out"], name="double"),
        ],
        "body",
        [
            helper.make_tensor_value_info("turn", INT64, []),
            helper.make_tensor_value_info("again", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", FLOAT, [4]),
        ],
        [
            helper.make_tensor_value_info("again_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state_out", FLOAT, [4]),
        ],
    )
    loop = helper.make_node("Loop", ["turns", "", "x"], ["y"], name="loop", body=body)
    return model([loop], {"turns": (INT64, []), "x": (FLOAT, [4])}, {"y": (FLOAT, [4])})


def weights_of_any_number() -> onnx.ModelProto:
    return model(
        [helper.make_node("Conv", ["x", "w"], ["y"], name="conv")],
        {"x": (FLOAT, [1, 3, 8, 8]), "w": (FLOAT, ["out", 3, 3, 3])},
        {"y": (FLOAT, [1, "out", 6, 6])},
    )


def nine_dimensions() -> onnx.ModelProto:
    shape = [1] * 9
    return model(
        [helper.make_node("Relu", ["x"], ["y"], name="r")],
        {"x": (FLOAT, shape)},
        {"y": (FLOAT, shape)},
    )


def depth_at_run_time() -> onnx.ModelProto:
    return model(
        [helper.make_node("OneHot", ["i", "depth", "off_on"], ["y"], name="hot")],
        {"i": (INT64, [3]), "depth": (INT64, [])},
        {"y": (FLOAT, [3, "depth"])},
        [numpy_helper.from_array(np.array([0, 1], np.float32), "off_on")],
    )


def weights_of_other_channels() -> onnx.ModelProto:
    return model(
        [helper.make_node("Conv", ["x", "w"], ["y"], name="conv")],
        {"x": (FLOAT, [1, 3, 8, 8])},
        {"y": (FLOAT, [1, 4, 6, 6])},
        [numpy_helper.from_array(np.ones((4, 5, 3, 3), np.float32), "w")],
    )


def four_axes() -> onnx.ModelProto:
    return model(
        [helper.make_node("Conv", ["x", "w"], ["y"], name="conv")],
        {"x": (FLOAT, [1, 1, 4, 4, 4, 4])},
        {"y": (FLOAT, [1, 1, 2, 2, 2, 2])},
        [numpy_helper.from_array(np.ones((1, 1, 3, 3, 3, 3), np.float32), "w")],
    )


def odd_activation() -> onnx.ModelProto:
    names = ["Mish", "Tanh", "Tanh"]
    lstm = helper.make_node("LSTM", ["x", "w", "r"], ["y"], hidden_size=2, activations=names)
    return model(
        [lstm],
        {"x": (FLOAT, [3, 1, 4])},
        {"y": (FLOAT, [3, 1, 1, 2])},
        [
            numpy_helper.from_array(np.ones((1, 8, 4), np.float32), "w"),
            numpy_helper.from_array(np.ones((1, 8, 2), np.float32), "r"),
        ],
    )


REFUSED: list[tuple[Callable[[], onnx.ModelProto], dict[str, Any], str, str | None, str]] = [
    (
        loop_without_condition,
        {"turns": ValueTriple(((1,), (2,), (4,)))},
        "cannot take Identity node 'keep': it reads what the Loop or If around it does not give",
        "keep",
        "the condition `true`",
    ),
    (
        weights_of_any_number,
        {"w": ((1, 3, 3, 3), (2, 3, 3, 3), (4, 3, 3, 3))},
        "cannot take Conv node 'conv': its weights have no fixed shape",
        "conv",
        "make its weights a constant",
    ),
    (weights_of_other_channels, {}, "for another number of channels", "conv", "check the shape"),
    (four_axes, {}, "it works on more than three axes", "conv", "Reshape"),
    (odd_activation, {}, "the activation Mish, which TensorRT has not", None, "Sigmoid"),
    (nine_dimensions, {}, "cannot take the graph: an input, output or weight has", None, "8 dim"),
    (
        depth_at_run_time,
        {"depth": ValueTriple(((4,), (4,), (5,)))},
        "the Depth of a OneHot is no constant",
        None,
        "make that input a constant",
    ),
]


def refused(proto: onnx.ModelProto, folder: Path, **more: Any) -> BuildError:
    output = folder / "model.engine"
    request = BuildRequest(
        save(proto, folder), output, folder / "build.log", "tensorrt_rtx", **more
    )
    with pytest.raises(BuildError) as caught:
        get_backend("tensorrt_rtx").build(request)
    assert not output.exists()
    return caught.value


@pytest.mark.parametrize(
    ("make", "profile", "words", "node", "hint"),
    REFUSED,
    ids=lambda one: getattr(one, "__name__", ""),
)
def test_a_refusal_has_subject_reason_and_remedy_in_plain_words(
    tmp_path: Path,
    make: Callable[[], onnx.ModelProto],
    profile: dict[str, Any],
    words: str,
    node: str | None,
    hint: str,
) -> None:
    error = refused(make(), tmp_path, profiles=(profile,) if profile else ())
    assert error.exit_status == 4
    assert words in error.message
    assert error.where is not None
    assert error.where.node == node
    assert error.hint is not None
    assert hint in error.hint
    assert "number -1" not in (error.details or "")


def test_too_little_shared_memory_says_which_option_to_raise(tmp_path: Path) -> None:
    digits = onnx.load(REPOSITORY / "recipes" / "digits" / "model.onnx")
    profile = {"image": ((1, 1, 8, 8), (4, 1, 8, 8), (8, 1, 8, 8))}
    options = {"tactic_shared_memory_kib": 1}
    error = refused(digits, tmp_path, profiles=(profile,), options=options)
    assert "more shared memory than tactic_shared_memory_kib allows" in error.message
    assert "raise tactic_shared_memory_kib" in str(error.hint)
