"""Nodes that hand on their input are taken out."""

import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor, constant_values
from trtforge.graph.report import PassResult


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

    def apply(self, graph: gs.Graph) -> PassResult:
        """Rewrite the outermost graph in place."""
        editor = Editor(graph)
        inputs = {id(tensor) for tensor in graph.inputs}
        for node in editor.nodes("Identity", "Dropout"):
            given = node.inputs[0].name
            why = _dropout_objection(node, editor, graph.opset) if node.op == "Dropout" else None
            if why is None:
                why = _bypass(node, editor, inputs)
            if why is None:
                editor.match(node, f"{node.op} hands on '{given}'")
            else:
                editor.refuse(node, why)
        return editor.finish()


def _dropout_objection(node: gs.Node, editor: Editor, opset: int) -> str | None:
    if opset < 7 and node.attrs.get("is_test", 0) != 1:
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


def _bypass(node: gs.Node, editor: Editor, inputs: set[int]) -> str | None:
    source, result = node.inputs[0], node.outputs[0]
    if not editor.is_kept(result):
        editor.replace_uses(result, source)
        editor.remove(node)
        return None
    producer = editor.producer(source)
    if id(source) in inputs or producer is None:
        return f"'{result.name}' is an output and '{source.name}' is not computed by this graph"
    if editor.is_kept(source):
        return f"'{result.name}' and '{source.name}' are both outputs"
    index = next(i for i, tensor in enumerate(producer.outputs) if tensor is source)
    editor.remove(node)
    editor.set_output(producer, index, result)
    editor.replace_uses(source, result)
    return None
