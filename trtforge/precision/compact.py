"""`precision.compact`: which layers make an INT8 engine larger than an FP16 one, as rules.

Measured with TensorRT-RTX 1.7.1 (its CPU builder; docs/quantization-placement.md has the table).
FP16 convolutions mostly share kernels that come with the library; INT8 ones are compiled into the
engine, about KERNEL_BYTES for each set of shapes and scales. INT8 saves one byte per weight beside
FP16, so that a layer pays for its kernel from KERNEL_BYTES weights on.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import onnx_graphsurgeon as gs

KERNEL_BYTES = 134_000
"""Code of one INT8 convolution: seven more kernels added 0.94 MB to a chain of 1x1 convolutions."""

_FEW_POSITIONS = 16
_FEW_WEIGHTS = 2048
_PAYING_WEIGHTS = 131_072

Dims = Mapping[str, tuple[int | None, ...]]


@dataclass(frozen=True)
class Weights:
    """A layer, as far as its size in an engine goes.

    Attributes:
        op: Conv, ConvTranspose, Gemm or MatMul.
        shape: of its weight.
        group: of a convolution; else 1.
        positions: output positions per sample of a convolution; None where they are not fixed.
    """

    op: str
    shape: tuple[int, ...]
    group: int = 1
    positions: int | None = None

    @classmethod
    def of(cls, node: gs.Node, index: int, dims: Dims) -> "Weights":
        """Describe a node whose input `index` is the weight; `dims` are shapes of tensors."""
        weight = node.inputs[index]
        if weight.shape is None and weight.inputs:  # what the model's own DequantizeLinear gives
            weight = weight.inputs[0].inputs[0]
        shape = tuple(int(size) for size in weight.shape)
        spatial = dims.get(node.outputs[0].name, (None,) * 3)[2:]
        known = [size for size in spatial if size is not None]
        is_known = node.op == "Conv" and len(known) == len(spatial)
        positions = math.prod(known) if is_known else None
        return cls(node.op, shape, int(node.attrs.get("group", 1)), positions)

    @property
    def count(self) -> int:
        """How many weights."""
        return math.prod(self.shape)

    @property
    def is_depthwise(self) -> bool:
        """Whether each channel has a kernel of its own."""
        return self.op == "Conv" and self.group > 1 and self.shape[1] == 1


@dataclass(frozen=True)
class Costly:
    """A kind of layer that `compact` leaves unquantized.

    Attributes:
        what: the kind, in words.
        why: what INT8 would cost.
        holds: whether a layer is of it.
    """

    what: str
    why: str
    holds: Callable[[Weights], bool]


COSTLY: tuple[Costly, ...] = (
    Costly(
        "a depthwise Conv",
        "its INT8 weights would be padded to eight times their FP16 bytes",
        lambda layer: layer.is_depthwise,
    ),
    Costly(
        f"a Conv with fewer than {_FEW_POSITIONS} output positions and {_PAYING_WEIGHTS} weights",
        "its INT8 kernel would be larger than what its weights save, and there is no time to save",
        lambda layer: (
            layer.positions is not None
            and layer.positions < _FEW_POSITIONS
            and layer.count < _PAYING_WEIGHTS
        ),
    ),
    Costly(
        f"a layer with fewer than {_FEW_WEIGHTS} weights",
        "its INT8 kernel would be far larger than its weights",
        lambda layer: layer.count < _FEW_WEIGHTS,
    ),
)
"""The first that holds is the reason given. The bounds of 16 positions and 2048 weights were chosen
on seven networks (of five bounds tried for the latter); 131072 weights follow from KERNEL_BYTES."""


def too_costly(layer: Weights) -> str | None:
    """Why `compact` leaves a layer unquantized; None where INT8 pays."""
    for rule in COSTLY:
        if rule.holds(layer):
            return f"compact: {rule.what}: {rule.why}"
    return None
