"""Mish that is spelled out becomes one operator."""

import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor
from trtforge.graph.fusion import arithmetic
from trtforge.graph.pattern import made_by

_OPSET = 18


class FuseMish:
    """Fuse x * Tanh(Softplus(x)).

    Matches: the product in either order; the Softplus may have been spelled out before the pass
    softplus.
    Rewrites to: Mish (https://onnx.ai/onnx/operators/onnx__Mish.html, opset 18).
    Refuses when: Softplus is taken of another tensor than the one that is multiplied, or something
    else reads a value in between.
    """

    name = "mish"

    def apply(self, editor: Editor) -> None:
        """Rewrite one graph in place."""
        for node in editor.nodes("Tanh"):
            softplus = editor.producer(node.inputs[0], "Softplus")
            if softplus is not None:
                self._fuse(editor, node, softplus)

    def _fuse(self, editor: Editor, node: gs.Node, softplus: gs.Node) -> None:
        source = softplus.inputs[0]
        root, _ = arithmetic.product_root(editor, source, node.outputs[0], {(1, 1): 1.0})
        if root is None:
            editor.refuse(node, f"Tanh(Softplus('{source.name}')) is not multiplied by that alone")
        elif made_by(editor, node.inputs[0], "Softplus") is None:
            editor.refuse(node, f"'{node.inputs[0].name}' is an output or used elsewhere too")
        elif editor.allows(root, _OPSET):
            editor.match(root, f"Mish of '{source.name}'")
            editor.replace(root, "Mish", [source])
