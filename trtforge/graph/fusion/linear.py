"""Folding y -> s * y + t, per feature, into the linear operator before or after it.

With y = L(x) + b and L linear, weights W:
after it, s * y + t is L'(x) + (s * b + t), where W' is W times s along the output features;
before it, L(s * x + t) + b is L'(x) + (L(t) + b), where W' is W times s along the input features.
All of it is computed in float64 and rounded once to the type of W.
"""

import math
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor
from trtforge.graph.fusion.affine import Affine, Place
from trtforge.graph.nodes import constant_values, in_onnx_domain, node_label
from trtforge.graph.rounding import is_float, rounded, scaled, weighted_sum

CONVOLUTIONS = ("Conv", "ConvTranspose")
MATRIX_PRODUCTS = ("Gemm", "MatMul")
LINEAR = (*CONVOLUTIONS, *MATRIX_PRODUCTS)

_MOST_GROWTH_BYTES = 1 << 20
"""Shared weights are split up when that costs the model less than this, all users counted."""


def output_place(editor: Editor, node: gs.Node) -> Place:
    """Return where the features of a linear operator's result are."""
    shape, rank = node.inputs[1].shape, len(node.inputs[1].shape)
    if node.op == "Conv":
        return Place(int(shape[0]), rank, 1)
    if node.op == "ConvTranspose":
        # W is (C_in, C_out / group, ...).
        # Source: https://onnx.ai/onnx/operators/onnx__ConvTranspose.html
        return Place(int(shape[1]) * _group(node), rank, 1)
    if node.op == "Gemm":
        return Place(int(shape[0 if node.attrs.get("transB", 0) else 1]), 2, 1)
    dims = editor.dims(node.outputs[0])
    return Place(int(shape[-1]), None if dims is None else len(dims), -1)


def input_place(editor: Editor, node: gs.Node) -> Place:
    """Return where the features of a linear operator's activation are."""
    shape, rank = node.inputs[1].shape, len(node.inputs[1].shape)
    if node.op == "Conv":
        return Place(int(shape[1]) * _group(node), rank, 1)
    if node.op == "ConvTranspose":
        return Place(int(shape[0]), rank, 1)
    if node.op == "Gemm":
        return Place(int(shape[1 if node.attrs.get("transB", 0) else 0]), 2, 1)
    dims = editor.dims(node.inputs[0])
    return Place(int(shape[-2]), None if dims is None else len(dims), -1)


def linear_before(editor: Editor, tensor: gs.Tensor, *ops: str) -> gs.Node | None:
    """Return the operator (of `ops`) that computes a tensor and whose weights could be changed.

    A matrix product of two activations is none; a convolution with computed weights is one, and
    has an `objection`.
    """
    node = editor.producer(tensor, *ops)
    if node is None or in_onnx_domain(node, *CONVOLUTIONS):
        return node
    return node if has_constant_weights(node) else None


def has_constant_weights(node: gs.Node) -> bool:
    """Return whether the second operand of Gemm or MatMul is a constant matrix (or several)."""
    weight = node.inputs[1]
    return isinstance(weight, gs.Constant) and len(weight.shape) >= 2


def objection_after(editor: Editor, node: gs.Node) -> str | None:
    """Return why what follows a linear operator cannot be folded into it, or None."""
    label, result = node_label(node), node.outputs[0]
    if editor.is_kept(result):
        return f"the result of '{label}' is an output"
    if not editor.is_private(result):
        return f"the result of '{label}' is used elsewhere too"
    return weight_objection(editor, node)


def weight_objection(editor: Editor, node: gs.Node) -> str | None:
    """Return why the weights and the bias of a linear operator cannot be changed, or None."""
    label = node_label(node)
    if node.op == "Gemm" and editor.opset < 7:
        return f"'{label}' broadcasts its bias as before opset 7"
    for role, tensor in zip(("weights", "bias"), node.inputs[1:3], strict=False):
        if tensor.is_empty():
            continue
        values = constant_values(tensor)
        if values is None:
            return f"the {role} of '{label}' are not constant"
        if not is_float(values.dtype):
            return f"the {role} of '{label}' are {values.dtype.name}"
    return None


def sharing_costs_too_much(editor: Editor, tensor: gs.Tensor) -> bool:
    """Return whether a model would grow by more than 1 MiB if each user had its own values."""
    values = constant_values(tensor)
    size = 0 if values is None else int(values.nbytes)
    most = _MOST_GROWTH_BYTES // max(size, 1)  # further readers
    if len(tensor.outputs) <= most or editor.is_private(tensor):
        return False  # no need to count which of them are still there
    return len(editor.users(tensor, most + 2)) - (0 if editor.is_kept(tensor) else 1) > most


@np.errstate(all="ignore")  # what is not finite is refused when it is rounded
def fold_after(editor: Editor, node: gs.Node, affine: Affine) -> str | None:
    """Fold s * y + t into the linear operator that computes y; see `objection_after`.

    Returns:
        None when done; otherwise why it was not, and nothing has changed.
    """
    weight = constant_values(node.inputs[1])
    assert weight is not None  # said by `weight_objection`
    bias = _bias_along(node, output_place(editor, node).features)
    if isinstance(bias, str):
        return bias
    old = 0.0 if bias is None else bias.astype(np.float64) * _attribute(node, "beta")
    new_bias = rounded(old * affine.scale + affine.shift, weight)
    if isinstance(new_bias, str):
        return new_bias
    factor = _along_outputs(node, affine.scale, weight) * _attribute(node, "alpha")
    return _rewrite(editor, node, factor, new_bias)


@np.errstate(all="ignore")  # what is not finite is refused when it is rounded
def fold_before(editor: Editor, node: gs.Node, affine: Affine) -> str | None:
    """Fold s * x + t into the linear operator that reads x; see `weight_objection`.

    Returns:
        None when done; otherwise why it was not, and nothing has changed.
    """
    weight = constant_values(node.inputs[1])
    assert weight is not None  # said by `weight_objection`
    if node.attrs.get("transA", 0):
        return f"'{node_label(node)}' transposes its activations"
    bias = _bias_along(node, output_place(editor, node).features)
    if isinstance(bias, str):
        return bias
    new_bias = np.zeros(1) if bias is None else bias.astype(np.float64) * _attribute(node, "beta")
    if affine.shift.any():
        why = _shift_objection(editor, node)
        if why is not None:
            return why
        axis = 0 if node.op == "Conv" or node.attrs.get("transB", 0) else 1
        along = _along_inputs(node, affine.shift, weight)
        moved = weighted_sum(weight, along, axis) * _attribute(node, "alpha")
        new_bias = new_bias + moved
    in_type = rounded(new_bias, weight)
    if isinstance(in_type, str):
        return in_type
    factor = _along_inputs(node, affine.scale, weight) * _attribute(node, "alpha")
    return _rewrite(editor, node, factor, in_type)


def take_over(editor: Editor, node: gs.Node, follower: gs.Node) -> None:
    """Let the operator before a node compute what the node computed, under that name.

    Folding may have made another node of the operator: it is looked for anew.
    """
    current = editor.producer(node.outputs[0])
    assert current is not None
    editor.set_output(current, 0, follower.outputs[0])
    editor.remove(follower)


def _rewrite(editor: Editor, node: gs.Node, factor: np.ndarray, bias: np.ndarray) -> str | None:
    """Give a node W times a factor and a bias; a MatMul that gets a bias becomes a Gemm."""
    weight = constant_values(node.inputs[1])
    assert weight is not None
    has_bias = len(node.inputs) > 2 and not node.inputs[2].is_empty()
    becomes_gemm = node.op == "MatMul" and bool(bias.any())
    if becomes_gemm:
        why = gemm_objection(editor, node)
        if why is not None:
            return why
    changes = not (factor == 1.0).all()
    for role, index, renew in (("weights", 1, changes), ("bias", 2, has_bias)):
        if renew and sharing_costs_too_much(editor, node.inputs[index]):
            return f"the {role} of '{node_label(node)}' ('{node.inputs[index].name}') are shared"
    new_weight = scaled(weight, factor) if changes else weight
    if isinstance(new_weight, str):
        return new_weight
    if changes:
        editor.set_input(node, 1, editor.renewed(node.inputs[1], new_weight))
    if has_bias:
        editor.set_input(node, 2, editor.renewed(node.inputs[2], bias))
    elif bias.any():
        if len(node.inputs) > 2:
            editor.drop_inputs(node, 2)
        editor.set_input(node, 2, editor.constant(f"{node.inputs[1].name}_bias", bias))
    for name in ("alpha", "beta"):
        if name in node.attrs:
            editor.set_attribute(node, name, None)
    if becomes_gemm:
        editor.replace(node, "Gemm", list(node.inputs))
    return None


def type_of_matrices(editor: Editor, matmul: gs.Node) -> "np.dtype[Any] | None":
    """Return the type of a MatMul that a Gemm could do; None when it is not known to be one.

    Both operands are matrices of floats, and neither is empty.
    """
    dims = [editor.dims(tensor) for tensor in matmul.inputs]
    dtype = editor.dtype(matmul.inputs[0]) or editor.dtype(matmul.inputs[1])
    if any(shape is None or len(shape) != 2 or 0 in shape for shape in dims):
        return None
    return dtype if is_float(dtype) else None


def gemm_objection(editor: Editor, matmul: gs.Node) -> str | None:
    """Return why a MatMul with constant weights cannot be a Gemm, or None.

    Gemm multiplies matrices only, and its bias broadcasts as it is from opset 7 on.
    Source: https://onnx.ai/onnx/operators/onnx__Gemm.html
    """
    dims, weight = editor.dims(matmul.inputs[0]), matmul.inputs[1]
    if dims is None:
        return f"the rank of '{matmul.inputs[0].name}' is not known"
    if len(dims) != 2 or len(weight.shape) != 2:
        return f"'{node_label(matmul)}' has no bias and multiplies more than two matrices"
    if math.prod(weight.shape) == 0:
        return "the weights are empty"
    least = 13 if weight.dtype not in (np.float16, np.float32, np.float64) else 7
    return None if editor.opset >= least else f"Gemm wants opset {least} for this"


def _bias_along(node: gs.Node, features: int) -> np.ndarray | str | None:
    """Return a bias as one value per feature, None without one, or why it is no such bias."""
    if len(node.inputs) < 3 or node.inputs[2].is_empty():
        return None
    values = constant_values(node.inputs[2])
    assert values is not None  # said by `weight_objection`
    if values.shape == (features,):
        return values
    if values.size == 1 or values.shape == (1, features):
        return np.broadcast_to(values.reshape(-1), (features,))
    return f"the bias of '{node_label(node)}' has shape {list(values.shape)}"


def _shift_objection(editor: Editor, node: gs.Node) -> str | None:
    label = node_label(node)
    if node.op == "MatMul":
        return gemm_objection(editor, node)
    if node.op == "ConvTranspose":
        return f"a shift before '{label}' is not the same at its borders"
    if node.op == "Conv" and pads_its_input(node):
        return f"'{label}' pads with zeros, which the shift does not move"
    return None


def pads_its_input(conv: gs.Node) -> bool:
    """Return whether a convolution may read beyond its input."""
    if conv.attrs.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID", ""):
        return True
    return any(conv.attrs.get("pads", ()))


def _along_outputs(node: gs.Node, scale: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Lay a factor per output feature out so that it multiplies W."""
    if node.op == "Conv":
        return scale.reshape(-1, *(1,) * (weight.ndim - 1))
    if node.op == "ConvTranspose":
        return _by_group(node, scale, weight)
    if node.attrs.get("transB", 0):
        return scale.reshape(-1, 1)
    return scale.reshape(*(1,) * (weight.ndim - 1), -1)


def _along_inputs(node: gs.Node, scale: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Lay a factor per input feature out so that it multiplies W."""
    if node.op == "ConvTranspose":
        return scale.reshape(-1, *(1,) * (weight.ndim - 1))
    if node.op == "Conv":
        return _by_group(node, scale, weight)
    if node.attrs.get("transB", 0):
        return scale.reshape(1, -1)
    return scale.reshape(*(1,) * (weight.ndim - 2), -1, 1)


def _by_group(node: gs.Node, scale: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Lay a factor per feature along axis 1 of W, which counts them within their group."""
    group = _group(node)
    by_group = scale.reshape(group, 1, -1)
    laid = np.broadcast_to(by_group, (group, weight.shape[0] // group, by_group.shape[2]))
    return laid.reshape(weight.shape[0], weight.shape[1], *(1,) * (weight.ndim - 2))


def _group(conv: gs.Node) -> int:
    return int(conv.attrs.get("group", 1))


def _attribute(node: gs.Node, name: str) -> float:
    """Return Gemm's alpha or beta, 1 for all others."""
    return float(node.attrs.get(name, 1.0)) if node.op == "Gemm" else 1.0
