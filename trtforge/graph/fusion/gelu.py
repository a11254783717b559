"""Gelu that is spelled out becomes one operator."""

import math

import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor
from trtforge.graph.fusion import arithmetic
from trtforge.graph.fusion.arithmetic import Terms

_OPSET = 20
_HALF_AND_HALF: Terms = {(1, 0): 0.5, (1, 1): 0.5}
"""0.5 * x + 0.5 * x * e."""

_CUBE = 0.044715
"""Source: Hendrycks and Gimpel, Gaussian Error Linear Units, https://arxiv.org/abs/1606.08415."""

_ERF_ARGUMENT: Terms = {(1,): math.sqrt(0.5)}
_TANH_ARGUMENT: Terms = {(1,): math.sqrt(2 / math.pi), (3,): math.sqrt(2 / math.pi) * _CUBE}


class FuseGelu:
    """Fuse the nodes of a Gelu.

    Matches: 0.5 * x * (1 + Erf(x / sqrt(2))), and 0.5 * x * (1 + Tanh(sqrt(2 / pi) * (x + 0.044715
    * x^3))), in every order and association: x * (0.5 * (1 + e)), (x / 2) * (e + 1), x * (0.5 +
    0.5 * e); the cube by Pow or by Mul, its factor inside or outside the sum. Constants may be as
    exact as their type or as four decimals.
    Rewrites to: Gelu, approximate "none" or "tanh"
    (https://onnx.ai/onnx/operators/onnx__Gelu.html, opset 20).
    Refuses when: a constant is another one, or something else reads a value in between.
    """

    name = "gelu"

    def apply(self, editor: Editor) -> None:
        """Rewrite one graph in place."""
        for node in editor.nodes("Erf", "Tanh"):
            self._fuse(editor, node)

    def _fuse(self, editor: Editor, node: gs.Node) -> None:
        source = arithmetic.only_variable(editor, node.inputs[0])
        if source is None:
            return
        root, why = arithmetic.product_root(editor, source, node.outputs[0], _HALF_AND_HALF)
        if root is None and why is None:
            return
        wanted = _ERF_ARGUMENT if node.op == "Erf" else _TANH_ARGUMENT
        why = why or _objection(editor, node, source, wanted)
        if root is None or why is not None:
            editor.refuse(node, f"this looks like Gelu, but {why}")
        elif editor.allows(root, _OPSET):
            form = "none" if node.op == "Erf" else "tanh"
            editor.match(root, f"Gelu of '{source.name}', its {node.op} form")
            editor.replace(root, "Gelu", [source], {"approximate": form})


def _objection(editor: Editor, node: gs.Node, source: gs.Tensor, wanted: Terms) -> str | None:
    argument = editor.producer(node.inputs[0], *arithmetic.ARITHMETIC)
    if argument is None or node.inputs[0] is source:
        return f"{node.op} is taken of '{source.name}' itself, or its argument is read elsewhere"
    terms = arithmetic.polynomial(editor, argument, (source,))
    why = (
        ""
        if terms is None
        else arithmetic.differs(terms, wanted, arithmetic.tolerance(editor, source))
    )
    return f"the argument of {node.op} is another formula" if why == "" else why
