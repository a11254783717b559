"""LeakyRelu that is spelled out becomes one operator."""

import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor
from trtforge.graph.fusion import arithmetic
from trtforge.graph.pattern import made_by, scalar

_SLOPE_LIMIT = 1.0


class FuseLeakyRelu:
    """Fuse x for x > 0 and alpha * x elsewhere.

    Matches: Max(x, alpha * x) with 0 <= alpha <= 1, and Where(x > 0, x, alpha * x) (or >= 0, or
    the two exchanged under < or <=) with any alpha.
    Rewrites to: LeakyRelu with that alpha
    (https://onnx.ai/onnx/operators/onnx__LeakyRelu.html, opset 6).
    Refuses when: Max has a slope outside 0..1, for which it is another function; the condition
    compares with another number than 0; something else reads a value in between.
    """

    name = "leaky-relu"

    def apply(self, editor: Editor) -> None:
        """Rewrite one graph in place."""
        for node in editor.nodes("Max", "Where"):
            found = _of_max(editor, node) if node.op == "Max" else _of_where(editor, node)
            if isinstance(found, str):
                editor.refuse(node, found)
            elif found is not None:
                source, slope = found
                editor.match(node, f"LeakyRelu of '{source.name}', alpha {slope:g}")
                editor.replace(node, "LeakyRelu", [source], {"alpha": slope})


def _scaled(editor: Editor, tensor: gs.Tensor, source: gs.Tensor) -> float | None:
    """Return alpha when a tensor is alpha * source."""
    inner = arithmetic.affine(editor, tensor)
    is_float = (dtype := editor.dtype(source)) is None or dtype.kind not in "biu"
    same = inner.source is source and tensor is not source and not inner.offset and is_float
    return inner.scale if same else None


def _of_max(editor: Editor, node: gs.Node) -> tuple[gs.Tensor, float] | str | None:
    if len(node.inputs) != 2:
        return None
    for index in (0, 1):
        source, other = node.inputs[index], node.inputs[1 - index]
        slope = _scaled(editor, other, source)
        if slope is not None:
            if 0.0 <= slope <= _SLOPE_LIMIT:
                return source, slope
            return f"max(x, {slope:g} * x) is no LeakyRelu: the slope is not in 0..1"
    return None


def _of_where(editor: Editor, node: gs.Node) -> tuple[gs.Tensor, float] | str | None:
    condition, above, below = node.inputs
    compare = editor.producer(condition, "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
    if compare is None:
        return None
    if compare.op.startswith("Less"):
        above, below = below, above
    source, slope = above, _scaled(editor, below, above)
    if slope is None or compare.inputs[0] is not source:
        return None
    threshold, dims = scalar(compare.inputs[1]), editor.dims(source)
    if threshold != 0.0:
        return "the condition does not compare with 0"
    if len(compare.inputs[1].shape) > (0 if dims is None else len(dims)):
        return "the condition may have more axes than x"
    if made_by(editor, condition, compare.op) is None:
        return f"the condition '{condition.name}' is an output or used elsewhere too"
    return source, slope
