"""Per-feature multiplications and additions go into the matrix product before them."""

import numpy as np
import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor
from trtforge.graph.fusion import linear
from trtforge.graph.fusion.affine import Affine, Place, constant_beside, of_arithmetic
from trtforge.graph.fusion.following import fold_arithmetic
from trtforge.graph.nodes import constant_values, node_label
from trtforge.graph.rounding import rounded


class FuseGemmMulAdd:
    """Fuse Gemm or MatMul with Mul, Add, Sub or Div by a constant per feature.

    Matches: Gemm (any alpha, beta, transA, transB) or MatMul with constant weights (K, D) or
    (..., K, D) whose result only one such node reads, with a constant that is a number or has one
    value per feature, e.g. (D,) or (1, D); and the same with the addition of a constant bias
    between the two (https://onnx.ai/onnx/operators/onnx__MatMul.html, opset 7 on).
    Rewrites to: y * c as s = c; y / c as s = 1 / c; y + c as t = c; y - c as t = -c; c - y as
    s = -1, t = c, each folded into weights and bias: s * (x W + b) + t = x (s W) + (s b + t).
    Gemm's alpha and beta become 1. A MatMul of two matrices that gets a bias becomes a Gemm; the
    bias of more axes stays an Add.
    Refuses when: the constant varies from row to row or adds axes, the product's result is an
    output or read elsewhere, or weights or bias are shared and over 1 MiB, or do not fit the type.
    """

    name = "gemm-mul-add"

    def apply(self, editor: Editor) -> None:
        """Rewrite one graph in place."""
        fold_arithmetic(editor, linear.MATRIX_PRODUCTS)
        _fold_through_biases(editor)


def _fold_through_biases(editor: Editor) -> None:
    for follower in editor.nodes("Mul", "Div"):
        for index in (0, 1):
            if not constant_beside(follower, index):
                continue
            biased = editor.producer(follower.inputs[index], "Add")
            found = None if biased is None else _product_of(editor, biased)
            if biased is None or found is None:
                continue
            why = _through_bias(editor, found, biased, (follower, index))
            if why is None:
                editor.match(follower, f"folded into '{node_label(found[0])}' and its bias")
                linear.take_over(editor, biased, follower)
            else:
                editor.refuse(follower, why)
            break


def _product_of(editor: Editor, biased: gs.Node) -> tuple[gs.Node, int] | None:
    """Return the MatMul with constant weights to which a bias is added, and its input's index."""
    for index in (0, 1):
        if constant_beside(biased, index):
            matmul = linear.linear_before(editor, biased.inputs[index], "MatMul")
            if matmul is not None:
                return matmul, index
    return None


def _through_bias(
    editor: Editor, product: tuple[gs.Node, int], biased: gs.Node, following: tuple[gs.Node, int]
) -> str | None:
    matmul, index = product
    follower, position = following
    if editor.is_kept(biased.outputs[0]) or not editor.is_private(biased.outputs[0]):
        return f"the result of '{node_label(biased)}' is used elsewhere too"
    place = linear.output_place(editor, matmul)
    scale = of_arithmetic(follower, position, place)
    bias = of_arithmetic(biased, index, place)
    why = linear.objection_after(editor, matmul)
    for read in (scale, bias):
        if isinstance(read, str):
            why = why or read
    if why is not None or isinstance(scale, str) or isinstance(bias, str):
        return why
    return _rescaled(editor, (matmul, biased, 1 - index), place, (scale, bias))


@np.errstate(all="ignore")  # what is not finite is refused when it is rounded
def _rescaled(
    editor: Editor,
    nodes: tuple[gs.Node, gs.Node, int],
    place: Place,
    maps: tuple[Affine, Affine],
) -> str | None:
    matmul, biased, where = nodes
    scale, bias = maps
    old = biased.inputs[where]
    if linear.sharing_costs_too_much(editor, old):
        return f"the bias '{old.name}' is shared"
    values = constant_values(old)
    assert values is not None  # `constant_beside` said so
    new_bias = rounded(bias.shift * scale.scale, values)
    if isinstance(new_bias, str):
        return new_bias
    why = linear.fold_after(editor, matmul, Affine(scale.scale, np.zeros(place.features)))
    if why is None:
        editor.set_input(biased, where, editor.renewed(old, new_bias))
    return why
