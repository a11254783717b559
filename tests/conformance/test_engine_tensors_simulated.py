"""Engines with inputs and outputs of every kind, run through the worker on the simulator.

A fake stands at the GPU boundary: nothing here is a GPU result.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from engine_models import model, save, weights
from onnx import TensorProto, helper, numpy_helper
from simulator.simulation import Simulation

from trtforge.engine.backend import BuildRequest, ValueTriple, get_backend
from trtforge.engine.engine_worker import EngineSource
from trtforge.engine.runner import EngineRunner
from trtforge.errors import BuildError

BF16, FP8, FLOAT = (TensorProto.BFLOAT16, TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT)
INT64, BOOL = (TensorProto.INT64, TensorProto.BOOL)
ROWS = np.arange(12, dtype=np.float32).reshape(3, 4)


def node(operator: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, inputs.split(), [output], name=f"make_{output}", **attributes)


@dataclass
class Sample:
    """A model, one set of inputs, and what must come out."""

    model: onnx.ModelProto
    feeds: dict[str, Any]
    outputs: dict[str, Any]
    profiles: tuple[dict[str, Any], ...] = ()


def relu(shape: list[Any], kind: int = FLOAT) -> onnx.ModelProto:
    return model([node("Relu", "x", "y")], {"x": (kind, shape)}, {"y": (kind, shape)})


def bf16() -> Sample:
    made = model(
        [node("Mul", "x w", "m"), node("Relu", "m", "y")],
        {"x": (BF16, [4])},
        {"y": (BF16, [4])},
        [numpy_helper.from_array(np.array([2], ml_dtypes.bfloat16), "w")],
    )
    given = np.arange(-1, 3).astype(ml_dtypes.bfloat16)
    return Sample(made, {"x": given}, {"y": np.array([0, 0, 2, 4], ml_dtypes.bfloat16)})


def fp8() -> Sample:
    zero = helper.make_tensor("z", FP8, [], b"\0", raw=True)
    made = model(
        [
            node("DequantizeLinear", "x s", "a"),
            node("Relu", "a", "b"),
            node("QuantizeLinear", "b s z", "y"),
        ],
        {"x": (FP8, [4])},
        {"y": (FP8, [4])},
        [numpy_helper.from_array(np.float32(0.5), "s"), zero],
    )
    kind = ml_dtypes.float8_e4m3fn
    return Sample(made, {"x": np.arange(-1, 3).astype(kind)}, {"y": np.array([0, 0, 1, 2], kind)})


def whole_numbers() -> Sample:
    made = model(
        [node("Cast", "b", "c", to=INT64), node("Add", "x c", "y"), node("Greater", "x c", "z")],
        {"x": (INT64, [4]), "b": (BOOL, [4])},
        {"y": (INT64, [4]), "z": (BOOL, [4])},
    )
    feeds = {"x": np.array([0, 1, 2, 2**40]), "b": np.array([True, False, True, True])}
    outputs = {"y": feeds["x"] + feeds["b"], "z": feeds["x"] > feeds["b"]}
    return Sample(made, feeds, outputs)


def scalars() -> Sample:
    made = model(
        [node("ReduceSum", "x", "t", keepdims=0), node("Add", "t s", "y")],
        {"x": (FLOAT, [4]), "s": (FLOAT, [])},
        {"y": (FLOAT, [])},
    )
    return Sample(
        made, {"x": np.ones(4, np.float32), "s": np.array(3, np.float32)}, {"y": np.float32(7)}
    )


def empty() -> Sample:
    given = np.zeros((0, 3), np.float32)
    return Sample(relu(["n", 3]), {"x": given}, {"y": given}, ({"x": ((0, 3), (2, 3), (4, 3))},))


def sized_by_data() -> Sample:
    made = model(
        [node("NonZero", "x", "places")],
        {"x": (FLOAT, [3, 4])},
        {"places": (INT64, [2, "k"])},
    )
    return Sample(made, {"x": ROWS % 5}, {"places": np.stack(np.nonzero(ROWS % 5))})


def shaped_by_values() -> Sample:
    made = model(
        [node("Reshape", "x shape", "y")],
        {"x": (FLOAT, [3, 4]), "shape": (INT64, [2])},
        {"y": (FLOAT, ["a", "b"])},
    )
    profile = {"shape": ValueTriple(((1, 1), (3, 4), (12, 12)))}
    return Sample(
        made, {"x": ROWS, "shape": np.array([6, 2])}, {"y": ROWS.reshape(6, 2)}, (profile,)
    )


def written_in_place() -> Sample:
    """An output in the memory of an input, as a cache of keys that a decoder appends to."""
    made = model(
        [node("TensorScatter", "past new at", "keys")],
        {"past": (FLOAT, [1, 1, 4, 2]), "new": (FLOAT, [1, 1, 1, 2]), "at": (INT64, [1])},
        {"keys": (FLOAT, [1, 1, 4, 2])},
        opset=24,
    )
    past = np.zeros((1, 1, 4, 2), np.float32)
    feeds = {"past": past, "new": past[:, :, :1] + 5, "at": np.array([2])}
    expected = past.copy()
    expected[:, :, 2] = 5
    return Sample(made, feeds, {"keys": expected})


SAMPLES = {
    one.__name__: one
    for one in (
        *(bf16, fp8, whole_numbers, scalars, empty),
        *(sized_by_data, shaped_by_values, written_in_place),
    )
}


def engine_of(folder: Path, sample: Sample) -> Path:
    engine = folder / "m.plan"
    path = save(sample.model, folder)
    request = BuildRequest(path, engine, folder / "m.log", "tensorrt", sample.profiles)
    get_backend("tensorrt").build(request)
    return engine


@pytest.mark.parametrize("name", SAMPLES)
def test_inputs_and_outputs_of_every_kind(simulated: Simulation, tmp_path: Path, name: str) -> None:
    sample = SAMPLES[name]()
    with EngineRunner(EngineSource(engine_of(tmp_path, sample), "tensorrt")) as runner:
        for _ in range(2):  # buffers are there already the second time
            found = runner.infer(sample.feeds)
            assert list(found) == list(sample.outputs)
            for output, expected in sample.outputs.items():
                assert (found[output].dtype, found[output].shape) == (
                    expected.dtype,
                    expected.shape,
                )
                np.testing.assert_array_equal(found[output], expected)


ON_ELEVEN = pytest.mark.parametrize("simulated", ["11"], indirect=True)
LAYOUTS = {
    "transposed": np.ascontiguousarray(ROWS.T).T,
    "strided": np.repeat(ROWS, 2, axis=1)[:, ::2],
    "backwards": np.ascontiguousarray(ROWS[::-1])[::-1],
    "other byte order": ROWS.astype(">f4"),
    "read only": np.broadcast_to(ROWS, (3, 4)),
}
REFUSED = {
    "type": (ROWS.astype(np.float64), "input 'x' of the engine is float32, not float64"),
    "half": (ROWS.astype(ml_dtypes.bfloat16), "is float32, not bfloat16"),
    "complex": (ROWS.astype(np.complex64), "is float32, not complex64"),
    "text": (np.array([["a"] * 4] * 3), "holds <U1, not numbers"),
    "objects": (ROWS.astype(object), "holds object, not numbers"),
    "rank": (ROWS[None], r"no optimization profile of the engine covers x \[1, 3, 4\]"),
    "size": (ROWS[:2], r"no optimization profile of the engine covers x \[2, 4\]"),
}


@ON_ELEVEN
def test_arrays_of_any_layout_are_taken_and_what_is_no_input_is_one_error(
    simulated: Simulation, tmp_path: Path
) -> None:
    sample = Sample(relu([3, 4]), {"x": ROWS}, {"y": ROWS})
    with EngineRunner(EngineSource(engine_of(tmp_path, sample), "tensorrt")) as runner:
        for array in LAYOUTS.values():
            np.testing.assert_array_equal(runner.infer({"x": array})["y"], ROWS)
        for array, said in REFUSED.values():
            with pytest.raises(BuildError, match=said) as caught:
                runner.infer({"x": array})
            assert caught.value.exit_status == 4
            assert caught.value.hint
        np.testing.assert_array_equal(runner.infer({"x": ROWS})["y"], ROWS)


@ON_ELEVEN
def test_a_model_typed_bf16_throughout_runs(simulated: Simulation, tmp_path: Path) -> None:
    made = model(
        [node("MatMul", "x v", "m"), node("Softmax", "m", "y")],
        {"x": (BF16, ["n", 8])},
        {"y": (BF16, ["n", 16])},
        [weights("v", (8, 16), ml_dtypes.bfloat16)],
    )
    sample = Sample(made, {}, {}, ({"x": ((1, 8), (2, 8), (4, 8))},))
    with EngineRunner(EngineSource(engine_of(tmp_path, sample), "tensorrt")) as runner:
        assert runner.interface["inputs"] == {"x": "bfloat16"}
        found = runner.infer({"x": np.ones((3, 8), ml_dtypes.bfloat16)})["y"]
        assert found.dtype == ml_dtypes.bfloat16
        np.testing.assert_allclose(found.astype(np.float32).sum(axis=1), 1, rtol=0.02)
