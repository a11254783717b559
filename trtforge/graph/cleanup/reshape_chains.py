"""Two nodes that only give the same elements another shape become one, or none."""

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor
from trtforge.graph.facts import Dims
from trtforge.graph.layout import axes_arguments, axes_of, order_of
from trtforge.graph.nodes import constant_values, node_label
from trtforge.graph.pattern import is_read_only_by, rank_of
from trtforge.graph.shape_values import value_of

_SHAPING = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose")

_TARGET_AS_INPUT = 5
"""Reshape takes its target as an input since this opset.

Source: https://onnx.ai/onnx/operators/onnx__Reshape.html
"""

_Labels = list[int | None]
"""The axes of a tensor: the source's axis that each is, None for a new one of size 1."""


class MergeReshapes:
    """Merge two nodes in a row that keep the elements in their order.

    Matches: b(a(x)) with a and b any of Reshape, Flatten, Squeeze, Unsqueeze, or a Transpose that
    only moves axes of size 1 (Reshape opset 5 on,
    https://onnx.ai/onnx/operators/onnx__Reshape.html). Such a node is a bijection of the flat
    elements that is the identity, so b after a has the elements of x in their order, and only
    the dimensions of b count.
    Rewrites to: x itself when the dimensions of b are those of x (or a Squeeze takes off the axes
    that an Unsqueeze put in); one Squeeze or one Unsqueeze when the axes say so; otherwise one
    Reshape of x, whose target is b's own or is written from known dimensions: numbers, 0 for the
    dimension of x on the same axis, and one -1.
    Refuses when: a is read by other nodes than such ones, too; more than one dimension of b is
    neither known nor that of x on the same axis; or -1 would stand beside a dimension that may be
    0, which a and b take and Reshape does not.
    """

    name = "reshape-chains"

    def apply(self, editor: Editor) -> None:
        """Rewrite one graph in place."""
        if editor.opset < _TARGET_AS_INPUT:
            return
        for node in editor.nodes(*_SHAPING):
            if not node.inputs or not _keeps_order(editor, node):
                continue
            first = editor.producer(node.inputs[0], *_SHAPING)
            if first is not None and _keeps_order(editor, first):
                _merge(editor, first, node)


def _keeps_order(editor: Editor, node: gs.Node) -> bool:
    if node.op != "Transpose":
        return True
    dims, order = editor.dims(node.inputs[0]), order_of(editor, node)
    if dims is None or order is None:
        return False
    moved = [axis for axis in order if dims[axis] != 1]
    return moved == sorted(moved)


def _merge(editor: Editor, first: gs.Node, node: gs.Node) -> None:
    source, label = first.inputs[0], node_label(first)
    labels = _labels(editor, (first, node))
    if labels is not None:
        labels = _with_new_axes_matched(labels, rank_of(editor, source) or 0)
    before, after = editor.dims(source), editor.dims(node.outputs[0])
    is_same = before is not None and before == after and None not in before
    if is_same or (labels is not None and labels == list(range(rank_of(editor, source) or 0))):
        why = editor.bypass(node, source)
        if why is None:
            editor.match(node, f"it takes back what '{label}' does")
            return
    if not is_read_only_by(editor, first.outputs[0], *_SHAPING):
        editor.refuse(node, f"the result of '{label}' is read by other nodes, too")
        return
    if _by_axes(editor, node, source, labels) or _by_target(editor, first, node):
        return
    target = None if before is None or after is None else target_between(before, after)
    fails = target is not None and _fails_when_empty(target)
    if fails and not any(_fails_when_empty(_own_target(known)) for known in (first, node)):
        editor.refuse(node, f"one Reshape for '{label}' and it would fail on empty tensors")
        return
    if target is None:
        editor.refuse(node, f"its dimensions after '{label}' are not known well enough")
        return
    editor.match(node, f"one Reshape does what '{label}' and it do")
    shape = editor.constant(f"{node.outputs[0].name}_shape", np.asarray(target, np.int64))
    editor.replace(node, "Reshape", [source, shape])


def _fails_when_empty(target: Sequence[int]) -> bool:
    """Whether -1 stands beside a copied dimension: if that is 0, the -1 cannot be computed."""
    return 0 in target and -1 in target


def _own_target(node: gs.Node) -> Sequence[int]:
    if node.op != "Reshape" or len(node.inputs) < 2 or node.attrs.get("allowzero", 0):
        return ()
    value = value_of(node.inputs[1])
    return [] if value is None else [1 if s is None else s.number or 0 for s in value.elements]


def _labels(editor: Editor, nodes: Sequence[gs.Node]) -> _Labels | None:
    """Follow the axes of the first node's input through Squeezes and Unsqueezes."""
    rank = rank_of(editor, nodes[0].inputs[0])
    if rank is None or any(node.op not in ("Squeeze", "Unsqueeze") for node in nodes):
        return None
    labels: _Labels = list(range(rank))
    for node in nodes:
        if node.op == "Squeeze":
            axes = axes_of(editor, node, len(labels))
            if axes is None:
                return None
            labels = [label for axis, label in enumerate(labels) if axis not in axes]
        else:
            count = _axes_count(node)
            axes = None if count is None else axes_of(editor, node, len(labels) + count)
            if axes is None:
                return None
            rest = iter(labels)
            rank = len(labels) + len(axes)
            labels = [None if axis in axes else next(rest) for axis in range(rank)]
    return labels


def _axes_count(node: gs.Node) -> int | None:
    if "axes" in node.attrs:
        return len(node.attrs["axes"])
    values = constant_values(node.inputs[1]) if len(node.inputs) > 1 else None
    return None if values is None else int(values.size)


def _with_new_axes_matched(labels: _Labels, rank: int) -> _Labels:
    """Take new axes for axes of the source that were taken off: both have size 1."""
    result: _Labels = []
    last = -1
    for position, label in enumerate(labels):
        if label is None:
            following = next((known for known in labels[position:] if known is not None), rank)
            label = last + 1 if last + 1 < following else None
        result.append(label)
        last = label if label is not None else last
    return result


def _by_axes(editor: Editor, node: gs.Node, source: gs.Tensor, labels: _Labels | None) -> bool:
    rank = rank_of(editor, source)
    if labels is None or rank is None:
        return False
    new = tuple(axis for axis, label in enumerate(labels) if label is None)
    gone = tuple(axis for axis in range(rank) if axis not in labels)
    if bool(new) == bool(gone):
        return False
    op = "Unsqueeze" if new else "Squeeze"
    inputs, attrs = axes_arguments(editor, node.outputs[0].name, new or gone)
    editor.match(node, f"one {op} of '{source.name}' does it")
    editor.replace(node, op, [source, *inputs], attrs)
    return True


def _by_target(editor: Editor, first: gs.Node, node: gs.Node) -> bool:
    """Let a Reshape whose target does not refer to what it reads now read the source."""
    if node.op != "Reshape" or len(node.inputs) < 2:
        return False
    target = value_of(node.inputs[1])
    if target is None:
        return False
    before, between = editor.dims(first.inputs[0]), editor.dims(first.outputs[0])
    allow_zero = bool(node.attrs.get("allowzero", 0))
    for axis, size in enumerate(target.elements):
        is_copy = not allow_zero and (
            size is None or size.number == 0 or (size.number is None and size.terms)
        )
        if is_copy and not _same_axis(before, between, axis):
            return False
    editor.match(node, f"what '{node_label(first)}' does before does not matter")
    editor.set_input(node, 0, first.inputs[0])
    return True


def _same_axis(before: Dims | None, between: Dims | None, axis: int) -> bool:
    if before is None or between is None or axis >= min(len(before), len(between)):
        return False
    return before[axis] is not None and before[axis] == between[axis]


def target_between(before: Dims, after: Dims) -> list[int] | None:
    """Write the target of a Reshape from dimensions to dimensions, None when it has no words.

    Args:
        before: of the tensor that is reshaped.
        after: of the result.

    Returns:
        Numbers; 0 for a name that stands on the same axis before; one -1 for any other.
    """
    target: list[int] = []
    for axis, dim in enumerate(after):
        if isinstance(dim, int):
            if dim == 0:
                return None
            target.append(dim)
        elif dim is not None and axis < len(before) and before[axis] == dim:
            target.append(0)
        elif -1 in target:
            return None
        else:
            target.append(-1)
    return target
