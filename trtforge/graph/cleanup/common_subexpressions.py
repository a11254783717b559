"""What is computed twice is computed once."""

import math
from collections.abc import Hashable
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor
from trtforge.graph.nodes import constant_values, is_standard, node_label

_COMMUTATIVE = frozenset({"Add", "And", "Equal", "Max", "Mean", "Min", "Mul", "Or", "Sum", "Xor"})

_LEFT_ALONE = frozenset(
    {
        # Another value each time.
        "Bernoulli",
        "Dropout",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
        # TensorRT fuses a pair with the operator beside it; one pair for two readers hinders that.
        "QuantizeLinear",
        "DequantizeLinear",
        "Constant",
    }
)


class MergeCommonSubexpressions:
    """Merge nodes that compute the same from the same.

    Matches: two nodes of one standard, deterministic operator with equal attributes and the same
    inputs (in any order where the operator commutes), in one graph.
    Rewrites to: the first of them; readers of the second read its results.
    Refuses when: both results are outputs of the graph.

    Any operator of https://onnx.ai/onnx/operators/, at any opset.
    """

    name = "common-subexpressions"

    def apply(self, editor: Editor) -> None:
        """Rewrite one graph in place."""
        first: dict[Hashable, gs.Node] = {}
        for node in editor.nodes():
            key = _key(node)
            if key is None:
                continue
            kept = first.setdefault(key, node)
            if kept is not node:
                _merge(editor, kept, node)


def _key(node: gs.Node) -> Hashable | None:
    if node.op in _LEFT_ALONE or not node.inputs or not is_standard(node):
        return None
    attributes = []
    for name, value in sorted(node.attrs.items()):
        plain = _plain(value)
        if plain is None:
            return None
        attributes.append((name, plain))
    inputs: list[Hashable] = [_input_key(tensor) for tensor in node.inputs]
    if node.op in _COMMUTATIVE:
        inputs.sort(key=hash)
    outputs = tuple(bool(tensor.name) for tensor in node.outputs)
    return (node.op, tuple(inputs), tuple(attributes), outputs)


_COMPARED_ELEMENTS = 64
"""Constants up to this size are compared by what they hold; whoever has shared weights may no
longer change them, so bigger ones are merged in the end only."""


def _input_key(tensor: gs.Tensor) -> Hashable:
    if not tensor.name:
        return ""
    if isinstance(tensor, gs.Constant) and math.prod(tensor.shape) <= _COMPARED_ELEMENTS:
        return _plain(tensor) or id(tensor)
    return id(tensor)


def _plain(value: Any) -> Hashable | None:
    """An attribute's value as something to compare by; None for bodies and the like."""
    if isinstance(value, bool | int | float | str | bytes):
        return (type(value).__name__, value)
    if isinstance(value, list | tuple):
        parts = [_plain(one) for one in value]
        return None if None in parts else ("list", *parts)
    if isinstance(value, gs.Constant):
        array = constant_values(value)
        if array is None or array.dtype.hasobject:
            return None
        return ("tensor", array.dtype.str, array.shape, np.ascontiguousarray(array).tobytes())
    return None


def _merge(editor: Editor, kept: gs.Node, node: gs.Node) -> None:
    reason = f"it computes what '{node_label(kept)}' computes"
    named = [(a, b) for a, b in zip(kept.outputs, node.outputs, strict=True) if b.name]
    if len(named) == 1:
        ((source, result),) = named
        index = next(i for i, tensor in enumerate(node.outputs) if tensor is result)
        editor.bypass_or_refuse(node, source, reason, index)
        return
    if any(editor.is_kept(result) for _, result in named):
        editor.refuse(node, "its results are outputs")
        return
    for source, result in named:
        editor.replace_uses(result, source)
    editor.match(node, reason)
    editor.remove(node)
