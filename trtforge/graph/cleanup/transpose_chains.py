"""Transposes that follow one another, or meet in a matrix product, are merged."""

import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor
from trtforge.graph.layout import composed, is_identity, order_of
from trtforge.graph.nodes import node_label
from trtforge.graph.pattern import is_read_only_by, made_by


class MergeTransposes:
    """Merge a Transpose with the Transpose next to it, or two of them behind a MatMul.

    Matches and rewrites to (https://onnx.ai/onnx/operators/onnx__Transpose.html):
        Transpose(Transpose(x, p), q): Transpose(x, p[q]); x itself where p[q] is the identity;
        MatMul(Transpose(x), Transpose(y)), both of their last two axes: Transpose(MatMul(y, x)),
        as (X^T Y^T) = (Y X)^T (https://onnx.ai/onnx/operators/onnx__MatMul.html).
    Both from opset 1 on. A Transpose that one matrix product reads is for the pass gemm-transpose.
    Refuses when: the inner Transpose is read elsewhere too and so would stay (unless everything
    vanishes), or a result that must keep its name would be an input's or another output's.
    """

    name = "transpose-chains"

    def apply(self, editor: Editor) -> None:
        """Rewrite one graph in place."""
        for node in editor.nodes("Transpose"):
            first = editor.producer(node.inputs[0], "Transpose")
            if first is not None:
                _merge(editor, first, node)
        for node in editor.nodes("MatMul"):
            _turn_round(editor, node)


def _merge(editor: Editor, first: gs.Node, node: gs.Node) -> None:
    one, two = order_of(editor, first), order_of(editor, node)
    if one is None or two is None or len(one) != len(two):
        return
    order, source, label = composed(one, two), first.inputs[0], node_label(first)
    if is_identity(order):
        why = editor.bypass(node, source)
        if why is None:
            editor.match(node, f"it takes back what '{label}' does")
            return
        if not editor.is_private(node.inputs[0]):
            editor.refuse(node, why)
            return
    elif not is_read_only_by(editor, node.inputs[0], "Transpose"):
        editor.refuse(node, f"the result of '{label}' is read by other nodes, too")
        return
    editor.match(node, f"one Transpose does what '{label}' and it do")
    editor.set_input(node, 0, source)
    editor.set_attribute(node, "perm", list(order))


def _turn_round(editor: Editor, node: gs.Node) -> None:
    arms = [made_by(editor, tensor, "Transpose") for tensor in node.inputs]
    orders = [None if arm is None else order_of(editor, arm) for arm in arms]
    if len(arms) != 2 or None in orders or orders[0] != orders[1] or arms[0] is arms[1]:
        return
    order = orders[0]
    if order is None or order != (*range(len(order) - 2), len(order) - 1, len(order) - 2):
        return
    left, right = (arm.inputs[0] for arm in arms if arm is not None)
    result = node.outputs[0]
    dims = editor.dims(result)
    turned = None if dims is None else tuple(dims[axis] for axis in order)
    product = editor.variable(f"{result.name}_turned", editor.dtype(result), turned)
    editor.match(node, "the product of two transposed matrices is the transposed other product")
    editor.add("MatMul", [right, left], [product], node, name=node.name)
    editor.replace(node, "Transpose", [product], {"perm": list(order)}).name = ""
