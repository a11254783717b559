"""Scaled-dot-product attention becomes the operator Attention."""

from dataclasses import dataclass

import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor
from trtforge.graph.facts import Dims
from trtforge.graph.fusion.attention_heads import (
    HEADS_FIRST,
    Heads,
    flat,
    heads,
    merging,
    same,
    transposed_heads,
    unrepeated,
)
from trtforge.graph.fusion.attention_mask import MaskInput, MaskWriter, mask_input
from trtforge.graph.fusion.attention_pattern import Attended, attended

OPSET = 23
_TYPES = ("float16", "bfloat16", "float32", "float64")


@dataclass(frozen=True)
class _Plan:
    """An attention that fits, ready to be written."""

    found: Attended
    query: Heads
    key: Heads
    value: Heads
    mask: MaskInput

    @property
    def dims(self) -> Dims:
        """Of the result, (B, H, Sq, Dv)."""
        return (*self.query.dims[:3], self.value.dims[3])


class FuseAttention:
    """Fuse softmax(s Q K^T + mask) V to Attention (optional: runs when asked for by name).

    Matches: MatMul of queries (B, H, Sq, D) and transposed keys (Transpose with perm 0 1 3 2, or
    0 2 3 1 of (B, Sk, H, D)); scales by numbers on queries, keys or scores (Mul, Div); a mask,
    added or by Where with minus infinity; Softmax over the keys; MatMul with values. Heads of keys
    and values that are each said G times (Unsqueeze, Expand, Reshape) are read as shared
    (https://onnx.ai/onnx/operators/onnx__Attention.html, opset 23).
    Rewrites to: Attention(Q, K, V, mask) with the scale as attribute; keys and values with the
    heads that they really have; a constant causal mask as `is_causal`. Where queries, keys and
    values are all cut from (B, S, H * D) and the result is put together again, those Reshapes and
    Transposes go as well: the operator takes all heads side by side. A mask that says one row for
    all queries is expanded: ONNX Runtime takes no other.
    Refuses when: a part is used elsewhere, sizes or number of heads are unknown or disagree, the
    scale is no constant number, the mask does not fit, or masked scores are finite numbers put in
    by Where. A query without any key (all of its scores minus infinity, or a mask of the lowest
    number that an input of the graph brings) gives zeros in Attention where the formula gives NaN
    (or the mean); a Where that makes such a mask gets half of that number, which is exact.
    """

    name = "attention"

    def apply(self, editor: Editor) -> None:
        """Rewrite one graph in place."""
        masks = MaskWriter(editor)
        for softmax in editor.nodes("Softmax"):
            found = attended(editor, softmax)
            if found is None:
                continue
            plan = found if isinstance(found, str) else _planned(editor, found)
            if isinstance(plan, str):
                editor.refuse(softmax, plan)
            elif editor.allows(softmax, OPSET):
                _write(editor, plan, masks)


def _planned(editor: Editor, found: Attended) -> _Plan | str:
    query, value = heads(editor, found.query), heads(editor, found.value)
    if query is None or value is None:
        return "its queries or values are not known to be (batch, heads, length, size)"
    key = transposed_heads(editor, found.keys)
    if key is None:
        return "its keys are not (batch, heads, length, size), transposed on the last two axes"
    key, value = _sharing(editor, key, value)
    why = _disagreement(query, key, value)
    if why is not None:
        return why
    dtypes = {editor.dtype(one.tensor) for one in (query, key, value)}
    dtype = dtypes.pop()
    if dtypes or dtype is None or dtype.name not in _TYPES:
        return "its queries, keys and values are not of one known float type"
    scores = (*query.dims[:3], key.dims[2])
    mask = mask_input(editor, found.masking, scores, dtype)
    return mask if isinstance(mask, str) else _Plan(found, query, key, value, mask)


def _sharing(editor: Editor, key: Heads, value: Heads) -> tuple[Heads, Heads]:
    """Read keys and values both with shared heads, or neither."""
    shared = unrepeated(editor, key), unrepeated(editor, value)
    return shared if shared[0].repeats == shared[1].repeats else (key, value)


def _disagreement(query: Heads, key: Heads, value: Heads) -> str | None:
    if not all(isinstance(one.count, int) for one in (query, key, value)):
        return "the number of heads is not known"
    if not isinstance(query.dims[3], int) or not isinstance(value.dims[3], int):
        return "the size of a head is not known"
    pairs = (
        (query.dims[0], key.dims[0]),
        (key.dims[0], value.dims[0]),
        (key.dims[1], value.dims[1]),
        (key.dims[2], value.dims[2]),
        (query.dims[3], key.dims[3]),
    )
    if not all(same(a, b) for a, b in pairs):
        return "queries, keys and values are not known to agree in their sizes"
    assert isinstance(key.count, int)
    return (
        None
        if query.count == key.count * key.repeats
        else "queries and keys do not have as many heads"
    )


def _write(editor: Editor, plan: _Plan, masks: MaskWriter) -> None:
    result = plan.found.result
    attrs: dict[str, float | int | str | None] = {
        "scale": plan.found.scale,
        "is_causal": 1 if plan.mask.is_causal else None,
    }
    merge = merging(editor, result.outputs[0], plan.dims)
    sources = [flat(editor, one) for one in (plan.query, plan.key, plan.value)]
    sides = [source for source in sources if source is not None]
    shared = f", {plan.key.repeats} query heads to a key" if plan.key.repeats > 1 else ""
    editor.match(plan.found.softmax, f"{plan.query.count} heads{shared}")
    mask = masks.write(plan.mask, plan.found.softmax)  # in whose order they are visited
    if merge is None or len(sides) != 3:
        operands = [_heads_first(editor, one, result) for one in _operands(plan)]
        inputs = [*operands, *([mask] if mask is not None else [])]
        editor.replace(result, "Attention", inputs, attrs)
        return
    attrs |= {"q_num_heads": plan.query.count, "kv_num_heads": plan.key.count}
    inputs = [*sides, *([mask] if mask is not None else [])]
    reshape, is_whole = merge
    if is_whole:
        editor.replace(reshape, "Attention", inputs, attrs)
        return
    batch, count, length, size = plan.dims
    assert isinstance(count, int)
    assert isinstance(size, int)
    joined = editor.variable(
        f"{result.outputs[0].name}_joined",
        editor.dtype(result.outputs[0]),
        (batch, length, count * size),
    )
    editor.add("Attention", inputs, [joined], reshape, attrs, result.name)
    editor.set_input(reshape, 0, joined)


def _operands(plan: _Plan) -> tuple[Heads, Heads, Heads]:
    return plan.query, plan.key, plan.value


def _heads_first(editor: Editor, found: Heads, at: gs.Node) -> gs.Tensor:
    if not found.is_swapped:
        return found.tensor
    source = found.tensor
    turned = editor.variable(f"{source.name}_heads", editor.dtype(source), found.dims)
    editor.add("Transpose", [source], [turned], at, {"perm": list(HEADS_FIRST)}, turned.name)
    return turned
