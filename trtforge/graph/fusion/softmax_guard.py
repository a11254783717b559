"""A guard against NaN after a softmax goes where no row can be masked as a whole."""

from trtforge.graph.edit import Editor
from trtforge.graph.fusion.attention_pattern import attended, guarded, has_no_empty_row
from trtforge.graph.nodes import node_label


class RemoveSoftmaxGuard:
    """Remove Where(IsNaN(p), 0, p) behind the softmax of an attention.

    PyTorch's exporter writes it for rows whose scores all are minus infinity, where a softmax is
    0 / 0. TensorRT-RTX needs one more kernel for it in FP32.

    Matches: p = Softmax(scores) of an attention, where no row can be minus infinity throughout:
    without a mask, with a mask made of finite numbers (`Where` of two, or a constant), or with a
    constant one that leaves some key to every query
    (https://onnx.ai/onnx/operators/onnx__IsNaN.html, opset 9 on).
    Rewrites to: p. As long as the scores are finite, p is never NaN.
    Refuses when: the mask is computed or an input of the graph and may hold minus infinity.
    """

    name = "softmax-guard"

    def apply(self, editor: Editor) -> None:
        """Rewrite one graph in place."""
        for softmax in editor.nodes("Softmax"):
            choice = guarded(editor, softmax)
            found = attended(editor, softmax) if choice is not None else None
            if choice is None or found is None:
                continue
            if isinstance(found, str):
                editor.refuse(softmax, found)
                continue
            if not has_no_empty_row(editor, found.masking):
                editor.refuse(softmax, "its mask may leave a query without any key")
                continue
            test = editor.producer(choice.inputs[0])
            why = editor.bypass(choice, softmax.outputs[0])
            if why is not None:
                editor.refuse(softmax, why)
                continue
            if test is not None:
                editor.remove(test)
            editor.match(softmax, f"'{node_label(choice)}' never has NaN to replace")
