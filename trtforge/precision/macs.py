"""Multiply-accumulates of each operator, from the shapes of its operands and its result."""

import math
from collections.abc import Callable, Sequence
from typing import Any

Shape = tuple[int, ...]
Attributes = dict[str, Any]


def _conv(operands: Sequence[Shape], result: Shape, _: Attributes) -> int:
    # Weights are (Cout, Cin/group, kernel...).
    return math.prod(result) * math.prod(operands[1][1:])


def _conv_transpose(operands: Sequence[Shape], _result: Shape, _: Attributes) -> int:
    # Weights are (Cin, Cout/group, kernel...): every input element meets its group's kernels.
    return math.prod(operands[0]) * math.prod(operands[1][1:])


def _gemm(operands: Sequence[Shape], result: Shape, attributes: Attributes) -> int:
    left = operands[0]
    return math.prod(result) * (left[0] if attributes.get("transA", 0) else left[1])


def _matmul(operands: Sequence[Shape], result: Shape, _: Attributes) -> int:
    return math.prod(result) * operands[0][-1]


def _recurrent(operands: Sequence[Shape], _result: Shape, _: Attributes) -> int:
    # X is (steps, batch, features) or (batch, steps, features); W and R are used at each step.
    steps, batch = operands[0][:2]
    return steps * batch * (math.prod(operands[1]) + math.prod(operands[2]))


def _attention(operands: Sequence[Shape], result: Shape, _: Attributes) -> int:
    # (batch, heads, length, size) or (batch, length, heads * size): scores, then their use.
    return (math.prod(operands[0]) + math.prod(result)) * operands[1][-2]


MACS: dict[str, Callable[[Sequence[Shape], Shape, Attributes], int]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "RNN": _recurrent,
    "Attention": _attention,
}

OPERANDS: dict[str, int] = {
    **dict.fromkeys(("Conv", "ConvTranspose", "Gemm", "MatMul", "Attention"), 2),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), 3),
}
"""How many inputs the count needs."""
