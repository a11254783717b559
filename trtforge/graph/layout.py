"""Readings of the operators that move data: the order of a Transpose, the ranges of a Slice."""

from typing import Any, NamedTuple

import numpy as np
import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor
from trtforge.graph.facts import Dim
from trtforge.graph.nodes import constant_values
from trtforge.graph.pattern import rank_of, reduction_axes

AXES_AS_INPUT = 13
"""Squeeze and Unsqueeze take their axes as an input since this opset.

Source: https://onnx.ai/onnx/operators/onnx__Unsqueeze.html
"""

RANGES_AS_INPUTS = 10
"""Slice takes its ranges as inputs since this opset.

Source: https://onnx.ai/onnx/operators/onnx__Slice.html
"""

END = 2**63 - 1
"""An end that is never reached."""


class Range(NamedTuple):
    """What a Slice takes along one axis, as Python's slices write it."""

    start: int
    end: int
    step: int


def order_of(editor: Editor, transpose: gs.Node) -> tuple[int, ...] | None:
    """Return the `perm` of a Transpose; None when it is left out and the rank is not known."""
    if "perm" in transpose.attrs:
        return tuple(int(axis) for axis in transpose.attrs["perm"])
    rank = rank_of(editor, transpose.inputs[0])
    return None if rank is None else tuple(range(rank))[::-1]


def inverse(order: tuple[int, ...]) -> tuple[int, ...]:
    """Return the order that takes a Transpose by `order` back."""
    result = [0] * len(order)
    for axis, source in enumerate(order):
        result[source] = axis
    return tuple(result)


def composed(first: tuple[int, ...], second: tuple[int, ...]) -> tuple[int, ...]:
    """Return the order of Transpose by `first` and then by `second`."""
    return tuple(first[axis] for axis in second)


def is_identity(order: tuple[int, ...]) -> bool:
    """Return whether a Transpose by `order` leaves everything in its place."""
    return order == tuple(range(len(order)))


def axis_of(editor: Editor, node: gs.Node, tensor: gs.Tensor, default: int) -> int | None:
    """Return the `axis` of a node counted from the front, None when that is not known.

    Args:
        editor: of the graph.
        node: with the attribute.
        tensor: whose rank counts.
        default: when the attribute is left out.
    """
    axis = int(node.attrs.get("axis", default))
    rank = rank_of(editor, tensor)
    if axis >= 0:
        return axis
    return None if rank is None else axis % rank


def axes_of(editor: Editor, node: gs.Node, rank: int) -> tuple[int, ...] | None:
    """Return the axes of a Squeeze or Unsqueeze, counted from the front and sorted.

    Args:
        editor: of the graph.
        node: a Squeeze (whose axes may be left out when the dimensions are known) or Unsqueeze.
        rank: of the tensor that has these axes: a Squeeze's input, an Unsqueeze's output.
    """
    axes = reduction_axes(node)
    if axes is None:
        dims = editor.dims(node.inputs[0])
        left_out = "axes" not in node.attrs and (len(node.inputs) < 2 or not node.inputs[1].name)
        if node.op != "Squeeze" or not left_out or dims is None:
            return None
        if any(not isinstance(dim, int) for dim in dims):
            return None
        axes = tuple(axis for axis, dim in enumerate(dims) if dim == 1)
    if any(not -rank <= axis < rank for axis in axes):
        return None
    return tuple(sorted(axis % rank for axis in axes))


def axes_arguments(
    editor: Editor, base: str, axes: tuple[int, ...]
) -> tuple[list[gs.Tensor], dict[str, Any]]:
    """Return the further inputs and the attributes that hand axes to Squeeze or Unsqueeze."""
    if editor.opset >= AXES_AS_INPUT:
        return [editor.constant(f"{base}_axes", np.asarray(axes, np.int64))], {}
    return [], {"axes": list(axes)}


def ranges_of(editor: Editor, node: gs.Node) -> dict[int, Range] | None:
    """Return axis -> range of a Slice by constants; negative axes need the rank.

    Returns:
        None when something is computed, unknown or malformed.
    """
    if editor.opset < RANGES_AS_INPUTS:
        given = [node.attrs.get(name) for name in ("starts", "ends", "axes")]
        parts = [None if part is None else [int(v) for v in part] for part in given] + [None]
    else:
        parts = []
        for tensor in [*node.inputs[1:5], *[None] * (5 - len(node.inputs))]:
            if tensor is None or not tensor.name:
                parts.append(None)
                continue
            values = constant_values(tensor)
            if values is None or values.ndim != 1:
                return None
            parts.append([int(value) for value in values])
    starts, ends, axes, steps = parts
    if starts is None or ends is None:
        return None
    axes = list(range(len(starts))) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    if not len(starts) == len(ends) == len(axes) == len(steps) or 0 in steps:
        return None
    if any(axis < 0 for axis in axes):
        rank = rank_of(editor, node.inputs[0])
        if rank is None:
            return None
        axes = [axis % rank for axis in axes]
    rows = zip(axes, starts, ends, steps, strict=True)
    found = {axis: Range(start, end, step) for axis, start, end, step in rows}
    return found if len(found) == len(axes) else None


def from_the_front(taken: Range, dim: Dim) -> Range | None:
    """Write a range of positive step without negative positions, None when that cannot be.

    Args:
        taken: as a Slice has it.
        dim: the axis' dimension; negative positions need it as a number.
    """
    start, end, step = taken
    if step < 1:
        return None
    if isinstance(dim, int):
        start, end, step = slice(start, end, step).indices(dim)
        return Range(start, max(start, end), step)
    if start < 0 or end < 0:
        return None
    return Range(start, max(start, end), step)


def slice_arguments(
    editor: Editor, base: str, ranges: dict[int, Range]
) -> tuple[list[gs.Tensor], dict[str, Any]] | None:
    """Return the further inputs and the attributes of a Slice; None where they have no words."""
    axes = sorted(ranges)
    columns = {
        "starts": [ranges[axis].start for axis in axes],
        "ends": [min(ranges[axis].end, END) for axis in axes],
        "axes": axes,
        "steps": [ranges[axis].step for axis in axes],
    }
    if all(step == 1 for step in columns["steps"]):
        del columns["steps"]
    if editor.opset >= RANGES_AS_INPUTS:
        inputs = [
            editor.constant(f"{base}_{name}", np.asarray(column, np.int64))
            for name, column in columns.items()
        ]
        return list(inputs), {}
    return None if "steps" in columns else ([], columns)
