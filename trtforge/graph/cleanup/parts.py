"""What is put together and taken apart again along an axis is handed on as it was."""

from bisect import bisect_right
from collections.abc import Sequence

import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor
from trtforge.graph.facts import Dim
from trtforge.graph.layout import (
    Range,
    axes_of,
    axis_of,
    from_the_front,
    ranges_of,
    slice_arguments,
)
from trtforge.graph.nodes import constant_values, node_label
from trtforge.graph.pattern import rank_of, scalar


class TakeParts:
    """Cancel Concat against Split, Slice and Gather along the same axis.

    Matches and rewrites to:
        Concat of all results of a Split, in order: what the Split reads
        (https://onnx.ai/onnx/operators/onnx__Split.html);
        Split of a Concat into just its parts: the parts
        (https://onnx.ai/onnx/operators/onnx__Concat.html);
        Slice (one axis, step 1) of a Concat that lies within one part: that part, or a Slice of it;
        Gather of one constant index (https://onnx.ai/onnx/operators/onnx__Gather.html) of a
        Concat, where it meets an Unsqueeze along that axis: what the Unsqueeze reads.
    Refuses when: sizes up to the place are not known as numbers, or an output of the graph would
    lose its name.

    Any opset; Split with `num_outputs` is of opset 18.
    """

    name = "parts"

    def apply(self, editor: Editor) -> None:
        """Rewrite one graph in place."""
        for node in editor.nodes("Concat"):
            _rejoined(editor, node)
        offsets = _Offsets(editor)
        for node in editor.nodes("Split", "Slice", "Gather"):
            concat = editor.producer(node.inputs[0], "Concat")
            if concat is None:
                continue
            if node.op == "Split":
                _split(editor, concat, node)
            elif node.op == "Slice":
                _slice(editor, concat, node, offsets)
            else:
                _gather(editor, concat, node, offsets)


def _rejoined(editor: Editor, node: gs.Node) -> None:
    split = editor.producer(node.inputs[0], "Split")
    if split is None or len(split.outputs) != len(node.inputs):
        return
    if any(one is not two for one, two in zip(split.outputs, node.inputs, strict=True)):
        return
    source = split.inputs[0]
    axis = axis_of(editor, split, source, 0)
    if axis is None or axis != axis_of(editor, node, node.outputs[0], 1):
        return
    editor.bypass_or_refuse(
        node, source, f"it puts together all that '{node_label(split)}' takes apart"
    )


def _sizes(editor: Editor, tensors: Sequence[gs.Tensor], axis: int) -> list[Dim]:
    found: list[Dim] = []
    for tensor in tensors:
        dims = editor.dims(tensor)
        found.append(None if dims is None or axis >= len(dims) else dims[axis])
    return found


def _split(editor: Editor, concat: gs.Node, node: gs.Node) -> None:
    axis = axis_of(editor, node, node.inputs[0], 0)
    if axis is None or axis != axis_of(editor, concat, node.inputs[0], 1):
        return
    parts = _sizes(editor, concat.inputs, axis)
    if len(node.outputs) != len(parts) or None in parts:
        return
    if _sizes(editor, node.outputs, axis) != parts:
        editor.refuse(
            node, f"it does not take '{node_label(concat)}' apart as that put it together"
        )
        return
    if any(editor.is_kept(result) for result in node.outputs):
        editor.refuse(node, "a part is an output of the graph")
        return
    editor.match(node, f"it takes apart what '{node_label(concat)}' puts together")
    for result, part in zip(node.outputs, concat.inputs, strict=True):
        editor.replace_uses(result, part)
    editor.remove(node)


class _Offsets:
    """Where the parts of a Concat start, as far as that is known; counted once for each."""

    def __init__(self, editor: Editor) -> None:
        self._editor = editor
        self._starts: dict[int, list[int]] = {}

    def part_with(
        self, concat: gs.Node, axis: int, taken: Range
    ) -> tuple[gs.Tensor, int, int] | None:
        """Return the part of a Concat that holds a range: it, where it starts, its size."""
        starts = self._starts.get(id(concat))
        if starts is None:
            starts = [0]
            for size in _sizes(self._editor, concat.inputs, axis):
                if not isinstance(size, int):
                    break
                starts.append(starts[-1] + size)
            self._starts[id(concat)] = starts
        index = bisect_right(starts, taken.start) - 1
        if index + 1 >= len(starts) or not taken.start < taken.end <= starts[index + 1]:
            return None
        return concat.inputs[index], starts[index], starts[index + 1] - starts[index]


def _slice(editor: Editor, concat: gs.Node, node: gs.Node, offsets: _Offsets) -> None:
    ranges = ranges_of(editor, node)
    axis = axis_of(editor, concat, node.inputs[0], 1)
    if ranges is None or axis is None or list(ranges) != [axis]:
        return
    total = _sizes(editor, [node.inputs[0]], axis)[0]
    taken = from_the_front(ranges[axis], total)
    if taken is None or taken.step != 1:
        return
    found = offsets.part_with(concat, axis, taken)
    if found is None:
        return
    part, start, size = found
    if (taken.start, taken.end) == (start, start + size):
        editor.bypass_or_refuse(node, part, f"it takes '{part.name}' out of '{node_label(concat)}'")
        return
    inner = {axis: Range(taken.start - start, taken.end - start, 1)}
    arguments = slice_arguments(editor, node.outputs[0].name, inner)
    if arguments is not None:
        editor.match(node, f"it takes what lies within '{part.name}'")
        editor.replace(node, "Slice", [part, *arguments[0]], arguments[1])


def _gather(editor: Editor, concat: gs.Node, node: gs.Node, offsets: _Offsets) -> None:
    axis = axis_of(editor, node, node.inputs[0], 0)
    if axis is None or axis != axis_of(editor, concat, node.inputs[0], 1):
        return
    index, where = scalar(node.inputs[1]), constant_values(node.inputs[1])
    total = _sizes(editor, [node.inputs[0]], axis)[0]
    if index is None or where is None or where.ndim:
        return
    position = int(index)
    if position < 0:
        if not isinstance(total, int):
            return
        position += total
    found = offsets.part_with(concat, axis, Range(position, position + 1, 1))
    unsqueeze = None if found is None else editor.producer(found[0], "Unsqueeze")
    rank = None if found is None else rank_of(editor, found[0])
    if unsqueeze is None or rank is None or axes_of(editor, unsqueeze, rank) != (axis,):
        return
    source = unsqueeze.inputs[0]
    editor.bypass_or_refuse(node, source, f"it takes '{source.name}' out of '{node_label(concat)}'")
