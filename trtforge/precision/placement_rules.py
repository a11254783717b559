"""The rules of Q/DQ placement, as data: what is quantized and what passes a scale on, by target.

A graph is quantized by the rules that hold for every target it is meant for; the default is all of
them, since one typed ONNX serves them all.

Sources, by the keys that the tables use:
    guide: TensorRT developer guide, "Working with Quantized Types", Explicit Quantization and Q/DQ
        layer-placement recommendations: quantize all inputs of weighted operations, not their
        outputs; quantize the residual input of a skip connection; scales per tensor for activations
        and per output channel for weights; no more pairs than that, since each further one can
        break a fusion. Q moves backward and DQ forward over operators that commute with them, as
        max pooling does.
    commutes: the operator only moves values, and Q and DQ work on each value alone, so it commutes
        with them; the guide does not name it, and no engine of TensorRT 10 or 11 was built.
    built: TensorRT-RTX 1.7.1.116, one engine with the pair before and one with it behind the
        operator: both are built, and by their sizes the weights of what reads it are INT8 in both.
    run: ONNX Runtime computes Q and DQ where they stand; nothing is refused.
Reports that shaped the rules: NVIDIA/TensorRT #3861 and #4366 (Concat: Q is moved before it, so
inputs with other scales are quantized twice), #2592 (no pair between Pad and Conv), #3205.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

TARGETS = ("tensorrt", "tensorrt_rtx", "onnxruntime")
"""The recipe's backends; TensorRT 10 and 11 have the same rules."""

UNITE_WITHIN = 4.0
"""Tensors share a scale while their ranges differ by no more than this factor. Four takes two of
the eight bits from the narrowest; beyond, another pair is cheaper than the lost accuracy."""

_ALL = {"tensorrt": "guide", "tensorrt_rtx": "built", "onnxruntime": "run"}
_MOVED = _ALL | {"tensorrt": "commutes"}


@dataclass(frozen=True)
class Weighted:
    """An operator that multiplies and adds: both operands are quantized.

    Attributes:
        channels: for each operand that may be the constant weight, its axis of output channels;
            negative counts from the end.
        turned_by: the attribute that swaps the last two axes of an operand.
        products: whether both operands may be activations.
        sources: target -> where the rule comes from.
    """

    channels: Mapping[int, int]
    turned_by: Mapping[int, str] = field(default_factory=dict)
    products: bool = False
    sources: Mapping[str, str] = field(default_factory=lambda: _ALL)


WEIGHTED: dict[str, Weighted] = {
    "Conv": Weighted({1: 0}),
    # Weights are (Cin, Cout/group, ...). With groups no axis enumerates the output channels: one
    # scale for all (`sites.py`).
    "ConvTranspose": Weighted({1: 1}),
    "Gemm": Weighted({1: -1, 0: -2}, {1: "transB", 0: "transA"}, products=True),
    # A batch of weights (rank 3) has a scale per column, which all matrices share.
    "MatMul": Weighted({1: -1, 0: -2}, products=True),
}
"""Biases (the third operand) stay floats: TensorRT adds them to the INT32 sums, and the parser of
TensorRT-RTX refuses an INT32 bias behind DequantizeLinear."""


@dataclass(frozen=True)
class Passing:
    """An operator whose output has its input's scale, so that one pair before it serves both sides.

    Attributes:
        whole: the output holds all values of the input, so that their ranges are the same; else it
            may hold a part of them, whose range may be narrower.
        only: a condition in `sharing.CONDITIONS`; empty: always.
        sources: target -> where the rule comes from.
    """

    whole: bool = True
    only: str = ""
    sources: Mapping[str, str] = field(default_factory=lambda: _MOVED)


PASSING: dict[str, Passing] = {
    "Identity": Passing(),
    "Reshape": Passing(),
    "Flatten": Passing(),
    "Squeeze": Passing(),
    "Unsqueeze": Passing(),
    "Transpose": Passing(),
    "DepthToSpace": Passing(),
    "SpaceToDepth": Passing(),
    "Expand": Passing(),
    "Tile": Passing(),
    "Pad": Passing(only="zeros are padded"),
    "Resize": Passing(whole=False, only="nearest"),
    "MaxPool": Passing(whole=False, sources=_ALL),
    "GlobalMaxPool": Passing(whole=False),
    "Slice": Passing(whole=False),
    "Split": Passing(whole=False),
    "Gather": Passing(whole=False),
}
"""The value moved is the first input. Concat joins several: see JOINING."""

JOINING: dict[str, Passing] = {"Concat": Passing()}
"""Operators whose inputs must have one scale when they are quantized before it: INT8 values are
copied side by side. That is done where an input is quantized for another reader anyway; else one
pair behind the operator does."""

RESIDUAL: dict[str, Mapping[str, str]] = {"Add": _ALL, "Sum": _ALL}
"""Additions whose skip branch is quantized, so that the convolution on the other one takes them in
(guide: "quantize the residual input in skip connections")."""

FLOAT_ONLY: dict[str, str] = {
    "AveragePool": "it averages: in INT8 its result would be rounded once more",
    "GlobalAveragePool": "it averages: in INT8 its result would be rounded once more",
    "LpPool": "it averages: in INT8 its result would be rounded once more",
    "ReduceMean": "it averages: in INT8 its result would be rounded once more",
    "Resize": "it interpolates: in INT8 its result would be rounded once more",
    "Einsum": "no target has an INT8 form of Einsum; the passes turn most of them into MatMul",
    "Attention": "the fused operator takes floats only; drop the pass that makes it to quantize "
    "its products",
    "LSTM": "no target has an INT8 form of recurrent layers",
    "GRU": "no target has an INT8 form of recurrent layers",
    "RNN": "no target has an INT8 form of recurrent layers",
}
"""Operators that users expect in INT8, and why they are left in floats."""

EXPLAINED = frozenset(JOINING) | {"MaxPool", "GlobalMaxPool", "Resize"}
"""Operators of PASSING and JOINING of which reports speak even where no pair is near."""


def holds_for(sources: Mapping[str, str], targets: tuple[str, ...]) -> bool:
    """Whether a rule holds for every one of the targets."""
    return all(target in sources for target in targets)
