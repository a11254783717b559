"""Which layers' weights have the 2:4 pattern that sparse tensor cores need.

Of every four weights that are multiplied with neighbouring input channels, at least two must be
zero: for each output channel and kernel position of a Conv, for each column of a matrix. Source:
TensorRT documentation, "Sparsity" (structured sparsity on Ampere and later).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import NodeProto

from trtforge.graph.model import Model

_SAME_ZEROS = ("DequantizeLinear", "Cast", "Identity")
"""What may stand between a stored weight and its reader without making a zero another number; the
zero points of symmetric quantization are zero."""


@dataclass(frozen=True)
class LayerSparsity:
    """How many groups of four weights of one layer have two zeros.

    Attributes:
        node: its name.
        op: Conv, Gemm or MatMul.
        groups: groups of four neighbouring input channels; the last may be shorter.
        sparse: of these, how many have at most two weights that are not zero.
    """

    node: str
    op: str
    groups: int
    sparse: int

    @property
    def is_eligible(self) -> bool:
        """Whether the whole layer has the pattern: only then is there a sparse kernel."""
        return self.groups > 0 and self.sparse == self.groups

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {"node": self.node, "op": self.op, "groups": self.groups, "sparse": self.sparse}


def layer_sparsity(model: Model) -> Iterator[LayerSparsity]:
    """Yield the layers of the main graph with constant weights, in order; one weight at a time."""
    graph = model.proto.graph
    stored = {weight.name for weight in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        if node.op_type not in ("Conv", "Gemm", "MatMul") or len(node.input) < 2:
            continue
        name = str(node.input[1])
        while name not in stored and name in makers and makers[name].op_type in _SAME_ZEROS:
            name = str(makers[name].input[0])
        if name in stored:
            groups, sparse = _count(_by_channel(node, model.initializer(name)))
            yield LayerSparsity(node.name, node.op_type, groups, sparse)


def _by_channel(node: NodeProto, weight: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Weights as (rows, input channels)."""
    if node.op_type == "Conv":  # (Cout, Cin/group, kernel...)
        return np.moveaxis(weight, 1, -1).reshape(-1, weight.shape[1])
    transposed = node.op_type == "Gemm" and any(a.name == "transB" and a.i for a in node.attribute)
    if weight.ndim < 2:
        return weight.reshape(1, -1)
    if not transposed:  # (..., K, N)
        weight = np.swapaxes(weight, -1, -2)
    return weight.reshape(-1, weight.shape[-1])


def _count(rows: npt.NDArray[Any]) -> tuple[int, int]:
    channels = rows.shape[1]
    if channels < 4:  # of depthwise convolutions and of image channels: nothing to leave out
        return rows.shape[0], 0
    padded = np.zeros((rows.shape[0], math.ceil(channels / 4) * 4), bool)
    padded[:, :channels] = rows != 0
    kept = padded.reshape(-1, 4).sum(axis=1)
    return len(kept), int((kept <= 2).sum())
