"""What precedes a linear operator is folded into it: the steps that several passes share."""

import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor
from trtforge.graph.fusion import linear
from trtforge.graph.fusion.affine import Affine
from trtforge.graph.nodes import is_standard, node_label


def linear_after(editor: Editor, tensor: gs.Tensor) -> gs.Node | None:
    """Return the linear operator with constant weights that reads a tensor as its activations.

    None when something else reads it, too: then folding saves nothing.
    """
    users = editor.users(tensor)
    if len(users) != 1 or not editor.is_private(tensor):
        return None
    node = users[0]
    if node.op not in linear.LINEAR or not is_standard(node):
        return None
    is_here = getattr(node, "owner", None) is editor and node.inputs[0] is tensor
    return node if is_here and linear.has_constant_weights(node) else None


def fold_before(
    editor: Editor, preceding: gs.Node, source: gs.Tensor, affine: Affine | str
) -> None:
    """Fold a node, affine in `source`, into the linear operator that reads its result."""
    node = linear_after(editor, preceding.outputs[0])
    assert node is not None  # the caller looked for it
    why = affine if isinstance(affine, str) else linear.weight_objection(editor, node)
    if why is None and not isinstance(affine, str):
        why = linear.fold_before(editor, node, affine)
    if why is not None:
        editor.refuse(preceding, why)
        return
    editor.match(preceding, f"folded into '{node_label(node)}'")
    current = editor.producer(node.outputs[0])
    assert current is not None  # a MatMul may have become a Gemm
    editor.set_input(current, 0, source)
    editor.remove(preceding)
