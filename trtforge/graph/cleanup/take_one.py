"""One place along an axis is read by one Gather instead of a Slice or Split and a Squeeze."""

import numpy as np
import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor
from trtforge.graph.layout import axes_of, axis_of, from_the_front, ranges_of
from trtforge.graph.nodes import node_label
from trtforge.graph.pattern import made_by, rank_of


class TakeOne:
    """Read single places along an axis by Gather.

    Matches: Squeeze of a Slice that takes one place along the squeezed axis
    (https://onnx.ai/onnx/operators/onnx__Squeeze.html); a Split into parts of size 1 along an
    axis, each of which only a Squeeze of that axis reads
    (https://onnx.ai/onnx/operators/onnx__Split.html).
    Rewrites to: Gather(x, i) with a scalar index, which takes the axis off
    (https://onnx.ai/onnx/operators/onnx__Gather.html): one node less.
    Refuses when: the place is not known to be within the axis (Slice clamps, Gather does not), a
    part is read otherwise, too, or is an output.

    Any opset from 7 on.
    """

    name = "take-one"

    def apply(self, editor: Editor) -> None:
        """Rewrite one graph in place."""
        for node in editor.nodes("Squeeze"):
            cut = editor.producer(node.inputs[0], "Slice")
            if cut is not None:
                _slice(editor, cut, node)
        for node in editor.nodes("Split"):
            _split(editor, node)


def _slice(editor: Editor, cut: gs.Node, node: gs.Node) -> None:
    source = cut.inputs[0]
    rank, ranges = rank_of(editor, source), ranges_of(editor, cut)
    axes = None if rank is None else axes_of(editor, node, rank)
    dims = editor.dims(source)
    if axes is None or ranges is None or dims is None or list(ranges) != list(axes):
        return
    axis = axes[0] if axes else None
    dim = None if axis is None else dims[axis]
    if axis is None or len(axes) != 1 or not isinstance(dim, int):
        return
    taken = from_the_front(ranges[axis], dim)
    if taken is None or taken.end - taken.start != 1:
        return
    if made_by(editor, node.inputs[0], "Slice") is None:
        editor.refuse(node, f"the result of '{node_label(cut)}' is read elsewhere, too")
        return
    editor.match(node, f"it takes place {taken.start} of axis {axis}")
    _gather(editor, node, source, axis, taken.start)


def _split(editor: Editor, node: gs.Node) -> None:
    source = node.inputs[0]
    axis, rank = axis_of(editor, node, source, 0), rank_of(editor, source)
    if axis is None or rank is None:
        return
    squeezes = []
    for part in node.outputs:
        dims = editor.dims(part)
        if dims is None or dims[axis] != 1:
            return
        squeeze = editor.users(part, 1)
        if not editor.is_private(part) or squeeze[0].op != "Squeeze" or not editor.is_local(part):
            editor.refuse(node, f"its part '{part.name}' is not read by a Squeeze alone")
            return
        if axes_of(editor, squeeze[0], rank) != (axis,):
            return
        squeezes.append(squeeze[0])
    editor.match(node, f"each place of axis {axis} is taken by itself")
    for index, squeeze in enumerate(squeezes):
        _gather(editor, squeeze, source, axis, index)


def _gather(editor: Editor, node: gs.Node, source: gs.Tensor, axis: int, index: int) -> None:
    where = editor.constant(f"{node.outputs[0].name}_index", np.asarray(index, np.int64))
    editor.replace(node, "Gather", [source, where], {"axis": axis})
