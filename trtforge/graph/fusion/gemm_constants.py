"""Gemm's alpha and beta go into its constants."""

import numpy as np
import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor
from trtforge.graph.fusion import linear
from trtforge.graph.nodes import constant_values
from trtforge.graph.rounding import is_float, rounded, scaled


class FoldGemmFactors:
    """Fold the numbers alpha and beta of a Gemm into its constants.

    Matches: Gemm, alpha * A B + beta * C, with alpha other than 1 and B constant, or beta other
    than 1 and C constant (https://onnx.ai/onnx/operators/onnx__Gemm.html, opset 7 on).
    Rewrites to: the same Gemm without the number, B' = alpha * B or C' = beta * C.
    Refuses when: the constant is shared and over 1 MiB, or the product does not fit its type.
    """

    name = "gemm-constants"

    def apply(self, editor: Editor) -> None:
        """Rewrite one graph in place."""
        for node in editor.nodes("Gemm"):
            for name, index in (("alpha", 1), ("beta", 2)):
                factor = float(node.attrs.get(name, 1.0))
                if factor == 1.0 or index >= len(node.inputs):
                    continue
                values = constant_values(node.inputs[index])
                if values is not None and is_float(values.dtype):
                    _fold(editor, node, (name, index), values)


def _fold(editor: Editor, node: gs.Node, which: tuple[str, int], values: np.ndarray) -> None:
    name, index = which
    old, factor = node.inputs[index], float(node.attrs[name])
    if linear.sharing_costs_too_much(editor, old):
        editor.refuse(node, f"{name} is {factor:g}, and '{old.name}' is shared")
        return
    if index == 1:
        made = scaled(values, np.full((1,) * values.ndim, factor))
    else:
        made = rounded(values.astype(np.float64) * factor, values)
    if isinstance(made, str):
        editor.refuse(node, made)
        return
    editor.match(node, f"{name} is {factor:g}, which is folded into '{old.name}'")
    editor.set_input(node, index, editor.renewed(old, made))
    editor.set_attribute(node, name, None)
