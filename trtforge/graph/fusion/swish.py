"""Swish (SiLU) that is spelled out becomes one operator."""

import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor
from trtforge.graph.fusion import arithmetic
from trtforge.graph.fusion.arithmetic import Terms

_OPSET = 24
_PRODUCT: Terms = {(1, 1): 1.0}


class FuseSwish:
    """Fuse x * Sigmoid(alpha * x).

    Matches: the product in either order; alpha is a number, 1 when there is none (SiLU), 1.702 in
    the Gelu of CLIP.
    Rewrites to: Swish with that alpha (https://onnx.ai/onnx/operators/onnx__Swish.html, opset 24).
    Refuses when: the Sigmoid's result or its argument is read elsewhere, or the argument has an
    offset.
    """

    name = "swish"

    def apply(self, editor: Editor) -> None:
        """Rewrite one graph in place."""
        for node in editor.nodes("Sigmoid"):
            self._fuse(editor, node)

    def _fuse(self, editor: Editor, node: gs.Node) -> None:
        inner = arithmetic.affine(editor, node.inputs[0])
        root, _ = arithmetic.product_root(editor, inner.source, node.outputs[0], _PRODUCT)
        if root is None:
            _say_why(editor, node, inner.source)
        elif inner.offset:
            editor.refuse(node, f"the Sigmoid's argument has the offset {inner.offset:g}")
        elif editor.allows(root, _OPSET):
            editor.match(root, f"Swish of '{inner.source.name}', alpha {inner.scale:g}")
            alpha = inner.scale if inner.scale != 1.0 else None
            editor.replace(root, "Swish", [inner.source], {"alpha": alpha})


def _say_why(editor: Editor, node: gs.Node, source: gs.Tensor) -> None:
    """A product of the right two, which cannot go because somebody else reads the Sigmoid."""
    gate = node.outputs[0]
    for user in editor.users(gate, 8):
        if user.op == "Mul" and any(tensor is source for tensor in user.inputs):
            editor.refuse(node, f"'{gate.name}' is an output or used elsewhere too")
            return
