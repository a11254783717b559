"""If nodes whose condition is a constant become the branch that they take."""

import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor
from trtforge.graph.shape_values import value_of


class TakeConstantBranch:
    """Replace If by one of its branches.

    Matches: If whose condition is constant, or follows from dimensions
    (https://onnx.ai/onnx/operators/onnx__If.html, opset 1 on).
    Rewrites to: the nodes of the branch that is taken. Names that another branch uses, too, get
    a suffix.
    Refuses when: never; what the branch hands on is copied by Identity, which the pass identity
    takes out.
    """

    name = "constant-condition"

    def apply(self, editor: Editor) -> None:
        """Rewrite one graph in place."""
        for node in editor.nodes("If"):
            value = value_of(node.inputs[0])
            numbers = None if value is None else value.numbers
            if not numbers:
                continue
            branch = "then_branch" if numbers[0] else "else_branch"
            editor.match(node, f"its condition is always {bool(numbers[0])}")
            _inline(editor, node, branch)


def _inline(editor: Editor, node: gs.Node, branch: str) -> None:
    body: gs.Graph = node.attrs[branch]
    _rename_shared(editor, body)
    for inner in list(body.nodes):
        editor.adopt(inner, node)
    for source, result in zip(list(body.outputs), list(node.outputs), strict=True):
        if result.name:
            editor.add("Identity", [source], [result], node)
    editor.set_attribute(node, branch, None)  # what was adopted lives on when the If goes
    editor.remove(node)


def _rename_shared(editor: Editor, body: gs.Graph) -> None:
    """Give new names to tensors of a body whose names another body defines, too."""
    members = {id(inner) for inner in body.nodes}
    own = [tensor for inner in body.nodes for tensor in inner.outputs]
    for inner in body.nodes:
        for tensor in inner.inputs:
            if isinstance(tensor, gs.Constant) and all(id(u) in members for u in tensor.outputs):
                own.append(tensor)
    for tensor in {id(tensor): tensor for tensor in own}.values():
        if tensor.name and editor.names.is_shared(tensor.name):
            tensor.name = editor.names.fresh(tensor.name)
