"""Queries, keys and values of an attention: one matrix per head, or all heads side by side."""

from dataclasses import dataclass

import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor
from trtforge.graph.facts import Dim, Dims
from trtforge.graph.shape_values import value_of

HEADS_FIRST = (0, 2, 1, 3)
"""(B, S, H, D) to (B, H, S, D), and back."""

_SWAP_LAST = (0, 1, 3, 2)
_TO_TRANSPOSED = (0, 2, 3, 1)
"""(B, S, H, D) to (B, H, D, S)."""


@dataclass(frozen=True)
class Heads:
    """One operand of an attention.

    Attributes:
        tensor: (B, H, S, D), or (B, S, H, D) where `is_swapped`.
        dims: (B, H, S, D).
        is_swapped: whether a Transpose is missing.
        repeats: how many query heads share each head.
    """

    tensor: gs.Tensor
    dims: Dims
    is_swapped: bool = False
    repeats: int = 1

    @property
    def count(self) -> Dim:
        """How many heads there are."""
        return self.dims[1]


def same(a: Dim, b: Dim) -> bool:
    """Return whether two dimensions are known to be equal."""
    return a is not None and a == b


def heads(editor: Editor, tensor: gs.Tensor) -> Heads | None:
    """Read queries or values; None when their dimensions are not known."""
    dims = editor.dims(tensor)
    if dims is None or len(dims) != 4:
        return None
    return Heads(tensor, dims)


def transposed_heads(editor: Editor, tensor: gs.Tensor) -> Heads | None:
    """Read keys, which the product of the scores has transposed; None when it has not so."""
    node, dims = editor.producer(tensor, "Transpose"), editor.dims(tensor)
    if node is None or dims is None or len(dims) != 4:
        return None
    back = (dims[0], dims[1], dims[3], dims[2])
    perm = tuple(node.attrs.get("perm", ()))
    if perm == _SWAP_LAST:
        return Heads(node.inputs[0], back)
    return Heads(node.inputs[0], back, is_swapped=True) if perm == _TO_TRANSPOSED else None


def unrepeated(editor: Editor, found: Heads) -> Heads:
    """Look through Reshape(Expand(Unsqueeze(x))) that says each head several times in a row."""
    reshape = editor.producer(found.tensor, "Reshape") if not found.is_swapped else None
    expand = editor.producer(reshape.inputs[0], "Expand") if reshape is not None else None
    spread = editor.producer(expand.inputs[0], "Unsqueeze", "Reshape") if expand else None
    if expand is None or spread is None:
        return found
    source = spread.inputs[0]
    inner, thin, wide = (
        editor.dims(tensor) for tensor in (source, spread.outputs[0], expand.outputs[0])
    )
    if inner is None or thin is None or wide is None:
        return found
    if len(inner) != 4 or len(thin) != 5 or len(wide) != 5:
        return found
    batch, count, length, size = inner
    repeats = wide[2]
    if not isinstance(count, int) or not isinstance(repeats, int):
        return found
    is_spread = thin[2] == 1 and all(map(same, (*thin[:2], *thin[3:]), inner))
    is_wide = all(map(same, (*wide[:2], *wide[3:]), inner))
    is_merged = all(map(same, found.dims, (batch, count * repeats, length, size)))
    if not (is_spread and is_wide and is_merged):
        return found
    return Heads(source, inner, repeats=repeats)


def flat(editor: Editor, found: Heads) -> gs.Tensor | None:
    """Return the (B, S, H * D) tensor that an operand is cut from, if it is one."""
    tensor = found.tensor
    if not found.is_swapped:
        node = editor.producer(tensor, "Transpose")
        if node is None or tuple(node.attrs.get("perm", ())) != HEADS_FIRST:
            return None
        tensor = node.inputs[0]
    reshape = editor.producer(tensor, "Reshape")
    if reshape is None:
        return None
    source = reshape.inputs[0]
    return source if _is_flat(editor.dims(source), found.dims) else None


def _is_flat(dims: Dims | None, of: Dims) -> bool:
    batch, count, length, size = of
    if dims is None or len(dims) != 3 or not isinstance(count, int) or not isinstance(size, int):
        return False
    return same(dims[0], batch) and same(dims[1], length) and dims[2] == count * size


def merging(editor: Editor, tensor: gs.Tensor, dims: Dims) -> tuple[gs.Node, bool] | None:
    """Find the Reshape that puts the heads of a result side by side, after a Transpose.

    Args:
        editor: of the graph.
        tensor: the result of the attention, read by nothing else.
        dims: its dimensions, (B, H, S, D).

    Returns:
        The Reshape, and whether its result is (B, S, H * D); otherwise it reshapes further.
    """
    if not (editor.is_private(tensor) and editor.is_local(tensor)):
        return None
    node = editor.users(tensor, 1)[0]
    if node.op != "Transpose" or tuple(node.attrs.get("perm", ())) != HEADS_FIRST:
        return None
    swapped = node.outputs[0]
    if not (editor.is_private(swapped) and editor.is_local(swapped)):
        return None
    reshape = editor.users(swapped, 1)[0]
    if reshape.op != "Reshape" or reshape.inputs[0] is not swapped:
        return None
    if _is_flat(editor.dims(reshape.outputs[0]), dims):
        return reshape, True
    shape = value_of(reshape.inputs[1])
    numbers = shape.numbers if shape is not None else None
    if numbers is None or reshape.attrs.get("allowzero", 0) or 0 in numbers[2:]:
        return None  # a zero would copy a dimension that is another one now
    return reshape, False
