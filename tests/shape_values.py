"""Models of which an input's values decide shapes, and profiles that fit them."""

from typing import Any, NamedTuple

import numpy as np
import onnx
from engine_models import model
from onnx import TensorProto, helper, numpy_helper

FLOAT, INT32, INT64 = TensorProto.FLOAT, TensorProto.INT32, TensorProto.INT64


class Deciding(NamedTuple):
    """One model.

    Attributes:
        graph: it; input `k` decides shapes.
        shapes: of its one profile: input -> (min, opt, max), of `k` values.
        outputs: the shape of `y` at min, opt and max.
    """

    graph: onnx.ModelProto
    shapes: dict[str, tuple[list[int], list[int], list[int]]]
    outputs: tuple[tuple[int, ...], ...]

    def recipe(self, backend: str = "tensorrt_rtx") -> str:
        """A recipe of FP32 for one target."""
        lines = [
            f"  {name}: {{min: {low}, opt: {mid}, max: {high}"
            + (", values: true}" if name == "k" else "}")
            for name, (low, mid, high) in self.shapes.items()
        ]
        target = f"targets: [{{name: engine, backend: {backend}}}]"
        return "\n".join(
            ["version: 1", "name: values", "model: {onnx: model.onnx}", "shapes:", *lines, target]
        )


def _graph(nodes: list[Any], k: tuple[int, list[int]], x: list[Any], **more: Any) -> Any:
    made = [helper.make_node("Relu", ["x"], ["r"], name="relu")]
    made += [helper.make_node(op, take, give, name=op.lower()) for op, take, give in nodes]
    rank = more.pop("rank", 2)
    kind = np.int32 if k[0] == INT32 else np.int64
    return model(
        made,
        {"x": (FLOAT, x), "k": k},
        {"y": (FLOAT, [f"y{axis}" for axis in range(rank)])},
        [numpy_helper.from_array(np.array(held, kind), name) for name, held in more.items()],
    )


DECIDING: dict[str, Deciding] = {
    "reshape": Deciding(
        _graph([("Reshape", ["r", "k"], ["y"])], (INT64, [2]), ["N", 24]),
        {"x": ([1, 24], [2, 24], [4, 24]), "k": ([-1, 4], [-1, 6], [-1, 12])},
        ((6, 4), (8, 6), (8, 12)),
    ),
    "expand": Deciding(
        _graph([("Expand", ["r", "k"], ["y"])], (INT64, [2]), [1, 6]),
        {"k": ([1, 6], [4, 6], [8, 6])},
        ((1, 6), (4, 6), (8, 6)),
    ),
    "slice": Deciding(
        _graph([("Slice", ["r", "s", "k", "a"], ["y"])], (INT32, [1]), [8, 6], s=[0], a=[0]),
        {"k": ([1], [4], [8])},
        ((1, 6), (4, 6), (8, 6)),
    ),
    "topk": Deciding(
        _graph([("TopK", ["r", "k"], ["y", "i"])], (INT64, [1]), ["N", 20]),
        {"x": ([1, 20], [2, 20], [4, 20]), "k": ([1], [5], [20])},
        ((1, 1), (2, 5), (4, 20)),
    ),
    "resize": Deciding(
        _graph([("Resize", ["r", "", "", "k"], ["y"])], (INT64, [4]), [1, 3, 8, 8], rank=4),
        {"k": ([1, 3, 4, 4], [1, 3, 8, 8], [1, 3, 16, 16])},
        ((1, 3, 4, 4), (1, 3, 8, 8), (1, 3, 16, 16)),
    ),
    "range": Deciding(  # the values are one number and no list
        _graph(
            [("Range", ["s", "k", "d"], ["i"]), ("Gather", ["r", "i"], ["y"])],
            (INT64, []),
            [8, 6],
            s=0,
            d=1,
        ),
        {"k": ([1], [4], [8])},
        ((1, 6), (4, 6), (8, 6)),
    ),
}


def gathered() -> onnx.ModelProto:
    """An integer input whose values are indices and decide no shape."""
    return _graph([("Gather", ["r", "k"], ["y"])], (INT64, [1]), [4, 6])
