"""The logistic function that is spelled out becomes Sigmoid."""

import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor
from trtforge.graph.fusion import arithmetic
from trtforge.graph.pattern import is_scalar, made_by, scalar

_EXACT = 1e-7


class FuseSigmoid:
    """Fuse 1 / (1 + exp(-x)).

    Matches: Div of 1, or of anything else (as in x / (1 + exp(-x))), by 1 + exp(-x), and
    Reciprocal of that; -x by Neg, by Mul with -1 or as 0 - x.
    Rewrites to: Sigmoid (https://onnx.ai/onnx/operators/onnx__Sigmoid.html, opset 6), and for
    another dividend Mul by it: y / (1 + exp(-x)) = y * Sigmoid(x).
    Refuses when: something else reads a value in between.
    """

    name = "sigmoid"

    def apply(self, editor: Editor) -> None:
        """Rewrite one graph in place."""
        for node in editor.nodes("Div", "Reciprocal"):
            found = _exponent(editor, node.inputs[-1])
            if found is None:
                continue
            exponential, source = found
            why = _objection(editor, node, exponential)
            if why is not None:
                editor.refuse(node, why)
                continue
            editor.match(node, f"Sigmoid of '{source.name}'")
            _rewrite(editor, node, source)


def _exponent(editor: Editor, tensor: gs.Tensor) -> tuple[gs.Node, gs.Tensor] | None:
    """Return the Exp and x of a tensor 1 + exp(-x)."""
    total = editor.producer(tensor, "Add")
    if total is None:
        return None
    for index in (0, 1):
        exponential = editor.producer(total.inputs[index], "Exp")
        if exponential is None or not is_scalar(total.inputs[1 - index], 1.0, _EXACT):
            continue
        inner = arithmetic.affine(editor, exponential.inputs[0])
        negated = editor.producer(exponential.inputs[0], "Neg", "Mul", "Sub", "Div")
        if inner.scale == -1.0 and not inner.offset:
            return exponential, inner.source
        if negated is not None and negated.op == "Neg":
            return exponential, negated.inputs[0]
    return None


def _objection(editor: Editor, node: gs.Node, exponential: gs.Node) -> str | None:
    for tensor in (node.inputs[-1], exponential.outputs[0]):
        if made_by(editor, tensor, "Add", "Exp") is None:
            return f"'{tensor.name}' is an output or used elsewhere too"
    one = node.inputs[0] if node.op == "Div" else None
    if one is not None and scalar(one) is not None and len(one.shape) > 0:
        dims = editor.dims(node.inputs[1])
        if dims is None or len(dims) < len(one.shape):
            return "the dividend's rank may add axes"
    return None


def _rewrite(editor: Editor, node: gs.Node, source: gs.Tensor) -> None:
    if node.op == "Reciprocal" or is_scalar(node.inputs[0], 1.0, _EXACT):
        editor.replace(node, "Sigmoid", [source])
        return
    dividend = node.inputs[0]
    result = editor.variable(
        f"{node.outputs[0].name}_sigmoid", editor.dtype(source), editor.dims(source)
    )
    editor.add("Sigmoid", [source], [result], node)
    editor.replace(node, "Mul", [dividend, result])
