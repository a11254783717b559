"""Slices, Pads and Concats in a row become one."""

import numpy as np
import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor
from trtforge.graph.layout import Range, axis_of, from_the_front, ranges_of, slice_arguments
from trtforge.graph.nodes import constant_values, node_label
from trtforge.graph.pattern import made_by, rank_of, scalar

_PADS_AS_INPUT = 11
"""Pad takes pads and value as inputs since this opset.

Source: https://onnx.ai/onnx/operators/onnx__Pad.html
"""


class MergeSlices:
    """Merge operators of one kind that follow one another along axes.

    Matches and rewrites to:
        Slice(Slice(x)): one Slice; on one axis x[a:b:k][c:d:l] = x[a + k c : min(b, a + k d) : k l]
        (https://onnx.ai/onnx/operators/onnx__Slice.html);
        Concat of a Concat along the same axis: one Concat
        (https://onnx.ai/onnx/operators/onnx__Concat.html);
        Pad(Pad(x)) with constants of one value, both without cropping: one Pad with the sum
        (https://onnx.ai/onnx/operators/onnx__Pad.html).
    Refuses when: the inner result is read elsewhere or an output; ranges are computed, go
    backwards, or count from the end of an axis of unknown size; padding crops or is not constant.
    """

    name = "slice-chains"

    def apply(self, editor: Editor) -> None:
        """Rewrite one graph in place."""
        for node in editor.nodes("Slice"):
            first = editor.producer(node.inputs[0], "Slice")
            if first is not None:
                _merge_slices(editor, first, node)
        for node in editor.nodes("Concat"):
            _merge_concats(editor, node)
        for node in editor.nodes("Pad"):
            first = editor.producer(node.inputs[0], "Pad")
            if first is not None:
                _merge_pads(editor, first, node)


def _merge_slices(editor: Editor, first: gs.Node, node: gs.Node) -> None:
    label, source = node_label(first), first.inputs[0]
    if not editor.is_private(first.outputs[0]):
        editor.refuse(node, f"the result of '{label}' is read elsewhere, too")
        return
    ranges = _both(editor, first, node)
    if ranges is None:
        editor.refuse(node, f"its ranges and those of '{label}' cannot be said as one")
        return
    arguments = slice_arguments(editor, node.outputs[0].name, ranges)
    if arguments is None:
        return
    editor.match(node, f"one Slice takes what '{label}' and it take")
    editor.replace(node, "Slice", [source, *arguments[0]], arguments[1])


def _both(editor: Editor, first: gs.Node, node: gs.Node) -> dict[int, Range] | None:
    one, two = ranges_of(editor, first), ranges_of(editor, node)
    before, between = editor.dims(first.inputs[0]), editor.dims(first.outputs[0])
    if one is None or two is None:
        return None
    result = dict(one)
    for axis, outer in two.items():
        inner = one.get(axis)
        if inner is None:
            result[axis] = outer
            continue
        a = from_the_front(inner, before[axis] if before is not None else None)
        b = from_the_front(outer, between[axis] if between is not None else None)
        if a is None or b is None:
            return None
        result[axis] = Range(
            a.start + a.step * b.start, min(a.end, a.start + a.step * b.end), a.step * b.step
        )
    return result


def _merge_concats(editor: Editor, node: gs.Node) -> None:
    axis = axis_of(editor, node, node.outputs[0], 1)
    if axis is None:
        return
    inputs: list[gs.Tensor] = []
    merged = []
    for tensor in node.inputs:
        inner = editor.producer(tensor, "Concat")
        if inner is None or axis_of(editor, inner, tensor, 1) != axis:
            inputs.append(tensor)
        elif not editor.is_private(tensor):
            editor.refuse(node, f"the result of '{node_label(inner)}' is read elsewhere, too")
            inputs.append(tensor)
        else:
            inputs.extend(inner.inputs)
            merged.append(inner)
    if merged:
        names = ", ".join(f"'{node_label(inner)}'" for inner in merged)
        editor.match(node, f"{names} along the same axis is part of it")
        editor.replace(node, "Concat", inputs, {"axis": node.attrs["axis"]})


def _merge_pads(editor: Editor, first: gs.Node, node: gs.Node) -> None:
    label, rank = node_label(first), rank_of(editor, node.outputs[0])
    if rank is None:
        return
    one, two = _pads(editor, first, rank), _pads(editor, node, rank)
    if one is None or two is None:
        editor.refuse(node, f"'{label}' or it pads by computed numbers, crops, or is not constant")
    elif one[1] != two[1]:
        editor.refuse(node, f"'{label}' pads with {one[1]}, this with {two[1]}")
    elif made_by(editor, node.inputs[0], "Pad") is None:
        editor.refuse(node, f"the result of '{label}' is read elsewhere, too")
    else:
        pads = [a + b for a, b in zip(one[0], two[0], strict=True)]
        editor.match(node, f"one Pad adds what '{label}' and it add")
        if editor.opset < _PADS_AS_INPUT:
            attrs = {"mode": "constant", "pads": pads, "value": one[1]}
            editor.replace(node, "Pad", [first.inputs[0]], attrs)
            return
        amounts = editor.constant(f"{node.outputs[0].name}_pads", np.asarray(pads, np.int64))
        value = node.inputs[2:3]
        editor.replace(node, "Pad", [first.inputs[0], amounts, *value], {"mode": "constant"})


def _pads(editor: Editor, node: gs.Node, rank: int) -> tuple[list[int], float] | None:
    """Return how much a constant Pad adds before and after each axis, and with what value."""
    if node.attrs.get("mode", "constant") != "constant":
        return None
    axes = list(range(rank))
    if editor.opset < _PADS_AS_INPUT:
        given, value = node.attrs.get("pads"), float(node.attrs.get("value", 0.0))
    else:
        values = constant_values(node.inputs[1])
        given = None if values is None else [int(v) for v in values.reshape(-1)]
        filled = scalar(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2].name else 0.0
        if filled is None:
            return None
        value = filled
        if len(node.inputs) > 3 and node.inputs[3].name:
            chosen = constant_values(node.inputs[3])
            if chosen is None:
                return None
            axes = [int(axis) % rank for axis in chosen.reshape(-1)]
    if given is None or len(given) != 2 * len(axes) or min(given, default=0) < 0:
        return None
    pads = [0] * (2 * rank)
    for index, axis in enumerate(axes):
        pads[axis], pads[rank + axis] = given[index], given[len(axes) + index]
    return pads, value
