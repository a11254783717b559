"""Bounds that stand as Min, Max and Relu become one Clip, and max(x, 0) becomes Relu."""

import numpy as np
import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor
from trtforge.graph.nodes import constant_values
from trtforge.graph.pattern import made_by, scalar, with_constant

_OPSET_FLOATS, _OPSET_ALL = 11, 12


class FuseClip:
    """Fuse bounds from below and from above.

    Matches: Min(Max(x, low), high) and Max(Min(x, high), low) with numbers low <= high;
    Min(Relu(x), high), which is ReLU6 for 6; Max(x, 0); Clip(Relu(x), low, high) with low >= 0.
    Rewrites to: Clip (https://onnx.ai/onnx/operators/onnx__Clip.html, opset 11, for integers 12)
    or Relu.
    Refuses when: low > high, where the order decides; a bound has more axes than x; something else
    reads the value in between.
    """

    name = "clip"

    def apply(self, editor: Editor) -> None:
        """Rewrite one graph in place."""
        for node in editor.nodes("Min", "Max"):
            bound = _bound(editor, node)
            if bound is not None:
                self._fuse(editor, node, *bound)
        for node in editor.nodes("Clip"):
            self._drop_relu(editor, node)

    def _fuse(self, editor: Editor, node: gs.Node, source: gs.Tensor, value: float) -> None:
        inner_op = "Max" if node.op == "Min" else "Min"
        inner = editor.producer(source, inner_op, *(["Relu"] if node.op == "Min" else []))
        below = (inner.inputs[0], 0.0) if inner is not None and inner.op == "Relu" else None
        below = _bound(editor, inner) if inner is not None and below is None else below
        if inner is None or below is None:
            _relu(editor, node, source, value)
            return
        low, high = (below[1], value) if node.op == "Min" else (value, below[1])
        if not editor.is_private(source):
            editor.refuse(node, f"'{source.name}' is an output or used elsewhere too")
        elif not low <= high:
            editor.refuse(node, f"the lower bound {low:g} is above the upper one {high:g}")
        elif editor.allows(node, _needed(editor, below[0])):
            editor.match(node, f"the bounds {low:g} and {high:g} are one Clip")
            _clip(editor, node, below[0], (low, high))

    def _drop_relu(self, editor: Editor, node: gs.Node) -> None:
        relu = made_by(editor, node.inputs[0], "Relu")
        if relu is None or len(node.inputs) < 2 or node.inputs[1].is_empty():
            return
        low = scalar(node.inputs[1])
        if low is not None and low >= 0.0:
            editor.match(node, f"Relu changes nothing that Clip does not, from {low:g} on")
            editor.set_input(node, 0, relu.inputs[0])


def _bound(editor: Editor, node: gs.Node) -> tuple[gs.Tensor, float] | None:
    """Return what a Min or Max bounds, and the number by which it does."""
    split = with_constant(node)
    if split is None:
        return None
    source, _, index = split
    dims, value = editor.dims(source), scalar(node.inputs[index])
    own = len(node.inputs[index].shape)
    if value is None or np.isnan(value) or (own and (dims is None or own > len(dims))):
        return None
    return source, value


def _needed(editor: Editor, source: gs.Tensor) -> int:
    dtype = editor.dtype(source)
    is_float = dtype is not None and dtype.kind not in "biu"
    return _OPSET_FLOATS if is_float else _OPSET_ALL


def _relu(editor: Editor, node: gs.Node, source: gs.Tensor, value: float) -> None:
    dtype = editor.dtype(source)
    if node.op == "Max" and value == 0.0 and dtype is not None and dtype.kind not in "biu":
        editor.match(node, "max(x, 0) is Relu")
        editor.replace(node, "Relu", [source])


def _clip(editor: Editor, node: gs.Node, source: gs.Tensor, bounds: tuple[float, float]) -> None:
    constant = next(t for t in node.inputs if constant_values(t) is not None)
    values = constant_values(constant)
    assert values is not None
    base = f"{node.outputs[0].name}_bound"
    low, high = (editor.constant(base, np.array(bound, values.dtype)) for bound in bounds)
    editor.replace(node, "Clip", [source, low, high])
