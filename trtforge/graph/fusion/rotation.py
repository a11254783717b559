"""Rotations of pairs as exporters spell them: x * cos + rotated(x) * sin."""

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor
from trtforge.graph.nodes import constant_values, in_onnx_domain
from trtforge.graph.pattern import made_by, reduction_axes, scalar

_STEPS_AT_MOST = 8
_ELEMENTWISE = ("Cos", "Sin", "Mul", "Cast", "Unsqueeze")


@dataclass(frozen=True)
class Rotation:
    """The parts of one rotation.

    Attributes:
        node: the Add.
        source: x.
        cos: what x is multiplied by.
        sin: what the rotated x is multiplied by.
        is_interleaved: whether neighbours are a pair, and not the halves.
    """

    node: gs.Node
    source: gs.Tensor
    cos: gs.Tensor
    sin: gs.Tensor
    is_interleaved: bool


def rotation(editor: Editor, add: gs.Node) -> Rotation | None:
    """Read x * cos + rotated(x) * sin; None when a node is none."""
    products = [made_by(editor, tensor, "Mul") for tensor in add.inputs]
    if len(products) != 2 or products[0] is None or products[1] is None:
        return None
    for straight, turned in ((products[0], products[1]), (products[1], products[0])):
        for index in (0, 1):
            found = _rotated(editor, turned.inputs[index])
            if found is None:
                continue
            source, is_interleaved = found
            for side in (0, 1):
                if straight.inputs[side] is source:
                    cos, sin = straight.inputs[1 - side], turned.inputs[1 - index]
                    return Rotation(add, source, cos, sin, is_interleaved)
    return None


def _rotated(editor: Editor, tensor: gs.Tensor) -> tuple[gs.Tensor, bool] | None:
    """Return x of concat(-x2, x1), halves, or of stack(-x[1::2], x[0::2]), neighbours."""
    node = made_by(editor, tensor, "Concat", "Reshape", "Flatten")
    if node is None:
        return None
    is_interleaved = node.op != "Concat"
    concat = made_by(editor, node.inputs[0], "Concat") if is_interleaved else node
    if concat is None or len(concat.inputs) != 2:
        return None
    rank = len(editor.dims(concat.outputs[0]) or ())
    if int(concat.attrs.get("axis", 0)) not in (-1, rank - 1):
        return None
    first, second = concat.inputs
    if is_interleaved:
        if editor.dims(tensor) is None or rank != len(editor.dims(tensor) or ()) + 1:
            return None
        stacked = (_unstacked(editor, first, rank), _unstacked(editor, second, rank))
        if stacked[0] is None or stacked[1] is None:
            return None
        first, second = stacked[0], stacked[1]
    negated = made_by(editor, first, "Neg")
    if negated is None:
        return None
    source = _halves(editor, second, negated.inputs[0], is_interleaved)
    same = source is not None and editor.dims(source) == editor.dims(tensor)
    return (source, is_interleaved) if source is not None and same else None


def _unstacked(editor: Editor, tensor: gs.Tensor, rank: int) -> gs.Tensor | None:
    node = made_by(editor, tensor, "Unsqueeze")
    axes = reduction_axes(node) if node is not None else None
    return node.inputs[0] if node is not None and axes in ((-1,), (rank - 1,)) else None


def _halves(
    editor: Editor, first: gs.Tensor, second: gs.Tensor, is_interleaved: bool
) -> gs.Tensor | None:
    """Return what is cut in two along the last axis to `first` and `second`."""
    one, two = editor.producer(first), editor.producer(second)
    if one is None or two is None:
        return None
    source = one.inputs[0]
    dims = editor.dims(source)
    size = dims[-1] if dims else None
    if two.inputs[0] is not source or not isinstance(size, int) or size % 2:
        return None
    if one is two and in_onnx_domain(one, "Split") and not is_interleaved:
        rank = len(dims or ())
        is_last = int(one.attrs.get("axis", 0)) in (-1, rank - 1)
        ordered = len(one.outputs) == 2 and one.outputs[0] is first and one.outputs[1] is second
        halved = (editor.dims(first) or (None,))[-1] == size // 2
        return source if is_last and ordered and halved else None
    taken = [_slice(node, len(dims or ()), size) for node in (one, two)]
    half = size // 2
    wanted = (
        [range(0, size, 2), range(1, size, 2)]
        if is_interleaved
        else [range(half), range(half, size)]
    )
    return source if taken == wanted else None


def _slice(node: gs.Node, rank: int, size: int) -> range | None:
    """Return which entries of the last axis a Slice takes; None when it takes others."""
    if not in_onnx_domain(node, "Slice") or len(node.inputs) < 4:
        return None
    given = [constant_values(tensor) for tensor in node.inputs[1:]]
    if any(values is None or values.size != 1 for values in given):
        return None
    numbers = [int(values.reshape(-1)[0]) for values in given if values is not None]
    start, stop, axis = numbers[:3]
    step = numbers[3] if len(numbers) > 3 else 1
    if axis not in (-1, rank - 1) or step < 1:
        return None
    return range(*slice(start, stop, step).indices(size))


def is_paired(editor: Editor, tensor: gs.Tensor, is_interleaved: bool) -> bool:
    """Return whether both entries of each pair are known to be turned by the same angle."""
    for _ in range(_STEPS_AT_MOST):
        values = constant_values(tensor)
        if values is not None:
            return _has_equal_pairs(values, is_interleaved)
        node = editor.producer(tensor)
        if node is None:
            return False
        if in_onnx_domain(node, "Concat"):
            rank = len(editor.dims(tensor) or ())
            is_last = int(node.attrs.get("axis", 0)) in (-1, rank - 1)
            twice = len(node.inputs) == 2 and node.inputs[0] is node.inputs[1]
            return twice and is_last and not is_interleaved
        if not in_onnx_domain(node, *_ELEMENTWISE):
            return False
        if node.op == "Unsqueeze":
            axes = reduction_axes(node)
            rank = len(editor.dims(tensor) or ())
            if axes is None or any(axis % max(rank, 1) == rank - 1 for axis in axes):
                return False
        tensor, factor = node.inputs[0], node.inputs[-1]
        if node.op == "Mul":
            if scalar(tensor) is not None:
                tensor, factor = factor, tensor
            if scalar(factor) is None:
                return False
    return False


def _has_equal_pairs(values: np.ndarray, is_interleaved: bool) -> bool:
    if values.ndim == 0 or values.shape[-1] % 2:
        return False
    half = values.shape[-1] // 2
    if is_interleaved:
        return bool(np.array_equal(values[..., 0::2], values[..., 1::2]))
    return bool(np.array_equal(values[..., :half], values[..., half:]))
