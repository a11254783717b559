"""An Expand goes where the operator after it would broadcast anyway."""

import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor
from trtforge.graph.facts import Dims
from trtforge.graph.nodes import node_label
from trtforge.graph.symbols import broadcast

_BROADCASTING = (
    "Add",
    "And",
    "Div",
    "Equal",
    "Greater",
    "GreaterOrEqual",
    "Less",
    "LessOrEqual",
    "Max",
    "Mean",
    "Min",
    "Mod",
    "Mul",
    "Or",
    "Pow",
    "Sub",
    "Sum",
    "Where",
    "Xor",
)


class RemoveExpand:
    """Take out an Expand whose reader broadcasts.

    Matches: an elementwise operator one of whose operands is Expand(x, shape) (opset 8 on,
    https://onnx.ai/onnx/operators/onnx__Expand.html). Expand repeats values and changes none, so
    op(Expand(x), y) and op(x, y) have the same values wherever they have the same dimensions.
    Rewrites to: the operator on x itself; the Expand goes with its last reader.
    Refuses when: the dimensions of x and the other operands, broadcast
    (https://github.com/onnx/onnx/blob/main/docs/Broadcasting.md), are not proved to be those of
    the result: then the Expand decides them, or may.
    """

    name = "expand-before-broadcast"

    def apply(self, editor: Editor) -> None:
        """Rewrite one graph in place."""
        for node in editor.nodes(*_BROADCASTING):
            for index in range(len(node.inputs)):
                expand = editor.producer(node.inputs[index], "Expand")
                if expand is not None:
                    _read_the_source(editor, expand, node, index)


def _read_the_source(editor: Editor, expand: gs.Node, node: gs.Node, index: int) -> None:
    expected = editor.dims(node.outputs[0])
    total: Dims | None = ()
    for position, tensor in enumerate(node.inputs):
        dims = editor.dims(expand.inputs[0] if position == index else tensor)
        total = None if dims is None or total is None else broadcast(total, dims)
    if expected is None or total != expected or None in expected:
        editor.refuse(node, f"'{node_label(expand)}' may decide the dimensions of the result")
        return
    editor.match(node, f"it broadcasts without '{node_label(expand)}'")
    editor.set_input(node, index, expand.inputs[0])
