"""The scale of masked attention scores goes to the queries, where TensorRT expects it."""

import numpy as np

from trtforge.graph.edit import Editor
from trtforge.graph.fusion.attention_pattern import Attended, attended, scale_of
from trtforge.graph.nodes import node_label


class MoveAttentionScale:
    """Scale the queries, not the scores, of an attention whose mask is a choice.

    TensorRT-RTX recognizes softmax(Where(c, (s Q) K^T, -inf)) as one FP16 kernel, and does not
    where the scale stands between product and Where: the engine is twice as big.

    Matches: Where(c, s * (Q K^T), -inf) or with its branches exchanged, before the Softmax of an
    attention; s a constant number, by Mul or Div
    (https://onnx.ai/onnx/operators/onnx__MatMul.html, any opset).
    Rewrites to: Where(c, (s * Q) K^T, -inf): s (Q K^T) = (s Q) K^T.
    Refuses when: the queries are FP16 and |s| > 1 (they might overflow), or what the attention
    consists of is used elsewhere or spelled otherwise.
    """

    name = "attention-scale"

    def apply(self, editor: Editor) -> None:
        """Rewrite one graph in place."""
        for softmax in editor.nodes("Softmax"):
            choice = editor.producer(softmax.inputs[0], "Where")
            found = attended(editor, softmax) if choice is not None else None
            if isinstance(found, str):
                editor.refuse(softmax, found)
            elif found is not None:
                _move(editor, found)


def _move(editor: Editor, found: Attended) -> None:
    scores, masking = found.scores, found.masking
    if masking is None or masking.fill is None or not np.isneginf(masking.fill):
        return
    readers = editor.users(scores.outputs[0])
    scaling = readers[0] if len(readers) == 1 and readers[0].op in ("Mul", "Div") else None
    split = scale_of(editor, scaling) if scaling is not None else None
    if scaling is None or split is None:
        return
    query = scores.inputs[0]
    dtype = editor.dtype(query)
    if dtype is None or (dtype == np.float16 and abs(split[1]) > 1):
        editor.refuse(scaling, "scaled queries may leave the range of their type")
        return
    factor = next(tensor for tensor in scaling.inputs if tensor is not split[0])
    if len(factor.shape) > len(editor.dims(query) or ()):
        return  # it may add axes
    scaled = editor.variable(f"{query.name}_scaled", dtype, editor.dims(query))
    editor.add(scaling.op, [query, factor], [scaled], scores, name=scaled.name)
    editor.match(scaling, f"scales the queries of '{node_label(scores)}'")
    editor.replace(scaling, "MatMul", [scaled, scores.inputs[1]])
