"""HardSigmoid and HardSwish that are spelled out become one operator each."""

import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor
from trtforge.graph.fusion import arithmetic
from trtforge.graph.fusion.arithmetic import Affine
from trtforge.graph.pattern import only_reader, scalar

_OPSET_BOUNDS_AS_INPUTS = 11


class FuseHardSigmoid:
    """Fuse Clip(a * x + b, 0, m) / m.

    Matches: Clip from 0 to m of a linear function of x, divided by m or multiplied by 1 / m, or
    with m = 1: Clip(x + 3, 0, 6) / 6 (PyTorch), Clip(0.2 * x + 0.5, 0, 1) (Keras).
    Rewrites to: HardSigmoid, alpha = a / m and beta = b / m
    (https://onnx.ai/onnx/operators/onnx__HardSigmoid.html, opset 6).
    Refuses when: something else reads a value in between.
    """

    name = "hard-sigmoid"

    def apply(self, editor: Editor) -> None:
        """Rewrite one graph in place."""
        for node in editor.nodes("Clip"):
            top = upper_bound(editor, node)
            if top is None:
                continue
            inner = arithmetic.affine(editor, node.inputs[0])
            root = _divided(editor, node, top)
            if root is None or not inner.offset:
                continue
            editor.match(root, f"HardSigmoid of '{inner.source.name}'")
            attributes = {"alpha": inner.scale / top, "beta": inner.offset / top}
            editor.replace(root, "HardSigmoid", [inner.source], attributes)


def upper_bound(editor: Editor, node: gs.Node) -> float | None:
    """Return the upper bound of a Clip of floats whose lower bound is 0, both being numbers."""
    if editor.opset < _OPSET_BOUNDS_AS_INPUTS:
        low, high = node.attrs.get("min"), node.attrs.get("max")
    elif len(node.inputs) == 3 and not any(tensor.is_empty() for tensor in node.inputs[1:]):
        low, high = scalar(node.inputs[1]), scalar(node.inputs[2])
    else:
        return None
    dtype = editor.dtype(node.inputs[0])
    is_float = dtype is not None and dtype.kind not in "biu"
    return float(high) if low == 0.0 and high is not None and high > 0.0 and is_float else None


def _divided(editor: Editor, node: gs.Node, top: float) -> gs.Node | None:
    """Return the node that computes Clip / top."""
    if top == 1.0:
        return node
    clipped = node.outputs[0]
    root = only_reader(editor, clipped)
    if root is None or root.op not in ("Mul", "Div"):
        return None
    terms = arithmetic.polynomial(editor, root, (clipped,))
    relative = arithmetic.tolerance(editor, clipped)
    is_unit = terms is not None and arithmetic.differs(terms, {(1,): 1.0 / top}, relative) is None
    return root if is_unit else None


def hard_gate(editor: Editor, node: gs.Node) -> tuple[Affine, float] | None:
    """Read a Clip or HardSigmoid as t * clip(a * x + b, 0, 1); return (x, a, b) and t."""
    if node.op == "HardSigmoid":
        alpha, beta = float(node.attrs.get("alpha", 0.2)), float(node.attrs.get("beta", 0.5))
        inner = arithmetic.affine(editor, node.inputs[0])
        offset = alpha * inner.offset + beta
        return Affine(inner.source, alpha * inner.scale, offset), 1.0
    top = upper_bound(editor, node)
    if top is None:
        return None
    inner = arithmetic.affine(editor, node.inputs[0])
    return Affine(inner.source, inner.scale / top, inner.offset / top), top
