"""Softplus that is spelled out becomes one operator."""

import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor
from trtforge.graph.pattern import is_scalar, made_by, scalar

_EXACT = 1e-7
_LINEAR_FROM = 17.0
"""log(1 + exp(x)) is x beyond this in FP32: the difference, exp(-17), is 2^-24.5, and x is 17."""


class FuseSoftplus:
    """Fuse log(1 + exp(x)).

    Matches: Log of Add of Exp(x) and 1; Max(x, 0) or Relu(x) plus log(1 + exp(-|x|)), which is the
    same with one case for each sign; Where(x > t, x, Softplus(x)) for t of 17 and more, where both
    are one number in FP32.
    Rewrites to: Softplus (https://onnx.ai/onnx/operators/onnx__Softplus.html, opset 1). It also
    holds where exp(x) overflows.
    Refuses when: something else reads a value in between, or the threshold is smaller.
    """

    name = "softplus"

    def apply(self, editor: Editor) -> None:
        """Rewrite one graph in place."""
        for node in editor.nodes("Log"):
            self._fuse(editor, node)
        for node in editor.nodes("Where"):
            self._drop_threshold(editor, node)

    def _fuse(self, editor: Editor, node: gs.Node) -> None:
        total = editor.producer(node.inputs[0], "Add")
        exponential = _beside_one(editor, total) if total is not None else None
        if total is None or exponential is None:
            return
        for tensor in (total.outputs[0], exponential.outputs[0]):
            if not editor.is_private(tensor):
                editor.refuse(node, f"'{tensor.name}' is an output or used elsewhere too")
                return
        source = exponential.inputs[0]
        stable = _both_signs(editor, node, source)
        root, source = stable if stable is not None else (node, source)
        editor.match(root, f"Softplus of '{source.name}'")
        editor.replace(root, "Softplus", [source])

    def _drop_threshold(self, editor: Editor, node: gs.Node) -> None:
        softplus = made_by(editor, node.inputs[2], "Softplus")
        compare = made_by(editor, node.inputs[0], "Greater", "GreaterOrEqual")
        if softplus is None or compare is None:
            return
        source, threshold = softplus.inputs[0], scalar(compare.inputs[1])
        if node.inputs[1] is not source or compare.inputs[0] is not source or threshold is None:
            return
        rank = editor.dims(source)
        if threshold < _LINEAR_FROM:
            editor.refuse(node, f"beyond {threshold:g} the result is not the same number")
        elif len(compare.inputs[1].shape) <= (0 if rank is None else len(rank)):
            editor.match(node, f"Softplus is linear beyond {threshold:g} by itself")
            editor.replace(node, "Softplus", [source])


def _beside_one(editor: Editor, total: gs.Node) -> gs.Node | None:
    for index in (0, 1):
        one = total.inputs[1 - index]
        exponential = editor.producer(total.inputs[index], "Exp")
        if exponential is not None and is_scalar(one, 1.0, _EXACT):
            dims = editor.dims(exponential.inputs[0])
            fits = len(one.shape) <= (0 if dims is None else len(dims))
            return exponential if fits else None
    return None


def _both_signs(
    editor: Editor, node: gs.Node, argument: gs.Tensor
) -> tuple[gs.Node, gs.Tensor] | None:
    """Return the Add of max(x, 0) + log(1 + exp(-|x|)), and x, when `argument` is -|x|."""
    negated = made_by(editor, argument, "Neg")
    absolute = made_by(editor, negated.inputs[0], "Abs") if negated is not None else None
    if absolute is None or not editor.is_private(node.outputs[0]):
        return None
    source, above = absolute.inputs[0], editor.users(node.outputs[0])[0]
    if above.op != "Add" or not editor.is_local(node.outputs[0]):
        return None
    for tensor in above.inputs:
        positive = made_by(editor, tensor, "Relu", "Max")
        if positive is None or not any(one is source for one in positive.inputs):
            continue
        others = [one for one in positive.inputs if one is not source]
        if positive.op == "Relu" or (
            len(others) == 1 and scalar(others[0]) == 0.0 and not others[0].shape
        ):
            return above, source
    return None
