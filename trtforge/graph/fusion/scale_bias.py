"""What follows a normalization: a change of type, a scale, a bias, and which of it goes in."""

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor
from trtforge.graph.nodes import constant_values
from trtforge.graph.pattern import only_reader, other_input


@dataclass(frozen=True)
class Tail:
    """The end of a normalization.

    Attributes:
        root: the last node that goes in.
        source: x, before it was made wider, where it was.
        scale: as the operator wants it; None when there is none.
        bias: likewise.
        left: why a multiplication that follows stays outside; None when nothing is left to say.
    """

    root: gs.Node
    source: gs.Tensor
    scale: gs.Tensor | None = None
    bias: gs.Tensor | None = None
    left: str | None = None


def narrowed(editor: Editor, root: gs.Node, source: gs.Tensor) -> Tail:
    """Leave out a Cast of x (or of x less its mean) to FP32, and that of the result back.

    Operators with stash_type 1 compute like that by themselves: they round n to the type of x and
    multiply it by the scale in that type.
    """
    upper = only_reader(editor, root.outputs[0])
    if upper is None or upper.op != "Cast" or editor.dtype(root.outputs[0]) != np.float32:
        return Tail(root, source)
    widened = editor.producer(source, "Cast")
    for before in (source, *(widened.inputs if widened is not None else ())):
        narrow = editor.dtype(before)
        if narrow is not None and narrow.itemsize == 2 and editor.dtype(upper.outputs[0]) == narrow:
            return Tail(upper, before)
    return Tail(root, source)


def with_scale(editor: Editor, tail: Tail, shape: tuple[int, ...], *, behind: int = 0) -> Tail:
    """Add the constant that n is multiplied by, and the one that is added then, where they fit.

    Args:
        editor: of the graph.
        tail: without them.
        shape: that the operator's scale and bias have.
        behind: how many axes of size 1 follow it in a constant, so that it broadcasts.
    """
    scaled = _next(editor, tail, "Mul", shape, behind)
    if isinstance(scaled, str):
        return Tail(tail.root, tail.source, left=scaled)
    if scaled is not None:
        tail = Tail(scaled[0], tail.source, scaled[1])
    shifted = _next(editor, tail, "Add", shape, behind)
    if isinstance(shifted, str) or shifted is None:
        return tail
    return Tail(shifted[0], tail.source, tail.scale, shifted[1])


def _next(
    editor: Editor, tail: Tail, op: str, shape: tuple[int, ...], behind: int
) -> tuple[gs.Node, gs.Tensor] | str | None:
    result = tail.root.outputs[0]
    above = only_reader(editor, result)
    other = other_input(above, result) if above is not None and above.op == op else None
    if above is None or other is None or constant_values(other) is None:
        return None
    dims = editor.dims(tail.source)
    fits = dims is not None and len(other.shape) <= len(dims)
    fitting = fitted(editor, other, shape, behind=behind) if fits else None
    if fitting is None:
        given = f"'{other.name}' of shape {list(other.shape)}"
        return f"{given} stays outside: it has not one value for each of {list(shape)}"
    return above, fitting


def fitted(
    editor: Editor, constant: gs.Tensor, shape: tuple[int, ...], *, behind: int = 0
) -> gs.Tensor | None:
    """Return a constant in the shape in which an operator wants it; itself when it has it.

    None when it varies along other axes, or is not constant.
    """
    values = constant_values(constant)
    if values is None:
        return None
    if tuple(values.shape) == shape and not behind:
        return constant
    rank = len(shape) + behind
    aligned = (1,) * (rank - values.ndim) + tuple(values.shape)
    before, middle, after = (
        aligned[: len(aligned) - rank],
        aligned[len(aligned) - rank : len(aligned) - behind],
        aligned[len(aligned) - behind :],
    )
    if any(dim != 1 for dim in (*before, *after)):
        return None
    if any(dim not in (1, size) for dim, size in zip(middle, shape, strict=True)):
        return None
    spread = np.broadcast_to(values.reshape(middle), shape)
    return editor.constant(constant.name, np.ascontiguousarray(spread))


def uniform(
    editor: Editor, tail: Tail, role: str, shape: tuple[int, ...], value: float
) -> gs.Tensor:
    """Return a new constant of one value, in the type of x, named after the result."""
    values = np.full(shape, value, editor.dtype(tail.source))
    return editor.constant(f"{tail.root.outputs[0].name}_{role}", values)
