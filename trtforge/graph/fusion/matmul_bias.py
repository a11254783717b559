"""The product of two matrices and a bias is one Gemm."""

import onnx_graphsurgeon as gs

from trtforge.graph.edit import Editor
from trtforge.graph.facts import Dim
from trtforge.graph.fusion.linear import type_of_matrices
from trtforge.graph.nodes import node_label
from trtforge.graph.pattern import arms


class FuseMatMulBias:
    """Fuse MatMul + Add of a bias, for matrices, to Gemm; and Gemm + Add where it has no bias.

    Matches: MatMul of two tensors that are known to have two axes, or Gemm without C, whose
    result only an Add with a bias reads: a number, or one value per column, as a constant or
    computed (https://onnx.ai/onnx/operators/onnx__Gemm.html, opset 7 on; BF16 from 13 on).
    Rewrites to: x W + b is Gemm(x, W, b); the weights are not touched.
    Refuses when: the bias is a whole matrix or may be (that is a residual), or the product is an
    output or read elsewhere.
    """

    name = "matmul-bias"

    def apply(self, editor: Editor) -> None:
        """Rewrite one graph in place."""
        for add in editor.nodes("Add"):
            if add.attrs:  # broadcasting as before opset 7
                continue
            for product, bias in arms(editor, add, "MatMul", "Gemm"):
                if not (
                    _has_no_bias(product) if product.op == "Gemm" else _is_gemm(editor, product)
                ):
                    continue
                why = _objection(editor, product, bias)
                if why is None:
                    editor.match(add, f"'{node_label(product)}' and its bias are a Gemm")
                    attrs = {**product.attrs, "beta": None}
                    editor.replace(add, "Gemm", [*product.inputs[:2], bias], attrs)
                else:
                    editor.refuse(add, why)
                break


def _has_no_bias(gemm: gs.Node) -> bool:
    return len(gemm.inputs) < 3 or bool(gemm.inputs[2].is_empty())


def _is_gemm(editor: Editor, matmul: gs.Node) -> bool:
    dtype = type_of_matrices(editor, matmul)
    return dtype is not None and editor.opset >= (13 if dtype.name == "bfloat16" else 7)


def _objection(editor: Editor, product: gs.Node, bias: gs.Tensor) -> str | None:
    if not editor.is_private(product.outputs[0]):
        return f"the result of '{node_label(product)}' is used elsewhere too"
    shape, columns = editor.dims(bias), _columns(editor, product)
    if shape is None or len(shape) > 2:
        return f"'{bias.name}' is not known to be one value per column"
    rows, along = (1, 1, *shape)[-2:]
    if rows != 1 or (along != 1 and (along is None or along != columns)):
        return f"'{bias.name}' is not one value per column"
    return None


def _columns(editor: Editor, product: gs.Node) -> Dim:
    dims = editor.dims(product.inputs[1])
    if dims is None or len(dims) != 2:
        return None
    return dims[0 if product.attrs.get("transB", 0) else 1]
