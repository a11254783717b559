"""A residual network with seeded weights, and images for it: made by onnx alone, no download.

It has the blocks of an 18-layer residual network (K. He et al., "Deep Residual Learning for Image
Recognition", 2015), batch normalization folded, at 128 x 128: 11 million weights and 0.6 billion
multiplications an image, so that its latency is more than launch cost.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZE = 128
CLASSES = 1000
WIDTHS = (64, 128, 256, 512)
BLOCKS = 2


class _Network:
    """Nodes and weights that grow layer by layer."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[TensorProto] = []
        self._rng = np.random.default_rng(0)

    def weight(self, name: str, shape: tuple[int, ...], gain: float) -> str:
        """Gaussian weights that keep the signal's power times `gain` squared."""
        fan_in = float(np.prod(shape[1:]))
        values = self._rng.standard_normal(shape) * gain / np.sqrt(fan_in)
        self.weights.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def add(self, kind: str, name: str, inputs: list[str], **attributes: Any) -> str:
        """One node with one output of its own name."""
        self.nodes.append(helper.make_node(kind, inputs, [name], name=f"/{name}", **attributes))
        return name

    def conv(self, name: str, source: str, widths: tuple[int, int], form: tuple[int, int]) -> str:
        """A convolution with bias; `form` is (kernel, stride)."""
        (taken, given), (kernel, stride) = widths, form
        weight = self.weight(f"{name}.weight", (given, taken, kernel, kernel), 2**0.5)
        bias = self.weight(f"{name}.bias", (given,), 0.1)
        pads = [kernel // 2] * 4
        return self.add("Conv", name, [source, weight, bias], pads=pads, strides=[stride, stride])

    def block(self, name: str, source: str, widths: tuple[int, int], stride: int) -> str:
        """Two convolutions beside a shortcut."""
        first = self.conv(f"{name}.conv1", source, widths, (3, stride))
        active = self.add("Relu", f"{name}.relu1", [first])
        second = self.conv(f"{name}.conv2", active, (widths[1], widths[1]), (3, 1))
        if widths[0] != widths[1]:
            source = self.conv(f"{name}.shortcut", source, widths, (1, stride))
        whole = self.add("Add", f"{name}.add", [second, source])
        return self.add("Relu", f"{name}.relu2", [whole])


def make_network(folder: Path) -> tuple[Path, Path]:
    """Write residual.onnx and images.npz (64 seeded images) to a folder; returns both."""
    made = _Network()
    stem = made.conv("stem", "image", (3, WIDTHS[0]), (7, 2))
    last = made.add("Relu", "stem.relu", [stem])
    last = made.add(
        "MaxPool", "stem.pool", [last], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4
    )
    before = WIDTHS[0]
    for stage, width in enumerate(WIDTHS):
        for index in range(BLOCKS):
            stride = 2 if stage and not index else 1
            last = made.block(f"stage{stage}.{index}", last, (before, width), stride)
            before = width
    last = made.add("Flatten", "flat", [made.add("GlobalAveragePool", "pool", [last])])
    head = [made.weight("head.weight", (CLASSES, WIDTHS[-1]), 1.0)]
    made.add("Gemm", "scores", [last, *head], transB=1)
    graph = helper.make_graph(
        made.nodes,
        "residual",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", CLASSES])],
        made.weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, folder / "residual.onnx")
    # Smooth images as photographs are: coarse noise made larger, with a little fine noise.
    rng = np.random.default_rng(1)
    coarse = rng.standard_normal((64, 3, SIZE // 8, SIZE // 8)).repeat(8, axis=2).repeat(8, axis=3)
    images = coarse + 0.2 * rng.standard_normal(coarse.shape)
    np.savez(folder / "images.npz", image=images.astype(np.float32))
    return folder / "residual.onnx", folder / "images.npz"
