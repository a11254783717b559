"""Shapes that small integers decide: found without a run, and those of a run."""

import numpy as np
import pytest
from hostile_graphs import HOSTILE
from models_precision import Net

from trtforge.errors import ForgeError
from trtforge.graph.model import Model
from trtforge.pipeline.corners import free_shapes
from trtforge.precision.bodies import known_shapes
from trtforge.precision.counting import _run_for_shapes
from trtforge.precision.known_values import infer_with_values


def test_shapes_that_are_found_are_those_of_a_run() -> None:
    compared = 0
    for name, make in HOSTILE.items():
        model = Model(make().proto)
        try:
            shapes = free_shapes(model.contract)["opt"]
            found = known_shapes(infer_with_values(model.proto, shapes).graph)
            names = {out for node in model.proto.graph.node for out in node.output if out}
            measured = _run_for_shapes(model, dict(shapes), names)
        except ForgeError:
            continue  # no tensors, or nothing that runs
        for tensor, shape in measured.items():
            assert found.get(tensor, shape) == shape, (name, tensor)
            compared += tensor in found
    assert compared > 500


@pytest.mark.parametrize("allowed", [0, 64])
def test_a_chain_of_reshapes_needs_a_round_for_each(
    allowed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each Reshape reads the size of the one before, halved: ONNX's inference knows none."""
    model = Net()
    tensor = model.input("x", ["N", 4])
    model.const("two", [2], np.int64)
    model.const("rest", [-1], np.int64)
    for index in range(4):
        shape = model.op("Shape", [tensor], f"s{index}")
        rows = model.op("Gather", [shape, model.const(f"first{index}", [0], np.int64)], f"g{index}")
        more = model.op("Div", [rows, "two"], f"m{index}")
        target = model.op("Concat", [more, "rest"], f"c{index}", axis=0)
        tensor = model.op("Reshape", [tensor, target], f"r{index}")
    model.output(tensor, ["M", "K"])
    monkeypatch.setattr("trtforge.precision.known_values._MOST_ROUNDS", allowed)
    found = known_shapes(infer_with_values(model.model().proto, {"x": (48, 4)}).graph)
    if allowed:
        assert [found[f"r{index}"] for index in range(4)] == [(24, 8), (12, 16), (6, 32), (3, 64)]
    else:
        assert "r0" not in found
