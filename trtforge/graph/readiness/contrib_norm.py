"""ONNX Runtime's normalizations with sums before them, in standard operators."""

from collections.abc import Callable

import numpy as np
import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor
from trtforge.graph.readiness.quantizing import input_of
from trtforge.graph.readiness.writing import Writer

OPSET = 17
"""LayerNormalization. Source: https://onnx.ai/onnx/operators/onnx__LayerNormalization.html"""

_EPSILON = 1e-12
"""Source: onnxruntime, kDefaultSkipLayerNormEpsilon and kDefaultEmbedLayerNormEpsilon."""


def used(editor: Editor, node: gs.Node, index: int) -> bool:
    """Return whether an output of a node is there and anything reads it."""
    if index >= len(node.outputs) or not node.outputs[index].name:
        return False
    tensor = node.outputs[index]
    return bool(editor.users(tensor, 1)) or editor.is_kept(tensor)


def skip(editor: Editor, node: gs.Node) -> Callable[[], None] | str:
    """SkipLayerNormalization: LayerNormalization(input + skip (+ bias))."""
    if used(editor, node, 1) or used(editor, node, 2):
        return "its mean or variance is used"
    gamma = node.inputs[2]
    dtype = editor.dtype(gamma)
    if dtype is None:
        return "the element type is not known"
    total = node.outputs[3] if used(editor, node, 3) else None
    beta, bias = input_of(node, 3), input_of(node, 4)

    def write() -> None:
        writer = Writer(editor, node, dtype)
        terms = [node.inputs[0], node.inputs[1]]
        if bias is not None:
            terms = [writer.write("Add", [terms[0], bias]), terms[1]]
        if total is not None:
            writer.give("Add", terms, total)
        x = total if total is not None else writer.write("Add", terms, editor.dims(terms[0]))
        _normalize(writer, node, x, gamma, beta)

    return write


def _normalize(
    writer: Writer, node: gs.Node, x: gs.Tensor, gamma: gs.Tensor, beta: gs.Tensor | None
) -> None:
    operands = [x, gamma] if beta is None else [x, gamma, beta]
    epsilon = float(node.attrs.get("epsilon", _EPSILON))
    writer.finish("LayerNormalization", operands, axis=-1, epsilon=epsilon)


def embedding(editor: Editor, node: gs.Node) -> Callable[[], None] | str:
    """EmbedLayerNormalization: LayerNormalization(word[ids] + position + segment[segments])."""
    if used(editor, node, 1):
        why = _mask_objection(node)
        if why is not None:
            return why
    tables = [input_of(node, index) for index in (2, 3, 4)]
    gamma, beta, positions = node.inputs[5], input_of(node, 6), input_of(node, 8)
    words, places, segments = tables
    if words is None or places is None:
        return "it has no table of words or positions"
    dtype = editor.dtype(words)
    if dtype is None:
        return "the element type is not known"
    kinds = input_of(node, 1)
    total = node.outputs[2] if used(editor, node, 2) else None

    def write() -> None:
        writer = Writer(editor, node, dtype)
        x = writer.write("Gather", [words, node.inputs[0]], axis=0)
        x = writer.write("Add", [x, _places(writer, node.inputs[0], places, positions)])
        if segments is not None and kinds is not None:
            terms = [x, writer.write("Gather", [segments, kinds], axis=0)]
            x = writer.write("Add", terms)
        if total is not None:
            writer.give("Identity", [x], total)
        if used(editor, node, 1):
            _lengths(writer, node)
        _normalize(writer, node, x, gamma, beta)

    return write


def _mask_objection(node: gs.Node) -> str | None:
    if int(node.attrs.get("mask_index_type", 1)) != 1:
        return "its mask index is used, and is not of the kind that counts"
    return None if input_of(node, 7) is not None else "its mask index is used, and has no mask"


def _lengths(writer: Writer, node: gs.Node) -> None:
    """The mask index of type 1: how many tokens of each sentence the mask leaves."""
    axes = writer.sizes("last", 1)
    writer.give("ReduceSum", [node.inputs[7], axes], node.outputs[1], keepdims=0)


def _places(
    writer: Writer, ids: gs.Tensor, table: gs.Tensor, positions: gs.Tensor | None
) -> gs.Tensor:
    """The embeddings of the positions: as given, else the first of the table, one per token."""
    if positions is not None:
        return writer.write("Gather", [table, positions], axis=0)
    shape = writer.write("Shape", [ids], dtype=np.int64)
    one = writer.sizes("one", 1)
    length = writer.write("Slice", [shape, one, writer.sizes("two", 2)], (1,), dtype=np.int64)
    return writer.write("Slice", [table, writer.sizes("zero", 0), length, writer.sizes("rows", 0)])
