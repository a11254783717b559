"""The mask of an attention as the operator Attention takes it."""

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor, constant_values
from trtforge.graph.facts import Dim, Dims
from trtforge.graph.fusion.attention_heads import same
from trtforge.graph.fusion.attention_pattern import Masking

_MASKED_FOR_SURE = -1e30
"""exp(x) of such a score is 0 in every type, as long as another score of the row is ordinary."""


@dataclass(frozen=True)
class MaskInput:
    """What Attention gets for a mask.

    Attributes:
        tensor: the mask; None: there is none.
        is_causal: whether the mask is said by the attribute instead.
        is_inverted: whether True means masked, so that a Not is needed.
        expanded: the last two dimensions, where the mask must be expanded to them.
    """

    tensor: gs.Tensor | None = None
    is_causal: bool = False
    is_inverted: bool = False
    expanded: tuple[int, int] | None = None


def mask_input(
    editor: Editor, masking: Masking | None, dims: Dims, dtype: np.dtype
) -> MaskInput | str:
    """Say how Attention gets a mask, or why it cannot.

    Args:
        editor: of the graph.
        masking: what is done to the scores.
        dims: of the scores, (B, H, Sq, Sk).
        dtype: of queries and keys.
    """
    if masking is None:
        return MaskInput()
    mask = masking.mask
    if masking.fill is not None and not np.isneginf(masking.fill):
        return (
            f"masked scores become {masking.fill:.4g}: a query without keys attends to all of "
            "them alike, and to none in Attention"
        )
    if masking.fill is None and editor.dtype(mask) != dtype:
        return f"its mask '{mask.name}' is not {dtype.name}"
    said = _constant(masking, dims)
    if said is not None:
        return said
    is_inverted = not masking.keeps_true
    given = editor.dims(mask)
    if given is None or len(given) > 4:
        return f"its mask '{mask.name}' is not known to fit (batch, heads, queries, keys)"
    aligned: tuple[Dim, ...] = (*(1,) * (4 - len(given)), *given)
    if not all(dim == 1 or same(dim, whole) for dim, whole in zip(aligned, dims, strict=True)):
        return f"its mask '{mask.name}' is not known to fit (batch, heads, queries, keys)"
    if len(given) >= 2 and all(map(same, given[-2:], dims[-2:])):
        return MaskInput(mask, is_inverted=is_inverted)
    queries, keys = dims[2], dims[3]
    if not isinstance(queries, int) or not isinstance(keys, int):
        return f"its mask '{mask.name}' must be expanded to queries and keys of unknown number"
    return MaskInput(mask, is_inverted=is_inverted, expanded=(queries, keys))


def _constant(masking: Masking, dims: Dims) -> MaskInput | None:
    """Recognize masks that are known beforehand: none at all, and the causal one."""
    values = constant_values(masking.mask)
    if values is None or values.ndim < 2 or any(dim != 1 for dim in values.shape[:-2]):
        return None
    rows, columns = values.shape[-2:]
    table = values.reshape(rows, columns)
    if masking.fill is None:
        wide = table.astype(np.float64)
        keeps, hides = wide == 0, wide <= _MASKED_FOR_SURE
    else:
        keeps = table if masking.keeps_true else ~table
        hides = ~keeps
    if keeps.all():
        return MaskInput()
    lower = np.tril(np.ones((rows, columns), bool))
    is_square = rows == columns and dims[-2:] == (rows, columns)
    is_causal = is_square and bool(keeps[lower].all() and hides[~lower].all())
    return MaskInput(is_causal=True) if is_causal else None


def write_mask(editor: Editor, mask: MaskInput, at: gs.Node) -> gs.Tensor | None:
    """Add the nodes that a mask needs; return what Attention reads."""
    tensor = mask.tensor
    if tensor is None:
        return None
    dtype, dims = editor.dtype(tensor), editor.dims(tensor)
    if mask.is_inverted:
        inverted = editor.variable(f"{tensor.name}_kept", dtype, dims)
        editor.add("Not", [tensor], [inverted], at, name=inverted.name)
        tensor = inverted
    if mask.expanded is not None:
        lead = (dims or ())[:-2] if len(dims or ()) >= 2 else ()
        shape = editor.constant(f"{tensor.name}_shape", np.array(mask.expanded, np.int64))
        wide = editor.variable(f"{tensor.name}_expanded", dtype, (*lead, *mask.expanded))
        editor.add("Expand", [tensor, shape], [wide], at, name=wide.name)
        tensor = wide
    return tensor
