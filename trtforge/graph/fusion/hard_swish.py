"""HardSwish that is spelled out becomes one operator."""

import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor
from trtforge.graph.fusion import arithmetic
from trtforge.graph.fusion.arithmetic import Terms
from trtforge.graph.fusion.hard_sigmoid import hard_gate

_OPSET = 14
_ALPHA, _BETA = 1.0 / 6.0, 0.5
"""Source: https://onnx.ai/onnx/operators/onnx__HardSwish.html."""


class FuseHardSwish:
    """Fuse x * Clip(x + 3, 0, 6) / 6.

    Matches: the product in any order and association, the sixth anywhere; x * HardSigmoid(x) with
    alpha 1/6 and beta 1/2.
    Rewrites to: HardSwish (https://onnx.ai/onnx/operators/onnx__HardSwish.html, opset 14).
    Refuses when: the gate has another slope or offset, or something else reads a value in between.
    """

    name = "hard-swish"

    def apply(self, editor: Editor) -> None:
        """Rewrite one graph in place."""
        for node in editor.nodes("Clip", "HardSigmoid"):
            self._fuse(editor, node)

    def _fuse(self, editor: Editor, node: gs.Node) -> None:
        found = hard_gate(editor, node)
        if found is None:
            return
        gate, top = found
        wanted: Terms = {(1, 1): 1.0 / top}
        root, why = arithmetic.product_root(editor, gate.source, node.outputs[0], wanted)
        if root is None and not why:
            return
        relative = arithmetic.tolerance(editor, gate.source)
        is_right = arithmetic.agrees(gate.scale, _ALPHA, relative) and arithmetic.agrees(
            gate.offset, _BETA, relative
        )
        if not is_right:
            why = f"its gate is clip({gate.scale:g} * x + {gate.offset:g}, 0, 1)"
        if root is None or why:
            editor.refuse(node, f"this looks like HardSwish, but {why}")
        elif editor.allows(root, _OPSET):
            editor.match(root, f"HardSwish of '{gate.source.name}'")
            editor.replace(root, "HardSwish", [gate.source])
