"""What follows a linear operator is folded into it: the walk that several passes share."""

import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor
from trtforge.graph.fusion import linear
from trtforge.graph.fusion.affine import (
    ARITHMETIC,
    Affine,
    constant_beside,
    of_arithmetic,
    of_batchnorm,
)
from trtforge.graph.nodes import node_label


def fold_batchnorms(editor: Editor, ops: tuple[str, ...]) -> None:
    """Fold each BatchNormalization into the operator (one of `ops`) that computes its input."""
    for norm in editor.nodes("BatchNormalization"):
        node = linear.linear_before(editor, norm.inputs[0], *ops)
        if node is None:
            continue
        why = linear.objection_after(editor, node)
        if why is None:
            affine = of_batchnorm(editor, norm, linear.output_place(editor, node))
            why = _folded(editor, node, norm, affine)
        if why is not None:
            editor.refuse(norm, why)


def fold_arithmetic(editor: Editor, ops: tuple[str, ...]) -> None:
    """Fold Mul, Add, Sub, Div by constants into the operator that computes the other input."""
    for follower in editor.nodes(*ARITHMETIC):
        for index in (0, 1):
            if not constant_beside(follower, index):
                continue
            node = linear.linear_before(editor, follower.inputs[index], *ops)
            if node is None or _is_biased_product(editor, node, follower):
                continue
            why = linear.objection_after(editor, node)
            if why is None:
                affine = of_arithmetic(follower, index, linear.output_place(editor, node))
                why = _folded(editor, node, follower, affine)
            if why is not None:
                editor.refuse(follower, why)
            break


def _is_biased_product(editor: Editor, node: gs.Node, follower: gs.Node) -> bool:
    """Return whether this is x W + b of more than two axes, which is no near miss: it is right."""
    dims = editor.dims(node.inputs[0])
    return (
        node.op == "MatMul" and follower.op in ("Add", "Sub") and (dims is None or len(dims) != 2)
    )


def _folded(editor: Editor, node: gs.Node, follower: gs.Node, affine: Affine | str) -> str | None:
    if isinstance(affine, str):
        return affine
    why = linear.fold_after(editor, node, affine)
    if why is None:
        editor.match(follower, f"folded into '{node_label(node)}'")
        linear.take_over(editor, node, follower)
    return why
