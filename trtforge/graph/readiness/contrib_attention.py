"""ONNX Runtime's attention operators, in standard operators."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from onnx import TensorProto, helper

from trtforge.graph.edit import Editor
from trtforge.graph.readiness.contrib_norm import used
from trtforge.graph.readiness.quantizing import input_of
from trtforge.graph.readiness.writing import Writer

_MASKED = -10000.0
"""What is added where a mask is 0. Source: ContribOperators.md, Attention, mask_filter_value."""


@dataclass(frozen=True)
class _Heads:
    """How a projection is cut into heads.

    Attributes:
        count: of heads.
        sizes: of queries, keys and values, all heads together.
        scale: of the scores; None for 1 / sqrt(size of a head).
    """

    count: int
    sizes: tuple[int, int, int]
    scale: float | None

    @classmethod
    def of(cls, node: gs.Node, sizes: tuple[int, int, int]) -> "_Heads":
        scale = float(node.attrs.get("scale", 0.0)) or None
        return cls(int(node.attrs["num_heads"]), sizes, scale)

    @property
    def factor(self) -> float:
        """By what scores are multiplied."""
        return self.scale or 1 / math.sqrt(self.sizes[0] // self.count)


def attention(editor: Editor, node: gs.Node) -> Callable[[], None] | str:
    """Attention: x W + b cut into queries, keys and values, and softmax(q k' / sqrt(d)) v.

    The mask is one of tokens, (batch, tokens), or the number of tokens of each sentence.
    """
    if (why := _objection(editor, node, past=(4, 6))) is not None:
        return why
    weights, bias, mask, added = (input_of(node, index) for index in (1, 2, 3, 5))
    dims = editor.dims(weights) if weights is not None else None
    if weights is None or dims is None or not isinstance(dims[-1], int):
        return "the size of its weights is not known"
    dtype = editor.dtype(weights)
    if mask is not None and not _is_mask(editor, node, mask):
        return "its mask is neither one per token nor a length per sentence"
    third = dims[-1] // 3
    given = node.attrs.get("qkv_hidden_sizes")
    heads = _Heads.of(node, tuple(given) if given else (third, third, third))
    if dtype is None:
        return "the element type is not known"

    def write() -> None:
        writer = Writer(editor, node, dtype)
        x = writer.write("MatMul", [node.inputs[0], weights])
        if bias is not None:
            x = writer.write("Add", [x, bias])
        parts = _split(writer, x, heads)
        biases = [] if mask is None else [_mask(editor, writer, node, mask)]
        _attend(writer, parts, heads, [*biases, *([added] if added is not None else [])])

    return write


def multi_head(editor: Editor, node: gs.Node) -> Callable[[], None] | str:
    """MultiHeadAttention: softmax(q k' / sqrt(d)) v of projections (batch, tokens, size)."""
    if (why := _objection(editor, node, past=(4, 6))) is not None:
        return why
    if len(node.outputs) > 3 and used(editor, node, 3):
        return "its scores are used"
    query, key, value, bias, added = (input_of(node, index) for index in (0, 1, 2, 3, 5))
    if query is None or key is None or value is None:
        return "its queries, keys and values are packed"
    sizes = []
    for tensor in (query, key, value):
        dims = editor.dims(tensor)
        if dims is None or len(dims) != 3 or not isinstance(dims[2], int):
            return f"'{tensor.name}' is not known to be (batch, tokens, size)"
        sizes.append(dims[2])
    dtype = editor.dtype(query)
    if dtype is None:
        return "the element type is not known"
    heads = _Heads.of(node, (sizes[0], sizes[1], sizes[2]))

    def write() -> None:
        writer = Writer(editor, node, dtype)
        parts = [query, key, value]
        if bias is not None:
            cuts = _split(writer, bias, heads, axis=0)
            parts = [writer.write("Add", list(pair)) for pair in zip(parts, cuts, strict=True)]
        _attend(writer, parts, heads, [added] if added is not None else [])

    return write


def _objection(editor: Editor, node: gs.Node, past: tuple[int, int]) -> str | None:
    if node.attrs.get("unidirectional", 0):
        return "it looks back only (unidirectional)"
    if node.attrs.get("do_rotary", 0):
        return "it rotates its queries and keys"
    if node.op == "MultiHeadAttention" and input_of(node, 4) is not None:
        return "it has a padding mask"
    first = past[0] if node.op == "Attention" else past[1]
    others = [input_of(node, index) for index in (first, *range(6, len(node.inputs)))]
    if any(tensor is not None for tensor in others):
        return "it has a cache of keys and values"
    if used(editor, node, 1) or used(editor, node, 2):
        return "its keys and values are used"
    return None


def _is_mask(editor: Editor, node: gs.Node, mask: gs.Tensor) -> bool:
    """Whether a mask says which tokens count, or one length per sentence.

    Of rank 1 there are others, of 2 * batch and of 3 * batch + 2 numbers.
    """
    dims, source = editor.dims(mask), editor.dims(node.inputs[0])
    if dims is None or len(dims) not in (1, 2):
        return False
    if len(dims) == 2 or dims[0] == 1:
        return True
    return source is not None and dims[0] is not None and dims[0] == source[0]


def _split(writer: Writer, x: gs.Tensor, heads: _Heads, axis: int = -1) -> list[gs.Tensor]:
    """Cut queries, keys and values out of one tensor."""
    parts, start = [], 0
    for role, size in zip("qkv", heads.sizes, strict=True):
        begin, end = writer.sizes(f"{role}_begin", start), writer.sizes(f"{role}_end", start + size)
        parts.append(writer.write("Slice", [x, begin, end, writer.sizes(f"{role}_axis", axis)]))
        start += size
    return parts


def _mask(editor: Editor, writer: Writer, node: gs.Node, mask: gs.Tensor) -> gs.Tensor:
    """Write what is added to the scores: mask_filter_value where a token does not count."""
    dtype = editor.dtype(node.inputs[1])
    dims = editor.dims(mask)
    kind = int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
    if dims is not None and len(dims) == 1:
        counts = writer.write("Cast", [_counted(writer, node, mask)], dtype=dtype, to=kind)
    else:
        counts = writer.write("Cast", [mask], dtype=dtype, to=kind)
    gone = writer.write("Sub", [writer.number("counts", 1.0), counts])
    value = float(node.attrs.get("mask_filter_value", _MASKED))
    scaled = writer.write("Mul", [gone, writer.number("masked", value)])
    return writer.write("Unsqueeze", [scaled, writer.sizes("mask_axes", 1, 2)])


def _counted(writer: Writer, node: gs.Node, lengths: gs.Tensor) -> gs.Tensor:
    """Write which tokens lie within the length of their sentence: (batch, tokens)."""
    shape = writer.write("Shape", [node.inputs[0]], (3,), dtype=np.int64)
    zero, one = writer.size("zero", 0), writer.size("one", 1)
    tokens = writer.write("Gather", [shape, one], (), dtype=np.int64, axis=0)
    places = writer.write("Range", [zero, tokens, one], dtype=np.int64)
    wide = writer.write("Cast", [lengths], dtype=np.int64, to=TensorProto.INT64)
    column = writer.write("Unsqueeze", [wide, writer.sizes("column", 1)], dtype=np.int64)
    return writer.write("Less", [places, column], dtype=np.bool_)


def _attend(writer: Writer, parts: list[gs.Tensor], heads: _Heads, biases: list[gs.Tensor]) -> None:
    """softmax(q k' * scale + biases) v, heads apart."""
    query, value = (_by_head(writer, parts[index], heads, "qkv"[index]) for index in (0, 2))
    key = _by_head(writer, parts[1], heads, "k", perm=[0, 2, 3, 1])
    scores: Any = writer.write("MatMul", [query, key])
    scores = writer.write("Mul", [scores, writer.number("scale", heads.factor)])
    for bias in biases:
        scores = writer.write("Add", [scores, bias])
    found = writer.write("MatMul", [writer.write("Softmax", [scores], axis=-1), value])
    together = writer.write("Transpose", [found], perm=[0, 2, 1, 3])
    writer.finish("Reshape", [together, writer.sizes("merged", 0, 0, heads.sizes[2])])


def _by_head(
    writer: Writer, x: gs.Tensor, heads: _Heads, role: str, perm: "list[int] | None" = None
) -> gs.Tensor:
    size = heads.sizes["qkv".index(role)] // heads.count
    cut = writer.write("Reshape", [x, writer.sizes(f"{role}_heads", 0, 0, heads.count, size)])
    return writer.write("Transpose", [cut], perm=perm or [0, 2, 1, 3])
