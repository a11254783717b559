"""Nodes that hand on their input are taken out."""

import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor
from trtforge.graph.nodes import constant_values


class RemoveIdentity:
    """Remove Identity, and Dropout in inference mode.

    Matches: Identity (opset 1 on); Dropout (opset 7 on) whose `training_mode` is absent or a
    constant False, y = x (https://onnx.ai/onnx/operators/onnx__Dropout.html).
    Rewrites to: nothing; readers of the output read the input. An output of the graph keeps
    its name: the node that computes the input takes it over.
    Refuses when: Dropout trains or may train, its mask is used, or an output of the graph would
    become an input, a constant or a second name of another output.
    """

    name = "identity"

    def apply(self, editor: Editor) -> None:
        """Rewrite one graph in place."""
        for node in editor.nodes("Identity", "Dropout"):
            given = node.inputs[0]
            why = _dropout_objection(node, editor) if node.op == "Dropout" else None
            why = why or editor.bypass(node, given)
            if why is None:
                editor.match(node, f"{node.op} hands on '{given.name}'")
            else:
                editor.refuse(node, why)


def _dropout_objection(node: gs.Node, editor: Editor) -> str | None:
    if editor.opset < 7 and node.attrs.get("is_test", 0) != 1:
        return "Dropout is in training mode (is_test is 0)"
    if len(node.inputs) > 2 and not node.inputs[2].is_empty():
        training = constant_values(node.inputs[2])
        if training is None:
            return "Dropout's training_mode is computed at run time"
        if bool(training.reshape(-1)[0]):
            return "Dropout is in training mode"
    for mask in node.outputs[1:]:
        if mask.name and (editor.users(mask, 1) or editor.is_kept(mask)):
            return "Dropout's mask is used"
    return None
