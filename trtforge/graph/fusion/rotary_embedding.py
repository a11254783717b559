"""Spelled-out rotary position embeddings become the operator RotaryEmbedding."""

import numpy as np
import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor
from trtforge.graph.facts import Dim, Dims
from trtforge.graph.fusion.attention_heads import same
from trtforge.graph.fusion.rotation import Rotation, is_paired, rotation
from trtforge.graph.nodes import constant_values
from trtforge.graph.pattern import reduction_axes

OPSET = 23
_TYPES = ("float16", "bfloat16", "float32")


class FuseRotaryEmbedding:
    """Fuse x * cos + rotated(x) * sin to RotaryEmbedding (optional: runs when asked for by name).

    Matches: x of (B, H, S, D), D even; rotated(x) = concat(-x2, x1) of its halves (Split or two
    Slices), or of neighbours (Slices with step 2, stacked and flattened); cos and sin of
    (B or 1, 1, S, D) or (S, D), whose halves (or neighbours) are known to be equal: constants, or
    Cos and Sin of concat(f, f) (https://onnx.ai/onnx/operators/onnx__RotaryEmbedding.html,
    opset 23).
    Rewrites to: RotaryEmbedding(x, cos', sin'), where cos' and sin' are (B, S, D / 2): one of the
    equal halves, expanded to the batch of x. They are made once for all that use the same cos.
    Refuses when: a size that matters is unknown, cos or sin are not per position or not known to
    be alike for both of a pair, or the type is FP64.
    """

    name = "rotary-embedding"

    def apply(self, editor: Editor) -> None:
        """Rewrite one graph in place."""
        made: dict[tuple[int, str], gs.Tensor] = {}
        for add in editor.nodes("Add"):
            found = rotation(editor, add)
            if found is None:
                continue
            why = _objection(editor, found)
            if why is not None:
                editor.refuse(add, why)
            elif editor.allows(add, OPSET):
                caches = [_cache(editor, found, angle, made) for angle in (found.cos, found.sin)]
                pairs = "neighbours" if found.is_interleaved else "halves"
                editor.match(add, f"rotates {pairs} of '{found.source.name}'")
                attrs = {"interleaved": 1 if found.is_interleaved else None}
                editor.replace(add, "RotaryEmbedding", [found.source, *caches], attrs)


def _objection(editor: Editor, found: Rotation) -> str | None:
    dims, dtype = editor.dims(found.source), editor.dtype(found.source)
    if dims is None or len(dims) != 4 or not isinstance(dims[3], int):
        return "what it rotates is not known to be (batch, heads, length, size)"
    if dtype is None or dtype.name not in _TYPES:
        return "what it rotates is not known to be FP32, FP16 or BF16"
    for role, angle in (("cosines", found.cos), ("sines", found.sin)):
        given = editor.dims(angle)
        if given is None or not 2 <= len(given) <= 4 or not _fits(given, dims):
            return f"its {role} '{angle.name}' are not known to be (batch, 1, length, size)"
        if editor.dtype(angle) != dtype:
            return f"its {role} '{angle.name}' have another type"
        if not is_paired(editor, angle, found.is_interleaved):
            return f"its {role} '{angle.name}' are not known to be the same for both of a pair"
    return None


def _fits(given: Dims, dims: Dims) -> bool:
    whole: list[Dim] = [1] * (4 - len(given))
    batch, heads, length, size = whole + list(given)
    is_batch = batch == 1 or same(batch, dims[0])
    return is_batch and heads == 1 and same(length, dims[2]) and size == dims[3]


def _cache(
    editor: Editor, found: Rotation, angle: gs.Tensor, made: dict[tuple[int, str], gs.Tensor]
) -> gs.Tensor:
    """Return the (B, S, D / 2) tensor of an angle's cosines or sines."""
    dims = editor.dims(found.source)
    assert dims is not None
    assert isinstance(dims[3], int)
    key = (id(angle), f"{dims[0]} {found.is_interleaved}")
    if key not in made:
        half = _half(editor, found, angle, dims[3] // 2)
        made[key] = _expanded(editor, found, half, dims)
    return made[key]


def _half(editor: Editor, found: Rotation, angle: gs.Tensor, size: int) -> gs.Tensor:
    values = constant_values(angle)
    step = 2 if found.is_interleaved else 1
    if values is not None:
        rows = values.reshape(-1, *values.shape[-2:])
        taken = rows[..., ::2] if found.is_interleaved else rows[..., :size]
        return editor.constant(f"{angle.name}_half", np.ascontiguousarray(taken))
    at, whole = found.node, _three_axes(editor, found.node, angle)
    dims = editor.dims(whole) or ()
    half = editor.variable(f"{angle.name}_half", editor.dtype(angle), (*dims[:-1], size))
    bounds = [
        editor.constant(f"{half.name}_{role}", np.array([value], np.int64))
        for role, value in (("start", 0), ("end", size * step), ("axis", 2), ("step", step))
    ]
    editor.add("Slice", [whole, *bounds], [half], at, name=half.name)
    return half


def _three_axes(editor: Editor, at: gs.Node, angle: gs.Tensor) -> gs.Tensor:
    """Return (B, S, D) for (B, 1, S, D) or (S, D)."""
    dims = editor.dims(angle) or ()
    if len(dims) == 3:
        return angle
    spread = editor.producer(angle, "Unsqueeze")
    if len(dims) == 4 and spread is not None and reduction_axes(spread) in ((1,), (-3,)):
        source: gs.Tensor = spread.inputs[0]
        return source
    op, axis = ("Squeeze", 1) if len(dims) == 4 else ("Unsqueeze", 0)
    wanted = (dims[0], *dims[2:]) if len(dims) == 4 else (1, *dims)
    result = editor.variable(f"{angle.name}_positions", editor.dtype(angle), wanted)
    axes = editor.constant(f"{result.name}_axes", np.array([axis], np.int64))
    editor.add(op, [angle, axes], [result], at, name=result.name)
    return result


def _expanded(editor: Editor, found: Rotation, half: gs.Tensor, dims: Dims) -> gs.Tensor:
    given = half.shape if isinstance(half, gs.Constant) else editor.dims(half) or ()
    if same(dims[0], given[0]):
        return half
    wide = editor.variable(f"{half.name}_batch", editor.dtype(found.source), (dims[0], *given[1:]))
    shape = _batch(editor, found, dims)
    editor.add("Expand", [half, shape], [wide], found.node, name=wide.name)
    return wide


def _batch(editor: Editor, found: Rotation, dims: Dims) -> gs.Tensor:
    """Return (B, 1, 1) as a shape."""
    base = f"{found.source.name}_batch"
    if isinstance(dims[0], int):
        return editor.constant(base, np.array([dims[0], 1, 1], np.int64))
    count = editor.variable(base, np.int64, (1,))
    bounds = {"start": 0, "end": 1}
    editor.add("Shape", [found.source], [count], found.node, bounds, count.name)
    shape = editor.variable(f"{base}_shape", np.int64, (3,))
    ones = editor.constant(f"{base}_ones", np.ones(2, np.int64))
    editor.add("Concat", [count, ones], [shape], found.node, {"axis": 0}, shape.name)
    return shape
