"""What becomes of an operator when all its tensors are stored with their axes in another order.

A tensor t is stored as u with t = Transpose(u, order): axis i of t is axis order[i] of u. A rule
gives the inputs and attributes with which the same operator computes the stored result from the
stored inputs.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor
from trtforge.graph.layout import RANGES_AS_INPUTS, ranges_of, slice_arguments
from trtforge.graph.nodes import constant_values
from trtforge.graph.pattern import reduction_axes

Order = tuple[int, ...]

UNARY = frozenset(
    """Abs Acos Acosh Asin Asinh Atan Atanh BitwiseNot Cast Ceil Celu Clip Cos Cosh Elu Erf Exp
    Floor Gelu HardSigmoid HardSwish Identity IsInf IsNaN LeakyRelu Log Mish Neg Not Reciprocal
    Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Tan Tanh
    ThresholdedRelu""".split()  # noqa: SIM905
)
"""One tensor in, one out; further inputs (of Clip) are scalars."""

BROADCASTING = frozenset(
    """Add And BitwiseAnd BitwiseOr BitwiseXor Div Equal Greater GreaterOrEqual Less LessOrEqual
    Max Mean Min Mod Mul Or Pow PRelu Sub Sum Where Xor""".split()  # noqa: SIM905
)

_ONE_AXIS = frozenset({"Softmax", "LogSoftmax", "Hardmax", "Concat", "Split", "ArgMax", "ArgMin"})
_REDUCTIONS = frozenset(
    f"Reduce{kind}"
    for kind in "L1 L2 LogSum LogSumExp Max Mean Min Prod Sum SumSquare".split()  # noqa: SIM905
)
_SCALED = frozenset({"QuantizeLinear", "DequantizeLinear"})
_DEFAULT_AXIS = {"Softmax": -1, "LogSoftmax": -1, "Hardmax": -1}
_NUMPY_BROADCASTING, _SOFTMAX_OF_ONE_AXIS, _PADS_AS_INPUT = 7, 13, 11
"""Broadcasting without `axis`, Softmax along one axis instead of all that follow, and Pad with
inputs: since these opsets. Source: https://github.com/onnx/onnx/blob/main/docs/Changelog.md"""


class Form(NamedTuple):
    """How an operator is written for tensors that are stored in another order.

    Attributes:
        tensors: which inputs are stored in that order; the others stay as they are.
        others: replacements of other inputs.
        attrs: all attributes.
    """

    tensors: tuple[int, ...]
    others: dict[int, np.ndarray]
    attrs: dict[str, Any]


def moving_inputs(editor: Editor, node: gs.Node, rank: int) -> tuple[int, ...] | None:
    """Return which inputs of a node have its axes; None when it cannot be moved at all.

    Args:
        editor: of the graph.
        node: any standard node.
        rank: of the node's results.
    """
    op = node.op
    if op in BROADCASTING:
        return _broadcast_inputs(editor, node, rank)
    if op in ("Concat", "Sum"):
        return tuple(range(len(node.inputs)))
    if op in _SCALED and isinstance(node.inputs[0], gs.Constant):
        return None  # quantized weights stay as they are
    if op == "Clip" or op in _SCALED:
        rest = [tensor for tensor in node.inputs[1:] if tensor.name]
        return (0,) if all(_is_single(editor, tensor) for tensor in rest) else None
    if op in ("Softmax", "LogSoftmax", "Hardmax") and editor.opset < _SOFTMAX_OF_ONE_AXIS:
        return None
    if op in _REDUCTIONS or op in ("ArgMax", "ArgMin"):
        return (0,) if node.attrs.get("keepdims", 1) else None
    if op in UNARY or op in _ONE_AXIS or op in ("Slice", "Pad", "LayerNormalization"):
        return (0,)
    return None


def _broadcast_inputs(editor: Editor, node: gs.Node, rank: int) -> tuple[int, ...] | None:
    if editor.opset < _NUMPY_BROADCASTING:
        return None
    moving = []
    for index, tensor in enumerate(node.inputs):
        if _is_single(editor, tensor) and len(editor.dims(tensor) or ()) < rank:
            continue
        if not isinstance(tensor, gs.Constant) and len(editor.dims(tensor) or ()) != rank:
            return None
        moving.append(index)
    return tuple(moving)


def _is_single(editor: Editor, tensor: gs.Tensor) -> bool:
    dims = editor.dims(tensor)
    return dims is not None and all(dim == 1 for dim in dims)


def rewritten(editor: Editor, node: gs.Node, order: Order) -> Form | None:
    """Write a node for tensors that are stored in another order, None when that is not possible.

    Args:
        editor: of the graph.
        node: one that `moving_inputs` takes.
        order: t = Transpose(stored, order) for the node's tensors.
    """
    tensors = moving_inputs(editor, node, len(order))
    if tensors is None:
        return None
    attrs, op = dict(node.attrs), node.op
    if op in _ONE_AXIS:
        axis = int(attrs.get("axis", _DEFAULT_AXIS.get(op, 0)))
        attrs["axis"] = order[axis % len(order)]
        return Form(tensors, {}, attrs)
    rule = _RULES.get("Reduce" if op in _REDUCTIONS else op)
    if rule is None:
        return Form(tensors, {}, attrs)
    found = rule(editor, node, order)
    return None if found is None else Form(tensors, *found)


_Change = tuple[dict[int, np.ndarray], dict[str, Any]]


def _reduce(editor: Editor, node: gs.Node, order: Order) -> _Change | None:
    attrs = dict(node.attrs)
    left_out = "axes" not in attrs and (len(node.inputs) < 2 or not node.inputs[1].name)
    if left_out:
        return {}, attrs
    axes = reduction_axes(node)
    if axes is None:
        return None
    moved = sorted(order[axis % len(order)] for axis in axes)
    if "axes" in attrs:
        return {}, {**attrs, "axes": moved}
    return {1: np.asarray(moved, np.int64)}, attrs


def _slice(editor: Editor, node: gs.Node, order: Order) -> _Change | None:
    ranges = ranges_of(editor, node)
    if ranges is None or any(axis >= len(order) for axis in ranges):
        return None
    moved = {order[axis]: taken for axis, taken in ranges.items()}
    if editor.opset < RANGES_AS_INPUTS:
        arguments = slice_arguments(editor, "", moved)
        return None if arguments is None else ({}, arguments[1])
    axes = sorted(moved)
    columns = [[moved[axis][part] for axis in axes] for part in range(3)]
    columns.insert(2, axes)
    return {i: np.asarray(column, np.int64) for i, column in enumerate(columns, 1)}, {}


def _pad(editor: Editor, node: gs.Node, order: Order) -> _Change | None:
    rank, attrs = len(order), dict(node.attrs)
    if len(node.inputs) > 3 and node.inputs[3].name:
        return None  # axes beside pads: shorter, and rare
    if editor.opset < _PADS_AS_INPUT:
        given = attrs.get("pads")
    else:
        values = constant_values(node.inputs[1])
        given = None if values is None else [int(value) for value in values.reshape(-1)]
    if given is None or len(given) != 2 * rank:
        return None
    pads = [0] * (2 * rank)
    for axis in range(rank):
        pads[order[axis]], pads[rank + order[axis]] = given[axis], given[rank + axis]
    if editor.opset < _PADS_AS_INPUT:
        return {}, {**attrs, "pads": pads}
    return {1: np.asarray(pads, np.int64)}, attrs


def _layer_norm(editor: Editor, node: gs.Node, order: Order) -> _Change | None:
    """Normalized axes must be the last ones, and in the same order, as scale and bias have them."""
    axis = int(node.attrs.get("axis", -1)) % len(order)
    return ({}, dict(node.attrs)) if order[axis:] == tuple(range(axis, len(order))) else None


_RULES: dict[str, Callable[[Editor, gs.Node, Order], _Change | None]] = {
    "Reduce": _reduce,
    "Slice": _slice,
    "Pad": _pad,
    "LayerNormalization": _layer_norm,
}


def dropped_axes(editor: Editor, node: gs.Node, order: Order) -> tuple[int, ...] | None:
    """Return the stored axes that a Reduce without `keepdims` takes off, None when it cannot.

    The axes that are left must follow one another in the stored tensor as they do in the other.
    """
    if node.op not in _REDUCTIONS or node.attrs.get("keepdims", 1):
        return None
    axes = reduction_axes(node)
    if not axes:
        return None
    gone = {axis % len(order) for axis in axes}
    left = [order[axis] for axis in range(len(order)) if axis not in gone]
    return tuple(sorted(order[axis] for axis in gone)) if left == sorted(left) else None
