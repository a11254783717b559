"""Scaled-dot-product attention as exporters spell it out: softmax(s * Q K^T + mask) V."""

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor
from trtforge.graph.nodes import constant_values, node_label
from trtforge.graph.pattern import is_scalar, made_by, scalar

_STEPS_AT_MOST = 8
"""Nodes between two products: a scale, masks, casts, a guard."""


@dataclass(frozen=True)
class Masking:
    """What is done to the scores before their softmax.

    Attributes:
        node: the Add or the Where.
        mask: the other term of the Add, or the condition of the Where.
        fill: what the Where puts in place of a score; None: the mask is added.
        keeps_true: whether scores stay where the condition holds.
    """

    node: gs.Node
    mask: gs.Tensor
    fill: float | None = None
    keeps_true: bool = True


@dataclass(frozen=True)
class Attended:
    """The parts of one attention.

    Attributes:
        softmax: the Softmax.
        scores: the MatMul of queries and transposed keys.
        result: the MatMul of the softmax and the values.
        scale: what the scores are multiplied by, all in all.
        masking: None where all keys are attended to.
        query: before its scale.
        keys: transposed, before their scale.
        value: the right operand of `result`.
    """

    softmax: gs.Node
    scores: gs.Node
    result: gs.Node
    scale: float
    masking: Masking | None
    query: gs.Tensor
    keys: gs.Tensor
    value: gs.Tensor


def attended(editor: Editor, softmax: gs.Node) -> Attended | str | None:
    """Read the attention around a Softmax.

    Returns:
        The parts; why they do not fit; or None where this is no attention at all.
    """
    result = _after(editor, softmax)
    if result is None or not _leads_to_product(editor, softmax.inputs[0]):
        return None
    if not _is_last_axis(editor, softmax):
        return "its softmax is not along the last axis, the keys"
    found = _before(editor, softmax.inputs[0])
    if isinstance(found, str):
        return found
    scores, scale, masking = found
    query, one = scaled_source(editor, scores.inputs[0])
    keys, two = scaled_source(editor, scores.inputs[1])
    scale *= one * two
    if not np.isfinite(scale) or scale == 0:
        return "its scale is zero or not finite"
    return Attended(softmax, scores, result, scale, masking, query, keys, result.inputs[1])


def guarded(editor: Editor, softmax: gs.Node) -> gs.Node | None:
    """Return the Where that puts 0 for NaN in the result of a Softmax: Where(IsNaN(p), 0, p)."""
    weights = softmax.outputs[0]
    readers = editor.users(weights, 3)
    if len(readers) != 2 or editor.is_kept(weights) or not editor.is_local(weights):
        return None
    tests = [node for node in readers if node.op == "IsNaN" and not node.domain]
    choices = [node for node in readers if node.op == "Where" and not node.domain]
    if len(tests) != 1 or len(choices) != 1 or not editor.is_private(tests[0].outputs[0]):
        return None
    condition, zero, kept = choices[0].inputs
    if condition is not tests[0].outputs[0] or kept is not weights or not is_scalar(zero, 0.0):
        return None
    return choices[0]


def scaled_source(editor: Editor, tensor: gs.Tensor) -> tuple[gs.Tensor, float]:
    """Read a tensor as s * source, s a number, as long as nobody else reads it."""
    scale = 1.0
    for _ in range(_STEPS_AT_MOST):
        node = made_by(editor, tensor, "Mul", "Div")
        split = scale_of(editor, node) if node is not None else None
        if split is None:
            break
        tensor, scale = split[0], scale * split[1]
    return tensor, scale


def scale_of(editor: Editor, node: gs.Node) -> tuple[gs.Tensor, float] | None:
    """Split a Mul or Div by a number into what it scales, and by what."""
    for index in (1, 0):
        value, source = _number(node.inputs[index]), node.inputs[1 - index]
        dims = editor.dims(source)
        if value is None or dims is None or len(node.inputs[index].shape) > len(dims):
            continue
        if node.op == "Mul":
            return source, value
        if index == 1 and value != 0:
            return source, 1 / value
    return None


def _number(tensor: gs.Tensor) -> float | None:
    """Return a constant of one element, BF16 included."""
    values = constant_values(tensor)
    if values is not None and values.dtype.name == "bfloat16" and values.size == 1:
        return float(values.astype(np.float32).reshape(-1)[0])
    return scalar(tensor)


def _after(editor: Editor, softmax: gs.Node) -> gs.Node | None:
    """Return the product with the values; Casts to the same type and a guard may lie between."""
    choice = guarded(editor, softmax)
    tensor = softmax.outputs[0] if choice is None else choice.outputs[0]
    for _ in range(_STEPS_AT_MOST):
        if not editor.is_private(tensor) or not editor.is_local(tensor):
            return None
        node = editor.users(tensor, 1)[0]
        if node.domain not in (None, "", "ai.onnx"):
            return None
        if node.op == "MatMul":
            is_left = node.inputs[0] is tensor and node.inputs[1] is not tensor
            return node if is_left else None
        if node.op != "Cast" or editor.dtype(node.outputs[0]) != editor.dtype(softmax.inputs[0]):
            return None
        tensor = node.outputs[0]
    return None


def _leads_to_product(editor: Editor, tensor: gs.Tensor) -> bool:
    """Return whether scores of two computed matrices go into a softmax, in some way."""
    pending, steps = [tensor], 0
    while pending and steps < _STEPS_AT_MOST:
        steps += 1
        node = editor.producer(pending.pop(0))
        if node is None:
            continue
        if node.op == "MatMul":
            return not any(isinstance(operand, gs.Constant) for operand in node.inputs)
        if node.op in ("Add", "Sub", "Mul", "Div", "Where", "Cast", "Tanh", "Clip"):
            pending.extend(t for t in node.inputs if not isinstance(t, gs.Constant))
    return False


def _is_last_axis(editor: Editor, softmax: gs.Node) -> bool:
    dims = editor.dims(softmax.inputs[0])
    axis = int(softmax.attrs.get("axis", -1 if editor.opset >= 13 else 1))
    return axis == -1 or (dims is not None and axis == len(dims) - 1)


def _before(editor: Editor, tensor: gs.Tensor) -> tuple[gs.Node, float, Masking | None] | str:
    """Walk from the softmax to the scores: a mask first, then scales."""
    masking: Masking | None = None
    scale = 1.0
    for _ in range(_STEPS_AT_MOST):
        if not editor.is_private(tensor):
            return f"'{tensor.name}', between scores and softmax, is used elsewhere too"
        node = editor.producer(tensor)
        if node is None:
            return f"'{tensor.name}' is not computed in this graph"
        if node.op == "MatMul":
            return node, scale, masking
        if node.op in ("Mul", "Div"):
            split = scale_of(editor, node)
            if split is None:
                return f"the scale in '{node_label(node)}' is no constant number"
            tensor, scale = split[0], scale * split[1]
        elif node.op in ("Add", "Where"):
            if masking is not None:
                return "its scores have two masks"
            if scale != 1.0:
                return "its scores are scaled after the mask"
            found = _masking(editor, node)
            if isinstance(found, str):
                return found
            tensor, masking = found
        elif node.op == "Tanh":
            return f"its scores go through '{node_label(node)}', a soft cap"
        else:
            return f"its scores go through {node.op} '{node_label(node)}'"
    return "between its scores and its softmax lie too many nodes"


def _masking(editor: Editor, node: gs.Node) -> tuple[gs.Tensor, Masking] | str:
    """Split a masking node into the scores and the mask."""
    if node.op == "Add":
        for index in (0, 1):
            scores, mask = node.inputs[index], node.inputs[1 - index]
            if _is_scores(editor, scores):
                return scores, Masking(node, mask)
        if any(_is_masked(editor, tensor) for tensor in node.inputs):
            return "its scores have two masks"
        return f"neither term of '{node_label(node)}' is a product of queries and keys"
    condition, yes, no = node.inputs
    for scores, other, keeps in ((yes, no, True), (no, yes, False)):
        if not _is_scores(editor, scores):
            continue
        fill = _number(other)
        if fill is None:
            return f"'{node_label(node)}' puts no constant number in place of scores"
        return scores, Masking(node, condition, fill, keeps)
    return f"'{node_label(node)}' chooses no product of queries and keys"


def _is_scores(editor: Editor, tensor: gs.Tensor) -> bool:
    for _ in range(_STEPS_AT_MOST):
        node = editor.producer(tensor, "MatMul", "Mul", "Div")
        if node is None or node.op == "MatMul":
            return node is not None
        split = scale_of(editor, node)
        if split is None:
            return False
        tensor = split[0]
    return False


def _is_masked(editor: Editor, tensor: gs.Tensor) -> bool:
    node = editor.producer(tensor, "Add", "Where")
    return node is not None and any(_is_scores(editor, one) for one in node.inputs)


def has_no_empty_row(editor: Editor, masking: Masking | None) -> bool:
    """Return whether every query is known to attend to some key, whatever the inputs are.

    That is: no row of the scores is minus infinity throughout, so no softmax is 0 / 0.
    """
    if masking is None:
        return True
    if masking.fill is not None:
        return bool(np.isfinite(masking.fill))
    values = constant_values(masking.mask)
    if values is not None:
        wide = values.astype(np.float64)
        return bool(wide.ndim and np.isfinite(wide).any(axis=-1).all())
    choice = editor.producer(masking.mask, "Where")
    if choice is None:
        return False
    return all(_is_finite(tensor) for tensor in choice.inputs[1:])


def _is_finite(tensor: gs.Tensor) -> bool:
    values = constant_values(tensor)
    return values is not None and bool(np.isfinite(values.astype(np.float64)).all())
