"""The mask of an attention as the operator Attention takes it."""

from dataclasses import dataclass, replace

import numpy as np
import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor
from trtforge.graph.facts import Dim, Dims
from trtforge.graph.fusion.attention_heads import same
from trtforge.graph.fusion.attention_pattern import Masking
from trtforge.graph.nodes import constant_values

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


class MaskWriter:
    """Adds the nodes that masks need, once for all attentions of a graph that share a mask."""

    def __init__(self, editor: Editor) -> None:
        self._editor = editor
        self._made: dict[tuple[int, MaskInput], gs.Tensor] = {}

    def write(self, mask: MaskInput, at: gs.Node) -> gs.Tensor | None:
        """Return what Attention reads; the nodes stand before `at`."""
        if mask.tensor is None:
            return None
        key = (id(mask.tensor), replace(mask, tensor=None))
        if key not in self._made:
            self._made[key] = self._written(mask.tensor, mask, at)
        return self._made[key]

    def _written(self, tensor: gs.Tensor, mask: MaskInput, at: gs.Node) -> gs.Tensor:
        tensor = self._above_lowest(tensor, at)
        if mask.is_inverted:
            dims = self._editor.dims(tensor)
            inverted = self._editor.variable(f"{tensor.name}_kept", np.bool_, dims)
            self._editor.add("Not", [tensor], [inverted], at, name=inverted.name)
            tensor = inverted
        return self._expanded(tensor, mask.expanded, at) if mask.expanded else tensor

    def _above_lowest(self, tensor: gs.Tensor, at: gs.Node) -> gs.Tensor:
        """Let a mask of the lowest number hold half of that instead.

        A score plus either is the number itself, so weights stay what they were, also where a
        query has no keys; but ONNX Runtime 1.32 takes the lowest number for minus infinity.
        """
        editor, choice = self._editor, self._editor.producer(tensor, "Where")
        dtype = editor.dtype(tensor)
        if choice is None or dtype not in (np.dtype(np.float32), np.dtype(np.float64)):
            return tensor
        lowest = np.finfo(dtype).min
        inputs = list(choice.inputs)
        for index in (1, 2):
            values = constant_values(inputs[index])
            if values is not None and values.size == 1 and values.reshape(-1)[0] == lowest:
                inputs[index] = editor.constant(
                    f"{inputs[index].name}_half", np.asarray(values / 2)
                )
        if all(one is other for one, other in zip(inputs, choice.inputs, strict=True)):
            return tensor
        result = editor.variable(f"{tensor.name}_half", dtype, editor.dims(tensor))
        editor.add("Where", inputs, [result], at, name=result.name)
        return result

    def _expanded(self, tensor: gs.Tensor, sizes: tuple[int, int], at: gs.Node) -> gs.Tensor:
        editor, dims = self._editor, self._editor.dims(tensor) or ()
        shape = editor.constant(f"{tensor.name}_shape", np.array(sizes, np.int64))
        wide = editor.variable(
            f"{tensor.name}_expanded", editor.dtype(tensor), (*dims[:-2], *sizes)
        )
        editor.add("Expand", [tensor, shape], [wide], at, name=wide.name)
        return wide
